"""The Read call: a stream's rows in the order of their offsets, old ones and those to come."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

import grpc
import pyarrow as pa

from ingest_service.contracts import Contract, Encoder
from ingest_service.errors import BadRequest
from ingest_service.lake import WholeLog, WholeLogReader
from ingest_service.log import SYSTEM_COLUMNS, Rows
from ingest_service.rpc.parts import Streams
from ingest_service.rpc.read_responses import Packed, arrow_responses, position, proto_responses
from ingest_service.rpc.status import answers
from ingest_service.rpc.tails import Tails
from tidemill.v1 import read_pb2

STALL_S = 1.0
"""A reader that takes no response for so long keeps nothing but that response; its rows are read again later."""
_READ_ROWS, _READ_BYTES = 16_384, 4 << 20
_WAIT_S = 1.0
_OURS = frozenset(field.name for field in SYSTEM_COLUMNS)

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
        self._encoders = _Encoders()

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
        reading = await self._run(_Reading, parts.whole, request)
        try:
            await context.write(position(reading.offset, parts.log.durable_offset).data)
            while not reading.done:
                if reading.offset >= parts.log.durable_offset:
                    reading.rest()
                    await self._tails.past(request.stream, parts.log, reading.offset)
                # Asked for anew each time: the contract and the caller's rights may have changed.
                parts = self._streams[request.stream]
                for packed in await self._run(reading.next, parts.contract, self._encoders):
                    stalled = await _write(context, packed.data, reading.rest)
                    reading.offset = packed.next_offset
                    if stalled:
                        break
        finally:
            # A thread may be at work for it even now.
            with contextlib.suppress(RuntimeError):  # the executor ends with the service
                self._executor.submit(reading.rest)

    async def _run(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


async def _write(context: _Call, data: bytes, on_stall: Callable[[], None]) -> bool:
    """Write a response once its reader has room; whether that took so long that `on_stall` was called."""
    writing = asyncio.ensure_future(context.write(data))
    try:
        done, _ = await asyncio.wait({writing}, timeout=STALL_S)
        if not done:
            on_stall()
        await writing
    finally:
        writing.cancel()
    return not done


class _Encoders:
    """One encoder a stream, made anew when its contract has changed. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, tuple[Contract, Encoder]] = {}

    def of(self, contract: Contract) -> Encoder:
        """The contract's encoder."""
        with self._lock:
            made_of, encoder = self._made.get(contract.stream, (None, None))
            if encoder is None or made_of is not contract:
                encoder = Encoder(contract)
                self._made[contract.stream] = contract, encoder
            return encoder


class _Reading:
    """What one call reads, and how far it is. `next` runs in a thread, one at a time; `rest` may come from another."""

    def __init__(self, whole: WholeLog, request: read_pb2.ReadRequest) -> None:
        """Raises BadRequest when the request asks for what cannot be."""
        self._whole = whole
        self._columns = list(dict.fromkeys(request.columns))
        self._check_columns()
        self._arrow = request.format == read_pb2.READ_FORMAT_ARROW
        durable = whole.durable_offset
        self.offset = _start(whole, request, durable)
        """The next row to send."""
        limit = request.limit or None
        self._end = None if request.follow else durable
        if limit is not None:
            self._end = self.offset + limit if self._end is None else min(self._end, self.offset + limit)
        self._lock = threading.Lock()
        self._reader: WholeLogReader | None = None
        self._schema: pa.Schema | None = None

    @property
    def done(self) -> bool:
        """Whether there is nothing more to send."""
        return self._end is not None and self.offset >= self._end

    def next(self, contract: Contract, encoders: _Encoders) -> list[Packed]:
        """The next responses; none when only seals came."""
        packed: list[Packed] = []
        with self._lock:
            wanted = _READ_ROWS if self._end is None else min(_READ_ROWS, self._end - self.offset)
            for entry in self._opened().read(wanted, _WAIT_S, _READ_BYTES):
                if not isinstance(entry, Rows):
                    continue
                rows, durable = self._below_end(entry), self._whole.durable_offset
                if self._arrow:
                    packed += arrow_responses(rows, durable)
                else:
                    packed += proto_responses(rows, encoders.of(contract), durable)
        return packed

    def rest(self) -> None:
        """Let go of files, and of rows read ahead."""
        with self._lock:
            if self._reader is not None:
                self._reader.close()

    def _opened(self) -> WholeLogReader:
        """The reader, at `offset`: it is ahead where responses were dropped, and has old columns after a change."""
        whole = self._whole
        if self._reader is None or self._reader.offset != self.offset or self._schema is not whole.schema:
            if self._reader is not None:
                self._reader.close()
            self._schema = whole.schema
            self._reader = whole.reader(self.offset, self._wanted(self._schema))
        return self._reader

    def _wanted(self, schema: pa.Schema) -> list[str]:
        names = self._columns or schema.names
        return names if self._arrow else [name for name in names if name not in _OURS]

    def _below_end(self, rows: Rows) -> Rows:
        if self._end is None or rows.next_offset <= self._end:
            return rows
        return Rows(rows.batch.slice(0, self._end - rows.base_offset), rows.base_offset, self._end)

    def _check_columns(self) -> None:
        known = self._whole.schema.names
        for name in self._columns:
            if name not in known:
                raise BadRequest(f"columns: {name[:80]!r} is unknown; the columns are: {', '.join(known)}")


def _start(whole: WholeLog, request: read_pb2.ReadRequest, durable: int) -> int:
    match request.WhichOneof("from"):
        case "from_offset" if request.from_offset > durable:
            raise BadRequest(
                f"from_offset: expected at most {durable}, the durable offset; came {request.from_offset}. Rows that "
                "are still to come are read with `follow`, from the durable offset on"
            )
        case "from_offset":
            return request.from_offset
        case "from_time":
            return min(durable, whole.offset_at(request.from_time.ToMicroseconds()))
        case "from_end":
            return durable
        case _:
            return 0
