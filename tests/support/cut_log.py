"""A log that retention has cut, as far as its readers can see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ingest_service.errors import OffsetDropped
from ingest_service.log import Log, LogReader, Rows


class CutLog:
    """A log that gives nothing below `start_offset`, which a test may raise at any time."""

    def __init__(self, log: Log, start_offset: int = 0) -> None:
        self._log = log
        self.start_offset = start_offset

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def offset_before_time(self, append_time_us: int) -> int:
        return max(self.start_offset, self._log.offset_before_time(append_time_us))

    def reader(self, from_offset: int, columns: Sequence[str] | None = None) -> CutReader:
        self.check(from_offset)
        return CutReader(self, self._log.reader(from_offset, columns), from_offset)

    def check(self, offset: int) -> None:
        if offset < self.start_offset:
            raise OffsetDropped(self._log.spec.stream, offset, self.start_offset)


class CutReader:
    """A reader of such a log: refused once its next row is cut off."""

    def __init__(self, log: CutLog, reader: LogReader, offset: int) -> None:
        self._log, self._reader, self._offset = log, reader, offset

    def read(self, max_rows: int, timeout_s: float, max_bytes: int = 1 << 30) -> list[Any]:
        self._log.check(self._offset)
        entries = self._reader.read(max_rows, timeout_s, max_bytes)
        self._offset = max([self._offset, *(entry.next_offset for entry in entries if isinstance(entry, Rows))])
        return entries

    def close(self) -> None:
        self._reader.close()
