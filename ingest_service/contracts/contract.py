"""What a stream's `.proto` message declares, in the service's own terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message

from ingest_service.log.records import LogSpec


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a stream: one field of its message; or what is within one, such as a struct's field.

    type: the Arrow type from the log on. Delta has no unsigned integers, so uint32 is int64 and uint64 is
        decimal128(20, 0); an enum is its number, as int32, so that a number that the contract does not know survives.
    nullable: also of repeated fields and maps: rows from before the field was added have no value there.
    doc: the comment above the field in the .proto file, on one line.
    precision, scale: of a string field that is declared to be a decimal; None for every other field.
    is_duration: a google.protobuf.Duration, in microseconds from the log on: Delta has no type for it.
    oneof: the oneof that the field is a member of; empty for every other field.
    children: of a struct its fields, by field number; of a list `element`; of a map `key` and `value`.
    """

    name: str
    type: pa.DataType
    nullable: bool
    doc: str = ""
    personal: bool = False
    precision: int | None = None
    scale: int | None = None
    is_duration: bool = False
    oneof: str = ""
    children: tuple[Column, ...] = ()

    @property
    def is_decimal(self) -> bool:
        """Whether the field travels as a string and is a decimal number from the log on."""
        return self.precision is not None


@dataclass(frozen=True, slots=True)
class Contract:
    """A stream's contract, checked when it was loaded; immutable.

    file: the .proto file, relative to its root. event_id, key: a column's name, or None where none is declared.
    schema: the columns in the order of the message's fields, without the log's system columns.
    descriptor_set: a serialized google.protobuf.FileDescriptorSet, the file and all that it imports, imports first.
    source: the same, with the comments of `file`: what is kept of the contract, and what it can be read from again.
    content_hash: sha256 (hex) over the files that the stream's owner wrote; comments do not count.
    """

    stream: str
    message_type: str
    file: str
    version: int
    event_time: str
    event_id: str | None
    key: str | None
    out_of_orderness_s: int
    doc: str
    columns: tuple[Column, ...]
    schema: pa.Schema
    descriptor_set: bytes
    source: bytes
    content_hash: str

    def log_spec(self) -> LogSpec:
        """What the log needs of this contract."""
        return LogSpec(
            stream=self.stream,
            schema=self.schema,
            contract_version=self.version,
            event_time=self.event_time,
            event_id=self.event_id,
            out_of_orderness_s=self.out_of_orderness_s,
        )

    def descriptor(self) -> Descriptor:
        """The message's descriptor, in a pool of its own: contracts may not disturb each other by name."""
        return private_pool(self.descriptor_set).FindMessageTypeByName(self.message_type)


def private_pool(descriptor_set: bytes) -> descriptor_pool.DescriptorPool:
    """A descriptor pool that holds just these files; `descriptor_set` lists imports before their importers."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def message_class(descriptor: Descriptor) -> type[Message]:
    """The Python class of a message from a private pool."""
    return message_factory.GetMessageClass(descriptor)


def extension(descriptor: Descriptor | FieldDescriptor | OneofDescriptor, name: str) -> Any:
    """The value of an extension in options (a message's, field's, oneof's); None where it is not set or not imported.

    `GetOptions()` answers in Python's default pool, where buf.validate's and Tidemill's options may be unknown bytes:
    so they are read again by the classes of the descriptor's own pool.
    name: the extension's full name, such as "tidemill.v1.stream".
    """
    holder = descriptor if isinstance(descriptor, Descriptor) else descriptor.containing_type
    assert holder is not None
    pool = holder.file.pool
    options = descriptor.GetOptions()
    try:
        found: Any = pool.FindExtensionByName(name)
        options_class = message_class(pool.FindMessageTypeByName(options.DESCRIPTOR.full_name))
    except KeyError:
        return None
    known: Any = options_class.FromString(options.SerializeToString())
    return known.Extensions[found] if known.HasExtension(found) else None
