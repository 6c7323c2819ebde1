"""Reads a log one step ahead of who takes the rows in, while there are many."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from ingest_service.live.feed import ReaderLike
from ingest_service.live.session import BULK_ROWS
from ingest_service.log.records import Entry, Rows


class ReadAhead:
    """A reader that decodes the next rows on a thread of its own while the last ones are being worked on.

    Only after a read of many rows: where few come at a time there is nothing to read ahead. One read waits at the most.
    Used by one thread at a time.
    """

    def __init__(self, reader: ReaderLike, max_rows: int) -> None:
        self._reader = reader
        self._max_rows = max_rows
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="live-read")
        self._next: Future[list[Entry]] | None = None

    def read(self, timeout_s: float) -> list[Entry]:
        """The next entries, as the reader gives them; raises what it raises."""
        ahead, self._next = self._next, None
        entries = self._reader.read(self._max_rows, timeout_s) if ahead is None else ahead.result()
        if count_rows(entries) >= BULK_ROWS:
            self._next = self._thread.submit(self._reader.read, self._max_rows, 0)
        return entries

    def close(self) -> None:
        """Lets go of thread and reader."""
        self._thread.shutdown()
        self._reader.close()


def count_rows(entries: list[Entry]) -> int:
    """How many rows entries have."""
    return sum(entry.next_offset - entry.base_offset for entry in entries if isinstance(entry, Rows))
