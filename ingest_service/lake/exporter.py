"""Brings a stream's lake up to its log."""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from ingest_service.clock import Clock, SystemClock
from ingest_service.errors import BadRequest, IngestError, StorageError
from ingest_service.lake.table import COMMIT_ATTEMPTS, LakeState, LakeTable
from ingest_service.lake.vacuum import Vacuumed
from ingest_service.log.records import Entry, Rows


class Reader(Protocol):
    """What the exporter uses of a log reader."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of its rows, system columns included; they stay while the contract changes."""

    def read(self, max_rows: int, timeout_s: float) -> list[Entry]:
        """The next durable entries; [] when none came in time."""

    def close(self) -> None:
        """Lets go of what it holds."""


class ReadableLog(Protocol):
    """What the exporter uses of a log."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of rows as read, system columns included."""

    @property
    def durable_offset(self) -> int:
        """Everything strictly below it is on disk."""

    def reader(self, from_offset: int) -> Reader:
        """Reads from an offset on."""


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """Bounds of the export.

    rows_per_commit: about this many rows make a commit (default 250,000: some 30 MB of memory, and one Parquet file for
        each event date among them). A larger one makes fewer, larger files.
    rows_waiting: the background thread exports as soon as so many rows wait (default 100,000) …
    interval_s: … or the oldest has waited for so long, s (see `start`).
    read_timeout_s: how long the log may take to deliver rows that are durable, s (default 30), before it is an error.
    """

    rows_per_commit: int = 250_000
    rows_waiting: int = 100_000
    read_timeout_s: float = 30.0


class LakeExporter:
    """Exports one stream's log to its Delta table. Thread-safe: one export runs at a time, others wait for it.

    Invariant: the table holds exactly the log's rows below the offset that it names, whatever process died when.
    """

    def __init__(
        self,
        log: ReadableLog,
        stream: str,
        uri: str,
        *,
        settings: ExportSettings | None = None,
        storage_options: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        sync: Callable[[], None] = os.sync,
    ) -> None:
        """`sync`: returns once what the lake holds is on disk."""
        self._log = log
        self._stream = stream
        self._settings = settings or ExportSettings()
        self._clock = clock or SystemClock()
        self._table = LakeTable(uri, stream, log.schema, storage_options)
        self._sync = sync
        self._lock = threading.Lock()
        self._state: LakeState | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._last_error: IngestError | None = None

    def ensure(self) -> LakeState:
        """Makes the Delta table, empty, where it is missing.

        Raises ConfigError when it has other columns than the log, StorageError when it cannot be read or made, or
        reaches beyond the log.
        """
        with self._lock:
            return self._keep(self._table.ensure())

    def take_columns(self) -> None:
        """Adds the columns of a changed contract to the table; an export would, too. Raises as `ensure` does."""
        with self._lock:
            self._table.take_schema(self._log.schema)
            self._keep(self._table.state())

    def state(self) -> LakeState:
        """Where the lake is. Does not wait for a running export: then it is where the last commit was."""
        return self._state or self.ensure()

    @property
    def last_error(self) -> IngestError | None:
        """Why the background thread's last export failed; None when it went well. It tries again by itself."""
        return self._last_error

    def export(self, up_to: int | None = None) -> LakeState:
        """Appends everything from the lake's offset up to at least `up_to` (default: the durable offset).

        Raises BadRequest when `up_to` is beyond the durable offset, StorageError when log or store fail.
        """
        with self._lock:
            durable = self._log.durable_offset
            if up_to is not None and up_to > durable:
                raise BadRequest(
                    f"expected an offset of stream {self._stream!r} up to {durable}, its durable offset, came {up_to}; "
                    "wait until those rows are acknowledged"
                )
            return self._export(durable if up_to is None else up_to)

    def compact(self, date: dt.date) -> LakeState:
        """Makes one file, sorted by offset, of those of one date; other dates are not touched."""
        with self._lock:
            return self._keep(self._table.compact(date))

    def compact_all(self, dates: Collection[dt.date] = ()) -> list[dt.date]:
        """Compacts these dates, or every date before today (UTC) that is in several small files; gives those that were.

        Exports go on in between. Raises StorageError.
        """
        with self._lock:
            today = dt.datetime.fromtimestamp(self._clock.now_us() / 1_000_000, dt.UTC).date()
            due = self._table.uncompacted(max(dates) + dt.timedelta(days=1) if dates else today)
        compacted = []
        for date in due:
            if dates and date not in dates:
                continue
            with self._lock:
                before = self._table.reload().version
                if self._keep(self._table.compact(date)).version > before:
                    compacted.append(date)
        return compacted

    def vacuum(self, keep_versions: Collection[int], min_age_s: float) -> Vacuumed:
        """Deletes the files that no version needs which stays readable.

        Those are the present one, `keep_versions`, and each that was the present one in the last `min_age_s` seconds.
        Raises StorageError; what is not deleted then is deleted the next time.
        """
        with self._lock:
            cutoff_ns = self._clock.now_us() * 1000 - int(min_age_s * 1_000_000_000)
            vacuumed = self._table.vacuum(keep_versions, cutoff_ns, self._sync)
            self._keep(self._table.state())
            return vacuumed

    def start(self, interval_s: float) -> None:
        """Starts exporting in the background: when a row has waited for `interval_s`, sooner when many wait."""
        assert self._thread is None, "started twice"
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, args=(interval_s,), name=f"lake-{self._stream}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops the background export, after the commit that it may be in. What is not exported stays in the log."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, interval_s: float) -> None:
        tick_s = min(interval_s, 0.25)
        waiting_since: float | None = None
        while not self._stopping.wait(tick_s):
            try:
                waiting = self._log.durable_offset - self.state().offset
                now = self._clock.monotonic_s()
                if waiting <= 0:
                    waiting_since = None
                    continue
                waiting_since = now if waiting_since is None else waiting_since
                if waiting >= self._settings.rows_waiting or now - waiting_since >= interval_s:
                    waiting_since = None
                    self.export()
                    self._last_error = None
            except IngestError as error:
                # Visible to health and metrics; the rows wait in the log, and the next round tries again.
                self._last_error = error

    def _export(self, target: int) -> LakeState:
        state = self._keep(self._table.ensure() if self._state is None else self._table.reload())
        conflicts = 0
        while state.offset < target:
            reader = self._log.reader(state.offset)
            try:
                self._table.take_schema(reader.schema)
                while state.offset < target and not (self._stopping_background()):
                    rows, next_offset = self._read(reader, state.offset, target)
                    if not self._table.append(rows, state.offset, next_offset):
                        conflicts += 1
                        break
                    state = self._keep(self._table.state())
            finally:
                reader.close()
            if self._stopping_background():
                break
            if conflicts >= COMMIT_ATTEMPTS:
                raise StorageError(
                    f"the lake table {state.uri} was committed to by others {conflicts} times in a row; is a second "
                    "service exporting the same stream?"
                )
            if state.offset < target:
                state = self._keep(self._table.reload())
        return state

    def _stopping_background(self) -> bool:
        """Whether this is the background thread, and it is to stop: it may be far behind."""
        return self._stopping.is_set() and threading.current_thread() is self._thread

    def _read(self, reader: Reader, first: int, target: int) -> tuple[pa.Table, int]:
        """The next rows from `first` on, for one commit, and the offset after them."""
        batches: list[pa.RecordBatch] = []
        next_offset = first
        while next_offset < target and next_offset - first < self._settings.rows_per_commit:
            wanted = min(target, first + self._settings.rows_per_commit) - next_offset
            entries = reader.read(wanted, self._settings.read_timeout_s)
            if not entries:
                raise StorageError(
                    f"the log of stream {self._stream!r} did not deliver the rows from offset {next_offset} on within "
                    f"{self._settings.read_timeout_s:g} s, although its durable offset is {self._log.durable_offset}"
                )
            for entry in entries:
                if isinstance(entry, Rows):
                    assert entry.base_offset == next_offset, "the log's offsets are dense"
                    batches.append(entry.batch)
                    next_offset = entry.next_offset
        return pa.Table.from_batches(batches, reader.schema), next_offset

    def _keep(self, state: LakeState) -> LakeState:
        if state.offset > self._log.durable_offset:
            raise StorageError(
                f"the lake table {state.uri} reaches to offset {state.offset}, but the log of stream {self._stream!r} "
                f"ends at {self._log.durable_offset}: they don't belong together; was the log's folder replaced? Move "
                "the lake table away, and it is exported again from the log"
            )
        self._state = state
        return state
