"""The segments that make up a log, and the index into them."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import pyarrow as pa

from ingest_service.log.segment import SegmentName

INDEX_BYTES = 1 << 20
"""The index names a frame about every so many bytes: what is read to reach an offset is a few milliseconds' work."""


@dataclass(slots=True)
class SegmentInfo:
    """A segment that is part of the log: what of it is valid, and the schema of its batches.

    valid_end: bytes; grows while the segment is the active one, and only after fsync. begun_us: when its head was
    written (wall clock, UTC); every frame of its predecessor is older.
    """

    name: SegmentName
    schema: pa.Schema
    valid_end: int = 0
    begun_us: int = 0


class Segments(Sequence[SegmentInfo]):
    """A log's segments, oldest first; the last is the active one. Thread-safe.

    The committer appends, retention drops the oldest, readers look without a lock: each change puts a new tuple in
    place, and a segment's successor is appended only after its own `valid_end` is final.
    """

    def __init__(self) -> None:
        self._all: tuple[SegmentInfo, ...] = ()
        self._lock = threading.Lock()
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """The number of the newest segment that was dropped; 0 for none."""
        return self._dropped

    def append(self, info: SegmentInfo) -> None:
        """Add the new active segment."""
        with self._lock:
            self._all = (*self._all, info)

    def drop_before(self, number: int) -> list[SegmentInfo]:
        """Take out the segments below that number, and give them."""
        with self._lock:
            gone = [info for info in self._all if info.name.number < number]
            self._dropped = max(self._dropped, number - 1 if gone else 0)
            self._all = self._all[len(gone) :]
        return gone

    def after(self, number: int) -> SegmentInfo | None:
        """The segment that follows the one of that number; None while there is none."""
        segments = self._all
        at = bisect_right(segments, number, key=_number)
        return segments[at] if at < len(segments) else None

    def numbered(self, number: int) -> SegmentInfo | None:
        """The segment of that number; None when it was dropped."""
        segments = self._all
        at = bisect_left(segments, number, key=_number)
        return segments[at] if at < len(segments) and segments[at].name.number == number else None

    def size_bytes(self) -> int:
        """Bytes of all of them on disk."""
        return sum(info.valid_end for info in self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[SegmentInfo]:
        return iter(self._all)

    @overload
    def __getitem__(self, index: int) -> SegmentInfo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[SegmentInfo]: ...
    def __getitem__(self, index: int | slice) -> SegmentInfo | Sequence[SegmentInfo]:
        return self._all[index]


class Index:
    """Sparse index from offsets and append times to frames; entries rise in all. Not thread-safe.

    32 bytes an entry, one about every INDEX_BYTES of the log and at least one a segment.
    """

    def __init__(self) -> None:
        self._offsets, self._times_us, self._segments, self._positions = (array("q") for _ in range(4))

    def add(self, base_offset: int, segment: int, position: int, append_time_us: int) -> None:
        """Name a frame, unless one close before it is named."""
        if self._segments and segment == self._segments[-1] and position - self._positions[-1] < INDEX_BYTES:
            return
        self._offsets.append(base_offset)
        self._times_us.append(append_time_us)
        self._segments.append(segment)
        self._positions.append(position)

    def before(self, offset: int) -> tuple[int, int] | None:
        """A place (segment number, position) from which on every row at or above `offset` stands, and every seal at
        it; None: the log's begin."""
        return self._place(bisect_left(self._offsets, offset) - 1)

    def before_time(self, append_time_us: int) -> tuple[int, int] | None:
        """A place from which on every frame appended at that time or later stands; None: the log's begin."""
        return self._place(bisect_left(self._times_us, append_time_us) - 1)

    def offset_before_time(self, append_time_us: int) -> int | None:
        """The offset at such a place; None: the log's begin."""
        at = bisect_left(self._times_us, append_time_us) - 1
        return self._offsets[at] if at >= 0 else None

    def drop_before(self, segment: int) -> None:
        """Forget the entries of the segments below that number."""
        count = bisect_left(self._segments, segment)
        for column in self._columns():
            del column[:count]

    def pack(self) -> list[Any]:
        """As MessagePack takes it."""
        return [column.tobytes() for column in self._columns()]

    def restore(self, packed: list[Any]) -> None:
        """Take what `pack` gave, in place of what is here."""
        for column, data in zip(self._columns(), packed, strict=True):
            del column[:]
            column.frombytes(data)

    def _place(self, at: int) -> tuple[int, int] | None:
        return (self._segments[at], self._positions[at]) if at >= 0 else None

    def _columns(self) -> tuple[array[int], ...]:
        return self._offsets, self._times_us, self._segments, self._positions


def _number(info: SegmentInfo) -> int:
    return info.name.number
