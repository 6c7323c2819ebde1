"""A stream's contract as the service tells it: message class, fields, event time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from tidemill.errors import ServiceError
from tidemill.v1 import options_pb2, streams_pb2


@dataclass(frozen=True, slots=True)
class Contract:
    """What events of a stream look like.

    message: the class of its events, in a descriptor pool of its own: it can't clash with classes of your own stubs.
    decimals: precision and scale of the string fields that are decimal numbers.
    arrow_schema: the log's columns as an Arrow IPC schema message: the contract's, then Tidemill's own.
    """

    stream: str
    version: int
    message_type: str
    message: type[Message]
    decimals: dict[str, tuple[int, int]]
    event_time: str
    event_id: str
    arrow_schema: bytes

    @property
    def descriptor(self) -> Descriptor:
        """The message's descriptor."""
        descriptor: Any = self.message.DESCRIPTOR
        return cast(Descriptor, descriptor)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields' names, in the order of the contract."""
        return tuple(field.name for field in self.descriptor.fields)

    @property
    def required(self) -> frozenset[str]:
        """The fields that an event cannot leave out without saying something by it, and the event time.

        Those that may be left out are optional fields, members of a oneof, messages, lists and maps.
        """
        fields = self.descriptor.fields
        return frozenset(
            field.name
            for field in fields
            if field.name == self.event_time or not (field.has_presence or field.is_repeated)
        )


def contract_of(response: streams_pb2.GetStreamResponse) -> Contract:
    """The contract in a service's answer; raises ServiceError when its descriptors don't hold its message."""
    pool = descriptor_pool.DescriptorPool()
    for file in _dependencies_first(response.descriptors):
        pool.Add(file)
    try:
        message = message_factory.GetMessageClass(pool.FindMessageTypeByName(response.message_type))
    except KeyError as error:
        raise ServiceError(
            f"the service describes stream {response.status.stream!r} without its message {response.message_type!r}"
        ) from error
    proto = _message_proto(response.descriptors, response.message_type)
    stream = _option(proto.options, options_pb2.stream)
    return Contract(
        stream=response.status.stream,
        version=response.status.contract_version,
        message_type=response.message_type,
        message=message,
        decimals=dict(_decimals(proto)),
        event_time=stream.event_time,
        event_id=stream.event_id,
        arrow_schema=response.arrow_schema,
    )


def _dependencies_first(files: descriptor_pb2.FileDescriptorSet) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    by_name = {file.name: file for file in files.file}
    done: set[str] = set()

    def visit(name: str) -> Iterator[descriptor_pb2.FileDescriptorProto]:
        if name in done or name not in by_name:
            return
        done.add(name)
        for dependency in by_name[name].dependency:
            yield from visit(dependency)
        yield by_name[name]

    for name in by_name:
        yield from visit(name)


def _message_proto(files: descriptor_pb2.FileDescriptorSet, full_name: str) -> descriptor_pb2.DescriptorProto:
    for file in files.file:
        for message in file.message_type:
            if f"{file.package}.{message.name}".lstrip(".") == full_name:
                return message
    raise ServiceError(f"the service's descriptors have no message {full_name!r} at the top of a file")


def _option(options: Any, extension: Any) -> Any:
    # The generated stubs and types-protobuf disagree on what an extension is.
    return options.Extensions[extension]


def _decimals(message: descriptor_pb2.DescriptorProto) -> Iterator[tuple[str, tuple[int, int]]]:
    for field in message.field:
        options = _option(field.options, options_pb2.field)
        if options.HasField("decimal"):
            yield field.name, (options.decimal.precision, options.decimal.scale)
