"""Waiting for live views to commit, for any number of callers: no thread, and one wake-up for many commits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from ingest_service.errors import StorageError

PAUSE_S = 0.002
"""Least time between two wake-ups: what is committed within it is one question for its watchers."""

Listen = Callable[[Callable[[], None]], Callable[[], None]]
"""Registers what is to be called after commits, from any thread; gives how to end that."""


class Commits:
    """Lets coroutines of one event loop wait for commits. Use it from that loop.

    A waiting caller costs a future. It asks for `now` first, then looks at the views, then waits for what is `after`: a
    commit that it did not see is told of later. All fields belong to the loop; `_told` alone is set by other threads.
    """

    def __init__(self, listen: Listen) -> None:
        self._listen = listen
        self._count = 0
        self._end: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._woken_at_s = 0.0
        self._told = False
        self._stopped = False

    def now(self) -> int:
        """How many wake-ups there were so far; from now on commits are listened for."""
        if self._end is None and not self._stopped:
            self._loop = asyncio.get_running_loop()
            self._end = self._listen(self._tell)
        return self._count

    async def after(self, count: int) -> None:
        """Wait until there were more wake-ups than `count`.

        Raises:
            StorageError: the service stops.
        """
        while self._count <= count:
            if self._stopped:
                raise StorageError("the service is stopping; ask again later, watchers from their last `resume` on")
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)

    def stop(self) -> None:
        """Listen no more, and wake everybody who waits, to be told."""
        self._stopped = True
        if self._end is not None:
            self._end()
            self._end = None
        self._wake_all()

    def _tell(self) -> None:
        """After a commit, in the committer's thread. Whoever finds `_told` set comes before that wake-up."""
        loop = self._loop
        if not self._told and loop is not None:
            self._told = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._wake_soon)

    def _wake_soon(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = self._woken_at_s + PAUSE_S - loop.time()
        if pause_s > 0:
            loop.call_later(pause_s, self._wake)
        else:
            self._wake()

    def _wake(self) -> None:
        # In this order: a commit that is told of from here on makes a wake-up of its own.
        self._told = False
        self._count += 1
        self._woken_at_s = asyncio.get_running_loop().time()
        self._wake_all()

    def _wake_all(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
