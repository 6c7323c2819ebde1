"""What waits to be committed: appends and, in line with them, whatever else has to happen between two frames."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ingest_service.errors import IngestError, Overloaded, StorageError
from ingest_service.log.producers import Producers
from ingest_service.log.records import Append, AppendResult
from ingest_service.log.settings import LogSettings


def uncancellable() -> Future[Any]:
    """A future that whoever waits for it cannot cancel: a caller that goes away must not disturb the commit."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


@dataclass(slots=True)
class Waiting:
    """An append, its size, and the future that gets its result."""

    append: Append
    size_bytes: int
    future: Future[AppendResult]

    @classmethod
    def of(cls, append: Append) -> Waiting:
        """The append, with a future of its own."""
        return cls(append, append.size_bytes or append.rows.nbytes, uncancellable())


@dataclass(slots=True)
class Task:
    """Anything that has to stand in line with the appends: what was queued before it is durable, or was refused."""

    run: Callable[[], Any]
    future: Future[Any]


class CommitQueue:
    """Appends and tasks in the order they came, bounded in appends and bytes. Thread-safe; one thread takes."""

    def __init__(self, stream: str, settings: LogSettings) -> None:
        self._stream = stream
        self._settings = settings
        self._changed = threading.Condition()
        self._queue: deque[Waiting | Task] = deque()
        self._bytes = 0
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is taken in."""
        return self._closed

    def load(self) -> tuple[int, int]:
        """How many appends and tasks wait, and the bytes of the appends."""
        return len(self._queue), self._bytes

    def add(self, append: Append) -> Future[AppendResult]:
        """Queue an append.

        Raises:
            Overloaded: too much is waiting already.
            StorageError: the log is being closed.
        """
        waiting = Waiting.of(append)
        settings = self._settings
        with self._changed:
            self._check_open()
            over_bytes = self._bytes + waiting.size_bytes > settings.queue_bytes_max and self._queue
            if over_bytes or len(self._queue) >= settings.queue_appends_max:
                raise Overloaded(
                    f"stream {self._stream!r}: {len(self._queue)} appends, {self._bytes} bytes, wait to be written; "
                    "send again a little later"
                )
            self._bytes += waiting.size_bytes
            self._queue.append(waiting)
            self._changed.notify()
        return waiting.future

    def in_line(self, run: Callable[[], Any]) -> Future[Any]:
        """Let the committer run something between two frames.

        Raises:
            StorageError: the log is being closed.
        """
        task = Task(run, uncancellable())
        with self._changed:
            self._check_open()
            self._queue.append(task)
            self._changed.notify()
        return task.future

    def take(self) -> list[Waiting] | Task | None:
        """The next appends for one frame, or a task; waits for them. None once closed and empty."""
        with self._changed:
            while not self._queue:
                if self._closed:
                    return None
                self._changed.wait()
            if isinstance(first := self._queue[0], Task):
                self._queue.popleft()
                return first
            group: list[Waiting] = []
            rows = 0
            while self._queue and isinstance(waiting := self._queue[0], Waiting):
                rows += waiting.append.rows.num_rows
                if group and rows > self._settings.frame_rows_max:
                    break
                self._queue.popleft()
                self._bytes -= waiting.size_bytes
                group.append(waiting)
            return group

    def close(self) -> None:
        """Take nothing more in; what waits is still given out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(f"stream {self._stream!r} is being closed: the service is stopping; send again later")


def without_resends(group: list[Waiting]) -> Iterator[list[Waiting]]:
    """The group in parts, in its order; none holds one producer's sequence twice."""
    part: list[Waiting] = []
    known: set[tuple[str, int]] = set()
    for waiting in group:
        key = waiting.append.producer_id, waiting.append.sequence
        if key[0] and key in known:
            yield part
            part, known = [], set()
        part.append(waiting)
        known.add(key)
    yield part


def answer_known(group: list[Waiting], producers: Producers) -> list[Waiting]:
    """Answer what needs no frame: batches taken before, and sequences that can't be taken. What is left is new."""
    fresh: list[Waiting] = []
    ahead: Counter[str] = Counter()
    for waiting in group:
        producer_id = waiting.append.producer_id
        if producer_id:
            try:
                replay = producers.replay_of(waiting.append, ahead[producer_id])
            except IngestError as error:
                waiting.future.set_exception(error)
                continue
            if replay is not None:
                waiting.future.set_result(replay)
                continue
            ahead[producer_id] += 1
        fresh.append(waiting)
    return fresh


def fail(group: list[Waiting] | Task, error: Exception) -> None:
    """Tell everyone in the group who has no answer yet."""
    futures = [waiting.future for waiting in group] if isinstance(group, list) else [group.future]
    for future in futures:
        if not future.done():
            future.set_exception(error)
