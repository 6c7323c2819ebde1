"""Which frames hold quarantined rows, and which of the rows were replayed since."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import numpy as np

from ingest_service.errors import BadRequest
from ingest_service.log.records import Replayed
from ingest_service.log.table import pack_bits

_POSITION_BITS = 40
"""A position (bytes) fits; above it stands the segment's number, so that places rise as frames follow each other."""
_ID = re.compile(r"^(\d{1,7})-(\d{1,12})-(\d{1,9})$", re.ASCII)


class RowId(NamedTuple):
    """Names a quarantined row for good: its frame, and its place among the frame's quarantined rows, from 0."""

    segment: int
    position: int
    number: int

    def __str__(self) -> str:
        return f"{self.segment}-{self.position}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> RowId:
        """The id in its written form; raises BadRequest when it is none."""
        match = _ID.match(text)
        if match is None:
            raise BadRequest(
                f"expected a quarantined row's id such as 1-4096-0, came {text[:40]!r}; `tidemill quarantine list` "
                "shows them"
            )
        return cls(*(int(part) for part in match.groups()))


def replays_of(ids: Iterable[str]) -> tuple[Replayed, ...]:
    """The rows of these ids by frame, as an append carries them, in the order of the log."""
    frames: dict[tuple[int, int], int] = {}
    for segment, position, number in map(RowId.parse, ids):
        frames[segment, position] = frames.get((segment, position), 0) | 1 << number
    return tuple(Replayed(*place, rows) for place, rows in sorted(frames.items()))


class QuarantineFrame(NamedTuple):
    """A frame with quarantined rows. replayed: bit k is set when its k-th was replayed."""

    segment: int
    position: int
    base_offset: int
    append_time_us: int
    rows: int
    replayed: int

    @property
    def waiting(self) -> int:
        """Rows that were not replayed."""
        return self.rows - self.replayed.bit_count()


class QuarantineIndex:
    """The frames with quarantined rows, oldest first, bounded in rows. Not thread-safe: its log guards it.

    40 bytes a frame, and a bit a row of frames of which some were replayed. Over `rows_max` the oldest frames are
    forgotten, down to it, once an eighth more has come: their rows can no longer be listed or replayed.
    """

    def __init__(self, rows_max: int = 1_000_000) -> None:
        self._rows_max = rows_max
        self._places, self._offsets, self._times_us, self._rows, self._done = (array("q") for _ in range(5))
        self._replayed: dict[int, int] = {}
        self._total = 0
        self._total_done = 0

    @property
    def waiting(self) -> int:
        """Rows that are kept and were not replayed."""
        return self._total - self._total_done

    def add(self, segment: int, position: int, base_offset: int, append_time_us: int, rows: int) -> None:
        """Take in a durable frame that holds `rows` quarantined rows."""
        self._places.append(_place(segment, position))
        self._offsets.append(base_offset)
        self._times_us.append(append_time_us)
        self._rows.append(rows)
        self._done.append(0)
        self._total += rows
        if self._total > self._rows_max + self._rows_max // 8:
            self._drop_to(self._rows_max)

    def mark_replayed(self, replays: Iterable[Replayed]) -> None:
        """Remember that rows were appended; those of frames that are forgotten are nothing to remember."""
        for each in replays:
            place = _place(each.segment, each.position)
            at = self._at(place)
            if at is not None:
                replayed = self._replayed[place] = self._replayed.get(place, 0) | each.rows
                self._total_done += replayed.bit_count() - self._done[at]
                self._done[at] = replayed.bit_count()

    def frame(self, segment: int, position: int) -> QuarantineFrame | None:
        """The frame at that place, or None when it is not known, or forgotten."""
        at = self._at(_place(segment, position))
        return None if at is None else self._frame(at)

    def frames(self) -> list[QuarantineFrame]:
        """Those with rows that were not replayed, oldest first."""
        return [self._frame(at) for at in self._waiting_at()]

    def newest(self, limit: int) -> list[QuarantineFrame]:
        """The newest `limit` of those with rows that were not replayed, newest first."""
        return [self._frame(at) for at in reversed(self._waiting_at()[-limit:])]

    def frames_of(self, segment: int) -> list[QuarantineFrame]:
        """Those of one segment with rows that were not replayed, oldest first."""
        first, end = (bisect_left(self._places, _place(each, 0)) for each in (segment, segment + 1))
        return [frame for at in range(first, end) if (frame := self._frame(at)).waiting]

    def segments(self) -> set[int]:
        """The numbers of the segments that hold or held these frames."""
        return set(np.unique(np.frombuffer(self._places, np.int64) >> _POSITION_BITS).tolist())

    def drop_older(self, append_time_us: int) -> None:
        """Forget the frames from before that time."""
        self._drop(bisect_left(self._times_us, append_time_us))

    def keep(self, first_segment: int, others: Collection[int]) -> None:
        """Forget the frames of segments below `first_segment`, except of the `others`."""
        end = bisect_left(self._places, _place(first_segment, 0))
        segments = np.frombuffer(self._places, np.int64, end) >> _POSITION_BITS if end else np.zeros(0, np.int64)
        kept = np.isin(segments, list(others))
        if kept.all():
            return
        for at in np.flatnonzero(~kept).tolist():
            self._forget(at)
        for column in self._columns():
            column[:end] = array("q", np.frombuffer(column, np.int64, end)[kept].tobytes())

    def pack(self) -> list[Any]:
        """As MessagePack takes it."""
        replayed = {place: pack_bits(bits) for place, bits in self._replayed.items()}
        return [[column.tobytes() for column in self._columns()], replayed]

    def restore(self, packed: list[Any]) -> None:
        """Take what `pack` gave, in place of what is here."""
        columns, replayed = packed
        for column, data in zip(self._columns(), columns, strict=True):
            del column[:]
            column.frombytes(data)
        self._replayed = {place: int.from_bytes(bits, "little") for place, bits in replayed.items()}
        self._total, self._total_done = sum(self._rows), sum(self._done)
        self._drop_to(self._rows_max + self._rows_max // 8)

    def _waiting_at(self) -> list[int]:
        rows, done = (np.frombuffer(column, np.int64) for column in (self._rows, self._done))
        found: list[int] = np.flatnonzero(rows > done).tolist()
        return found

    def _drop_to(self, rows_max: int) -> None:
        count, left = 0, self._total
        while left > rows_max:
            left -= self._rows[count]
            count += 1
        self._drop(count)

    def _drop(self, count: int) -> None:
        for at in range(count):
            self._forget(at)
        for column in self._columns():
            del column[:count]

    def _forget(self, at: int) -> None:
        self._total -= self._rows[at]
        self._total_done -= self._done[at]
        self._replayed.pop(self._places[at], None)

    def _at(self, place: int) -> int | None:
        at = bisect_left(self._places, place)
        return at if at < len(self._places) and self._places[at] == place else None

    def _frame(self, at: int) -> QuarantineFrame:
        place = self._places[at]
        segment, position = place >> _POSITION_BITS, place & ((1 << _POSITION_BITS) - 1)
        return QuarantineFrame(
            segment, position, self._offsets[at], self._times_us[at], self._rows[at], self._replayed.get(place, 0)
        )

    def _columns(self) -> tuple[array[int], ...]:
        return self._places, self._offsets, self._times_us, self._rows, self._done


def _place(segment: int, position: int) -> int:
    return segment << _POSITION_BITS | position
