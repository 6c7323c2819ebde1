"""A stream's rows back to serialized protobuf messages: what `decode` does, the other way round."""

from __future__ import annotations

import ptars
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from google.protobuf import descriptor_pb2

from ingest_service.contracts.contract import Column, Contract, private_pool
from ingest_service.contracts.leaves import KEY, VALUE, entries

_PLAIN_SCALE_MAX = 6
"""Up to this scale Arrow writes decimals without an exponent."""
_FLOATS = (descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE, descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT)


class Encoder:
    """Makes messages of one contract's rows; thread-safe.

    A message equals the one that was sent, field by field, in the log's precision: decimals are written with all digits
    of their scale ("2.5" as "2.500"), times and durations to the microsecond, and unknown fields are gone.
    """

    def __init__(self, contract: Contract) -> None:
        self._columns = contract.columns
        descriptor = private_pool(_explicit_floats(contract.descriptor_set)).FindMessageTypeByName(
            contract.message_type
        )
        config = ptars.PtarsConfig(timestamp_unit="us", duration_unit="us")
        self._handler = ptars.HandlerPool([descriptor.file], config=config).get_for_message(descriptor)
        self._wire: pa.Schema = self._handler.schema()

    def encode(self, rows: pa.RecordBatch) -> pa.BinaryArray:
        """One serialized message a row. Columns are found by name; the fields of those that are missing stay unset."""
        columns = [column for column in self._columns if column.name in rows.schema.names]
        if not columns:
            return pa.array([b""], pa.binary()).take(pa.nulls(rows.num_rows, pa.int32()).fill_null(0))
        fields = [self._wire.field(column.name) for column in columns]
        arrays = [
            _to_wire(column, rows.column(column.name), field.type)
            for column, field in zip(columns, fields, strict=True)
        ]
        return self._handler.record_batch_to_array(pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)))


def _explicit_floats(descriptor_set: bytes) -> bytes:
    """The files with every plain float and double made `optional`: ptars takes -0.0 for the default, and drops it.

    A value that is written although it is the default reads the same.
    """
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
    for file in files.file:
        if file.syntax == "proto3" and not file.name.startswith("google/protobuf/"):
            for message in file.message_type:
                _make_explicit(message)
    return files.SerializeToString()


def _make_explicit(message: descriptor_pb2.DescriptorProto) -> None:
    for nested in message.nested_type:
        if not nested.options.map_entry:
            _make_explicit(nested)
    for field in message.field:
        single = field.label == descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
        if single and field.type in _FLOATS and not field.HasField("oneof_index"):
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")


def _to_wire(column: Column, values: pa.Array, wire: pa.DataType) -> pa.Array:
    """A column as protobuf types it."""
    if column.is_decimal:
        assert column.scale is not None
        return _plain_text(values, column.scale)
    if pt.is_struct(column.type):
        children = {child.name: child for child in column.children}
        fields = [wire.field(i) for i in range(wire.num_fields)]
        arrays = [_to_wire(children[field.name], values.field(field.name), field.type) for field in fields]
        return pa.StructArray.from_arrays(arrays, fields=fields, mask=values.is_null())
    if pt.is_list(column.type):
        within = _to_wire(column.children[0], pc.list_flatten(values), wire.value_type)
        return pa.ListArray.from_arrays(_bounds(values), within, type=wire)
    if pt.is_map(column.type):
        pairs, _ = entries(values)
        key, value = column.children
        keys = _to_wire(key, pc.struct_field(pairs, KEY), wire.key_type)
        items = _to_wire(value, pc.struct_field(pairs, VALUE), wire.item_type)
        return pa.MapArray.from_arrays(_bounds(values), keys, items, type=wire)
    return values if values.type == wire else values.cast(wire)


def _bounds(values: pa.Array) -> pa.Array:
    """Where each list begins among all elements, and where the last ends; null is a list without elements."""
    lists = values.cast(pa.list_(values.type.field(0))) if pt.is_map(values.type) else values
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    return pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])


def _plain_text(values: pa.Array, scale: int) -> pa.Array:
    """Decimals as text with all digits of their scale, and never an exponent."""
    if scale <= _PLAIN_SCALE_MAX:
        return values.cast(pa.string())
    # Arrow writes small numbers as "1E-7", whole ones never: so the point is set by hand.
    negative = pc.less(values, pa.scalar(0, pa.int32()).cast(values.type))
    buffers = pc.abs(values).buffers()
    whole = pa.Array.from_buffers(pa.decimal128(values.type.precision, 0), len(values), buffers)
    digits = pc.utf8_lpad(whole.cast(pa.string()), width=scale + 1, padding="0")
    text = pc.binary_join_element_wise(
        pc.utf8_slice_codeunits(digits, 0, -scale), pc.utf8_slice_codeunits(digits, -scale), "."
    )
    return pc.binary_join_element_wise(pc.if_else(negative, "-", ""), text, "")
