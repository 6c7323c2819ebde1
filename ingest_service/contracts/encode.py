"""A stream's rows back to serialized protobuf messages: what `decode` does, the other way round."""

from __future__ import annotations

import ptars
import pyarrow as pa
from google.protobuf import descriptor_pb2

from ingest_service.contracts.contract import Contract, private_pool
from ingest_service.contracts.retype import to_wire

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
            to_wire(column, rows.column(column.name), field.type) for column, field in zip(columns, fields, strict=True)
        ]
        return self._handler.record_batch_to_array(pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)))


def _explicit_floats(descriptor_set: bytes) -> bytes:
    """The files with every plain float and double made `optional`: ptars takes -0.0 for the default, and drops it.

    A value that is written although it is the default reads the same. A map is a repeated message of keys and values.
    """
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
    for file in files.file:
        if file.syntax == "proto3" and not file.name.startswith("google/protobuf/"):
            for message in file.message_type:
                _make_explicit(message)
    return files.SerializeToString()


def _make_explicit(message: descriptor_pb2.DescriptorProto) -> None:
    for nested in message.nested_type:
        if any(field.type in _FLOATS for field in nested.field):
            nested.options.ClearField("map_entry")
        if not nested.options.map_entry:
            _make_explicit(nested)
    for field in message.field:
        single = field.label == descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
        if single and field.type in _FLOATS and not field.HasField("oneof_index"):
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")
