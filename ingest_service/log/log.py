"""The log of one stream: appends are grouped into frames, made durable, and only then acknowledged."""

from __future__ import annotations

import datetime as dt
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ingest_service.clock import Clock, SystemClock
from ingest_service.errors import BadRequest, IngestError, NotComplete, OffsetDropped, Overloaded, StorageError
from ingest_service.log import frame as frames
from ingest_service.log.counters import Counters
from ingest_service.log.dedup import DedupWindow
from ingest_service.log.files import Files, OsFiles
from ingest_service.log.frame import BatchCodec, Kind
from ingest_service.log.producers import Producers, ProducerState
from ingest_service.log.reader import LogReader
from ingest_service.log.records import (
    PARTITION,
    Append,
    AppendResult,
    Counts,
    LogSpec,
    QuarantinedRow,
    Rows,
    Seal,
    with_system_columns,
)
from ingest_service.log.recovery import check_fits, conform, recover
from ingest_service.log.segment import SegmentFile
from ingest_service.log.segments import SegmentInfo
from ingest_service.log.state import FrameRef, LogState, Staged, add_system_columns
from ingest_service.log.table import RowsTable, pack_seal
from ingest_service.log.tail import Tail
from ingest_service.log.watermark import Watermark
from ingest_service.log.writer import SegmentWriter

SEAL_DAYS_MAX = 3660
"""The longest range of dates that is sealed at once, in days."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Bounds of a log.

    segment_bytes: a segment is closed once it is longer. frame_rows_max: no further append joins a frame that has
    more rows. queue_bytes_max, queue_appends_max: appends that wait to be committed; beyond them `append` raises
    Overloaded. producers_max, producer_expiry_s: producers remembered. dedup_ids_max, dedup_age_s: the dedup window.
    idle_after_s: without events for so long, the watermark follows the wall clock. tail_bytes: newest rows kept in
    memory for readers.
    """

    segment_bytes: int = 256 << 20
    frame_rows_max: int = 65_536
    queue_bytes_max: int = 128 << 20
    queue_appends_max: int = 20_000
    producers_max: int = 100_000
    producer_expiry_s: int = 7 * 86_400
    dedup_ids_max: int = 5_000_000
    dedup_age_s: int = 86_400
    idle_after_s: int = 60
    tail_bytes: int = 64 << 20


@dataclass(slots=True)
class _Waiting:
    append: Append
    future: Future[AppendResult]


@dataclass(slots=True)
class _Task:
    """Anything that has to stand in line with the appends: what was queued before it is durable, or was refused."""

    run: Callable[[], Any]
    future: Future[Any]


class Log:
    """The append log of one stream. Thread-safe; one thread of its own, the committer, writes.

    A commit, in this order: 1 write the frame; 2 sync it; 3 advance the durable offset; 4 acknowledge the appends in
    it. When 1 or 2 fails, producers and dedup window are rolled back and the appends get a StorageError.
    """

    def __init__(self, folder: Path, spec: LogSpec, *, clock: Clock, files: Files, settings: LogSettings) -> None:
        self.spec = spec
        self.schema = with_system_columns(spec.schema)
        self.tail = Tail(settings.tail_bytes)
        self._folder, self._clock, self._files, self._settings = folder, clock, files, settings
        dedup = DedupWindow(settings.dedup_ids_max, settings.dedup_age_s * 1_000_000) if spec.event_id else None
        self._state = LogState(
            Producers(settings.producers_max, settings.producer_expiry_s * 1_000_000),
            dedup,
            Watermark.of(spec, settings.idle_after_s * 1_000_000),
            Counters(settings.producers_max),
        )
        recovered = recover(files, folder, spec, self._state)
        self.segments = recovered.segments
        self._index = recovered.index
        self._codec = BatchCodec(spec.schema)
        self._writer = SegmentWriter(files, folder, spec, self.segments, settings.segment_bytes)
        self._durable_offset = self._state.next_offset
        self._lock = threading.Lock()
        self._queued = threading.Condition(self._lock)
        self._readable = threading.Condition(self._lock)
        self._queue: deque[_Waiting | _Task] = deque()
        self._queue_bytes = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"log-{spec.stream}", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        folder: Path,
        spec: LogSpec,
        *,
        clock: Clock | None = None,
        files: Files | None = None,
        settings: LogSettings | None = None,
    ) -> Log:
        """Open the log in `folder`, which is made when it is missing; what was never durable is cut.

        Raises:
            LogDamaged: rows below the durable offset can't be read.
            ContractError: the log's rows don't fit the contract any more.
            StorageError: the folder can't be read or made.
        """
        files = files or OsFiles()
        try:
            files.make_folder(folder)
            return cls(folder, spec, clock=clock or SystemClock(), files=files, settings=settings or LogSettings())
        except OSError as error:
            raise StorageError(f"the log in {folder} can't be opened: {error.strerror or error}") from error

    # What callers ask.

    def append(self, append: Append) -> Future[AppendResult]:
        """Queue an append; the future is done once its rows are durable, or could not be made so.

        Its exception is a ProducerError, or a StorageError when nothing of it is durable.

        Raises:
            Overloaded: too much is waiting already.
        """
        waiting = _Waiting(append, _uncancellable())
        size = append.rows.nbytes
        with self._lock:
            self._check_open()
            over_bytes = self._queue_bytes + size > self._settings.queue_bytes_max and self._queue
            if over_bytes or len(self._queue) >= self._settings.queue_appends_max:
                raise Overloaded(
                    f"stream {self.spec.stream!r}: {len(self._queue)} appends, {self._queue_bytes} bytes, wait to be "
                    "written; send again a little later"
                )
            self._queue_bytes += size
            self._queue.append(waiting)
            self._queued.notify()
        return waiting.future

    def seal(self, first: dt.date, last: dt.date, *, force: bool) -> Seal:
        """Seal the dates first … last (UTC, both included) behind everything that was queued before.

        Raises:
            BadRequest: not a range, or a longer one than SEAL_DAYS_MAX.
            NotComplete: the watermark has not passed the last date's end, and `force` is not set.
            StorageError: the seal is not durable.
        """
        if not 0 <= (last - first).days < SEAL_DAYS_MAX:
            raise BadRequest(f"expected a first and a last date, at most {SEAL_DAYS_MAX} days; came {first} and {last}")
        seal: Seal = self._in_line(lambda: self._commit_seal(first, last, force=force)).result()
        return seal

    def producer_state(self, producer_id: str) -> Future[ProducerState | None]:
        """What is known of a producer, behind everything that was queued before; None: never heard of, or forgotten."""
        return self._in_line(lambda: self._state.producers.known(producer_id))

    def apply_spec(self, spec: LogSpec) -> None:
        """Put a changed spec in force, behind everything that was queued before; the next row begins a segment.

        Rows written before are null in new columns. Readers opened before keep the columns they were opened with.

        Raises:
            ContractError: the log's rows do not fit the spec.
            StorageError: the log is being closed.
        """
        self._in_line(lambda: self._take_spec(spec)).result()

    def reader(self, from_offset: int) -> LogReader:
        """A reader of everything from `from_offset` on, with the seals at or above it."""
        return LogReader(self, from_offset)

    @property
    def durable_offset(self) -> int:
        """Everything strictly below it is on disk."""
        return self._durable_offset

    @property
    def start_offset(self) -> int:
        """The first offset that the log still keeps: retention dropped what is below; 0 until it did."""
        return self.segments[0].name.base_offset if self.segments else 0

    def offset_before_time(self, append_time_us: int) -> int:
        """An offset, at most some thousand rows early, from which on every row appended at that time or later stands.

        append_time_us: µs since 1970 UTC. `start_offset` where all that the log keeps came later.
        """
        with self._lock:
            offset = self._index.offset_before_time(append_time_us)
            return self.start_offset if offset is None else offset

    @property
    def watermark_us(self) -> int | None:
        """Event time below which the stream is believed complete (µs since 1970 UTC); None before the first event."""
        with self._lock:
            return self._state.watermark.at(self._clock.now_us())

    def counts(self) -> Counts:
        """What the log counted from its first frame on."""
        with self._lock:
            return self._state.counters.counts()

    def seals(self) -> list[Seal]:
        """Every seal, oldest first; of several for a date the last one holds."""
        with self._lock:
            return list(self._state.seals)

    def quarantined(self, limit: int) -> list[tuple[FrameRef, str, int, QuarantinedRow]]:
        """The newest quarantined rows, oldest of them first: frame, producer id, sequence, row."""
        with self._lock:
            refs = list(self._state.quarantine)
        found: list[tuple[FrameRef, str, int, QuarantinedRow]] = []
        for ref in reversed(refs):
            if len(found) >= limit:
                break
            info = self.segments.numbered(ref.segment)
            assert info is not None, "retention does not run yet"
            file = self.open_segment(info)
            try:
                table = RowsTable.unpack(file.frame_at(ref.position)[0].table)
            finally:
                file.close()
            rows = [
                (ref, entry.producer_id, entry.sequence, row) for entry in table.appends for row in entry.quarantined
            ]
            found = rows[-(limit - len(found)) :] + found
        return found

    def close(self) -> None:
        """Commit what is queued, and close. Idempotent."""
        with self._lock:
            self._closed = True
            self._queued.notify_all()
            self._readable.notify_all()
        self._thread.join()

    # What readers ask.

    def locate(self, offset: int) -> tuple[SegmentInfo | None, int]:
        """Segment and position (bytes) to begin to read at for `offset`; None while the log is empty.

        Raises:
            OffsetDropped: it lies below `start_offset`.
        """
        with self._lock:
            if offset < self.start_offset:
                raise OffsetDropped(self.spec.stream, offset, self.start_offset)
            place = self._index.before(offset)
            if place is None:
                return self.segments[0] if self.segments else None, 0
            return self.segments.numbered(place[0]), place[1]

    def check_kept(self, number: int) -> None:
        """See that everything behind the segment of that number is still in the log.

        Raises:
            OffsetDropped: a reader that leaves this segment now would miss something.
        """
        if number < self.segments.dropped:
            raise OffsetDropped(self.spec.stream, self.start_offset - 1, self.start_offset)

    def open_segment(self, info: SegmentInfo) -> SegmentFile:
        """The segment's file, to be closed by who asked.

        Raises:
            OffsetDropped: it was dropped meanwhile.
        """
        try:
            return SegmentFile(self._files, self._folder, info.name)
        except FileNotFoundError:
            if self.segments.numbered(info.name.number) is not None:
                raise
            raise OffsetDropped(self.spec.stream, info.name.base_offset, self.start_offset) from None

    def wait_readable(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `ready` holds, which is asked whenever the durable offset moves; False at the timeout."""
        with self._lock:
            return self._readable.wait_for(lambda: self._closed or ready(), timeout_s) and ready()

    # The committer.

    def _in_line(self, run: Callable[[], Any]) -> Future[Any]:
        """Let the committer run something between two frames."""
        task = _Task(run, _uncancellable())
        with self._lock:
            self._check_open()
            self._queue.append(task)
            self._queued.notify()
        return task.future

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(
                f"stream {self.spec.stream!r} is being closed: the service is stopping; send again later"
            )

    def _run(self) -> None:
        while (group := self._take()) is not None:
            try:
                if isinstance(group, _Task):
                    group.future.set_result(group.run())
                else:
                    self._commit(group)
            except Exception as error:  # noqa: BLE001 - the committer must outlive any append; whoever waits is told
                self._roll_back()
                _fail(group, error)
        self._writer.close()

    def _take(self) -> list[_Waiting] | _Task | None:
        """The next group of appends, or a task; None once closed and drained."""
        with self._lock:
            while not self._queue:
                if self._closed:
                    return None
                self._queued.wait()
            if isinstance(first := self._queue[0], _Task):
                self._queue.popleft()
                return first
            group: list[_Waiting] = []
            rows = 0
            while self._queue and isinstance(waiting := self._queue[0], _Waiting):
                rows += waiting.append.rows.num_rows
                if group and rows > self._settings.frame_rows_max:
                    break
                self._queue.popleft()
                self._queue_bytes -= waiting.append.rows.nbytes
                group.append(waiting)
            return group

    def _commit(self, group: list[_Waiting]) -> None:
        state, base = self._state, self._state.next_offset
        now_us = max(self._clock.now_us(), state.last_append_us)
        staged = Staged()
        answers: list[tuple[Future[AppendResult], AppendResult | IngestError]] = []
        for waiting in group:
            answers.append((waiting.future, self._stage(waiting.append, staged, base, now_us)))
        durable = base + staged.rows
        if staged.entries:
            table = staged.table()
            batch = staged.batch()
            body = self._codec.encode(batch) if batch is not None else b""
            frame = frames.encode(Kind.ROWS, base, staged.rows, now_us, table.pack(), body)
            if batch is not None:
                batch = add_system_columns(batch, self.schema, self.spec.event_time, base, now_us)
            info, position = self._write(frame, base, now_us)
            # From here on the frame is part of the log: nothing below may fail.
            if batch is not None:
                self.tail.put(info.name.number, position, Rows(batch, base, durable), len(frame))
            state.producers.commit()
            if state.dedup is not None:
                state.dedup.commit()
            with self._lock:
                self._index.add(base, info.name.number, position, now_us)
                state.apply_rows(FrameRef(info.name.number, position, base, staged.rows, now_us), table)
                self._durable_offset = durable
                self._readable.notify_all()
        for future, answer in answers:
            if isinstance(answer, IngestError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _stage(self, append: Append, staged: Staged, base: int, now_us: int) -> AppendResult | IngestError:
        """Take one append into the frame in the making; its response, should the frame become durable."""
        producers = self._state.producers
        if append.producer_id:
            try:
                replay = producers.replay_of(append)
            except IngestError as error:
                return error
            if replay is not None:
                return replay
        if append.rows.schema.names != self._codec.schema.names:
            # Validated under the contract that was in force before.
            append = replace(append, rows=conform(append.rows, self._codec.schema))
        entry = staged.add(append, self._state, self.spec.event_time, self.spec.event_id, now_us)
        result = entry.result(base, base + staged.rows, PARTITION)
        if append.producer_id:
            producers.take(append, result, now_us)
        return result

    def _commit_seal(self, first: dt.date, last: dt.date, *, force: bool) -> Seal:
        now_us = max(self._clock.now_us(), self._state.last_append_us)
        if not force:
            self._check_complete(last, now_us)
        seal = Seal(first, last, self._state.next_offset, now_us)
        frame = frames.encode(Kind.SEAL, seal.seal_offset, 0, now_us, pack_seal(seal), b"")
        info, position = self._write(frame, seal.seal_offset, now_us)
        with self._lock:
            self._index.add(seal.seal_offset, info.name.number, position, now_us)
            self._state.apply_seal(seal)
            self._readable.notify_all()
        return seal

    def _take_spec(self, spec: LogSpec) -> None:
        check_fits("the log", self.spec.schema, spec)
        assert (spec.event_time, spec.event_id) == (self.spec.event_time, self.spec.event_id), "dates and ids stay"
        self._writer.take_spec(spec)
        with self._lock:
            self.spec, self.schema = spec, with_system_columns(spec.schema)
            self._codec = BatchCodec(spec.schema)
            self._state.watermark.out_of_orderness_us = spec.out_of_orderness_s * 1_000_000

    def _check_complete(self, last: dt.date, now_us: int) -> None:
        end = dt.datetime.combine(last + dt.timedelta(days=1), dt.time(), dt.UTC)
        watermark_us = self._state.watermark.at(now_us)
        if watermark_us is None or watermark_us < int(end.timestamp() * 1_000_000):
            at = "no event yet" if watermark_us is None else _text(watermark_us)
            raise NotComplete(
                f"stream {self.spec.stream!r}: {last} is not complete: expected the watermark to have passed its end, "
                f"it is at {at}. Wait, or seal with force: rows of the date that come later are then late"
            )

    def _write(self, frame: bytes, base: int, now_us: int) -> tuple[SegmentInfo, int]:
        try:
            return self._writer.write(frame, base, now_us)
        except OSError as error:
            raise StorageError(
                f"stream {self.spec.stream!r}: the log can't be written: {error.strerror or error}. Nothing of this "
                "batch is kept; it may be sent again once the cause is gone"
            ) from error

    def _roll_back(self) -> None:
        self._state.producers.roll_back()
        if self._state.dedup is not None:
            self._state.dedup.roll_back()


def _uncancellable() -> Future[Any]:
    """A future that whoever waits for it cannot cancel: a caller that goes away must not disturb the commit."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def _fail(group: list[_Waiting] | _Task, error: Exception) -> None:
    futures = [waiting.future for waiting in group] if isinstance(group, list) else [group.future]
    for future in futures:
        if not future.done():
            future.set_exception(error)


def _text(time_us: int) -> str:
    return dt.datetime.fromtimestamp(time_us / 1_000_000, dt.UTC).isoformat(sep=" ", timespec="seconds")
