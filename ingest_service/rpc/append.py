"""The Append calls: requests are validated one after another while earlier ones are being made durable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

import grpc

from ingest_service.clock import Clock
from ingest_service.contracts import Validated
from ingest_service.errors import BadRequest
from ingest_service.log import Append, AppendResult
from ingest_service.rpc.parts import StreamParts, Streams
from ingest_service.rpc.status import answers, refuse
from tidemill.v1 import append_pb2, append_pb2_grpc

IN_FLIGHT_MAX = 64
"""Requests of one call that may wait for their response; more are not read: gRPC's flow control holds the sender."""
_INLINE_ROWS_MAX = 64
"""Batches up to so many rows are validated on the event loop: a thread's hop would cost more than the work."""

_Call = grpc.aio.ServicerContext[append_pb2.AppendRequest, append_pb2.AppendResponse]
_Outcome = tuple[int, "asyncio.Future[AppendResult] | None", Exception | None]


class AppendServicer(append_pb2_grpc.AppendServiceServicer):
    """Takes events into streams."""

    def __init__(self, streams: Streams, clock: Clock, executor: Executor) -> None:
        self._streams = streams
        self._clock = clock
        self._executor = executor

    async def Append(
        self, request_iterator: AsyncIterator[append_pb2.AppendRequest], context: _Call
    ) -> AsyncIterator[append_pb2.AppendResponse]:
        """Append batches to one stream; responses in the order of the requests, each once it is durable."""
        outcomes: asyncio.Queue[_Outcome | None] = asyncio.Queue(IN_FLIGHT_MAX)
        taking = asyncio.create_task(self._take(request_iterator, outcomes))
        try:
            while (outcome := await outcomes.get()) is not None:
                sequence, future, error = outcome
                try:
                    if future is None:
                        raise error or AssertionError("an outcome is a future or an error")
                    result = await future
                except Exception as problem:  # noqa: BLE001 - whatever it is, the caller gets a status
                    await refuse(context, problem)
                    return
                yield _response(sequence, result)
        finally:
            taking.cancel()

    @answers
    async def AppendOnce(self, request: append_pb2.AppendRequest, context: _Call) -> append_pb2.AppendResponse:
        """Append one batch."""
        del context
        future = await self._append(self._streams[request.stream], request)
        return _response(request.sequence, await future)

    @answers
    async def GetProducerState(
        self, request: append_pb2.GetProducerStateRequest, context: _Call
    ) -> append_pb2.GetProducerStateResponse:
        """The last sequence and offset acknowledged to a producer."""
        del context
        if not request.producer_id:
            raise BadRequest("producer_id: expected the id of a producer, came none")
        log = self._streams[request.stream].log
        state = await asyncio.wrap_future(log.producer_state(request.producer_id))
        if state is None:
            return append_pb2.GetProducerStateResponse()
        sequence, result = state.results[-1]
        response = append_pb2.GetProducerStateResponse(
            known=True,
            next_sequence=state.last_sequence + 1,
            last_response=_response(sequence, replace(result, replayed=True)),
            rows_sent=state.rows_sent,
        )
        response.last_append_time.FromMicroseconds(state.last_append_us)
        return response

    async def _take(
        self, requests: AsyncIterator[append_pb2.AppendRequest], outcomes: asyncio.Queue[_Outcome | None]
    ) -> None:
        """Queue each request's outcome; the first that is refused as a whole ends it."""
        parts: StreamParts | None = None
        try:
            async for request in requests:
                parts = self._stream_of(request, parts)
                await outcomes.put((request.sequence, await self._append(parts, request), None))
        except Exception as error:  # noqa: BLE001 - told to the caller, behind the responses before it
            await outcomes.put((0, None, error))
        else:
            await outcomes.put(None)

    async def _append(self, parts: StreamParts, request: append_pb2.AppendRequest) -> asyncio.Future[AppendResult]:
        """Validate a request's rows and queue them; the future is done once they are durable."""
        validated = await self._validate(parts, request)
        append = Append(
            validated.rows, validated.row_count, validated.quarantined,
            request.producer_id, request.sequence, request.rows_sent,
        )  # fmt: skip
        return asyncio.wrap_future(parts.log.append(append))

    def _stream_of(self, request: append_pb2.AppendRequest, before: StreamParts | None) -> StreamParts:
        if before is None:
            return self._streams[request.stream]
        if request.stream and request.stream != before.contract.stream:
            raise BadRequest(
                f"a call appends to one stream: expected {before.contract.stream!r}, came {request.stream!r}; "
                "make another call for another stream"
            )
        return before

    async def _validate(self, parts: StreamParts, request: append_pb2.AppendRequest) -> Validated:
        now_us = self._clock.now_us()
        kind = request.WhichOneof("rows")
        if kind == "proto":
            messages = list(request.proto.messages)
            if len(messages) <= _INLINE_ROWS_MAX:
                return parts.intake.from_proto(messages, now_us)
            return await self._run(parts.intake.from_proto, messages, now_us)
        if kind == "arrow":
            return await self._run(parts.intake.from_arrow, request.arrow, now_us)
        raise BadRequest("a request without rows: expected `proto` or `arrow` to be set")

    async def _run(self, function: Any, rows: Any, now_us: int) -> Validated:
        loop = asyncio.get_running_loop()
        validated: Validated = await loop.run_in_executor(self._executor, function, rows, now_us)
        return validated


def _response(sequence: int, result: AppendResult) -> append_pb2.AppendResponse:
    response = append_pb2.AppendResponse(
        sequence=sequence,
        partition=result.partition,
        base_offset=result.base_offset,
        rows_appended=result.rows_appended,
        durable_offset=result.durable_offset,
        replayed=result.replayed,
    )
    for verdict in result.verdicts:
        response.verdicts.add(
            index=verdict.index,
            verdict=int(verdict.verdict),
            rule=verdict.rule,
            field=verdict.field,
            message=verdict.message,
        )
    return response
