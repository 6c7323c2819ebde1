"""Values as people read them: in messages, and in the payload of a quarantined Arrow row."""

from __future__ import annotations

import datetime as dt
import json
import math

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
    if pt.is_dictionary(scalar.type):
        scalar = scalar.value
    return _time(scalar) if pt.is_timestamp(scalar.type) else shown(scalar.as_py())


def row_as_json(batch: pa.RecordBatch, row: int) -> bytes:
    """A row as it was sent, as JSON: what JSON has no type for is text, bytes are hexadecimal."""
    values = {name: _plain(column[row]) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
    return json.dumps(values, ensure_ascii=False, default=str).encode()


def _plain(scalar: pa.Scalar) -> object:
    if not scalar.is_valid:
        return None
    if pt.is_dictionary(scalar.type):
        return _plain(scalar.value)
    if pt.is_timestamp(scalar.type):
        return _time(scalar)
    value = scalar.as_py()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.hex() if isinstance(value, bytes) else value


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
