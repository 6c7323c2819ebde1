"""A stream's Delta table at one version: its files, and which offsets and append times each of them holds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.fs import DeltaStorageHandler

from ingest_service.errors import StorageError
from ingest_service.lake.table import OFFSET_COLUMN, transaction_id

TIME_COLUMN = "_append_time"
_STATISTICS = (f"min.{OFFSET_COLUMN}", f"max.{OFFSET_COLUMN}", f"min.{TIME_COLUMN}", f"max.{TIME_COLUMN}")
_READ_BYTES = 1 << 16
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DELTA_TIMES_US = 1_000
"""Delta's statistics cut times off to milliseconds: a file's latest may be so much later than they say."""


@dataclass(frozen=True, slots=True)
class LakeFile:
    """A Parquet file of the table: the first and last of its offsets, and the earliest and latest append time (µs).

    The times may lie outside of the real ones by up to a millisecond, never within.
    """

    path: str
    first: int
    last: int
    earliest_us: int
    latest_us: int


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group of a file, with the first and last of its offsets; size_bytes: of its columns, not compressed."""

    file: LakeFile
    metadata: pq.FileMetaData
    number: int
    first: int
    last: int
    rows: int
    size_bytes: int


class LakeSnapshot:
    """One version of a stream's lake table; immutable, and so thread-safe.

    version: the table's. offset: every row below it is in these files. files: by their first offset.
    """

    def __init__(self, uri: str, stream: str, storage_options: Mapping[str, str] | None = None) -> None:
        """Raises StorageError when the table cannot be read."""
        self.uri = uri
        options = dict(storage_options) if storage_options else None
        try:
            table = DeltaTable(uri, storage_options=options)
            self._files = pa.fs.PyFileSystem(DeltaStorageHandler(uri, options))
            self.version: int = table.version()
            self.offset: int = table.transaction_version(transaction_id(stream)) or 0
            actions = pa.table(table.get_add_actions(flatten=True))
            found = [self._file(row) for row in _rows(actions)]
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise self.failed(error) from error
        self.files: tuple[LakeFile, ...] = tuple(sorted(found, key=lambda file: file.first))

    def open(self, file: LakeFile, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
        """The file, to be read a little at a time, and closed by who asked; its footer is `metadata` where it is known.

        Raises OSError.
        """
        # Arrow reads a whole column chunk ahead unless it is told to read in small pieces.
        source = self._files.open_input_file(file.path)
        return pq.ParquetFile(source, metadata=metadata, buffer_size=_READ_BYTES, pre_buffer=False)

    def row_groups(self, file: LakeFile) -> list[RowGroup]:
        """The file's row groups. Raises OSError."""
        with self.open(file) as opened:
            metadata = opened.metadata
            groups = []
            for number in range(metadata.num_row_groups):
                group = metadata.row_group(number)
                if group.num_rows:
                    first, last = _range(opened, number, OFFSET_COLUMN)
                    size_bytes = group.total_byte_size
                    groups.append(RowGroup(file, metadata, number, first, last, group.num_rows, size_bytes))
            return groups

    def offsets_around(self, append_time_us: int) -> tuple[int, int]:
        """Offsets low ≤ high between which the first row is that was appended at that time or later, or is `high`.

        Rows below low are earlier, rows from high on are not: append times never fall as offsets rise.
        """
        low = max((file.last + 1 for file in self.files if file.latest_us < append_time_us), default=0)
        high = min((file.first for file in self.files if file.earliest_us >= append_time_us), default=self.offset)
        return low, max(low, high)

    def failed(self, error: Exception) -> StorageError:
        """What to raise when a file cannot be read."""
        return StorageError(
            f"the lake table {self.uri} could not be read: {error}; rows that the log no longer keeps are read from it"
        )

    def _file(self, row: dict[str, Any]) -> LakeFile:
        file = LakeFile(row["path"], 0, 0, 0, 0)
        known: list[Any] = [
            row.get(f"{kind}.{name}") for name in (OFFSET_COLUMN, TIME_COLUMN) for kind in ("min", "max")
        ]
        if None in known:
            return self._from_footer(file)
        first, last, earliest, latest = known
        latest_us = _microseconds(latest) + _DELTA_TIMES_US
        return replace(file, first=first, last=last, earliest_us=_microseconds(earliest), latest_us=latest_us)

    def _from_footer(self, file: LakeFile) -> LakeFile:
        """A file of a table that keeps no statistics of these columns."""
        with self.open(file) as opened:
            numbers = range(opened.metadata.num_row_groups)
            offsets = [_range(opened, number, OFFSET_COLUMN) for number in numbers]
            times = [_range(opened, number, TIME_COLUMN) for number in numbers]
        return replace(
            file,
            first=min(low for low, _ in offsets),
            last=max(high for _, high in offsets),
            earliest_us=min(low for low, _ in times),
            latest_us=max(high for _, high in times),
        )


def _rows(actions: pa.Table) -> list[dict[str, Any]]:
    """Of each file what matters here; the statistics of the contract's own columns may be many."""
    wanted = [name for name in ("path", *_STATISTICS) if name in actions.schema.names]
    rows: list[dict[str, Any]] = actions.select(wanted).to_pylist()
    return rows


def _range(opened: pq.ParquetFile, number: int, column: str) -> tuple[int, int]:
    """The least and greatest value (times in µs) of a column in one row group; the footer says it, or the column."""
    group = opened.metadata.row_group(number)
    at = next(i for i in range(group.num_columns) if group.column(i).path_in_schema == column)
    statistics = group.column(at).statistics
    if statistics is not None and statistics.has_min_max:
        return _integer(statistics.min), _integer(statistics.max)
    values = opened.read_row_group(number, columns=[column]).column(0).cast(pa.int64())
    extremes = pc.min_max(values).as_py()
    return extremes["min"], extremes["max"]


def _integer(value: int | dt.datetime) -> int:
    return _microseconds(value) if isinstance(value, dt.datetime) else value


def _microseconds(time: dt.datetime) -> int:
    return (time - _EPOCH) // dt.timedelta(microseconds=1)
