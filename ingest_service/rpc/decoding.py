"""Requests that are no message of their kind get a status that says so."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from ingest_service.errors import BadRequest
from ingest_service.rpc.status import refuse


def decoding(method: str, handler: Any) -> Any:
    """A handler that decodes its one request itself.

    gRPC would decode it before the handler is called, answer what can't be decoded with UNKNOWN, and log a traceback
    for each. Streams of requests are decoded one by one while the handler runs: it sees the DecodeError itself.
    """
    parse = handler.request_deserializer
    if handler.request_streaming or parse is None:
        return handler

    async def parsed(raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return parse(raw)
        except DecodeError as error:
            await refuse(context, BadRequest(f"expected the request message of {method}: {error}"))

    inner = handler.unary_stream if handler.response_streaming else handler.unary_unary
    if inspect.isasyncgenfunction(inner):

        async def responses(raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            async for response in inner(await parsed(raw, context), context):
                yield response

        return grpc.unary_stream_rpc_method_handler(responses, None, handler.response_serializer)

    async def answer(raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        return await inner(await parsed(raw, context), context)

    kinds = (grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler)
    return kinds[handler.response_streaming](answer, None, handler.response_serializer)
