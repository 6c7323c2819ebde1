"""Errors to gRPC statuses: the only place that knows which is which, and whether a retry can help."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from ingest_service import errors

log = logging.getLogger(__name__)

_STATUS: dict[type[errors.IngestError], grpc.StatusCode] = {
    # A retry can't help.
    errors.BadRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownStream: grpc.StatusCode.NOT_FOUND,
    errors.UnknownView: grpc.StatusCode.NOT_FOUND,
    errors.ProducerError: grpc.StatusCode.OUT_OF_RANGE,
    errors.ContractError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ViewRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.LogDamaged: grpc.StatusCode.DATA_LOSS,
    # Later, or after something else was done.
    errors.NotComplete: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ViewBehind: grpc.StatusCode.DEADLINE_EXCEEDED,
    # A retry of the same request helps.
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StorageError: grpc.StatusCode.UNAVAILABLE,
}

_Method = TypeVar("_Method", bound=Callable[..., Awaitable[Any]])


def status_of(error: errors.IngestError) -> grpc.StatusCode:
    """The status that an error becomes."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return grpc.StatusCode.INTERNAL


async def refuse(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> None:
    """End the call with the error's status; an unexpected error is logged and its text kept from the caller."""
    if isinstance(error, errors.IngestError):
        await context.abort(status_of(error), str(error), _details(error))
    log.error("unexpected error", exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, f"unexpected {type(error).__name__}; the service's log tells more")


def _details(error: errors.IngestError) -> tuple[tuple[str, bytes], ...]:
    """The status's details as gRPC carries them: when to try again, where the error says it."""
    if not isinstance(error, errors.Overloaded):
        return ()
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(error.retry_after_ms)
    status = Status(code=status_of(error).value[0], message=str(error))
    status.details.add().Pack(retry)
    return (("grpc-status-details-bin", status.SerializeToString()),)


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
