"""The rules that Tidemill adds to those of buf.validate. Their kernels are exact: what they don't hold is broken.

    tidemill.decimal      text that is no number of the column's precision and scale
    tidemill.duration     a duration of more than 10,000 years, which protobuf has not
    tidemill.event_id     no event id
    tidemill.event_time   no event time
    tidemill.future       an event time too far after now
    tidemill.map_key      a key that a map has twice
    tidemill.oneof        several members of a oneof
    tidemill.timestamp    a time outside the years 1 to 9999, which no database holds

Those about values hold at every place within a column: in lists, maps and nested messages. protobuf's own libraries
never write a oneof's second member or a key's second value; other encoders may, and rows of a table can have both.

Others come from decoding: `tidemill.malformed` (no message of the contract's type), `tidemill.null` (no value in a
column that has to have one) and `tidemill.type` (a value that the column's type cannot hold), and
`tidemill.rule_failed` (a rule that ended in an error).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from ingest_service.contracts.contract import Column, Contract
from ingest_service.contracts.field_column import TIMESTAMP_TYPE
from ingest_service.contracts.leaves import Leaf, at, entries, leaves, rows_where_all, shown_path

DECIMAL, DURATION, EVENT_ID, EVENT_TIME, FUTURE, MAP_KEY, ONEOF, TIMESTAMP = (
    f"tidemill.{name}"
    for name in ("decimal", "duration", "event_id", "event_time", "future", "map_key", "oneof", "timestamp")
)
MALFORMED, NULL, TYPE, RULE_FAILED = (f"tidemill.{name}" for name in ("malformed", "null", "type", "rule_failed"))

_UTC = dt.UTC
_EMPTY = pa.scalar("", pa.string())
_EARLIEST = pa.scalar(dt.datetime(1, 1, 1, tzinfo=_UTC), TIMESTAMP_TYPE)
_LATEST = pa.scalar(dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=_UTC), TIMESTAMP_TYPE)
# As google/protobuf/duration.proto has it.
_LONGEST_US = 315_576_000_000 * 1_000_000

Holds = Callable[[Mapping[str, pa.Array], int], pa.Array]
"""Takes the columns and the latest event time allowed (µs); gives for each row whether the rule holds; null holds."""
_Kernel = Callable[[pa.Array, int], pa.Array]
"""The same of one column's values."""


@dataclass(frozen=True, slots=True)
class OwnRule:
    """A rule of Tidemill's about one column; `expected` completes the sentence "expected …, came …"."""

    rule: str
    column: str
    expected: str
    holds: Holds


def own_rules(contract: Contract, future_us: int) -> tuple[OwnRule, ...]:
    """The rules that the contract's columns need, in the columns' order; `future_us` only words the message."""
    rules: list[OwnRule] = list(_oneofs(contract.columns, None, ()))
    for column in contract.columns:
        here = _of(column.name)
        if column.name == contract.event_time:
            rules.append(OwnRule(EVENT_TIME, column.name, "the time when the event happened", here(_is_set)))
        for leaf in leaves(column):
            rules += _of_leaf(column, leaf)
        if column.name == contract.event_time:
            at_most = f"a time at most {future_us / 1e6:g} s after it is sent"
            rules.append(OwnRule(FUTURE, column.name, at_most, here(_is_not_future)))
        if column.name == contract.event_id:
            filled = "an id that names the event, 1 character or more"
            rules.append(OwnRule(EVENT_ID, column.name, filled, here(_is_filled)))
    return tuple(rules)


def _of_leaf(column: Column, leaf: Leaf) -> Iterator[OwnRule]:
    """The rules about the values at one place."""

    def rule(name: str, expected: str, kernel: _Kernel) -> OwnRule:
        inside = f"in {shown_path(column, leaf.path)} " if leaf.path else ""
        return OwnRule(name, column.name, inside + expected, _of(column.name, leaf.path)(kernel))

    kind = leaf.column.type
    if kind == TIMESTAMP_TYPE:
        yield rule(TIMESTAMP, "a time in the years 1 to 9999", _is_in_calendar)
    if leaf.column.is_duration:
        yield rule(DURATION, "a duration of at most 315,576,000,000 s", _is_duration)
    if leaf.column.is_decimal:
        yield rule(DECIMAL, _decimal_words(leaf.column), _decimal_kernel(leaf.column))
    if pt.is_map(kind):
        yield rule(MAP_KEY, "each key once", _has_each_key_once)
        yield rule(NULL, "a value for each key", _has_all_values)
    if pt.is_struct(kind):
        yield from _oneofs(leaf.column.children, column, leaf.path)


def _oneofs(columns: Sequence[Column], within: Column | None, path: tuple[str, ...]) -> Iterator[OwnRule]:
    """One rule for each oneof among the fields of a message: the contract's own, or one at a place in a column."""
    members: dict[str, list[str]] = {}
    for column in columns:
        if column.oneof:
            members.setdefault(column.oneof, []).append(column.name)
    for names in members.values():
        if len(names) == 1:
            continue
        place = f"in {shown_path(within, path)} " if within is not None else ""
        column_name = names[0] if within is None else within.name
        expected = f"{place}at most one of {', '.join(names)}"
        yield OwnRule(ONEOF, column_name, expected, _at_most_one(names, within, path))


def _at_most_one(names: list[str], within: Column | None, path: tuple[str, ...]) -> Holds:
    def holds(columns: Mapping[str, pa.Array], _latest_us: int) -> pa.Array:
        rows = None
        if within is None:
            members = [columns[name] for name in names]
            row_count = len(members[0])
        else:
            row_count = len(columns[within.name])
            message, rows = at(columns[within.name], path)
            members = [pc.struct_field(message, name) for name in names]
        counts = np.zeros(len(members[0]), dtype=np.int32)
        for member in members:
            if member.null_count < len(member):
                counts += member.is_valid().to_numpy(zero_copy_only=False)
        return rows_where_all(pa.array(counts <= 1), rows, row_count)

    return holds


def _of(name: str, path: tuple[str, ...] = ()) -> Callable[[_Kernel], Holds]:
    """Makes a kernel look at one place of one column."""
    if not path:
        return lambda kernel: lambda columns, latest_us: kernel(columns[name], latest_us)

    def inside(kernel: _Kernel) -> Holds:
        def holds(columns: Mapping[str, pa.Array], latest_us: int) -> pa.Array:
            values, rows = at(columns[name], path)
            return rows_where_all(kernel(values, latest_us), rows, len(columns[name]))

        return holds

    return inside


def _is_set(values: pa.Array, _latest_us: int) -> pa.Array:
    return values.is_valid()


def _is_filled(values: pa.Array, _latest_us: int) -> pa.Array:
    filled = pc.not_equal(values, _EMPTY)
    return pc.fill_null(filled, False) if values.null_count else filled


def _is_in_calendar(values: pa.Array, _latest_us: int) -> pa.Array:
    return pc.and_(pc.greater_equal(values, _EARLIEST), pc.less_equal(values, _LATEST))


def _is_not_future(values: pa.Array, latest_us: int) -> pa.Array:
    return pc.less_equal(values, pa.scalar(latest_us, TIMESTAMP_TYPE))


def _is_duration(values: pa.Array, _latest_us: int) -> pa.Array:
    us = values.cast(pa.int64())
    return pc.and_(pc.greater_equal(us, -_LONGEST_US), pc.less_equal(us, _LONGEST_US))


def _has_each_key_once(values: pa.Array, _latest_us: int) -> pa.Array:
    pairs, rows = entries(values)
    keys = pa.table({"row": rows, "key": pc.struct_field(pairs, "key")})
    counted = keys.group_by(["row", "key"]).aggregate([([], "count_all")])
    twice = counted.filter(pc.greater(counted["count_all"], 1))["row"].combine_chunks()
    return rows_where_all(pa.repeat(pa.scalar(False), len(twice)), twice, len(values))


def _has_all_values(values: pa.Array, _latest_us: int) -> pa.Array:
    pairs, rows = entries(values)
    return rows_where_all(pc.struct_field(pairs, "value").is_valid(), rows, len(values))


def _decimal_kernel(column: Column) -> _Kernel:
    pattern = decimal_pattern(column)

    def kernel(values: pa.Array, _latest_us: int) -> pa.Array:
        if pt.is_decimal(values.type):
            # It came as the contract's own type.
            return pa.repeat(pa.scalar(True), len(values))
        return pc.match_substring_regex(values, pattern=pattern)

    return kernel


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
