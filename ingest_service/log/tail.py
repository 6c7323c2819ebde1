"""The newest frames as rows, so that who follows the tail reads memory instead of files."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from ingest_service.log.records import Rows


class Tail:
    """Rows of the newest frames by (segment number, position), bounded in bytes. Thread-safe."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._lock = Lock()
        # The rows, the frame's length, and the rows' size in memory: Arrow takes its time to say it.
        self._rows: OrderedDict[tuple[int, int], tuple[Rows, int, int]] = OrderedDict()

    def put(self, segment: int, position: int, rows: Rows, frame_bytes: int) -> None:
        """Remember a frame that has just become durable; `frame_bytes`: its length in the file."""
        size_bytes = rows.batch.nbytes
        with self._lock:
            self._rows[segment, position] = rows, frame_bytes, size_bytes
            self._bytes += size_bytes
            while self._bytes > self._bytes_max and self._rows:
                _, (_, _, oldest_bytes) = self._rows.popitem(last=False)
                self._bytes -= oldest_bytes

    def get(self, segment: int, position: int) -> tuple[Rows, int] | None:
        """The frame's rows and its length in the file, while it is remembered."""
        with self._lock:
            found = self._rows.get((segment, position))
        return None if found is None else found[:2]
