"""Errors to gRPC statuses: the only place that knows which is which, and whether a retry can help.

A status carries google.rpc's details: ErrorInfo with the reason and the error's fields, BadRequest with what is wrong
where, RetryInfo where the same request may be sent again.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from ingest_service import errors
from ingest_service.rpc.caller import refusals

DOMAIN = "tidemill"
"""Whose reasons these are, in google.rpc.ErrorInfo."""
INTERNAL = "INTERNAL"
"""The reason of an error that nobody expected."""
# A status travels in the trailers, of which gRPC's clients take 8 KiB in all unless they are told otherwise.
_TEXT_BYTES_MAX = 1200
_FIELD_BYTES_MAX = 200
_VIOLATIONS_BYTES_MAX = 2000

log = logging.getLogger(__name__)

_Code = grpc.StatusCode


@dataclass(frozen=True, slots=True)
class Answer:
    """What an error becomes: a status code, a reason, and after how long the same request may be sent again.

    retry_after_ms: None: a retry of the same request can't help.
    """

    code: grpc.StatusCode
    reason: str
    retry_after_ms: int | None = None


ANSWERS: dict[type[errors.IngestError], Answer] = {
    # A retry can't help.
    errors.BadRequest: Answer(_Code.INVALID_ARGUMENT, "BAD_REQUEST"),
    errors.Unauthenticated: Answer(_Code.UNAUTHENTICATED, "UNAUTHENTICATED"),
    errors.PermissionDenied: Answer(_Code.PERMISSION_DENIED, "PERMISSION_DENIED"),
    errors.UnknownStream: Answer(_Code.NOT_FOUND, "UNKNOWN_STREAM"),
    errors.UnknownView: Answer(_Code.NOT_FOUND, "UNKNOWN_VIEW"),
    errors.ProducerError: Answer(_Code.OUT_OF_RANGE, "OUT_OF_SEQUENCE"),
    errors.ContractError: Answer(_Code.FAILED_PRECONDITION, "CONTRACT_REFUSED"),
    errors.IncompatibleContract: Answer(_Code.FAILED_PRECONDITION, "CONTRACT_INCOMPATIBLE"),
    errors.ViewRefused: Answer(_Code.FAILED_PRECONDITION, "VIEW_REFUSED"),
    errors.OffsetDropped: Answer(_Code.NOT_FOUND, "OFFSET_DROPPED"),
    errors.LogDamaged: Answer(_Code.DATA_LOSS, "LOG_DAMAGED"),
    # Later, or after something else was done.
    errors.NotComplete: Answer(_Code.FAILED_PRECONDITION, "NOT_COMPLETE"),
    errors.BatchMissing: Answer(_Code.FAILED_PRECONDITION, "BATCH_MISSING"),
    # A retry of the same request helps.
    errors.ViewBehind: Answer(_Code.DEADLINE_EXCEEDED, "VIEW_BEHIND", 500),
    errors.Overloaded: Answer(_Code.RESOURCE_EXHAUSTED, "OVERLOADED", 100),
    errors.StorageError: Answer(_Code.UNAVAILABLE, "STORAGE_UNAVAILABLE", 200),
}
_UNEXPECTED = Answer(_Code.INTERNAL, INTERNAL)

_Method = TypeVar("_Method", bound=Callable[..., Awaitable[Any]])


def answer_of(error: Exception) -> Answer:
    """What an error becomes: its own class decides, or the nearest one above it that is in ANSWERS."""
    for kind in type(error).__mro__:
        if kind in ANSWERS:
            return ANSWERS[kind]
    return _UNEXPECTED


async def refuse(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> None:
    """End the call with the error's status; an unexpected error is logged and its text kept from the caller."""
    if isinstance(error, DecodeError):
        error = errors.BadRequest(f"expected a request message of this call: {error}")
    answer = answer_of(error)
    refusals()[answer.reason] += 1
    if isinstance(error, errors.IngestError):
        text, fields = _cut(str(error), _TEXT_BYTES_MAX), vars(error)
    else:
        log.error("unexpected error", exc_info=error)
        text, fields = f"unexpected {type(error).__name__}; the service's log tells more", {}
    await context.abort(answer.code, text, _trailer(answer, text, fields))


def _trailer(answer: Answer, text: str, fields: dict[str, Any]) -> tuple[tuple[str, bytes], ...]:
    status = Status(code=answer.code.value[0], message=text)
    for detail in _details(answer, text, fields):
        status.details.add().Pack(detail)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def _details(answer: Answer, text: str, fields: dict[str, Any]) -> Iterator[Message]:
    told = {name: str(value) for name, value in fields.items() if isinstance(value, str | int) and value != ""}
    told = {name: _cut(value, _FIELD_BYTES_MAX) for name, value in told.items()}
    yield error_details_pb2.ErrorInfo(reason=answer.reason, domain=DOMAIN, metadata=told)
    if changes := fields.get("changes"):
        yield error_details_pb2.BadRequest(field_violations=_violations(changes))
    elif answer.code is _Code.INVALID_ARGUMENT:
        yield error_details_pb2.BadRequest(field_violations=[_violation(str(fields.get("field", "")), text)])
    if answer.retry_after_ms is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(fields.get("retry_after_ms", answer.retry_after_ms))
        yield retry


def _violations(changes: Sequence[Any]) -> list[error_details_pb2.BadRequest.FieldViolation]:
    """One a change, as many as there is room for; the last one says how many more there are."""
    found: list[error_details_pb2.BadRequest.FieldViolation] = []
    left = _VIOLATIONS_BYTES_MAX
    for index, change in enumerate(changes):
        violation = _violation(change.field, _cut(change.message, _FIELD_BYTES_MAX))
        left -= violation.ByteSize()
        if left < 0:
            found.append(_violation("", f"and {len(changes) - index} more; ask with check_only for all of them"))
            break
        found.append(violation)
    return found


def _violation(field: str, description: str) -> error_details_pb2.BadRequest.FieldViolation:
    return error_details_pb2.BadRequest.FieldViolation(field=field, description=description)


def _cut(text: str, bytes_max: int) -> str:
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= bytes_max else encoded[: bytes_max - 3].decode(errors="ignore") + "…"


def answers(method: _Method) -> _Method:
    """Make a unary method end with the status of the error that it raises."""

    @functools.wraps(method)
    async def guarded(self: object, request: object, context: grpc.aio.ServicerContext[Any, Any]) -> object:
        try:
            return await method(self, request, context)
        except (grpc.aio.AbortError, grpc.RpcError):
            raise
        except Exception as error:
            await refuse(context, error)
            raise AssertionError("refuse ends the call") from error

    return guarded  # type: ignore[return-value]
