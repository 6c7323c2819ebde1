"""Errors as gRPC statuses, over a real call."""

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from ingest_service import errors
from ingest_service.rpc.status import refuse, status_of


def call_that_ends_with(error: Exception) -> grpc.aio.AioRpcError:
    """What a client gets from a method that raises `error`."""

    async def run() -> grpc.aio.AioRpcError:
        async def method(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            await refuse(context, error)
            raise AssertionError("unreachable")

        server = grpc.aio.server()
        handler = grpc.method_handlers_generic_handler("t", {"M": grpc.unary_unary_rpc_method_handler(method)})
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary("/t/M")(b"")
                return caught.value
        finally:
            await server.stop(None)

    return asyncio.run(run())


def test_overload_says_when_to_try_again():
    raised = call_that_ends_with(errors.Overloaded("too much waits", retry_after_ms=250))
    assert raised.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    metadata = dict(raised.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 250


def test_an_unexpected_error_keeps_its_text_to_the_log(caplog):
    raised = call_that_ends_with(RuntimeError("password=hunter2"))
    assert raised.code() is grpc.StatusCode.INTERNAL
    assert "hunter2" not in raised.details()
    assert "hunter2" in caplog.text


def test_every_error_has_a_status_of_its_own():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.IngestError)]
    at_start_up = {errors.IngestError, errors.ConfigError}
    for kind in set(kinds) - at_start_up:
        assert status_of(kind.__new__(kind)) is not grpc.StatusCode.INTERNAL, kind
