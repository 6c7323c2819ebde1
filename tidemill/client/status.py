"""gRPC statuses as the SDK's errors: the only place that translates them."""

from __future__ import annotations

import grpc

from tidemill import errors
from tidemill.client.status_details import StatusDetails, read_details

_Code = grpc.StatusCode
# What carries a status: failed calls of both kinds of channels.
_ANSWERED = (grpc.Call, grpc.aio.AioRpcError)

LOST = frozenset({_Code.UNAVAILABLE, _Code.ABORTED, _Code.CANCELLED, _Code.DEADLINE_EXCEEDED})
"""The connection or the service went away: the same batches may be sent again."""
BUSY = frozenset({_Code.RESOURCE_EXHAUSTED})
"""The service is there but full: the same batches may be sent again, later."""
REFUSED = frozenset({_Code.INVALID_ARGUMENT, _Code.OUT_OF_RANGE})
"""The service took neither the first unanswered batch nor any behind it of that producer id."""
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
    _Code.PERMISSION_DENIED: errors.AccessDenied,
    _Code.UNAUTHENTICATED: errors.AccessDenied,
    _Code.ALREADY_EXISTS: errors.RequestRefused,
}


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """The status of a failed call."""
    code = error.code() if isinstance(error, _ANSWERED) else None
    return code if isinstance(code, _Code) else _Code.UNKNOWN


def details_of(error: grpc.RpcError) -> str:
    """What the service wrote, in one line."""
    details = error.details() if isinstance(error, _ANSWERED) else str(error)
    return " ".join(str(details or "no details were given").split())


def to_error(error: grpc.RpcError, address: str) -> errors.ServiceError:
    """The SDK's error for a failed call to the service at `address`."""
    code, text, told = code_of(error), details_of(error), _told(error)
    # A service that gives its reason has answered: what it wrote says more than its status does.
    if not told.reason:
        text = _of_no_service(code, text, address)
    kind = _CLASSES.get(code, errors.ServiceError)
    if code in BUSY and not told.reason and "larger than max" in text:
        kind = errors.RequestRefused
    return kind(text, code.name, told.reason, told.metadata, told.violations, told.retry_after_s)


def retry_delay_s(error: grpc.RpcError) -> float:
    """How long the service asked to wait (google.rpc.RetryInfo); 0 when it did not say."""
    return _told(error).retry_after_s


def _told(error: grpc.RpcError) -> StatusDetails:
    return read_details(error.trailing_metadata() if isinstance(error, _ANSWERED) else None)


def _of_no_service(code: grpc.StatusCode, text: str, address: str) -> str:
    """What to say of a status that gRPC, a proxy or another program made."""
    if code is _Code.UNAVAILABLE:
        lowered = text.lower()
        if "ssl" in lowered or "handshak" in lowered or "certificate" in lowered:
            return (
                f"no secure connection to {address} ({text}): one side speaks TLS and the other does not, or the "
                "certificate is none of an authority that this client trusts (TIDEMILL_TLS_CA), or not for this name"
            )
        refused = "connection refused" if "connection refused" in lowered else text
        return f"no service answers at {address} ({refused}); start one with: tidemill serve --listen {address}"
    if code is _Code.UNIMPLEMENTED:
        return f"the service at {address} does not offer this; it may be older than this SDK, or another program"
    return f"the service at {address} failed: {text}" if code in UNCLEAR else text
