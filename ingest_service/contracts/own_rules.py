"""The rules that Tidemill adds to those of buf.validate. Their kernels are exact: what they don't hold is broken.

    tidemill.decimal      text that is no number of the column's precision and scale
    tidemill.event_id     no event id
    tidemill.event_time   no event time
    tidemill.future       an event time too far after now
    tidemill.timestamp    a time outside the years 1 to 9999, which no database holds

Others come from decoding: `tidemill.malformed` (no message of the contract's type), `tidemill.null` (no value in a
column that has to have one) and `tidemill.type` (a value that the column's type cannot hold), and
`tidemill.rule_failed` (a rule that ended in an error).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ingest_service.contracts.columns import TIMESTAMP_TYPE
from ingest_service.contracts.contract import Column, Contract

DECIMAL, EVENT_ID, EVENT_TIME, FUTURE, TIMESTAMP = (
    f"tidemill.{name}" for name in ("decimal", "event_id", "event_time", "future", "timestamp")
)
MALFORMED, NULL, TYPE, RULE_FAILED = (f"tidemill.{name}" for name in ("malformed", "null", "type", "rule_failed"))

_UTC = dt.UTC
_EMPTY = pa.scalar("", pa.string())
_EARLIEST = pa.scalar(dt.datetime(1, 1, 1, tzinfo=_UTC), TIMESTAMP_TYPE)
_LATEST = pa.scalar(dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=_UTC), TIMESTAMP_TYPE)

Holds = Callable[[pa.Array, int], pa.Array]
"""Takes a column and the latest event time allowed (µs); gives for each row whether the rule holds; null holds."""


@dataclass(frozen=True, slots=True)
class OwnRule:
    """A rule of Tidemill's about one column; `expected` completes the sentence "expected …, came …"."""

    rule: str
    column: str
    expected: str
    holds: Holds


def own_rules(contract: Contract, future_us: int) -> tuple[OwnRule, ...]:
    """The rules that the contract's columns need, in the columns' order; `future_us` only words the message."""
    rules: list[OwnRule] = []
    for column in contract.columns:
        if column.name == contract.event_time:
            rules.append(OwnRule(EVENT_TIME, column.name, "the time when the event happened", _is_set))
        if column.type == TIMESTAMP_TYPE:
            rules.append(OwnRule(TIMESTAMP, column.name, "a time in the years 1 to 9999", _is_in_calendar))
        if column.name == contract.event_time:
            at_most = f"a time at most {future_us / 1e6:g} s after it is sent"
            rules.append(OwnRule(FUTURE, column.name, at_most, _is_not_future))
        if column.is_decimal:
            rules.append(OwnRule(DECIMAL, column.name, _decimal_words(column), _decimal_kernel(column)))
        if column.name == contract.event_id:
            rules.append(OwnRule(EVENT_ID, column.name, "an id that names the event, 1 character or more", _is_filled))
    return tuple(rules)


def _is_set(values: pa.Array, _latest_us: int) -> pa.Array:
    return values.is_valid()


def _is_filled(values: pa.Array, _latest_us: int) -> pa.Array:
    filled = pc.not_equal(values, _EMPTY)
    return pc.fill_null(filled, False) if values.null_count else filled


def _is_in_calendar(values: pa.Array, _latest_us: int) -> pa.Array:
    return pc.and_(pc.greater_equal(values, _EARLIEST), pc.less_equal(values, _LATEST))


def _is_not_future(values: pa.Array, latest_us: int) -> pa.Array:
    return pc.less_equal(values, pa.scalar(latest_us, TIMESTAMP_TYPE))


def _decimal_kernel(column: Column) -> Holds:
    pattern = decimal_pattern(column)
    return lambda values, _latest_us: pc.match_substring_regex(values, pattern=pattern)


def decimal_pattern(column: Column) -> str:
    """Text that Arrow casts to the column's DECIMAL without losing a digit. No exponent, no plus sign, no blanks."""
    precision, scale = _digits(column)
    whole, point = f"[0-9]{{1,{precision - scale}}}", rf"\.[0-9]{{1,{scale}}}"
    if scale == 0:
        return f"^-?{whole}$"
    if precision == scale:
        return f"^-?0?{point}$|^-?0$"
    return f"^-?{whole}({point})?$"


def _decimal_words(column: Column) -> str:
    precision, scale = _digits(column)
    example, after = ("-1.5", f" and at most {scale} after it") if scale else ("-15", "")
    return f'a decimal number as text, such as "{example}", at most {precision - scale} digits before the point{after}'


def _digits(column: Column) -> tuple[int, int]:
    assert column.precision is not None
    assert column.scale is not None
    return column.precision, column.scale
