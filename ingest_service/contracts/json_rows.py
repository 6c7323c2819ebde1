"""Quarantined rows of tables, which `shown.row_as_json` wrote, back to Arrow."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NO_VALUE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, InvalidOperation, pa.ArrowException)


def is_json(payload: bytes) -> bool:
    """Whether it is a row of a table, and not a message: no message begins so, as proto3 has no groups."""
    return payload.startswith(b"{")


def json_batch(payloads: Sequence[bytes], schema: pa.Schema) -> tuple[bytes, list[int]]:
    """The rows as an Arrow IPC stream of one batch with that schema, and which of them it holds, by rising index.

    A row is left out when it is no JSON object, has a column that the schema has not, or a value that cannot be its
    column's. What is missing is null.
    """
    rows: list[pa.RecordBatch] = []
    readable: list[int] = []
    # One by one: a row of a quarantine is an exception, and each may be wrong in its own way.
    for index, payload in enumerate(payloads):
        try:
            rows.append(_row(json.loads(payload), schema))
        except _NO_VALUE:
            continue
        readable.append(index)
    sink = pa.BufferOutputStream()
    nullable = pa.schema([field.with_nullable(True) for field in schema])
    with pa.ipc.new_stream(sink, nullable) as writer:
        writer.write_batch(pa.concat_batches(rows) if rows else pa.RecordBatch.from_pylist([], schema=nullable))
    stream: bytes = sink.getvalue().to_pybytes()
    return stream, readable


def _row(values: Mapping[str, Any], schema: pa.Schema) -> pa.RecordBatch:
    unknown = values.keys() - set(schema.names)
    if unknown:
        raise KeyError(*unknown)
    columns = [pa.array([_value(values.get(field.name), field.type)], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema([field.with_nullable(True) for field in schema]))


def _value(value: Any, kind: pa.DataType) -> Any:
    """A JSON value as Python's for an Arrow type; raises one of _NO_VALUE when it is none of that type."""
    if value is None:
        return None
    if pt.is_map(kind):
        return [(_value(pair["key"], kind.key_type), _value(pair["value"], kind.item_type)) for pair in value]
    if pt.is_list(kind):
        return [_value(each, kind.value_type) for each in value]
    if pt.is_struct(kind):
        return {field.name: _value(value.get(field.name), field.type) for field in kind}
    return _single(value, kind)


def _single(value: Any, kind: pa.DataType) -> Any:
    if pt.is_timestamp(kind):
        # What is beyond microseconds is cut off, as for the rows that come.
        return (dt.datetime.fromisoformat(value) - _EPOCH) // dt.timedelta(microseconds=1)
    if pt.is_decimal(kind):
        return Decimal(str(value))
    if pt.is_binary(kind):
        return bytes.fromhex(value)
    if pt.is_floating(kind):
        return float(value)
    if pt.is_integer(kind):
        return _integer(value)
    return value


def _integer(value: Any) -> int:
    """Also of a number that came as a double or a decimal, where nothing is lost."""
    number = int(Decimal(str(value)))
    if number != Decimal(str(value)):
        raise ValueError(value)
    return number
