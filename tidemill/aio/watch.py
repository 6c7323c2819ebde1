"""Watching a live view in asyncio."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from tidemill.aio.threads import Threads
from tidemill.client.watch import ViewChange, Watch


class AsyncWatch:
    """The changes of a live view, with `async for`; made by `AsyncView.watch`.

    As `Watch`: each change at least once, a lost connection is made again; `asyncio.wait_for(anext(watch), …)` that
    runs out loses none. It has a thread of its own, which waits. Leave it early with `async with`, or await its
    `close`. For one task at a time.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._threads = Threads(most=1)
        # Kept while it runs: a wait that is given up loses no change.
        self._taking: asyncio.Future[ViewChange | None] | None = None
        self._resume = watch.resume
        self._closed = False

    @property
    def resume(self) -> str:
        """Where a later watch goes on behind the last complete change that was given."""
        return self._resume

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ViewChange:
        if self._closed:
            raise StopAsyncIteration
        if self._taking is None:
            self._taking = self._threads.start(self._watch.take)
        taking = self._taking
        change = await asyncio.shield(taking)
        if self._taking is taking:
            self._taking = None
        if change is None:
            await self.close()
            raise StopAsyncIteration
        self._resume = change.resume
        return change

    async def close(self) -> None:
        """End the call and the thread. Idempotent."""
        self._closed = True
        self._watch.close()
        self._threads.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
