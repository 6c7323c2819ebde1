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
        self._rows: OrderedDict[tuple[int, int], tuple[Rows, int]] = OrderedDict()

    def put(self, segment: int, position: int, rows: Rows, frame_bytes: int) -> None:
        """Remember a frame that has just become durable; `frame_bytes`: its length in the file."""
        with self._lock:
            self._rows[segment, position] = rows, frame_bytes
            self._bytes += rows.batch.nbytes
            while self._bytes > self._bytes_max and self._rows:
                _, (oldest, _) = self._rows.popitem(last=False)
                self._bytes -= oldest.batch.nbytes

    def get(self, segment: int, position: int) -> tuple[Rows, int] | None:
        """The frame's rows and its length in the file, while it is remembered."""
        with self._lock:
            return self._rows.get((segment, position))
