"""Reading a stream in asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Generic, Self

from tidemill.aio.threads import Threads
from tidemill.client.read import Item, Reading


class AsyncReading(Generic[Item]):
    """The rows of a stream, with `async for`; made by `AsyncStream.read` and `read_arrow`.

    As `Reading`: each row once, a lost connection is made again; `asyncio.wait_for(anext(reading), …)` that runs out
    loses none. It has a thread of its own, which waits; the rows of one response cross into the loop together. Leave it
    early with `async with`, or await its `close`. For one task at a time.
    """

    def __init__(self, reading: Reading[Item]) -> None:
        self._reading = reading
        self._threads = Threads(most=1)
        self._items: deque[tuple[Item, int]] = deque()
        # Kept while it runs: a wait that is given up loses no row.
        self._taking: asyncio.Future[list[tuple[Item, int]]] | None = None
        self._closed = False
        self._next_offset: int | None = None

    @property
    def next_offset(self) -> int | None:
        """One above the last row given: where to begin next time. None before the first row."""
        return self._next_offset

    @property
    def durable_offset(self) -> int:
        """The stream's durable offset, as the service last said: rows below it can be read."""
        return self._reading.durable_offset

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while not self._items:
            if self._closed:
                raise StopAsyncIteration
            if self._taking is None:
                self._taking = self._threads.start(self._reading.take)
            taking = self._taking
            taken = await asyncio.shield(taking)
            if self._taking is taking:
                self._taking = None
                self._items.extend(taken)
            if not taken:
                await self.close()
        item, self._next_offset = self._items.popleft()
        return item

    async def close(self) -> None:
        """End the call and the thread. Idempotent."""
        self._closed = True
        self._items.clear()
        self._reading.close()
        self._threads.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
