"""Reading one row group of the lake, a little at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest_service.lake.snapshot import LakeSnapshot, RowGroup
from ingest_service.lake.table import OFFSET_COLUMN, PARTITION_COLUMN

SMALL_BYTES = 64 << 10
"""The least that is worth a step."""
_STEP_ROWS_MAX = 4096
_PAGES_BYTES = 2 << 20
"""What Arrow keeps of an open file, about, at the most: a page of each column."""


class Cursor:
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
    def open_bytes(self) -> int:
        """What it holds in memory to read its file; 0: the file is closed."""
        return 0 if self._file is None else min(_PAGES_BYTES, self.group.size_bytes)

    def next(self, size_bytes: int) -> pa.RecordBatch | None:
        """Some of the next rows (none where they were given before), about so many bytes; None at the end."""
        group = self.group
        if group.size_bytes <= size_bytes and self._file is None:
            return self._all()
        if self._file is None:
            self._file = self._snapshot.open(group.file, group.metadata)
            rows = max(1, min(_STEP_ROWS_MAX, size_bytes * group.rows // group.size_bytes))
            self._batches = self._sorted(self._file, rows)
        batch = next(self._batches, None)
        if batch is None:
            return None
        offsets = offsets_of(batch)
        given = int(np.searchsorted(offsets, self.reached))
        self.reached = max(self.reached, int(offsets[-1]) + 1)
        return self._as_in_the_log(batch.slice(given))

    def _all(self) -> pa.RecordBatch | None:
        """All rows that have not been given."""
        if self.reached > self.group.last:
            return None
        with self._snapshot.open(self.group.file, self.group.metadata) as file:
            batches = list(self._sorted(file, self.group.rows))
        batch = pa.concat_batches(batches)
        given = int(np.searchsorted(offsets_of(batch), self.reached))
        self.reached = self.group.last + 1
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


def offsets_of(batch: pa.RecordBatch) -> np.ndarray:
    """The rows' offsets."""
    return np.asarray(batch.column(OFFSET_COLUMN))
