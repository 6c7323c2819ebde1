"""Waiting for live views to commit, for any number of callers: no thread, and one wake-up for many commits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Protocol

from ingest_service.errors import StorageError

PAUSE_S = 0.002
"""Least time between two wake-ups: what is committed within it is one answer for a watcher."""
AT_ONCE, PAUSE_PER_CALLER_S = 16, 0.0005
"""How many are woken at once, and how much time each of them is given: however many watch, some is left for appends."""

Place = tuple[str, int] | None
"""Which rows of a view readers see: when made anew, and the offset that they cover; None: there are none."""


class Committing(Protocol):
    """What is used of the live views."""

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back after commits, from any thread. Gives what ends it."""

    def place(self, view: str) -> Place:
        """Where a view is; asks no store."""


class Commits:
    """Lets coroutines of one event loop wait for commits. Use it from that loop.

    A waiting caller costs a future. It asks where a view is first (`place`, `count`), then looks at its rows, and then
    waits for what comes after: a commit that it did not see is told of later. All fields belong to the loop; `_told`
    alone is set by other threads too.
    """

    def __init__(self, views: Committing) -> None:
        self._views = views
        self._count = 0
        self._end: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: dict[str, dict[asyncio.Future[None], Place]] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._next_at_s = 0.0
        self._told = False
        self._stopped = False

    def place(self, view: str) -> Place:
        """Where a view is; from now on its commits are listened for."""
        self._listen()
        return self._views.place(view)

    def count(self) -> int:
        """How many wake-ups there were; from now on commits are listened for."""
        self._listen()
        return self._count

    async def beyond(self, view: str, place: Place) -> None:
        """Wait until the view is elsewhere than at `place`.

        Raises:
            StorageError: the service stops.
        """
        waiting = self._watching.setdefault(view, {})
        while self._views.place(view) == place:
            self._check()
            future = asyncio.get_running_loop().create_future()
            waiting[future] = place
            try:
                await future
            finally:
                del waiting[future]

    async def after(self, count: int) -> None:
        """Wait until there were more wake-ups than `count`, for commits of any view. Raises as `beyond`."""
        while self._count <= count:
            self._check()
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)

    def stop(self) -> None:
        """Listen no more, and wake everybody who waits, to be told. Idempotent."""
        self._stopped = True
        if self._end is not None:
            self._end()
            self._end = None
        _wake_all(self._waiting)
        for waiting in self._watching.values():
            _wake_all(waiting)

    def _check(self) -> None:
        if self._stopped:
            raise StorageError("the service is stopping; ask again later, watchers from their last `resume` on")

    def _listen(self) -> None:
        if self._end is None and not self._stopped:
            self._loop = asyncio.get_running_loop()
            self._end = self._views.listen(self._tell)

    def _tell(self) -> None:
        """After a commit, in the committer's thread. Whoever finds `_told` set comes before that wake-up."""
        loop = self._loop
        if not self._told and loop is not None:
            self._told = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._wake_soon)

    def _wake_soon(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._next_at_s:
            loop.call_at(self._next_at_s, self._wake)
        else:
            self._wake()

    def _wake(self) -> None:
        # In this order: a commit that is told of from here on makes a wake-up of its own.
        self._told = False
        self._count += 1
        woken = list(self._waiting)
        for view, waiting in list(self._watching.items()):
            if waiting:
                place = self._views.place(view)
                woken += [future for future, at in waiting.items() if at != place]
            else:
                del self._watching[view]
        loop = asyncio.get_running_loop()
        for start in range(0, len(woken), AT_ONCE):
            loop.call_later(PAUSE_PER_CALLER_S * start, _wake_all, woken[start : start + AT_ONCE])
        self._next_at_s = loop.time() + max(PAUSE_S, PAUSE_PER_CALLER_S * len(woken))


def _wake_all(futures: Iterable[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
