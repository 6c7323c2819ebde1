"""The kernel of a field whose rules no Arrow kernel proves: it asks protovalidate, once for each distinct value."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from protovalidate import EvaluationError, Validator

from ingest_service.contracts.contract import message_class
from ingest_service.contracts.field_column import is_wrapper
from ingest_service.contracts.kernels import Kernel


def asking_kernel(field: FieldDescriptor, validator: Validator) -> Kernel:
    """The kernel of all rules of one field that has a single value, whichever they are: what it proves is exact.

    protovalidate judges a message that has this field alone, in the descriptor pool of the field's own message.
    """
    message: Any = message_class(_alone(field))
    wrapped = is_wrapper(field)

    def keeps(value: object) -> bool:
        row = message(**{field.name: {"value": value} if wrapped else value})
        try:
            return not validator.collect_violations(row)
        except EvaluationError:
            return False

    def kernel(values: pa.Array) -> pa.Array:
        distinct = values.dictionary_encode()
        verdicts = pa.array([keeps(value) for value in distinct.dictionary.to_pylist()], pa.bool_())
        return verdicts.take(distinct.indices)

    return kernel


def _alone(field: FieldDescriptor) -> Descriptor:
    """A message of this field alone, with the field's own options, beside the one that it is of."""
    owner = field.containing_type
    assert owner is not None
    pool = owner.file.pool
    file = descriptor_pb2.FileDescriptorProto(syntax="proto3", package="tidemill.alone")
    file.name = f"tidemill/alone/{field.full_name}.proto"
    file.dependency.append(owner.file.name)
    file.dependency.extend(each.name for each in owner.file.dependencies)
    message = file.message_type.add(name=field.full_name.replace(".", "_"))
    declared = descriptor_pb2.DescriptorProto()
    owner.CopyToProto(declared)
    copied = message.field.add()
    copied.CopyFrom(next(each for each in declared.field if each.number == field.number))
    copied.ClearField("oneof_index")
    if field.has_presence and field.message_type is None:
        # A member of a oneof is set or not, as an optional field is.
        copied.proto3_optional = True
        copied.oneof_index = 0
        message.oneof_decl.add(name=f"_{field.name}")
    else:
        copied.proto3_optional = False
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindMessageTypeByName(f"{file.package}.{message.name}")
