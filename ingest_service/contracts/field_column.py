"""One protobuf field as a column, with all that is within it: Arrow types, what may be missing, decimals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ingest_service.contracts.contract import Column, extension
from ingest_service.errors import ContractError

MAX_DECIMAL_PRECISION = 38
TIMESTAMP = "google.protobuf.Timestamp"
DURATION = "google.protobuf.Duration"
TIMESTAMP_TYPE = pa.timestamp("us", tz="UTC")
ELEMENT = "element"
"""A list's only child; the name that Delta and Parquet have for it."""

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
_WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
# The decoder makes dates and times of day of them, and has no value for the partial ones that they may hold.
_PARTIAL = frozenset({"google.type.Date", "google.type.TimeOfDay"})


def column_of(field: FieldDescriptor, where: str) -> Column:
    """The column of a message's field, without its comment.

    where: file and line, for messages. Raises ContractError when no column can hold the field.
    """
    assert field.containing_type is not None
    return _Reader(where, (field.containing_type.full_name,)).column(field)


def is_wrapper(field: FieldDescriptor) -> bool:
    """Whether the field is a google.protobuf.Int64Value or one of its kin: a value that may be missing."""
    return field.message_type is not None and field.message_type.full_name in _WRAPPERS


def is_map(field: FieldDescriptor) -> bool:
    """Whether the field is a map; to descriptors, a repeated message of keys and values."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def message_within(field: FieldDescriptor) -> Descriptor | None:
    """The message whose fields are within this field (a map's: those of its entries); None for single values."""
    message = field.message_type
    return None if message is None or message.full_name in (TIMESTAMP, DURATION) or is_wrapper(field) else message


def within(column: Column) -> Iterator[Column]:
    """The column and all that is within it."""
    yield column
    for child in column.children:
        yield from within(child)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads a field and the fields of the messages within it; `above` are the messages that it is in."""

    where: str
    above: tuple[str, ...]

    def column(self, field: FieldDescriptor) -> Column:
        if is_map(field):
            assert field.message_type is not None
            key, value = (self._single(field.message_type.fields_by_name[name]) for name in ("key", "value"))
            children = (replace(key, nullable=False), replace(value, nullable=False))
            whole = self._plain(field)
            kind = pa.map_(key.type, value.type)
            return replace(
                whole, type=kind, nullable=True, personal=whole.personal or value.personal, children=children
            )
        single = self._single(field)
        if not field.is_repeated:
            return single
        element = replace(single, name=ELEMENT, nullable=False)
        many = pa.list_(pa.field(ELEMENT, element.type))
        return Column(field.name, many, nullable=True, personal=element.personal, children=(element,))

    def _plain(self, field: FieldDescriptor) -> Column:
        """What the field's own options and place in its message say; a decimal's type."""
        options = extension(field, "tidemill.v1.field")
        plain = Column(
            name=field.name,
            type=pa.null(),
            nullable=field.has_presence,
            personal=options is not None and options.personal,
            oneof=_oneof(field),
        )
        if options is None or not options.HasField("decimal"):
            return plain
        precision, scale = options.decimal.precision, options.decimal.scale
        self._check_decimal(field, precision, scale)
        return replace(plain, type=pa.decimal128(precision, scale), precision=precision, scale=scale)

    def _single(self, field: FieldDescriptor) -> Column:
        plain = self._plain(field)
        if plain.is_decimal:
            return plain
        message = field.message_type
        if message is None:
            return replace(plain, type=_TYPES[field.type])
        if message.full_name == TIMESTAMP:
            return replace(plain, type=TIMESTAMP_TYPE)
        if message.full_name == DURATION:
            return replace(plain, type=pa.int64(), is_duration=True)
        if is_wrapper(field):
            return replace(plain, type=_TYPES[message.fields_by_name["value"].type])
        children = self._children(field, message)
        kind = pa.struct([pa.field(child.name, child.type) for child in children])
        return replace(plain, type=kind, personal=any(each.personal for each in (plain, *children)), children=children)

    def _children(self, field: FieldDescriptor, message: Descriptor) -> tuple[Column, ...]:
        """Those of a message, by field number."""
        self._check_message(field, message)
        inner = _Reader(self.where, (*self.above, message.full_name))
        return tuple(inner.column(each) for each in sorted(message.fields, key=lambda each: each.number))

    def _check_message(self, field: FieldDescriptor, message: Descriptor) -> None:
        if message.full_name in self.above:
            why = f"{message.full_name} holds itself, and a column's type has to end"
        elif not message.fields:
            why = f"{message.full_name} has no fields, and no column is without a value"
        elif message.full_name in _PARTIAL:
            why = f"{message.full_name} may lack its year or hour, which no column type does: use {TIMESTAMP}"
        elif descriptor_pb2.FileDescriptorProto.FromString(message.file.serialized_pb).syntax != "proto3":
            why = f"{message.full_name} is not written in proto3"
        else:
            check_case([each.name for each in message.fields], message.full_name, self.where)
            return
        raise ContractError(
            f"{self.where}: {field.full_name} cannot be a column: {why}; leave the field out, or declare its values as "
            "fields of their own"
        )

    def _check_decimal(self, field: FieldDescriptor, precision: int, scale: int) -> None:
        if field.type != FieldDescriptor.TYPE_STRING:
            raise ContractError(
                f"{self.where}: {field.full_name} has the option `decimal`, which is for string fields: a decimal "
                "number travels as text, so that no digit is lost; declare the field as string"
            )
        if not 1 <= precision <= MAX_DECIMAL_PRECISION or scale > precision:
            raise ContractError(
                f"{self.where}: {field.full_name} is declared decimal with precision {precision} and scale {scale}; "
                f"expected a precision of 1 to {MAX_DECIMAL_PRECISION} digits in all, and a scale (digits after the "
                "point) of 0 to the precision"
            )


def check_case(names: list[str], owner: str, where: str) -> None:
    """Raises ContractError where names differ only by case: DuckDB and Spark don't tell `Price` from `price`."""
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            raise ContractError(
                f"{where}: {owner}.{name} and {seen[name.lower()]} differ only by case, which SQL does not tell apart; "
                "rename one of them"
            )
        seen[name.lower()] = name


def _oneof(field: FieldDescriptor) -> str:
    """The oneof that it is a member of. protoc wraps each `optional` field into one of its own, which is none."""
    oneof = field.containing_oneof
    if oneof is None or (len(oneof.fields) == 1 and oneof.name == f"_{field.name}"):
        return ""
    return oneof.name
