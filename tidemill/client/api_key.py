"""The API key as metadata of every call, for both kinds of channels."""

from __future__ import annotations

from typing import Any

import grpc

_NAME = "authorization"


class KeySender(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]
):
    """Adds the key to the calls of a channel.

    gRPC's own call credentials would do the same, but on encrypted channels only: a service on loopback may ask for
    keys without TLS.
    """

    def __init__(self, api_key: str) -> None:
        self._entry = (_NAME, f"Bearer {api_key}")

    def _call(self: Any, continuation: Any, details: Any, request: Any) -> Any:
        metadata = (*(details.metadata or ()), self._entry)
        return continuation(_Details(details, metadata), request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = _call  # type: ignore[assignment]


class _Details(grpc.ClientCallDetails):
    """A call's details with other metadata."""

    def __init__(self, details: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = metadata
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = details.compression


class _AioSender:
    def __init__(self, api_key: str) -> None:
        self._value = f"Bearer {api_key}"

    async def _call(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        metadata.add(_NAME, self._value)
        return await continuation(details._replace(metadata=metadata), request)


class _AioUnaryUnary(_AioSender, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    intercept_unary_unary = _AioSender._call  # type: ignore[assignment]


class _AioUnaryStream(_AioSender, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    intercept_unary_stream = _AioSender._call  # type: ignore[assignment]


class _AioStreamUnary(_AioSender, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[type-arg]
    intercept_stream_unary = _AioSender._call  # type: ignore[assignment]


class _AioStreamStream(_AioSender, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]
    intercept_stream_stream = _AioSender._call  # type: ignore[assignment]


def aio_key_senders(api_key: str) -> list[Any]:
    """The same for grpc.aio, which wants an object for each kind of call."""
    return [kind(api_key) for kind in (_AioUnaryUnary, _AioUnaryStream, _AioStreamUnary, _AioStreamStream)]
