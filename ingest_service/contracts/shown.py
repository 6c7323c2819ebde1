"""Values as people read them: in messages, and in the payload of a quarantined Arrow row."""

from __future__ import annotations

import datetime as dt
import json
import math
from fractions import Fraction

import pyarrow as pa
import pyarrow.types as pt

SHOWN_CHARACTERS = 80
"""Longer values are cut in messages."""

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def shown(value: object) -> str:
    """A Python value for a message: text in quotes, cut where it is long."""
    if value is None:
        return "nothing"
    if not isinstance(value, str | bytes):
        return str(value)[: SHOWN_CHARACTERS + 1]
    # Cut before repr: a value may be as long as a request.
    text = repr(value[:SHOWN_CHARACTERS])
    return f"{text}…" if len(value) > SHOWN_CHARACTERS else text


def shown_scalar(scalar: pa.Scalar) -> str:
    """An Arrow value for a message."""
    if not scalar.is_valid:
        return "nothing"
    if pt.is_duration(scalar.type):
        return f"{scalar.value} {scalar.type.unit}"
    plain = _plain(scalar)
    if pt.is_timestamp(scalar.type):
        return str(plain)
    if isinstance(plain, list | dict):
        text = json.dumps(plain, ensure_ascii=False, default=str)
        return f"{text[:SHOWN_CHARACTERS]}…" if len(text) > SHOWN_CHARACTERS else text
    return shown(scalar.as_py())


def row_as_json(batch: pa.RecordBatch, row: int) -> bytes:
    """A row as it was sent, as JSON: what JSON has no type for is text, bytes are hexadecimal.

    A map is a list of `key` and `value`, a duration its microseconds, as the contract's column has them.
    """
    values = {name: _plain(column[row]) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    return json.dumps(values, ensure_ascii=False, default=str).encode()


def _plain(scalar: pa.Scalar) -> object:
    if not scalar.is_valid:
        return None
    kind = scalar.type
    if pt.is_nested(kind):
        return _plain_within(scalar)
    if pt.is_dictionary(kind):
        return _plain(scalar.value)
    if pt.is_timestamp(kind):
        return _time(scalar)
    if pt.is_duration(kind):
        return int(scalar.value * Fraction(10**6, _PER_SECOND[kind.unit]))
    return _as_json(scalar.as_py())


def _as_json(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.hex() if isinstance(value, bytes) else value


def _plain_within(scalar: pa.Scalar) -> object:
    if pt.is_struct(scalar.type):
        return {field.name: _plain(scalar[index]) for index, field in enumerate(scalar.type)}
    return [_plain(each) for each in scalar.values]


def _time(scalar: pa.Scalar) -> str:
    """ISO 8601 in UTC, to the digit; Python's datetime has no nanoseconds, and ends with the year 9999."""
    unit = scalar.type.unit
    seconds, rest = divmod(scalar.value, _PER_SECOND[unit])
    try:
        whole = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    except OverflowError:
        return f"{scalar.value} {unit} since 1970"
    digits = len(str(_PER_SECOND[unit])) - 1
    fraction = f".{rest:0{digits}d}" if rest else ""
    return f"{whole.replace(tzinfo=None).isoformat()}{fraction}Z"
