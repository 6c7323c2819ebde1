"""Acknowledgements that can be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

from tidemill.aio.threads import Threads
from tidemill.client.ack import Ack, Acked, Batch, TableAck, TableAcked


class Arrival:
    """Wakes all who await one batch; one crossing from the producer's thread into the loop, whatever its rows."""

    def __init__(self, batch: Batch, threads: Threads, *, observed: bool) -> None:
        self._future: asyncio.Future[None] = threads.loop.create_future()
        batch.call_when_done(lambda: threads.tell(self._arrived), observed=observed)

    def _arrived(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        """Wait until it is known what became of the batch."""
        # Shielded: one who gives up waiting does not end it for the others.
        await asyncio.shield(self._future)


class AsyncAck:
    """The future of one event: `acked = await ack`. Raises as `Ack.result` does; `asyncio.wait_for` limits the time."""

    __slots__ = ("_ack", "_arrival")

    def __init__(self, ack: Ack, arrival: Arrival) -> None:
        self._ack = ack
        self._arrival = arrival

    def done(self) -> bool:
        """Whether it is known what became of the event."""
        return self._ack.done()

    async def _result(self) -> Acked:
        if not self._ack.done():
            await self._arrival.wait()
        return self._ack.result(0)

    def __await__(self) -> Generator[object, None, Acked]:
        return self._result().__await__()


class AsyncTableAck:
    """The future of rows sent together: `acked = await ack`. Raises as `TableAck.result` does."""

    __slots__ = ("_ack", "_arrivals")

    def __init__(self, ack: TableAck, threads: Threads) -> None:
        self._ack = ack
        self._arrivals = [Arrival(batch, threads, observed=True) for batch in ack._batches]

    def done(self) -> bool:
        """Whether it is known what became of all rows."""
        return self._ack.done()

    async def _result(self) -> TableAcked:
        for arrival in self._arrivals:
            await arrival.wait()
        return self._ack.result(0)

    def __await__(self) -> Generator[object, None, TableAcked]:
        return self._result().__await__()
