"""A stream's log from its first row on: what retention has dropped from the log comes from the lake."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from ingest_service.errors import OffsetDropped, StorageError
from ingest_service.lake.history import MERGE_BYTES, HistoryReader
from ingest_service.lake.snapshot import TIME_COLUMN, LakeSnapshot
from ingest_service.log.records import Entry, LogSpec, Rows, Seal

_SCAN_ROWS = 65_536


class KeptReader(Protocol):
    """What is used of a log reader."""

    def read(self, max_rows: int, timeout_s: float, max_bytes: int = ...) -> list[Entry]:
        """The next durable entries; [] when none came in time."""

    def close(self) -> None:
        """Lets go of the file; reading on opens it again."""


class KeptLog(Protocol):
    """What is used of a log: the newest part of the stream, from `start_offset` on."""

    @property
    def spec(self) -> LogSpec:
        """What the log knows of its stream's contract."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of rows as read, system columns included."""

    @property
    def watermark_us(self) -> int | None:
        """Event time below which the stream is believed complete (µs since 1970 UTC); None before the first event."""

    @property
    def start_offset(self) -> int:
        """The first offset that the log still keeps; it rises."""

    @property
    def durable_offset(self) -> int:
        """Everything strictly below it is on disk."""

    def seals(self) -> list[Seal]:
        """Every seal, oldest first."""

    def offset_before_time(self, append_time_us: int) -> int:
        """An offset from which on every row appended at that time or later stands."""

    def reader(self, from_offset: int, columns: Sequence[str] | None = None) -> KeptReader:
        """A reader from an offset on, which the log still keeps; `columns`: of these alone."""

    def wait_readable(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Waits until `ready` holds, which is asked whenever the durable offset moves; False at the timeout."""


class WholeLog:
    """The log, and before it the lake, as one; thread-safe. Whoever reads it does not notice which they read from.

    Retention keeps this whole: it drops only what the lake has.
    """

    def __init__(self, log: KeptLog, lake_uri: str) -> None:
        self.log = log
        self._lake_uri = lake_uri
        self._lock = threading.Lock()
        self._snapshot: LakeSnapshot | None = None

    @property
    def spec(self) -> LogSpec:
        """What the log knows of its stream's contract."""
        return self.log.spec

    @property
    def schema(self) -> pa.Schema:
        """The columns of rows as read, system columns included."""
        return self.log.schema

    @property
    def durable_offset(self) -> int:
        """Everything strictly below it is on disk."""
        return self.log.durable_offset

    @property
    def watermark_us(self) -> int | None:
        """Event time below which the stream is believed complete (µs since 1970 UTC); None before the first event."""
        return self.log.watermark_us

    def wait_readable(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Waits until `ready` holds, which is asked whenever the durable offset moves; False at the timeout."""
        return self.log.wait_readable(ready, timeout_s)

    def reader(self, from_offset: int, columns: Sequence[str] | None = None) -> WholeLogReader:
        """A reader of everything from `from_offset` on, with the seals at or above it; `columns`: of these alone."""
        return WholeLogReader(self, from_offset, columns)

    def offset_at(self, append_time_us: int) -> int:
        """The first offset that was appended at that time (µs since 1970 UTC) or later; the durable one if none was."""
        durable, start = self.log.durable_offset, self.log.start_offset
        low, high = self.log.offset_before_time(append_time_us), durable
        if start and low <= start:
            low, high = self.snapshot(start - 1).offsets_around(append_time_us)
            high = durable if high >= start else high
        reader = self.reader(min(low, durable), [TIME_COLUMN])
        try:
            return _first_at(reader, append_time_us, high)
        finally:
            reader.close()

    def snapshot(self, offset: int, *, other_than: LakeSnapshot | None = None) -> LakeSnapshot:
        """A version of the lake that holds that offset, the one at hand where it will do; not `other_than`.

        Raises StorageError when the lake cannot be read, or does not reach so far.
        """
        with self._lock:
            if self._snapshot is None or self._snapshot.offset <= offset or self._snapshot is other_than:
                self._snapshot = LakeSnapshot(self._lake_uri, self.spec.stream)
            if self._snapshot.offset <= offset:
                raise StorageError(
                    f"stream {self.spec.stream!r}: row {offset} is neither in the log, which begins at "
                    f"{self.log.start_offset}, nor in the lake table {self._lake_uri}, which reaches to "
                    f"{self._snapshot.offset}; was the table replaced? Restore it from a backup"
                )
            return self._snapshot


class WholeLogReader:
    """Yields durable entries in log order: rows, and seals where they stand. Use it from one thread at a time.

    Reads the log wherever the log has the next row, else the lake; when retention overtakes it, it goes on in the lake.
    All rows have the columns of `schema`: the log's when the reader was opened, or those asked for, in that order.
    """

    def __init__(self, whole: WholeLog, from_offset: int, columns: Sequence[str] | None = None) -> None:
        everything = whole.schema
        self.schema = everything if columns is None else pa.schema([everything.field(name) for name in columns])
        self._whole = whole
        self._columns = columns
        self.offset = self._from_offset = from_offset
        """The next row's."""
        self._kept: KeptReader | None = None
        self._history: HistoryReader | None = None
        self._snapshot: LakeSnapshot | None = None
        self._told: set[Seal] = set()

    def read(self, max_rows: int, timeout_s: float, max_bytes: int = MERGE_BYTES) -> list[Entry]:
        """The next entries, about `max_rows` rows and `max_bytes` at the most; [] when none came within `timeout_s`.

        Consecutive rows are one `Rows` entry. A frame of the log is never divided: a large one may exceed both.

        Raises:
            LogDamaged: a frame that was durable can't be read back.
            StorageError: the lake can't be read, or lacks rows.
        """
        if self._kept is None:
            if self.offset < self._whole.log.start_offset:
                return self._from_lake(max_rows)
            if due := self._due_seals():
                return self._told_now(due)
        try:
            return self._from_log(max_rows, timeout_s, max_bytes)
        except OffsetDropped:
            # Retention was faster; what it dropped is in the lake.
            self.close()
            self._kept = None
            return self._from_lake(max_rows)

    def close(self) -> None:
        """Let go of files and of rows read ahead; reading on opens them again."""
        if self._kept is not None:
            self._kept.close()
        if self._history is not None:
            self._history.close()
            self._history = None

    def _from_log(self, max_rows: int, timeout_s: float, max_bytes: int) -> list[Entry]:
        if self._kept is None:
            self._kept = self._whole.log.reader(self.offset, None if self._columns is None else self.schema.names)
            if self._history is not None:
                self._history.close()
                self._history = None
        while entries := self._kept.read(max_rows, timeout_s, max_bytes):
            fresh = [entry for entry in entries if not (isinstance(entry, Seal) and entry in self._told)]
            if fresh:
                return self._told_now(fresh)
        return []

    def _from_lake(self, max_rows: int) -> list[Entry]:
        ahead = [seal.seal_offset for seal in self._whole.log.seals() if seal.seal_offset > self.offset]
        wanted = min([max_rows, *(offset - self.offset for offset in ahead[:1])])
        try:
            rows = self._next_from_lake(wanted)
        except StorageError:
            # The version may be gone: someone has vacuumed the table since it was opened.
            before, self._history = self._snapshot, None
            self._snapshot = self._whole.snapshot(self.offset, other_than=self._snapshot)
            if before is not None and self._snapshot.version == before.version:
                raise
            rows = self._next_from_lake(wanted)
        return self._told_now([*self._due_seals(), rows])

    def _next_from_lake(self, wanted: int) -> Rows:
        if self._history is not None and (rows := self._history.read(wanted)) is not None:
            return rows
        spec = self._whole.spec
        self._snapshot = self._whole.snapshot(self.offset)
        self._history = HistoryReader(
            self._snapshot, self._whole.schema, spec.event_time, self.offset, self.schema.names
        )
        rows = self._history.read(wanted)
        assert rows is not None, "the version reaches beyond this offset"
        return rows

    def _due_seals(self) -> list[Entry]:
        """The seals that stand before the next row and have not been given; their frames may be dropped."""
        due = [seal for seal in self._whole.log.seals() if self._from_offset <= seal.seal_offset <= self.offset]
        return [seal for seal in due if seal not in self._told]

    def _told_now(self, entries: list[Entry]) -> list[Entry]:
        """The entries as they are given: rows with the columns asked for. From now on they count as given."""
        given: list[Entry] = []
        for entry in entries:
            if isinstance(entry, Seal):
                self._told.add(entry)
                given.append(entry)
            else:
                self.offset = entry.next_offset
                batch = entry.batch
                if batch.schema.names != self.schema.names:
                    batch = batch.select(self.schema.names)
                given.append(Rows(batch, entry.base_offset, entry.next_offset))
        return given


def _first_at(reader: WholeLogReader, append_time_us: int, end: int) -> int:
    """The first offset the reader gives that was appended at that time or later; `end` when none below it was."""
    while entries := reader.read(_SCAN_ROWS, 0):
        for entry in entries:
            if isinstance(entry, Seal):
                continue
            if entry.base_offset >= end:
                return end
            times = np.asarray(entry.batch.column(TIME_COLUMN).cast(pa.int64()))
            at = int(np.searchsorted(times, append_time_us))
            if at < len(times):
                return min(end, entry.base_offset + at)
    return end
