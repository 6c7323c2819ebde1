"""Rows from the lake in the order of their offsets, as the log would give them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest_service.errors import StorageError
from ingest_service.lake.snapshot import LakeSnapshot, RowGroup
from ingest_service.lake.table import OFFSET_COLUMN, PARTITION_COLUMN
from ingest_service.log.records import Rows

OPEN_MAX = 32
"""Files open at once; where more of them overlap, the one that is needed last is closed, and opened again later."""
MERGE_BYTES = 8 << 20
"""Rows that wait to be merged, about, in bytes: shared by the row groups that overlap where the reader is."""
_STEP_ROWS_MAX = 4096


class HistoryReader:
    """Reads one version of the lake from an offset on; use it from one thread at a time.

    Files overlap where dates do, so this is a merge: each row group gives its rows by rising offset, a few at a time,
    and what lies below the least place that any of them has come to is complete. Offsets are dense: a row that is
    missing or there twice is an error, never skipped. Memory: MERGE_BYTES and OPEN_MAX open files, some 2 MB each; of
    a row group that is not sorted (someone else has compacted the table) all of its rows.
    """

    def __init__(
        self,
        snapshot: LakeSnapshot,
        schema: pa.Schema,
        event_time: str,
        from_offset: int,
        columns: Sequence[str],
    ) -> None:
        """schema: of the rows as the log gives them; columns: which of them are wanted (`_offset` comes along)."""
        self.offset = from_offset
        """The next row's."""
        wanted = {*columns, OFFSET_COLUMN}
        self._schema = pa.schema([field for field in schema if field.name in wanted])
        self._snapshot = snapshot
        self._event_time = event_time
        self._files = deque(file for file in snapshot.files if file.last >= from_offset)
        self._open: list[_Cursor] = []
        self._waiting: list[tuple[np.ndarray, pa.RecordBatch]] = []

    def read(self, rows_max: int) -> Rows | None:
        """The next rows, at most `rows_max` and about MERGE_BYTES; None at the end of this version.

        Raises StorageError when a file cannot be read, or the lake lacks a row.
        """
        if self.offset >= self._snapshot.offset:
            return None
        try:
            end = self._gather(min(self.offset + rows_max, self._snapshot.offset))
        except (OSError, pa.ArrowException) as error:
            raise self._snapshot.failed(error) from error
        rows = self._take(end)
        self.offset = end
        return rows

    def close(self) -> None:
        """Lets go of files and rows."""
        for cursor in self._open:
            cursor.close()
        self._open, self._waiting = [], []
        self._files.clear()

    def _gather(self, wanted: int) -> int:
        """Reads until all rows below `wanted` wait here, or enough do; the offset below which they are complete."""
        while True:
            self._open_up_to(self.offset)
            complete = min((cursor.reached for cursor in self._open), default=self._snapshot.offset)
            if self._files:
                complete = min(complete, self._files[0].first)
            waiting_bytes = sum(batch.nbytes for _, batch in self._waiting)
            if complete >= wanted or (complete > self.offset and waiting_bytes >= MERGE_BYTES):
                return min(complete, wanted)
            if self._files and complete == self._files[0].first:
                self._open_up_to(complete)
            else:
                self._step(min(self._open, key=lambda cursor: cursor.reached))

    def _open_up_to(self, offset: int) -> None:
        """Take in every file that begins at or below an offset."""
        while self._files and self._files[0].first <= offset:
            for group in self._snapshot.row_groups(self._files.popleft()):
                if group.last >= self.offset:
                    self._open.append(_Cursor(self._snapshot, group, self._schema, self._event_time, self.offset))

    def _step(self, cursor: _Cursor) -> None:
        rows = max(1, min(_STEP_ROWS_MAX, MERGE_BYTES // len(self._open) // cursor.group.row_bytes))
        batch = cursor.next(rows)
        if batch is None:
            cursor.close()
            self._open.remove(cursor)
        elif batch.num_rows:
            self._waiting.append((_offsets(batch), batch))
        reading = [each for each in self._open if each.is_reading]
        if len(reading) > OPEN_MAX:
            max(reading, key=lambda each: each.reached).close()

    def _take(self, end: int) -> Rows:
        """The waiting rows below `end`, in order."""
        taken: list[tuple[np.ndarray, pa.RecordBatch]] = []
        left: list[tuple[np.ndarray, pa.RecordBatch]] = []
        for offsets, batch in self._waiting:
            split = int(np.searchsorted(offsets, end))
            if split:
                taken.append((offsets[:split], batch.slice(0, split)))
            if split < len(offsets):
                left.append((offsets[split:], batch.slice(split)))
        self._waiting = left
        offsets = np.concatenate([each for each, _ in taken]) if taken else np.empty(0, np.int64)
        order = np.argsort(offsets, kind="stable")
        self._check_dense(offsets[order], end)
        if len(taken) == 1:
            return Rows(taken[0][1], self.offset, end)
        merged = pa.concat_batches([batch for _, batch in taken])
        return Rows(merged.take(pa.array(order)), self.offset, end)

    def _check_dense(self, offsets: np.ndarray, end: int) -> None:
        expected = np.arange(self.offset, end)
        if np.array_equal(offsets, expected):
            return
        missing = np.setdiff1d(expected, offsets)
        found = f"row {missing[0]} is missing" if len(missing) else "a row is there twice"
        raise StorageError(
            f"the lake table {self._snapshot.uri}, version {self._snapshot.version}: expected each of the rows "
            f"{self.offset} to {end - 1} once, {found}; was it written to by somebody else? Restore it from a backup"
        )


class _Cursor:
    """The rows of one row group by rising offset, from an offset on. Opens its file when it is read from."""

    def __init__(
        self, snapshot: LakeSnapshot, group: RowGroup, schema: pa.Schema, event_time: str, from_offset: int
    ) -> None:
        self.group = group
        self.reached = max(group.first, from_offset)
        """Every row of the group below it has been given."""
        self._snapshot, self._schema, self._event_time = snapshot, schema, event_time
        self._file: pq.ParquetFile | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())

    @property
    def is_reading(self) -> bool:
        """Whether it holds its file open."""
        return self._file is not None

    def next(self, rows: int) -> pa.RecordBatch | None:
        """Some of the next rows (none where they were given before), about `rows`; None at the end."""
        if self._file is None:
            self._file = self._snapshot.open(self.group.file)
            self._batches = self._sorted(self._file, rows)
        batch = next(self._batches, None)
        if batch is None:
            return None
        offsets = _offsets(batch)
        given = int(np.searchsorted(offsets, self.reached))
        self.reached = max(self.reached, int(offsets[-1]) + 1)
        return self._as_in_the_log(batch.slice(given))

    def close(self) -> None:
        """Let go of the file; reading on opens it again."""
        if self._file is not None:
            self._batches = iter(())
            self._file.close()
            self._file = None

    def _sorted(self, file: pq.ParquetFile, rows: int) -> Iterator[pa.RecordBatch]:
        number = self.group.number
        offsets = np.asarray(file.read_row_group(number, columns=[OFFSET_COLUMN], use_threads=False).column(0))
        names = [*self._schema.names, self._event_time, OFFSET_COLUMN]
        stored = [name for name in file.schema_arrow.names if name in names]
        if (np.diff(offsets) > 0).all():
            yield from file.iter_batches(rows, row_groups=[number], columns=stored, use_threads=False)
        else:
            table = file.read_row_group(number, columns=stored, use_threads=False)
            yield from table.take(pa.array(np.argsort(offsets, kind="stable"))).to_batches(max_chunksize=rows)

    def _as_in_the_log(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The columns as a log reader gives them; what a file from before a column was added lacks is null."""
        columns = []
        for field in self._schema:
            if field.name in batch.schema.names:
                values = batch.column(field.name)
            elif field.name == PARTITION_COLUMN:
                # In Delta the date is part of the file's name.
                values = pc.cast(batch.column(self._event_time), field.type)
            else:
                values = pa.nulls(batch.num_rows, field.type)
            columns.append(values if values.type == field.type else values.cast(field.type))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def _offsets(batch: pa.RecordBatch) -> np.ndarray:
    return np.asarray(batch.column(OFFSET_COLUMN))
