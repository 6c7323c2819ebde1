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
from ingest_service.errors import BadRequest, IngestError
from ingest_service.log import Append, AppendResult
from ingest_service.rpc.admission import Admission
from ingest_service.rpc.gathering import BATCH_ROWS_MAX, Gathering
from ingest_service.rpc.parts import StreamParts, Streams
from ingest_service.rpc.status import answers, refuse
from tidemill.v1 import append_pb2

IN_FLIGHT_MAX = 64
"""Requests of one call that may wait for their response; more are not read: gRPC's flow control holds the sender."""

_Call = grpc.aio.ServicerContext[Any, append_pb2.AppendResponse]
_Outcome = tuple[int, "asyncio.Future[AppendResult] | None", Exception | None]


class _Line:
    """The batches of one call: validated side by side, queued in the order in which they came."""

    def __init__(self) -> None:
        self.parts: StreamParts | None = None
        self._last: asyncio.Future[bool] | None = None

    @property
    def is_free(self) -> bool:
        """Whether all that came before is queued."""
        return self._last is None or (self._last.done() and self._last.result())

    def join(self) -> tuple[asyncio.Future[bool] | None, asyncio.Future[bool]]:
        """The place before, and the next one; each says whether its batch was queued, False when it was refused."""
        before, self._last = self._last, asyncio.get_running_loop().create_future()
        return before, self._last


class AppendServicer:
    """Takes events into streams.

    Requests come as bytes: they are decoded once there is room for them. So it registers itself (`handler`).
    """

    def __init__(self, streams: Streams, clock: Clock, executor: Executor, admission: Admission | None = None) -> None:
        self._streams = streams
        self._clock = clock
        self._executor = executor
        self._gathering = Gathering(clock)
        self._admission = admission or Admission()

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """What a server registers."""
        response = append_pb2.AppendResponse.SerializeToString
        methods: dict[str, Any] = {
            "Append": grpc.stream_stream_rpc_method_handler(self.Append, None, response),
            "AppendOnce": grpc.unary_unary_rpc_method_handler(self.AppendOnce, None, response),
            "GetProducerState": grpc.unary_unary_rpc_method_handler(
                self.GetProducerState,
                append_pb2.GetProducerStateRequest.FromString,
                append_pb2.GetProducerStateResponse.SerializeToString,
            ),
        }
        name = append_pb2.DESCRIPTOR.services_by_name["AppendService"].full_name
        return grpc.method_handlers_generic_handler(name, methods)

    async def Append(
        self, request_iterator: AsyncIterator[bytes], context: _Call
    ) -> AsyncIterator[append_pb2.AppendResponse]:
        """Append batches to one stream; responses in the order of the requests, each once it is durable."""
        outcomes: asyncio.Queue[_Outcome | None] = asyncio.Queue(IN_FLIGHT_MAX)
        taking = asyncio.create_task(self._take(request_iterator, outcomes))
        try:
            while (outcome := await outcomes.get()) is not None:
                sequence, future, error = outcome
                if error is not None:
                    await refuse(context, error)
                assert future is not None, "an outcome is a future or an error"
                try:
                    result = await future
                except Exception as problem:  # noqa: BLE001 - whatever it is, the caller gets a status
                    await refuse(context, problem)
                    return
                yield _response(sequence, result)
        finally:
            taking.cancel()

    @answers
    async def AppendOnce(self, request: bytes, context: _Call) -> append_pb2.AppendResponse:
        """Append one batch."""
        del context
        sequence, future = await self._append(request, _Line())
        del request
        return _response(sequence, await future)

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

    async def _take(self, requests: AsyncIterator[bytes], outcomes: asyncio.Queue[_Outcome | None]) -> None:
        """Queue each request's outcome; the first that is refused as a whole ends it."""
        line = _Line()
        try:
            async for request in requests:
                outcome = await self._append(request, line)
                # The next one may be long in coming.
                del request
                await outcomes.put((*outcome, None))
        except Exception as error:  # noqa: BLE001 - told to the caller, behind the responses before it
            # A traceback holds its frames, and they the request: what is refused must not stay in memory.
            told = error.with_traceback(None) if isinstance(error, IngestError) else error
            await outcomes.put((0, None, told))
        else:
            await outcomes.put(None)

    async def _append(self, data: bytes, line: _Line) -> tuple[int, asyncio.Future[AppendResult]]:
        """Bring a request's rows on their way: its sequence, and a future that is done once they are durable.

        Waits while too much is in hand already: the call's next request is not read meanwhile. A large batch is
        validated while those before it are, too; a small one is done with at once.
        """
        size_bytes = len(data)
        await self._admission.enter(size_bytes)
        try:
            request = append_pb2.AppendRequest.FromString(data)
            line.parts = parts = self._stream_of(request, line.parts)
            durable: asyncio.Future[AppendResult]
            if line.is_free and len(request.proto.messages) <= BATCH_ROWS_MAX and not request.arrow:
                durable = self._queue(parts, request, await self._validate(parts, request), size_bytes)
            else:
                durable = asyncio.create_task(self._append_in_line(parts, request, *line.join(), size_bytes))
        except BaseException:
            self._admission.leave(size_bytes)
            raise
        durable.add_done_callback(lambda done: self._leave(done, size_bytes))
        return request.sequence, durable

    async def _append_in_line(
        self,
        parts: StreamParts,
        request: append_pb2.AppendRequest,
        before: asyncio.Future[bool] | None,
        queued: asyncio.Future[bool],
        size_bytes: int,
    ) -> AppendResult:
        """Validate a batch, and queue it once the one before it is queued; wait until it is durable."""
        try:
            validated = await self._validate(parts, request)
            if before is not None and not await before:
                raise BadRequest("a batch before it was refused as a whole, which ends the call")
            durable = self._queue(parts, request, validated, size_bytes)
        except BaseException:
            queued.set_result(False)
            raise
        queued.set_result(True)
        del request, validated
        return await durable

    def _queue(
        self, parts: StreamParts, request: append_pb2.AppendRequest, validated: Validated, size_bytes: int
    ) -> asyncio.Future[AppendResult]:
        append = Append(
            validated.rows, validated.row_count, validated.quarantined,
            request.producer_id, request.sequence, request.rows_sent, size_bytes=size_bytes,
        )  # fmt: skip
        return asyncio.wrap_future(parts.log.append(append))

    def _leave(self, done: asyncio.Future[AppendResult], size_bytes: int) -> None:
        self._admission.leave(size_bytes)
        if not done.cancelled():
            # A call that has ended asks for it no more.
            done.exception()

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
            if len(messages) <= BATCH_ROWS_MAX:
                return await self._gathering.validate(parts, messages)
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
