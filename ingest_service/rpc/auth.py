"""Who may make which call: keys are checked before a request is read, and while a call runs."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from ingest_service.access import ApiKey, Keyring, Right
from ingest_service.errors import PermissionDenied, Unauthenticated
from ingest_service.rpc.caller import CALL, Anyone, Call
from ingest_service.rpc.decoding import decoding
from ingest_service.rpc.status import refuse

SWEEP_S = 1.0
"""How often running calls are looked at: one whose key was revoked ends after so many seconds more at the latest."""
_V1 = "/tidemill.v1."
OPEN = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/List", "/grpc.health.v1.Health/Watch"})
"""Calls that need no key: a probe has none, and learns nothing but whether the service is well."""
RIGHTS: dict[str, Right | None] = {
    f"{_V1}AppendService/Append": Right.WRITE,
    f"{_V1}AppendService/AppendOnce": Right.WRITE,
    f"{_V1}AppendService/GetProducerState": Right.WRITE,
    f"{_V1}ReadService/Read": Right.READ,
    f"{_V1}StreamService/ListStreams": None,
    f"{_V1}StreamService/GetStream": None,
    f"{_V1}StreamService/ListQuarantine": Right.READ,
    f"{_V1}StreamService/ReplayQuarantine": Right.ADMIN,
    f"{_V1}StreamService/ApplyContract": Right.ADMIN,
    f"{_V1}StreamService/SealDate": Right.ADMIN,
    f"{_V1}StreamService/ExportLake": Right.ADMIN,
    f"{_V1}StreamService/MaintainLake": Right.ADMIN,
    f"{_V1}ViewService/ListViews": Right.READ,
    f"{_V1}ViewService/QueryView": Right.READ,
    f"{_V1}ViewService/WatchView": Right.READ,
    f"{_V1}ViewService/ApplyViews": Right.ADMIN,
    f"{_V1}ViewService/RebuildView": Right.ADMIN,
    f"{_V1}ViewService/ConfirmReconciled": Right.ADMIN,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": None,
}
"""The right that each call needs on its stream; None: any right there. A call that is not named here is refused."""

_Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """A caller with a valid key, making a call that needs `right`."""

    key: ApiKey
    right: Right | None

    def check(self, stream: str) -> None:
        """Raises PermissionDenied when the key does not allow the call on that stream."""
        if not self.key.allows(self.right, stream):
            needs = self.right.value if self.right else "any right"
            raise PermissionDenied(
                f"the API key {self.key.name!r} ({self.key.id}) does not allow {needs} on stream {stream!r}; make one "
                f"that does: tidemill key create NAME --stream {stream} --allow {self.right or Right.READ}",
                needs,
            )

    def may_see(self, stream: str) -> bool:
        """Whether the key allows the call on that stream."""
        return self.key.allows(self.right, stream)

    def knows(self, stream: str) -> bool:
        """Whether the key is for that stream at all."""
        return self.key.allows(None, stream)


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Lets calls through that may be made: everyone's without a keyring, otherwise those with a valid key.

    1 The key is found by the call's metadata, before any request is read. 2 What it allows is checked by
    `Streams`, which all handlers get their streams from, by the call's own right (RIGHTS). 3 `watch` ends streaming
    calls whose key is revoked or expires meanwhile. For one event loop.
    """

    def __init__(self, keyring: Keyring | None) -> None:
        self.refusals: Counter[str] = Counter()
        self._keyring = keyring
        self._open = Call(Anyone(), self.refusals)
        self._handlers: dict[str, Any] = {}
        self._running: dict[grpc.aio.ServicerContext[Any, Any], tuple[ApiKey, asyncio.Task[Any] | None]] = {}

    async def intercept_service(
        self,
        continuation: _Continuation,
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Set the call's caller, or answer it with a refusal."""
        method = handler_call_details.method
        if self._keyring is None or method in OPEN:
            CALL.set(self._open)
            return await self._handler(method, continuation, handler_call_details)
        handler = await self._handler(method, continuation, handler_call_details)
        try:
            key = self._keyring.authenticate(_authorization(handler_call_details))
            if handler is not None and method not in RIGHTS:
                raise PermissionDenied("no API key allows this call", "none")
        except (Unauthenticated, PermissionDenied) as error:
            CALL.set(self._open)
            return _refusing(error)
        CALL.set(Call(KeyHolder(key, RIGHTS.get(method)), self.refusals))
        if handler is not None and handler.response_streaming:
            return self._watched(handler, key)
        return handler

    async def _handler(self, method: str, continuation: _Continuation, details: grpc.HandlerCallDetails) -> Any:
        """The method's handler, made once; None for a method that nobody has."""
        if method not in self._handlers:
            handler = await continuation(details)
            if handler is None:
                return None
            self._handlers[method] = decoding(method, handler)
        return self._handlers[method]

    def _watched(self, handler: Any, key: ApiKey) -> grpc.RpcMethodHandler[Any, Any]:
        inner = handler.stream_stream or handler.unary_stream

        async def run(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            self._running[context] = key, asyncio.current_task()
            try:
                answering = inner(request, context)
                if inspect.isawaitable(answering):
                    # A handler that writes its responses itself.
                    await answering
                    return
                async for response in answering:
                    yield response
            finally:
                del self._running[context]

        kinds = (grpc.unary_stream_rpc_method_handler, grpc.stream_stream_rpc_method_handler)
        return kinds[handler.request_streaming](run, handler.request_deserializer, handler.response_serializer)

    async def watch(self) -> None:
        """End the calls whose key does not count any more; runs until it is cancelled."""
        keyring = self._keyring
        while keyring is not None:
            await asyncio.sleep(SWEEP_S)
            for context, (key, task) in list(self._running.items()):
                if not keyring.is_valid(key):
                    log.warning("a call of API key %r (%s) ends: the key was revoked or has expired", key.name, key.id)
                    with contextlib.suppress(grpc.aio.AbortError, grpc.aio.UsageError, asyncio.InvalidStateError):
                        await refuse(context, Unauthenticated("the API key was revoked or has expired meanwhile"))
                    # Its caller knows; the handler may wait for something that does not come for long.
                    if task is not None:
                        task.cancel()


def _authorization(details: grpc.HandlerCallDetails) -> str | None:
    for name, value in details.invocation_metadata or ():
        if name == "authorization" and isinstance(value, str):
            return value
    return None


def _refusing(error: Exception) -> grpc.RpcMethodHandler[Any, Any]:
    """Answers the call, whatever kind it is, without reading a request."""

    async def refused(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        del request
        await refuse(context, error)

    return grpc.stream_stream_rpc_method_handler(refused)
