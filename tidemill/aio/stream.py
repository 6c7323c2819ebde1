"""A stream, as its producers and readers use it in asyncio."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tidemill.aio.ack import Arrival, AsyncAck, AsyncTableAck
from tidemill.aio.reading import AsyncReading
from tidemill.aio.threads import Threads
from tidemill.client.ack import Batch
from tidemill.client.contract import Contract
from tidemill.client.counts import SendCounts
from tidemill.client.delivery import ProducerState
from tidemill.client.models import StreamStatus
from tidemill.client.storing import StoringProducer
from tidemill.client.stream import Event, Stream

if TYPE_CHECKING:
    import pyarrow as pa


class AsyncStream:
    """Sends events to one stream; made by `AsyncClient.stream`. To be used in the loop that made it."""

    def __init__(self, stream: Stream, threads: Threads) -> None:
        self._stream = stream
        self._producer = stream._producer
        self._threads = threads
        self._waiting_for_space = asyncio.Lock()
        # Of the batch that the last event joined: the next one mostly joins the same.
        self._batch: Batch | None = None
        self._arrival: Arrival | None = None
        self._storing: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The stream's name."""
        return self._stream.name

    @property
    def contract(self) -> Contract:
        """The contract as the service had it when this object was made."""
        return self._stream.contract

    @property
    def message(self) -> type[Any]:
        """The class of the stream's events."""
        return self._stream.message

    @property
    def schema(self) -> pa.Schema:
        """The contract's columns as an Arrow schema. Needs pyarrow."""
        return self._stream.schema

    @property
    def resumed(self) -> ProducerState | None:
        """Where the producer was when this object went on as it; None for a new producer."""
        return self._stream.resumed

    async def send(self, event: Event) -> AsyncAck:
        """Send one event: a message of the contract or a dict.

        Returns its ack, which is to be awaited on its own; waits only while too much is unacknowledged and, with an
        outbox, until the event is on disk there: tasks that send at the same time share that. Raises BadEvent,
        ClientClosed, OutboxError.
        """
        return await self.send_serialized(self._stream.serialize(event))

    async def send_serialized(self, event: bytes) -> AsyncAck:
        """Send one event that is serialized already; the service checks it."""
        if self._producer.is_full():
            async with self._waiting_for_space:
                if self._producer.is_full():
                    await self._threads.run(self._producer.wait_for_space)
        ack = self._producer.add(event, wait=False)
        if ack._batch is not self._batch or self._arrival is None:
            self._batch = ack._batch
            self._arrival = Arrival(ack._batch, self._threads, observed=False)
            self._storing = self._store(ack._batch)
        arrival = self._arrival
        if self._storing is not None:
            await asyncio.shield(self._storing)
        return AsyncAck(ack, arrival)

    def _store(self, batch: Batch) -> asyncio.Task[None] | None:
        if not isinstance(self._producer, StoringProducer):
            return None
        return asyncio.create_task(self._threads.run(self._producer.store, batch))

    async def send_many(self, events: Sequence[bytes]) -> AsyncTableAck:
        """Send serialized events together: the least work for a producer that has them ready."""
        return AsyncTableAck(await self._threads.run(self._stream.send_many, events), self._threads)

    async def send_table(self, table: object) -> AsyncTableAck:
        """Send all rows of a table, as `Stream.send_table` does; an iterator of batches is read in a thread."""
        return AsyncTableAck(await self._threads.run(self._stream.send_table, table), self._threads)

    def read(
        self,
        *,
        from_offset: int | None = None,
        from_time: dt.datetime | None = None,
        from_end: bool = False,
        follow: bool = False,
        columns: Sequence[str] = (),
        limit: int = 0,
    ) -> AsyncReading[Any]:
        """The stream's rows as messages, for `async for`; see `Stream.read`."""
        return AsyncReading(
            self._stream.read(
                from_offset=from_offset, from_time=from_time, from_end=from_end, follow=follow, columns=columns,
                limit=limit,
            )
        )  # fmt: skip

    def read_arrow(
        self,
        *,
        from_offset: int | None = None,
        from_time: dt.datetime | None = None,
        from_end: bool = False,
        follow: bool = False,
        columns: Sequence[str] = (),
        limit: int = 0,
    ) -> AsyncReading[pa.RecordBatch]:
        """The same rows as Arrow record batches; see `Stream.read_arrow`."""
        return AsyncReading(
            self._stream.read_arrow(
                from_offset=from_offset, from_time=from_time, from_end=from_end, follow=follow, columns=columns,
                limit=limit,
            )
        )  # fmt: skip

    def counts(self) -> SendCounts:
        """What this object has sent so far, and what came of it."""
        return self._stream.counts()

    async def flush(self, timeout: float | None = None) -> SendCounts:
        """Wait until everything sent so far is acknowledged; raises as `Stream.flush` does."""
        return await self._threads.run(self._stream.flush, timeout)

    async def status(self) -> StreamStatus:
        """Where the stream is now."""
        return await self._threads.run(self._stream.status)

    async def producer_state(self, producer_id: str) -> ProducerState:
        """What the service knows of a producer id: "where was I?"."""
        return await self._threads.run(self._stream.producer_state, producer_id)

    async def close(self, timeout: float | None = None) -> None:
        """Flush, then stop sending; raises as `flush` does."""
        await self._threads.run(self._stream.close, timeout)
