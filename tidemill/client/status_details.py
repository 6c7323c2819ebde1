"""The details of a status (google.rpc), read without googleapis-common-protos: the light SDK does without it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, message_factory
from google.protobuf.message import DecodeError

_TRAILER = "grpc-status-details-bin"
_PACKAGE = "google.rpc"


@dataclass(frozen=True, slots=True)
class StatusDetails:
    """What a service told beyond code and text; empty for a status that comes from elsewhere."""

    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[tuple[str, str], ...] = ()
    retry_after_s: float = 0.0


def read_details(trailers: Iterable[Any] | None) -> StatusDetails:
    """The details in a call's trailing metadata; what is damaged counts as absent."""
    for key, value in trailers or ():
        if key == _TRAILER and isinstance(value, bytes):
            try:
                return _read(value)
            except DecodeError:
                break
    return StatusDetails()


def _read(status: bytes) -> StatusDetails:
    classes = _classes()
    found: dict[str, Any] = {}
    for detail in classes["Status"].FromString(status).details:
        package, _, name = detail.type_url.rpartition("/")[2].rpartition(".")
        if package == _PACKAGE and name in classes:
            found[name] = classes[name].FromString(detail.value)
    info, wrong, retry = (found.get(name, classes[name]()) for name in ("ErrorInfo", "BadRequest", "RetryInfo"))
    return StatusDetails(
        info.reason,
        {pair.key: pair.value for pair in info.metadata},
        tuple((each.field, each.description) for each in wrong.field_violations),
        float(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9),
    )


@functools.cache
def _classes() -> dict[str, Any]:
    """The messages, declared here as far as they are read, in a pool of their own."""
    file = descriptor_pb2.FileDescriptorProto(name="tidemill/rpc_status.proto", package=_PACKAGE, syntax="proto3")
    pool = descriptor_pool.DescriptorPool()
    for module in (any_pb2, duration_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        file.dependency.append(module.DESCRIPTOR.name)
    _declare(file, "Status", ("code", 1, "int32"), ("message", 2, "string"), ("details", 3, "*.google.protobuf.Any"))
    _declare(file, "RetryInfo", ("retry_delay", 1, ".google.protobuf.Duration"))
    # A map travels as a list of pairs.
    _declare(file, "Pair", ("key", 1, "string"), ("value", 2, "string"))
    _declare(file, "ErrorInfo", ("reason", 1, "string"), ("metadata", 3, f"*.{_PACKAGE}.Pair"))
    _declare(file, "FieldViolation", ("field", 1, "string"), ("description", 2, "string"))
    _declare(file, "BadRequest", ("field_violations", 1, f"*.{_PACKAGE}.FieldViolation"))
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in ("Status", "RetryInfo", "ErrorInfo", "BadRequest")
    }


def _declare(file: descriptor_pb2.FileDescriptorProto, name: str, *fields: tuple[str, int, str]) -> None:
    """A message of fields: name, number and int32, string or a message's name; with a star: a list of them."""
    proto = descriptor_pb2.FieldDescriptorProto
    plain = {"int32": proto.TYPE_INT32, "string": proto.TYPE_STRING}
    message = file.message_type.add(name=name)
    for field_name, number, kind in fields:
        label = proto.LABEL_REPEATED if kind.startswith("*") else proto.LABEL_OPTIONAL
        added = message.field.add(name=field_name, number=number, label=label)
        if kind in plain:
            added.type = plain[kind]
        else:
            added.type, added.type_name = proto.TYPE_MESSAGE, kind.removeprefix("*")
