"""Rows from the lake in the order of their offsets, as the log would give them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ingest_service.errors import StorageError
from ingest_service.lake.cursor import SMALL_BYTES, Cursor, offsets_of
from ingest_service.lake.snapshot import LakeSnapshot
from ingest_service.lake.table import OFFSET_COLUMN
from ingest_service.log.records import Rows

OPEN_MAX, OPEN_BYTES = 256, 64 << 20
"""Files open at once, and what reading them takes; beyond, the one needed last is closed, and opened again later."""
MERGE_BYTES = 8 << 20
"""Rows that wait to be merged, about, in bytes: shared by the row groups that overlap where the reader is."""


class _Waiting(NamedTuple):
    """Rows that wait to be merged, by rising offset."""

    offsets: np.ndarray
    batch: pa.RecordBatch
    row_bytes: int

    def part(self, start: int, end: int) -> _Waiting:
        return _Waiting(self.offsets[start:end], self.batch.slice(start, end - start), self.row_bytes)


class HistoryReader:
    """Reads one version of the lake from an offset on; use it from one thread at a time.

    Files overlap where dates do, so this is a merge: each row group gives its rows by rising offset, a few at a time,
    and what lies below the least place that any of them has come to is complete. Offsets are dense: a row that is
    missing or there twice is an error, never skipped. Memory: MERGE_BYTES and OPEN_BYTES, and 64 KiB for each row group
    that overlaps; of one that is not sorted (someone else has compacted the table) all of its rows.
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
        self._open: list[Cursor] = []
        self._waiting: list[_Waiting] = []

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
            if complete >= wanted or (complete > self.offset and self._is_full()):
                return min(complete, wanted)
            if self._files and complete == self._files[0].first:
                self._open_up_to(complete)
            else:
                self._step(min(self._open, key=lambda cursor: cursor.reached))

    def _is_full(self) -> bool:
        # Twice a step of each row group at the least, or there would be next to nothing complete at a time.
        bound = max(MERGE_BYTES, 2 * SMALL_BYTES * len(self._open))
        return sum(each.row_bytes * len(each.offsets) for each in self._waiting) >= bound

    def _open_up_to(self, offset: int) -> None:
        """Take in every file that begins at or below an offset."""
        while self._files and self._files[0].first <= offset:
            for group in self._snapshot.row_groups(self._files.popleft()):
                if group.last >= self.offset:
                    self._open.append(Cursor(self._snapshot, group, self._schema, self._event_time, self.offset))

    def _step(self, cursor: Cursor) -> None:
        batch = cursor.next(max(SMALL_BYTES, MERGE_BYTES // len(self._open)))
        if batch is None:
            cursor.close()
            self._open.remove(cursor)
        elif batch.num_rows:
            row_bytes = max(1, batch.nbytes // batch.num_rows)
            self._waiting.append(_Waiting(offsets_of(batch), batch, row_bytes))
        self._close_some()

    def _close_some(self) -> None:
        reading = sorted((each for each in self._open if each.open_bytes), key=lambda each: each.reached)
        while len(reading) > OPEN_MAX or sum(each.open_bytes for each in reading) > OPEN_BYTES:
            reading.pop().close()

    def _take(self, end: int) -> Rows:
        """The waiting rows below `end`, in order."""
        taken: list[_Waiting] = []
        left: list[_Waiting] = []
        for each in self._waiting:
            split = int(np.searchsorted(each.offsets, end))
            if split:
                taken.append(each.part(0, split))
            if split < len(each.offsets):
                left.append(each.part(split, len(each.offsets)))
        self._waiting = left
        offsets = np.concatenate([each.offsets for each in taken]) if taken else np.empty(0, np.int64)
        order = np.argsort(offsets, kind="stable")
        self._check_dense(offsets[order], end)
        if len(taken) == 1:
            return Rows(taken[0].batch, self.offset, end)
        merged = pa.concat_batches([each.batch for each in taken])
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
