"""gRPC statuses as the SDK's errors: the only place that translates them."""

from __future__ import annotations

import functools
from typing import Any

import grpc
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, message_factory

from tidemill import errors

_Code = grpc.StatusCode

LOST = frozenset({_Code.UNAVAILABLE, _Code.ABORTED, _Code.CANCELLED, _Code.DEADLINE_EXCEEDED})
"""The connection or the service went away: the same batches may be sent again."""
BUSY = frozenset({_Code.RESOURCE_EXHAUSTED})
"""The service is there but full: the same batches may be sent again, later."""
UNCLEAR = frozenset({_Code.INTERNAL, _Code.UNKNOWN})
"""A torn connection reads like a fault of the service: worth a few attempts, not many."""

_CLASSES: dict[grpc.StatusCode, type[errors.ServiceError]] = {
    _Code.UNAVAILABLE: errors.ServiceUnavailable,
    _Code.CANCELLED: errors.ServiceUnavailable,
    _Code.ABORTED: errors.ServiceBusy,
    _Code.RESOURCE_EXHAUSTED: errors.ServiceBusy,
    _Code.DEADLINE_EXCEEDED: errors.ServiceBusy,
    _Code.NOT_FOUND: errors.NotFound,
    _Code.OUT_OF_RANGE: errors.OutOfSequence,
    _Code.INVALID_ARGUMENT: errors.RequestRefused,
    _Code.FAILED_PRECONDITION: errors.RequestRefused,
    _Code.PERMISSION_DENIED: errors.RequestRefused,
    _Code.UNAUTHENTICATED: errors.RequestRefused,
    _Code.ALREADY_EXISTS: errors.RequestRefused,
}


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """The status of a failed call."""
    code = error.code() if isinstance(error, grpc.Call) else None
    return code if isinstance(code, _Code) else _Code.UNKNOWN


def details_of(error: grpc.RpcError) -> str:
    """What the service wrote, in one line."""
    details = error.details() if isinstance(error, grpc.Call) else str(error)
    return " ".join(str(details or "no details were given").split())


def to_error(error: grpc.RpcError, address: str) -> errors.ServiceError:
    """The SDK's error for a failed call to the service at `address`."""
    code, details = code_of(error), details_of(error)
    if code is _Code.UNAVAILABLE:
        refused = "connection refused" if "connection refused" in details.lower() else details
        text = f"no service answers at {address} ({refused}); start one with: tidemill serve --listen {address}"
    elif code is _Code.UNIMPLEMENTED:
        text = f"the service at {address} does not offer this; it may be older than this SDK, or another program"
    elif code in UNCLEAR:
        text = f"the service at {address} failed: {details}"
    else:
        text = details
    return _CLASSES.get(code, errors.ServiceError)(text, code.name)


def retry_delay_s(error: grpc.RpcError) -> float:
    """How long the service asked to wait (google.rpc.RetryInfo); 0 when it did not say."""
    metadata: Any = error.trailing_metadata() if isinstance(error, grpc.Call) else None
    for key, value in metadata or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return _retry_info_s(value)
    return 0.0


def _retry_info_s(status: bytes) -> float:
    status_class, retry_info_class = _rpc_messages()
    for detail in status_class.FromString(status).details:
        if detail.type_url.endswith("/google.rpc.RetryInfo"):
            delay = retry_info_class.FromString(detail.value).retry_delay
            return float(delay.seconds + delay.nanos / 1e9)
    return 0.0


@functools.cache
def _rpc_messages() -> tuple[Any, Any]:
    """google.rpc.Status and RetryInfo, declared here: the light SDK does without googleapis-common-protos."""
    proto = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="tidemill/rpc_status.proto", package="google.rpc", syntax="proto3")
    file.dependency.extend([any_pb2.DESCRIPTOR.name, duration_pb2.DESCRIPTOR.name])
    status = file.message_type.add(name="Status")
    status.field.add(name="code", number=1, type=proto.TYPE_INT32, label=proto.LABEL_OPTIONAL)
    status.field.add(name="message", number=2, type=proto.TYPE_STRING, label=proto.LABEL_OPTIONAL)
    status.field.add(
        name="details", number=3, type=proto.TYPE_MESSAGE, label=proto.LABEL_REPEATED, type_name=".google.protobuf.Any"
    )
    file.message_type.add(name="RetryInfo").field.add(
        name="retry_delay",
        number=1,
        type=proto.TYPE_MESSAGE,
        label=proto.LABEL_OPTIONAL,
        type_name=".google.protobuf.Duration",
    )
    pool = descriptor_pool.DescriptorPool()
    for module in (any_pb2, duration_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return (
        message_factory.GetMessageClass(pool.FindMessageTypeByName("google.rpc.Status")),
        message_factory.GetMessageClass(pool.FindMessageTypeByName("google.rpc.RetryInfo")),
    )
