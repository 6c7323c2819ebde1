"""Quarantine: the rows that broke their contract, read from the frames that hold them.

When retention drops a segment, its quarantined rows are kept in a file of their own, named as the segment with the
ending `.quarantine`: a run of frames (see `frame`) of kind QUARANTINE, one for each frame of the segment with rows that
were not replayed yet, with the table `[position in the segment, table]`; `table` is a RowsTable whose verdicts are cut
down to the quarantined rows. So a row keeps its id, and which rows were replayed stays the log's to tell.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from threading import Lock

from ingest_service.errors import BadRequest
from ingest_service.log import frame as frames
from ingest_service.log.files import Files
from ingest_service.log.frame import FrameDamaged, Kind
from ingest_service.log.quarantine_index import QuarantineFrame, QuarantineIndex, RowId
from ingest_service.log.records import KeptRow, Verdict
from ingest_service.log.segment import SegmentFile, SegmentName
from ingest_service.log.segments import SegmentInfo
from ingest_service.log.table import RowsTable

SUFFIX = ".quarantine"
LISTED_BYTES_MAX = 32 << 20
"""Payload bytes of one listing; it ends early where they are reached."""


@dataclass(frozen=True, slots=True)
class KeptName(SegmentName):
    """The name of the file that keeps a dropped segment's quarantined rows."""

    def __str__(self) -> str:
        return f"{self.base_offset:020d}-{self.number:06d}{SUFFIX}"


class Quarantine:
    """One log's quarantined rows. Thread-safe; `index` is guarded by `lock`, which is the log's."""

    def __init__(
        self,
        files: Files,
        folder: Path,
        index: QuarantineIndex,
        lock: Lock,
        segment: Callable[[int], SegmentInfo | None],
    ) -> None:
        self._files, self._folder, self._index, self._lock = files, folder, index, lock
        self._segment = segment
        self.replaying = Lock()
        """Held by who replays: one at a time."""
        # Where a kept file has its frames, of the one that was read last: they never change.
        self._kept_places: tuple[SegmentName | None, dict[int, int]] = None, {}

    @property
    def waiting(self) -> int:
        """Rows that are kept and were not replayed."""
        with self._lock:
            return self._index.waiting

    def newest(self, limit: int) -> list[KeptRow]:
        """The newest rows that were not replayed, `limit` at the most, oldest of them first.

        Raises:
            LogDamaged: a frame can't be read back.
        """
        found: list[KeptRow] = []
        size_bytes = 0
        with self._lock:
            newest = self._index.newest(limit)
        for frame in newest:
            rows = [row for row in self._rows_of(frame) if not row.replayed][-(limit - len(found)) :]
            size_bytes += sum(len(row.row.payload) for row in rows)
            if found and size_bytes > LISTED_BYTES_MAX:
                break
            found = rows + found
            if len(found) >= limit:
                break
        return found

    def by_id(self, ids: Sequence[str]) -> list[KeptRow]:
        """The rows of these ids, oldest first, replayed or not.

        Raises:
            BadRequest: there is no row of that id, or it is no longer kept.
            LogDamaged: a frame can't be read back.
        """
        wanted = sorted({RowId.parse(text) for text in ids})
        found: list[KeptRow] = []
        for place, group in groupby(wanted, key=lambda each: each[:2]):
            with self._lock:
                frame = self._index.frame(*place)
            rows = self._rows_of(frame) if frame is not None else []
            for each in group:
                if each.number >= len(rows):
                    raise BadRequest(
                        f"there is no quarantined row {each}, or it is no longer kept; `tidemill quarantine list` "
                        "shows those that are"
                    )
                found.append(rows[each.number])
        return found

    def all_waiting(self) -> Iterator[list[KeptRow]]:
        """All rows that were not replayed when this began, oldest first, frame by frame.

        Raises:
            LogDamaged: a frame can't be read back.
        """
        with self._lock:
            waiting = self._index.frames()
        for frame in waiting:
            yield [row for row in self._rows_of(frame) if not row.replayed]

    # What retention asks.

    def keep(self, info: SegmentInfo) -> None:
        """Write the rows of a segment that is to be dropped, as far as they were not replayed, into a file of their
        own; nothing happens when there are none. Raises OSError."""
        with self._lock:
            held = self._index.frames_of(info.name.number)
        if not held:
            return
        with contextlib.closing(SegmentFile(self._files, self._folder, info.name)) as file:
            kept = b"".join(_quarantined_only(frame, _read(file, frame.position)) for frame in held)
        self._files.replace(self._path(info.name), kept)

    def expire(self, before_us: int) -> None:
        """Forget the rows quarantined before that time (µs); files that hold no others are removed. Raises OSError."""
        with self._lock:
            self._index.drop_older(before_us)
            needed = self._index.segments()
        for name in self._kept_names():
            if name.number not in needed:
                self._files.remove(self._path(name))

    def forget_dropped(self, first_segment: int) -> None:
        """Forget rows whose segment was dropped, as it had only replayed ones, or they expired. Raises OSError."""
        kept = {name.number for name in self._kept_names()}
        with self._lock:
            self._index.keep(first_segment, kept)

    def _rows_of(self, frame: QuarantineFrame) -> list[KeptRow]:
        """All rows of a frame, in the order of their ids; none when it was dropped meanwhile with nothing to keep."""
        table = self._table(frame)
        if table is None:
            return []
        rows = ((entry, row) for entry in table.appends for row in entry.quarantined)
        return [
            KeptRow(
                row_id=str(RowId(frame.segment, frame.position, number)),
                at_offset=frame.base_offset,
                append_time_us=frame.append_time_us,
                producer_id=entry.producer_id,
                sequence=entry.sequence,
                row=row,
                replayed=bool(frame.replayed >> number & 1),
            )
            for number, (entry, row) in enumerate(rows)
        ]

    def _table(self, frame: QuarantineFrame) -> RowsTable | None:
        if (info := self._segment(frame.segment)) is not None:
            with contextlib.suppress(FileNotFoundError), self._opened(info.name) as file:
                return _read(file, frame.position)
        # Dropped, perhaps just now.
        for name in self._kept_names():
            if name.number == frame.segment:
                with self._opened(name) as file:
                    position = self._places(file).get(frame.position)
                    return None if position is None else _read(file, position)
        return None

    def _places(self, file: SegmentFile) -> dict[int, int]:
        """Where a kept file has its frames: their positions in the segment → their positions here."""
        name, places = self._kept_places
        if name != file.name:
            end = self._files.size(file.path)
            places = {frame.table[0]: position for position, frame in _scan(file, end)}
            self._kept_places = file.name, places
        return places

    def _opened(self, name: SegmentName) -> contextlib.closing[SegmentFile]:
        return contextlib.closing(SegmentFile(self._files, self._folder, name))

    def _kept_names(self) -> list[KeptName]:
        names = (name for name in self._files.list_folder(self._folder) if name.endswith(SUFFIX))
        parsed = (SegmentName.parse(name.removesuffix(SUFFIX) + ".seg") for name in names)
        return [KeptName(name.base_offset, name.number) for name in parsed if name]

    def _path(self, name: SegmentName) -> Path:
        return self._folder / str(KeptName(name.base_offset, name.number))


def _quarantined_only(held: QuarantineFrame, table: RowsTable) -> bytes:
    """The frame that keeps a frame's quarantined rows."""
    appends = tuple(
        replace(
            entry,
            verdicts=tuple(v for v in entry.verdicts if v.verdict is Verdict.QUARANTINED),
            replays=(),
        )
        for entry in table.appends
        if entry.quarantined
    )
    packed = [held.position, replace(table, appends=appends).pack()]
    return frames.encode(Kind.QUARANTINE, held.base_offset, 0, held.append_time_us, packed, b"")


def _read(file: SegmentFile, position: int) -> RowsTable:
    """The table of the frame at that position, in a segment or in a file that keeps rows of one."""
    try:
        frame, _ = file.frame_at(position)
    except FrameDamaged as error:
        raise file.damaged(position, error) from error
    return RowsTable.unpack(frame.table[1] if frame.kind is Kind.QUARANTINE else frame.table)


def _scan(file: SegmentFile, end: int) -> Iterator[tuple[int, frames.Frame]]:
    position = 0
    try:
        for at, frame, position in file.scan(0, end):  # noqa: B007 - where the next one begins, for the error
            yield at, frame
    except FrameDamaged as error:
        raise file.damaged(position, error) from error
