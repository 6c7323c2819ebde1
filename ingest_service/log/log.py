"""The log of one stream: appends are grouped into frames, made durable, and only then acknowledged."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from ingest_service.clock import Clock, SystemClock
from ingest_service.errors import BadRequest, OffsetDropped, StorageError
from ingest_service.log import frame as frames
from ingest_service.log.commit_queue import CommitQueue, Task, Waiting, answer_known, fail, without_resends
from ingest_service.log.counters import Counters
from ingest_service.log.dedup import DedupWindow
from ingest_service.log.files import Files, OsFiles
from ingest_service.log.frame import BatchCodec, Kind
from ingest_service.log.load import Load
from ingest_service.log.producers import Producers, ProducerState
from ingest_service.log.quarantine import Quarantine
from ingest_service.log.quarantine_index import QuarantineIndex
from ingest_service.log.reader import LogReader
from ingest_service.log.records import (
    PARTITION,
    Append,
    AppendResult,
    Counts,
    LogSpec,
    Replayed,
    Rows,
    Seal,
    with_system_columns,
)
from ingest_service.log.recovery import check_fits, conform, dedup_place, recover
from ingest_service.log.sealing import check_complete, check_range
from ingest_service.log.segment import SegmentFile
from ingest_service.log.segments import SegmentInfo
from ingest_service.log.settings import LogSettings
from ingest_service.log.snapshot import Place, Snapshot, write_snapshot
from ingest_service.log.staging import stage
from ingest_service.log.state import FrameRef, LogState, add_system_columns
from ingest_service.log.table import pack_seal
from ingest_service.log.tail import Tail
from ingest_service.log.timings import Timings
from ingest_service.log.watermark import Watermark
from ingest_service.log.writer import SegmentWriter


class Log:
    """The append log of one stream. Thread-safe; one thread of its own, the committer, writes.

    A commit, in this order: 1 write the frame; 2 sync it; 3 advance the durable offset; 4 acknowledge the appends in
    it. When 1 or 2 fails, producers and dedup window are rolled back and the appends get a StorageError.
    """

    def __init__(self, folder: Path, spec: LogSpec, *, clock: Clock, files: Files, settings: LogSettings) -> None:
        self.spec = spec
        self.schema = with_system_columns(spec.schema)
        self.tail = Tail(settings.tail_bytes)
        self._folder, self._clock, self._files = folder, clock, files
        dedup = DedupWindow(settings.dedup_ids_max, settings.dedup_age_s * 1_000_000) if spec.event_id else None
        self._state = LogState(
            Producers(settings.producers_max, settings.producer_expiry_s * 1_000_000),
            dedup,
            Watermark.of(spec, settings.idle_after_s * 1_000_000),
            Counters(settings.producers_max),
            quarantine=QuarantineIndex(settings.quarantine_rows_max),
        )
        recovered = recover(files, folder, spec, self._state)
        self.segments = recovered.segments
        self._index = recovered.index
        self._snapshot_segment = recovered.place.segment
        self._codec = BatchCodec(spec.schema)
        self._writer = SegmentWriter(files, folder, spec, self.segments, settings.segment_bytes)
        self._durable_offset = self._state.next_offset
        self._lock = threading.Lock()
        self._readable = threading.Condition(self._lock)
        self.quarantine = Quarantine(files, folder, self._state.quarantine, self._lock, self.segments.numbered)
        self.quarantine.forget_dropped(self.start_segment)
        self._queue = CommitQueue(spec.stream, settings)
        self._commit_times = Timings()
        self._write_error = ""
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
            StorageError: the log is being closed.
        """
        return self._queue.add(append)

    def seal(self, first: dt.date, last: dt.date, *, force: bool) -> Seal:
        """Seal the dates first … last (UTC, both included) behind everything that was queued before.

        Raises:
            BadRequest: not a range, or a longer one than SEAL_DAYS_MAX.
            NotComplete: the watermark has not passed the last date's end, and `force` is not set.
            StorageError: the seal is not durable.
        """
        check_range(first, last)
        seal: Seal = self._queue.in_line(lambda: self._commit_seal(first, last, force=force)).result()
        return seal

    def producer_state(self, producer_id: str) -> Future[ProducerState | None]:
        """What is known of a producer, behind everything that was queued before; None: never heard of, or forgotten."""
        return self._queue.in_line(lambda: self._state.producers.known(producer_id))

    def apply_spec(self, spec: LogSpec) -> None:
        """Put a changed spec in force, behind everything that was queued before; the next row begins a segment.

        Rows written before are null in new columns. Readers opened before keep the columns they were opened with.

        Raises:
            ContractError: the log's rows do not fit the spec.
            StorageError: the log is being closed.
        """
        self._queue.in_line(lambda: self._take_spec(spec)).result()

    def reader(self, from_offset: int, columns: Sequence[str] | None = None) -> LogReader:
        """A reader of everything from `from_offset` on, with the seals at or above it; `columns`: of these alone."""
        return LogReader(self, from_offset, columns)

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

    def rates(self) -> tuple[float, ...]:
        """Appended rows a second, averages over the last 10 s, 1 minute and 15 minutes."""
        with self._lock:
            return self._state.rates.per_second(self._clock.now_us())

    def replay(self, rows: pa.RecordBatch, replays: tuple[Replayed, ...]) -> AppendResult:
        """Append rows out of quarantine, each once, behind everything that was queued before; waits until it is done.

        rows: as for an append, one for each bit in `replays`, in the order of the frames and of the rows in them. A row
        whose event id was appended before is a duplicate, and counts as replayed too.

        Raises:
            BadRequest: one of the rows was replayed before, or is no longer kept; nothing is appended.
            StorageError: nothing of it is durable.
        """
        result: AppendResult = self._queue.in_line(lambda: self._commit_replay(rows, replays)).result()
        return result

    def duplicates(self, rows: pa.RecordBatch) -> int:
        """How many of the rows would be duplicates, were they appended behind everything that was queued before."""
        count: int = self._queue.in_line(lambda: self._count_duplicates(rows)).result()
        return count

    def load(self) -> Load:
        """What the log holds in memory and on disk now, and how long its commits took."""
        segments = list(self.segments)
        queue_appends, queue_bytes = self._queue.load()
        with self._lock:
            state = self._state
            return Load(
                committing=self._thread.is_alive() and not self._queue.is_closed,
                write_error=self._write_error,
                queue_appends=queue_appends,
                queue_bytes=queue_bytes,
                segments=len(segments),
                segment_bytes=sum(info.valid_end for info in segments),
                producers=len(state.producers),
                dedup_ids=state.dedup.ids if state.dedup is not None else 0,
                dedup_bytes=state.dedup.size_bytes if state.dedup is not None else 0,
                commit_times=self._commit_times.distribution(),
                sync_times=self._writer.sync_times.distribution(),
            )

    # What retention asks.

    @property
    def start_segment(self) -> int:
        """The number of the first segment that the log still keeps; 0 while it has none."""
        return self.segments[0].name.number if self.segments else 0

    def snapshot(self) -> Place:
        """Write a snapshot behind everything that was queued before; where it stands.

        Raises:
            StorageError: it is not durable.
        """
        place: Place = self._queue.in_line(self._write_snapshot).result()
        return place

    def dedup_segment(self) -> int:
        """The number of the first segment that may hold event ids of the dedup window."""
        with self._lock:
            return dedup_place(self._state, self._index).segment

    def drop_before(self, segment: int) -> list[SegmentInfo]:
        """Let go of the segments below that number; their files are the caller's to remove."""
        gone: list[SegmentInfo] = self._queue.in_line(lambda: self._drop_before(segment)).result()
        return gone

    def expire_quarantine(self, before_us: int) -> None:
        """Forget the rows quarantined before that time (µs since 1970 UTC); raises OSError."""
        self._queue.in_line(lambda: self.quarantine.expire(before_us)).result()

    def close(self) -> None:
        """Commit what is queued, and close. Idempotent."""
        self._queue.close()
        with self._lock:
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
            return self._readable.wait_for(lambda: self._queue.is_closed or ready(), timeout_s) and ready()

    # The committer.

    def _run(self) -> None:
        while (group := self._queue.take()) is not None:
            try:
                if isinstance(group, Task):
                    group.future.set_result(group.run())
                else:
                    begun_s = time.perf_counter()
                    self._commit(group)
                    self._commit_times.add(time.perf_counter() - begun_s)
                    self._snapshot_when_due()
            except Exception as error:  # noqa: BLE001 - the committer must outlive any append; whoever waits is told
                self._roll_back()
                fail(group, error)
        self._writer.close()

    def _commit(self, group: list[Waiting]) -> None:
        """Make a group durable: in one frame, unless it holds a batch and its resend, which gets the first's answer."""
        for part in without_resends(group):
            self._commit_frame(part)

    def _commit_frame(self, group: list[Waiting]) -> None:
        state, base = self._state, self._state.next_offset
        now_us = max(self._clock.now_us(), state.last_append_us)
        fresh = answer_known(group, state.producers)
        if not fresh:
            return
        staged = stage(
            [self._conformed(waiting.append) for waiting in fresh],
            state.dedup, state.sealed_days, self.spec.event_time, self.spec.event_id, now_us,
        )  # fmt: skip
        durable = base + staged.rows
        results = [entry.result(base, durable, PARTITION) for entry in staged.table.appends]
        for waiting, result in zip(fresh, results, strict=True):
            if waiting.append.producer_id:
                state.producers.take(waiting.append, result, now_us)
        batch = staged.batch
        body = self._codec.encode(batch) if batch is not None else b""
        frame = frames.encode(Kind.ROWS, base, staged.rows, now_us, staged.table.pack(), body)
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
            state.apply_rows(FrameRef(info.name.number, position, base, staged.rows, now_us), staged.table)
            self._durable_offset = durable
            self._readable.notify_all()
        for waiting, result in zip(fresh, results, strict=True):
            waiting.future.set_result(result)

    def _conformed(self, append: Append) -> Append:
        """The append, with the columns of the present contract if it was validated under the one before."""
        if append.rows.schema.names == self._codec.schema.names:
            return append
        return replace(append, rows=conform(append.rows, self._codec.schema))

    def _commit_seal(self, first: dt.date, last: dt.date, *, force: bool) -> Seal:
        now_us = max(self._clock.now_us(), self._state.last_append_us)
        if not force:
            check_complete(self.spec.stream, last, self._state.watermark.at(now_us))
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

    def _commit_replay(self, rows: pa.RecordBatch, replays: tuple[Replayed, ...]) -> AppendResult:
        for each in replays:
            frame = self._state.quarantine.frame(each.segment, each.position)
            if frame is None or frame.replayed & each.rows:
                raise BadRequest(
                    "rows were replayed, or expired, since they were asked for; nothing is appended. Ask again"
                )
        waiting = Waiting.of(Append(rows, rows.num_rows, replays=replays))
        self._commit([waiting])
        return waiting.future.result()

    def _count_duplicates(self, rows: pa.RecordBatch) -> int:
        dedup, event_id = self._state.dedup, self.spec.event_id
        if dedup is None or event_id is None:
            return 0
        duplicates = dedup.take(rows.column(event_id), self._clock.now_us())
        dedup.roll_back()
        return 0 if duplicates is None else len(duplicates)

    def _snapshot_when_due(self) -> None:
        """Write a snapshot once a segment has begun since the last one. Best effort: nothing depends on it."""
        if len(self.segments) > 1 and self.segments[-1].name.number > self._snapshot_segment:
            self._snapshot_segment = self.segments[-1].name.number
            with contextlib.suppress(StorageError):
                self._write_snapshot()

    def _write_snapshot(self) -> Place:
        active = self.segments[-1]
        place = Place(active.name.number, active.valid_end)
        snapshot = Snapshot(place, self._state.pack(), self._index.pack())
        try:
            write_snapshot(self._files, self._folder, self.spec.stream, snapshot)
        except OSError as error:
            raise StorageError(f"the snapshot {place} can't be written: {error.strerror or error}") from error
        self._snapshot_segment = place.segment
        return place

    def _drop_before(self, segment: int) -> list[SegmentInfo]:
        gone = self.segments.drop_before(segment)
        with self._lock:
            self._index.drop_before(segment)
        self.quarantine.forget_dropped(segment)
        return gone

    def _write(self, frame: bytes, base: int, now_us: int) -> tuple[SegmentInfo, int]:
        try:
            written = self._writer.write(frame, base, now_us)
        except OSError as error:
            self._write_error = error.strerror or str(error)
            raise StorageError(
                f"stream {self.spec.stream!r}: the log can't be written: {error.strerror or error}. Nothing of this "
                "batch is kept; it may be sent again once the cause is gone"
            ) from error
        self._write_error = ""
        return written

    def _roll_back(self) -> None:
        self._state.producers.roll_back()
        if self._state.dedup is not None:
            self._state.dedup.roll_back()
