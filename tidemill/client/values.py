"""Values on their way to a view's filters and back from its rows."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable
from decimal import Decimal

from google.protobuf import struct_pb2

from tidemill.errors import BadQuery
from tidemill.v1 import views_pb2

Value = None | bool | int | float | str | Decimal | dt.datetime | dt.date
"""What a column of a view holds, or a filter compares with."""

_O = views_pb2.Filter
_OPERATORS: dict[str, views_pb2.Filter.Operator] = {
    "=": _O.OPERATOR_EQUAL,
    "==": _O.OPERATOR_EQUAL,
    "!=": _O.OPERATOR_NOT_EQUAL,
    "<>": _O.OPERATOR_NOT_EQUAL,
    "<": _O.OPERATOR_LESS,
    "<=": _O.OPERATOR_LESS_OR_EQUAL,
    ">": _O.OPERATOR_GREATER,
    ">=": _O.OPERATOR_GREATER_OR_EQUAL,
}


def make_filter(column: str, operator: str, value: object) -> views_pb2.Filter:
    """A condition as it is sent; raises BadQuery for an unknown operator or a value that has no text."""
    if operator not in _OPERATORS:
        raise BadQuery(f"column {column!r}: there is no operator {operator!r}; there are {' '.join(_OPERATORS)}")
    text = to_text(value, column)
    condition = views_pb2.Filter(column=column, operator=_OPERATORS[operator])
    if text is not None:
        condition.value = text
    return condition


def to_text(value: object, column: str) -> str | None:
    """A value as text that DuckDB casts to the column's type; None stays None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime):
        if value.utcoffset() is None:
            raise BadQuery(f"column {column!r}: {value!r} has no time zone; give datetime(..., tzinfo=datetime.UTC)")
        return value.astimezone(dt.UTC).isoformat(sep=" ")
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, int | float | dt.date):
        return str(value)
    raise BadQuery(f"column {column!r}: cannot compare with {type(value).__name__} {value!r}")


def _datetime(value: object) -> Value:
    moment = dt.datetime.fromisoformat(str(value))
    # Every connection's time zone is UTC; a type without a zone holds UTC too.
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


def _float(value: object) -> Value:
    return float(str(value)) if isinstance(value, str) else _number(value)


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _integer(value: object) -> Value:
    return int(value) if isinstance(value, str) else int(_number(value))


_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_READERS: dict[str, Callable[[object], Value]] = {
    "BOOLEAN": bool,
    "DECIMAL": lambda value: Decimal(str(value)),
    "DOUBLE": _float,
    "FLOAT": _float,
    "DATE": lambda value: dt.date.fromisoformat(str(value)[:10]),
    "TIMESTAMP": _datetime,
    "TIMESTAMP WITH TIME ZONE": _datetime,
    **dict.fromkeys((*_INTEGERS, *(f"U{name}" for name in _INTEGERS)), _integer),
}


def read_rows(columns: Iterable[views_pb2.ViewColumn], rows: Iterable[struct_pb2.ListValue]) -> list[dict[str, Value]]:
    """Rows that came as VALUES, in Python's types for the columns' DuckDB types; unknown types stay text."""
    names = [column.name for column in columns]
    readers = [_READERS.get(column.type.partition("(")[0].strip().upper(), str) for column in columns]
    result = []
    for row in rows:
        values = [_plain(value) for value in row.values]
        result.append(
            {
                name: None if value is None else read(value)
                for name, read, value in zip(names, readers, values, strict=True)
            }
        )
    return result


def _plain(value: struct_pb2.Value) -> object:
    kind = value.WhichOneof("kind")
    if kind in {None, "null_value"}:
        return None
    if kind == "number_value":
        return math.nan if math.isnan(value.number_value) else value.number_value
    return getattr(value, str(kind))
