"""The Read call: a stream's rows in the order of their offsets, old ones and those to come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

import grpc

from ingest_service.contracts import Contract
from ingest_service.rpc.parts import Streams
from ingest_service.rpc.read_responses import position
from ingest_service.rpc.reading import Encoders, Reading
from ingest_service.rpc.status import answers
from ingest_service.rpc.tails import Tails
from ingest_service.rpc.writing import stalls
from tidemill.v1 import read_pb2

HELD_BYTES_MAX = 64 << 20
"""While more than this waits in memory for all readers together, each gets its rows one response at a time."""

_Call = grpc.aio.ServicerContext[read_pb2.ReadRequest, bytes]
_Result = TypeVar("_Result")


class ReadServicer:
    """Reads streams.

    Responses are written one after another, and gRPC takes the next only once its reader has room for it: a slow reader
    holds its own call and nothing else. It writes serialized responses, so it registers itself (`handler`).
    """

    def __init__(self, streams: Streams, executor: Executor) -> None:
        """executor: where rows are read and serialized; its threads bound how much of that goes on at once."""
        self._streams = streams
        self._executor = executor
        self._tails = Tails()
        self._encoders = Encoders()
        self._held_bytes = 0

    def handler(self) -> grpc.GenericRpcHandler[read_pb2.ReadRequest, bytes]:
        """What a server registers."""
        read = grpc.unary_stream_rpc_method_handler(
            self.Read, request_deserializer=read_pb2.ReadRequest.FromString, response_serializer=None
        )
        name = read_pb2.DESCRIPTOR.services_by_name["ReadService"].full_name
        return grpc.method_handlers_generic_handler(name, {"Read": read})

    def stop(self) -> None:
        """End the calls that wait for rows: they are told to read on later."""
        self._tails.stop()

    @answers
    async def Read(self, request: read_pb2.ReadRequest, context: _Call) -> None:
        """Send rows from where the request says, up to the durable offset of now, or on and on."""
        parts = self._streams[request.stream]
        reading = await self._run(partial(Reading, parts.whole, request))
        counted = 0
        try:
            await context.write(position(reading.offset, parts.log.durable_offset).data)
            while not reading.done:
                if reading.offset >= parts.log.durable_offset:
                    reading.rest()
                    await self._tails.past(request.stream, parts.log, reading.offset)
                # Asked for anew each time: the contract and the caller's rights may have changed.
                parts = self._streams[request.stream]
                await self._run(partial(self._fetch, reading, parts.contract))
                counted = self._count(counted, reading.held_bytes)
                while reading.responses:
                    packed = reading.responses.popleft()
                    writing = asyncio.ensure_future(context.write(packed.data))
                    if await stalls(writing):
                        # Its rows are read again later.
                        reading.rest()
                        counted = self._count(counted, 0)
                    await writing
                    reading.offset = packed.next_offset
        finally:
            self._count(counted, 0)
            # A thread may be at work for it even now.
            with contextlib.suppress(RuntimeError):  # the executor ends with the service
                self._executor.submit(reading.rest)

    def _fetch(self, reading: Reading, contract: Contract) -> None:
        # Looked at here, in the thread: many calls may have waited for their turn.
        reading.fetch(contract, self._encoders, thrifty=self._held_bytes > HELD_BYTES_MAX)

    def _count(self, before: int, now: int) -> int:
        self._held_bytes += now - before
        return now

    async def _run(self, function: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)
