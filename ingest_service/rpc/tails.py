"""Waiting for rows that are still to come, for any number of readers: one thread a log, and none while nobody waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

from ingest_service.errors import StorageError

PAUSE_S = 0.002
"""Least time between two wake-ups: what becomes durable within it is one read for its followers."""
_LOOK_S = 1.0


class FollowedLog(Protocol):
    """What is used of a log."""

    @property
    def durable_offset(self) -> int:
        """Everything strictly below it is on disk."""

    def wait_readable(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Waits until `ready` holds, which is asked whenever the durable offset moves; False at the timeout."""


class Tails:
    """Lets coroutines of one event loop wait for logs to grow. Use it from that loop.

    A waiting reader costs a future. Its log's thread waits as any reader does: the committer wakes it and goes on.
    """

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}
        self._stopped = False

    async def past(self, stream: str, log: FollowedLog, offset: int) -> None:
        """Wait until the log's durable offset is above `offset`.

        Raises:
            StorageError: the service stops.
        """
        while log.durable_offset <= offset:
            if self._stopped:
                raise StorageError(f"stream {stream!r}: the service is stopping; read on from offset {offset} later")
            watch = self._watches.get(stream)
            if watch is None:
                watch = self._watches[stream] = _Watch(stream, log, asyncio.get_running_loop())
            await watch.wait(offset)

    def stop(self) -> None:
        """Wake everybody who waits, to be told; the threads end by themselves."""
        self._stopped = True
        for watch in self._watches.values():
            watch.stop()


class _Watch:
    """Wakes those who wait for one log. `waiting` and `_thread` belong to the event loop, `_seen` to the thread."""

    def __init__(self, stream: str, log: FollowedLog, loop: asyncio.AbstractEventLoop) -> None:
        self._stream, self._log, self._loop = stream, log, loop
        self._waiting: set[asyncio.Future[None]] = set()
        self._stopping = threading.Event()
        self._running = False
        self._seen = 0

    async def wait(self, offset: int) -> None:
        """Until the next wake-up, unless the log is above `offset` already."""
        future = self._loop.create_future()
        self._waiting.add(future)
        try:
            if not self._running:
                self._running, self._seen = True, offset
                threading.Thread(target=self._run, name=f"tail-{self._stream}", daemon=True).start()
            # In this order: what became durable before this look is seen, what comes after it wakes this future.
            if self._log.durable_offset <= offset:
                await future
        finally:
            self._waiting.discard(future)

    def stop(self) -> None:
        """Let the thread end, and wake everybody."""
        self._stopping.set()
        self._wake()

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._log.wait_readable(lambda: self._log.durable_offset > self._seen, _LOOK_S):
                self._seen = self._log.durable_offset
                self._call(self._wake)
            elif not self._waiting:
                self._call(self._rest)
                return
            self._stopping.wait(PAUSE_S)

    def _call(self, what: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._stopping.set()

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    def _rest(self) -> None:
        """The thread has ended; whoever came meanwhile looks again, and starts another."""
        self._running = False
        self._wake()
