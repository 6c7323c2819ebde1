"""Reading a lake table at one version: its files against the Delta log, its rows against the offsets they must have."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler

from ingest_service.data.report import LakeChecked, Progress, Report
from ingest_service.lake.table import OFFSET_COLUMN, PARTITION_COLUMN, transaction_id

_EPOCH = dt.date(1970, 1, 1)


class OffsetSet:
    """Which of the offsets 0 … next_offset - 1 were seen, and how often any was seen. One bit an offset.

    pyroaring was looked at: for offsets that are all there a plain bit field is smaller still, and numpy has it.
    """

    def __init__(self, next_offset: int) -> None:
        self._next = next_offset
        self._bits = np.zeros(-(-next_offset // 8), dtype=np.uint8)
        self.added = 0
        self.outside = 0

    def add(self, offsets: np.ndarray) -> None:
        """Take in offsets (int64), in any order."""
        inside = offsets[(offsets >= 0) & (offsets < self._next)]
        self.outside += len(offsets) - len(inside)
        self.added += len(inside)
        np.bitwise_or.at(self._bits, inside >> 3, np.left_shift(1, inside & 7).astype(np.uint8))

    def problem(self) -> str | None:
        """What is wrong with them as a whole; None when each was seen once and none else."""
        seen = int(np.bitwise_count(self._bits).sum())
        if self.outside:
            return f"{self.outside} rows have an offset at or above {self._next}, which the table says that it reaches"
        if self.added > seen:
            return f"{self.added - seen} rows have an offset that another row has too"
        if seen < self._next:
            flags = np.unpackbits(self._bits, bitorder="little")[: self._next]
            return f"{self._next - seen} offsets are missing, the first is {int(flags.argmin())}"
        return None


def open_table(uri: str) -> DeltaTable | None:
    """The table at its present version, or None when there is none. Raises DeltaError."""
    try:
        return DeltaTable(uri)
    except TableNotFoundError:
        return None


def active_files(table: DeltaTable) -> list[dict[str, Any]]:
    """What the Delta log says of the files of the table's version, by path."""
    return sorted(pa.table(table.get_add_actions(flatten=True)).to_pylist(), key=lambda action: action["path"])


class LakeCheck:
    """Reads one table, pinned at the version of when it was made."""

    def __init__(self, uri: str, stream: str, report: Report, progress: Progress) -> None:
        self._uri, self._stream, self._report, self._progress = uri, stream, report, progress
        self.offset = 0
        self.days: dict[int, int] = {}
        """Rows by event date, in days since 1970, as the files hold them."""
        self._table: DeltaTable | None = None
        self._files: list[dict[str, Any]] = []
        self._missing = "there is no lake table"
        try:
            self._table = open_table(uri)
            if self._table is not None:
                self.offset = self._table.transaction_version(transaction_id(stream)) or 0
                self._files = active_files(self._table)
        except (DeltaError, OSError) as error:
            self._missing = str(error)
            self._report.damaged(uri, f"the Delta table can't be opened: {error}")

    @property
    def bytes(self) -> int:
        """How much there is to read."""
        return sum(action["size_bytes"] for action in self._files)

    def run(self) -> None:
        """Read every file; what is found goes to the report."""
        if self._table is None:
            self._report.notes.append(f"{self._uri}: stream {self._stream!r} has no lake to check: {self._missing}")
            return
        seen = OffsetSet(self.offset)
        files = _filesystem(self._table, self._uri)
        before = len(self._report.damages)
        for action in self._files:
            self._file(files, action, seen)
        problem = seen.problem()
        # A file that can't be read has been told already, and its offsets are missing for that reason.
        if problem and len(self._report.damages) == before:
            self._report.damaged(self._uri, problem)
        self._report.lakes.append(
            LakeChecked(
                self._stream,
                self._table.version(),
                len(self._files),
                self.bytes,
                seen.added + seen.outside,
                self.offset,
            )
        )

    def _file(self, files: pa_fs.FileSystem, action: dict[str, Any], seen: OffsetSet) -> None:
        path = f"{self._uri}/{action['path']}"
        found = files.get_file_info(action["path"])
        if found.type is not pa_fs.FileType.File:
            self._report.damaged(path, "the Delta table names this file, and it is missing")
            return
        if found.size != action["size_bytes"]:
            self._report.damaged(path, f"expected {action['size_bytes']} bytes, found {found.size}")
            return
        rows = 0
        try:
            with files.open_input_file(action["path"]) as opened:
                parquet = pq.ParquetFile(opened, page_checksum_verification=True)
                # All columns: a page that can't be decoded is damage, whichever column it is of.
                for batch in parquet.iter_batches():
                    rows += batch.num_rows
                    seen.add(batch.column(OFFSET_COLUMN).to_numpy(zero_copy_only=False))
        except (pa.ArrowException, OSError, KeyError) as error:
            self._report.damaged(path, f"it can't be read: {error}")
            return
        if action["num_records"] not in (None, rows):
            self._report.damaged(path, f"expected {action['num_records']} rows, found {rows}")
        day = (action[f"partition.{PARTITION_COLUMN}"] - _EPOCH).days
        self.days[day] = self.days.get(day, 0) + rows
        self._progress(action["size_bytes"])


def _filesystem(table: DeltaTable, uri: str) -> pa_fs.FileSystem:
    """The table's folder as Arrow sees it, wherever it is."""
    if "://" not in uri:
        return pa_fs.SubTreeFileSystem(str(Path(uri).absolute()), pa_fs.LocalFileSystem())
    return pa_fs.PyFileSystem(DeltaStorageHandler.from_table(table))
