"""Acknowledgements: futures of what became of the events sent.

Futures are light: a row's refers to its batch and says which row of it; what can be waited for belongs to the batch.
"""

from __future__ import annotations

import bisect
import enum
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tidemill.errors import RowQuarantined, TidemillError, WaitTimeout
from tidemill.v1 import append_pb2

_logger = logging.getLogger("tidemill")


class Verdict(enum.Enum):
    """What became of a row."""

    APPENDED = 0
    QUARANTINED = 1
    DUPLICATE = 2
    LATE = 3


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was quarantined: what it broke, and the event as it was sent.

    index: the row's place in its batch, or in its table. event: the serialized message; None for a row of a table.
    """

    stream: str
    index: int
    rule: str
    field: str
    message: str
    event: bytes | None


@dataclass(frozen=True, slots=True)
class RowVerdict:
    """A row that was not plainly appended. index: its place among the rows sent together."""

    index: int
    verdict: Verdict
    rule: str
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Acked:
    """A row that is durable.

    offset: its number in the partition; None for a duplicate, which is not appended again.
    after_offset: a view that covers this offset has seen the row. replayed: the service had taken it before.
    """

    stream: str
    partition: int
    offset: int | None
    verdict: Verdict
    replayed: bool
    after_offset: int


@dataclass(frozen=True, slots=True)
class TableAcked:
    """Rows sent together that are all durable; counts are rows, and `late` ones are among the appended.

    after_offset: a view that covers this offset has seen them all. replayed: slices that were taken before.
    """

    stream: str
    rows: int
    appended: int
    duplicate: int
    quarantined: int
    late: int
    after_offset: int
    replayed: int
    verdicts: tuple[RowVerdict, ...]
    """Every row that was not plainly appended."""


class Batch:
    """Rows that travel together, and what became of them.

    Invariant: `messages` and `arrow` are there until the outcome is, and at most one of them; the outcome is set once.
    The producer's lock guards what it changes before the outcome; the rest is safe from any thread.
    """

    __slots__ = (
        "_callbacks",
        "_done",
        "_not_appended",
        "_verdicts",
        "arrow",
        "error",
        "first_index",
        "in_doubt",
        "messages",
        "observed",
        "opened_at_s",
        "outbox_id",
        "producer_id",
        "response",
        "rows",
        "rows_sent",
        "sequence",
        "size_bytes",
        "stream",
    )

    def __init__(self, stream: str, arrow: bytes | None = None, rows: int = 0) -> None:
        self.stream = stream
        self.messages: list[bytes] = []
        self.arrow = arrow
        self.rows = rows
        self.size_bytes = len(arrow) if arrow else 0
        self.first_index = 0
        self.producer_id = ""
        self.sequence = self.rows_sent = 0
        # The service may have taken it: it left on a call that broke before it was answered.
        self.in_doubt = False
        # Its number in the outbox; 0 while it is not there.
        self.outbox_id = 0
        self.opened_at_s = 0.0
        self.response: append_pb2.AppendResponse | None = None
        self.error: TidemillError | None = None
        self.observed = False
        self._done = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._verdicts: dict[int, append_pb2.RowVerdict] = {}
        self._not_appended: list[int] = []

    def done(self) -> bool:
        """Whether it is known what became of the rows."""
        return self._done.is_set()

    def wait_done(self, timeout: float | None) -> bool:
        """Wait until it is known what became of the rows; False when `timeout` seconds are over first."""
        return self._done.wait(timeout)

    def finish(self, response: append_pb2.AppendResponse | None, error: TidemillError | None = None) -> None:
        """Set the outcome, wake who waits for it and call who asked to be called."""
        if response is not None:
            self._verdicts = {verdict.index: verdict for verdict in response.verdicts}
            self._not_appended = [
                index for index, verdict in self._verdicts.items() if verdict.verdict != append_pb2.VERDICT_LATE
            ]
        self.response, self.error = response, error
        self.messages, self.arrow = [], None
        self._done.set()
        while self._callbacks:
            _call(self._callbacks.pop(0), self.stream)

    def wait(self, timeout: float | None) -> append_pb2.AppendResponse:
        """The service's answer; raises the batch's error, or WaitTimeout after `timeout` seconds."""
        if not self.wait_done(timeout):
            raise WaitTimeout(
                f"the service has not acknowledged the rows within {timeout} s; they are still being sent: "
                "wait longer, or see retry_for_s in ProducerOptions"
            )
        self.observed = True
        if self.error is not None:
            raise self.error
        assert self.response is not None
        return self.response

    def call_when_done(self, callback: Callable[[], None], *, observed: bool = True) -> None:
        """Call `callback` once, when the outcome is known: at once if it is.

        observed: the callback sees a failure, so that `flush` need not raise it.
        """
        self.observed = self.observed or observed
        self._callbacks.append(callback)
        # Whoever takes the callback off the list calls it: this thread, or the one that finishes the batch.
        if self._done.is_set():
            try:
                self._callbacks.remove(callback)
            except ValueError:
                return
            _call(callback, self.stream)

    def acked(self, index: int, response: append_pb2.AppendResponse) -> Acked:
        """What became of row `index`; raises RowQuarantined."""
        verdict = self._verdicts.get(index)
        if verdict is not None and verdict.verdict == append_pb2.VERDICT_QUARANTINED:
            raise RowQuarantined(self.stream, verdict.rule, verdict.field, verdict.message, index)
        kind = Verdict.APPENDED if verdict is None else Verdict(verdict.verdict)
        offset = None
        if kind is not Verdict.DUPLICATE:
            offset = response.base_offset + index - bisect.bisect_left(self._not_appended, index)
        after = response.durable_offset if offset is None else offset + 1
        return Acked(self.stream, response.partition, offset, kind, response.replayed, after)

    def row_verdicts(self) -> Iterator[RowVerdict]:
        """Every row that was not plainly appended, by its place in what was sent."""
        for verdict in self._verdicts.values():
            yield RowVerdict(
                self.first_index + verdict.index,
                Verdict(verdict.verdict),
                verdict.rule,
                verdict.field,
                verdict.message,
            )


class Ack:
    """The future of one event."""

    __slots__ = ("_batch", "_index")

    def __init__(self, batch: Batch, index: int) -> None:
        self._batch = batch
        self._index = index

    def done(self) -> bool:
        """Whether it is known what became of the event."""
        return self._batch.done()

    def result(self, timeout: float | None = None) -> Acked:
        """Wait until the event is durable.

        Raises RowQuarantined when it breaks its contract, a ServiceError when it could not be delivered, and
        WaitTimeout after `timeout` seconds. A duplicate or late event is no error: see `verdict`.
        """
        return self._batch.acked(self._index, self._batch.wait(timeout))

    def add_done_callback(self, callback: Callable[[Ack], None]) -> None:
        """Call `callback(ack)` when it is known what became of the event; in the producer's thread: be quick."""
        self._batch.call_when_done(lambda: callback(self))


class TableAck:
    """The future of rows sent together: a table, or a list of prepared events."""

    __slots__ = ("_batches", "_stream")

    def __init__(self, stream: str, batches: list[Batch]) -> None:
        self._stream = stream
        self._batches = batches

    def done(self) -> bool:
        """Whether it is known what became of all rows."""
        return all(batch.done() for batch in self._batches)

    def result(self, timeout: float | None = None) -> TableAcked:
        """Wait until all rows are durable; a quarantined row is no error here: it is among the `verdicts`.

        Raises the first slice's ServiceError when one could not be delivered, and WaitTimeout when a slice takes
        longer than `timeout` seconds.
        """
        verdicts: list[RowVerdict] = []
        appended = after = replayed = rows = 0
        for batch in self._batches:
            response = batch.wait(timeout)
            rows += batch.rows
            appended += response.rows_appended
            replayed += response.replayed
            after = max(after, response.durable_offset if not response.rows_appended else _end_of(response))
            verdicts.extend(batch.row_verdicts())
        kinds = [verdict.verdict for verdict in verdicts]
        return TableAcked(
            stream=self._stream,
            rows=rows,
            appended=appended,
            duplicate=kinds.count(Verdict.DUPLICATE),
            quarantined=kinds.count(Verdict.QUARANTINED),
            late=kinds.count(Verdict.LATE),
            after_offset=after,
            replayed=replayed,
            verdicts=tuple(verdicts),
        )


def _call(callback: Callable[[], None], stream: str) -> None:
    """Call what the user gave: its failure must not stop the rows that follow."""
    try:
        callback()
    except Exception:
        _logger.exception("stream %r: a callback of an ack failed", stream)


def _end_of(response: append_pb2.AppendResponse) -> int:
    return response.base_offset + response.rows_appended
