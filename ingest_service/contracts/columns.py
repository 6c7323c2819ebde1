"""The columns of a contract: which protobuf fields can be columns, and of which Arrow type."""

from __future__ import annotations

import pyarrow as pa
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ingest_service.contracts.contract import Column, extension
from ingest_service.contracts.source_info import SourceInfo
from ingest_service.errors import ContractError
from ingest_service.log.records import SYSTEM_COLUMNS

MAX_DECIMAL_PRECISION = 38
TIMESTAMP = "google.protobuf.Timestamp"
TIMESTAMP_TYPE = pa.timestamp("us", tz="UTC")

_TYPES: dict[int, pa.DataType] = {
    FieldDescriptor.TYPE_DOUBLE: pa.float64(),
    FieldDescriptor.TYPE_FLOAT: pa.float32(),
    FieldDescriptor.TYPE_INT32: pa.int32(),
    FieldDescriptor.TYPE_SINT32: pa.int32(),
    FieldDescriptor.TYPE_SFIXED32: pa.int32(),
    FieldDescriptor.TYPE_ENUM: pa.int32(),
    FieldDescriptor.TYPE_INT64: pa.int64(),
    FieldDescriptor.TYPE_SINT64: pa.int64(),
    FieldDescriptor.TYPE_SFIXED64: pa.int64(),
    # Delta has no unsigned integers: the next type that holds them all.
    FieldDescriptor.TYPE_UINT32: pa.int64(),
    FieldDescriptor.TYPE_FIXED32: pa.int64(),
    FieldDescriptor.TYPE_UINT64: pa.decimal128(20, 0),
    FieldDescriptor.TYPE_FIXED64: pa.decimal128(20, 0),
    FieldDescriptor.TYPE_BOOL: pa.bool_(),
    FieldDescriptor.TYPE_STRING: pa.string(),
    FieldDescriptor.TYPE_BYTES: pa.binary(),
}
_SUPPORTED = "numbers, bool, string, bytes, enums and google.protobuf.Timestamp"


def columns_of(message: Descriptor, event_time: str, source: SourceInfo) -> tuple[Column, ...]:
    """One column for each field, in the fields' order. The event time's column is not nullable.

    Raises ContractError where a field cannot be a column, or two columns would have one name.
    """
    columns = tuple(_column(field, event_time, source) for field in message.fields)
    _check_names(message, source)
    return columns


def _column(field: FieldDescriptor, event_time: str, source: SourceInfo) -> Column:
    options = extension(field, "tidemill.v1.field")
    precision, scale = None, None
    if options is not None and options.HasField("decimal"):
        precision, scale = options.decimal.precision, options.decimal.scale
        _check_decimal(field, precision, scale, source)
    return Column(
        name=field.name,
        type=_type(field, source) if precision is None else pa.decimal128(precision, scale),
        nullable=field.has_presence and field.name != event_time,
        doc=source.comment(field),
        personal=options is not None and options.personal,
        precision=precision,
        scale=scale,
    )


def _type(field: FieldDescriptor, source: SourceInfo) -> pa.DataType:
    if field.is_repeated:
        kind = "a map" if _is_map(field) else "repeated"
    elif field.containing_oneof is not None and len(field.containing_oneof.fields) > 0 and not _is_optional(field):
        kind = f"part of the oneof {field.containing_oneof.name}"
    elif field.message_type is not None:
        if field.message_type.full_name == TIMESTAMP:
            return TIMESTAMP_TYPE
        kind = f"a message, {field.message_type.full_name}"
    else:
        return _TYPES[field.type]
    raise ContractError(
        f"{source.where(field)}: {field.full_name} is {kind}, which is not supported yet; a stream's fields are "
        f"{_SUPPORTED}, each by itself or `optional`"
    )


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _is_optional(field: FieldDescriptor) -> bool:
    """protoc wraps each proto3 `optional` field into a oneof of its own, named after it."""
    oneof = field.containing_oneof
    return oneof is not None and len(oneof.fields) == 1 and oneof.name == f"_{field.name}"


def _check_decimal(field: FieldDescriptor, precision: int, scale: int, source: SourceInfo) -> None:
    where = source.where(field)
    if field.type != FieldDescriptor.TYPE_STRING or field.is_repeated:
        raise ContractError(
            f"{where}: {field.full_name} has the option `decimal`, which is for string fields: a decimal number "
            "travels as text, so that no digit is lost; declare the field as string"
        )
    if not 1 <= precision <= MAX_DECIMAL_PRECISION or scale > precision:
        raise ContractError(
            f"{where}: {field.full_name} is declared decimal with precision {precision} and scale {scale}; expected a "
            f"precision of 1 to {MAX_DECIMAL_PRECISION} digits in all, and a scale (digits after the point) of 0 to "
            "the precision"
        )


def _check_names(message: Descriptor, source: SourceInfo) -> None:
    """DuckDB and Spark don't tell `Price` from `price`, and the log adds columns of its own."""
    taken = {column.name for column in SYSTEM_COLUMNS}
    seen: dict[str, str] = {}
    for field in message.fields:
        lower = field.name.lower()
        if lower.startswith("_") or lower in taken:
            raise ContractError(
                f"{source.where(field)}: the name {field.full_name} is Tidemill's: every row gets the columns "
                f"{', '.join(sorted(taken))}, and names with an underscore in front are kept for more; rename the field"
            )
        if lower in seen:
            raise ContractError(
                f"{source.where(field)}: {field.full_name} and {seen[lower]} differ only by case, which SQL does not "
                "tell apart; rename one of them"
            )
        seen[lower] = field.name
