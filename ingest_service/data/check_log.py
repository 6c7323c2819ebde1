"""Reading a log's segments from end to end: every checksum, every head, every offset."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from ingest_service.data.chain import Chain, Link, read_chain
from ingest_service.data.check_derived import KnownState, check_kept_quarantine, check_snapshots
from ingest_service.data.folder import LogPlace
from ingest_service.data.report import LogChecked, Progress, Report
from ingest_service.errors import LogDamaged
from ingest_service.log.files import Files, OsFiles
from ingest_service.log.frame import BatchCodec, Frame, FrameDamaged, Kind
from ingest_service.log.recovery import read_mark
from ingest_service.log.segment import SegmentFile
from ingest_service.log.snapshot import LOG_BEGIN, Place
from ingest_service.log.table import RowsTable


@dataclass(slots=True)
class LogCheck:
    """Reads one log as it is when `run` begins; what is appended meanwhile is left for another time.

    By the rules of the log's own recovery: a segment is valid as far as its successor says, and what follows the last
    whole frame of the last one, beyond the durable mark, was never acknowledged.

    days_below: `days` counts the rows below this offset.
    """

    place: LogPlace
    report: Report
    progress: Progress
    days_below: int = 0
    files: Files = field(default_factory=OsFiles)
    days: dict[int, int] = field(default_factory=dict)
    """Rows by event date, in days since 1970: those of dropped segments as a snapshot says, the others as the frames'
    tables do."""
    schemas: list[tuple[Path, pa.Schema]] = field(default_factory=list)
    """What each segment's rows look like, by its file."""
    _expected: int = 0
    _lost: bool = False
    """Frames before the next segment can't be read: where it begins says nothing of it."""
    _end: Place = LOG_BEGIN
    _snapshots: dict[Place, KnownState] = field(default_factory=dict)
    _days_from: Place = LOG_BEGIN
    """The place of the snapshot that `days` began with."""
    _frames: int = 0
    _rows: int = 0
    _bytes: int = 0

    def run(self) -> None:
        """Read everything; what is found goes to the report. Raises OSError."""
        folder = self.place.path
        # Before the segments: neither may know of more than there is.
        mark = read_mark(self.files, folder)
        known = check_snapshots(self.files, folder, self.place.stream, self.report)
        try:
            chain = read_chain(self.files, folder, self.place.stream)
        except LogDamaged as error:
            self.report.damaged(error.file, error, error.position)
            return
        for file, problem in chain.problems:
            self.report.damaged(folder / file, problem)
        self._begin(chain, known)
        if mark and (not chain.links or chain.links[-1].name.number < mark[0]):
            self.report.damaged(folder, f"expected a segment number {mark[0]}, which was durable; it is missing")
        for i, link in enumerate(chain.links):
            durable = mark[1] if mark and mark[0] == link.name.number else 0
            self._link(link, chain.links[i + 1] if i + 1 < len(chain.links) else None, durable)
        for place in self._snapshots:
            if place > self._end:
                self.report.damaged(folder / str(place), f"it knows of rows behind {self._end}, where the log ends")
        check_kept_quarantine(self.files, folder, self.report)
        counted = (len(chain.links), self._frames, self._bytes, self._rows, self._expected)
        self.report.logs.append(LogChecked(self.place.stream, folder.name, chain.start.offset, *counted))

    def _begin(self, chain: Chain, known: list[KnownState]) -> None:
        self._expected = chain.start.offset
        self._lost = bool(chain.problems)
        self._snapshots = {each.place: each for each in known}
        if known:
            self._days_from, self.days = known[0].place, dict(known[0].days)
        elif chain.start.segment:
            problem = "no snapshot can be read: counts, seals and producers of the segments that were dropped are lost"
            self.report.damaged(self.place.path, problem)

    def _link(self, link: Link, successor: Link | None, durable: int) -> None:
        path = self.place.path / str(link.name)
        if link.frame is None:
            self.report.damaged(path, link.problem, 0)
            self._lost = True
            return
        end = successor.head.previous_valid_bytes if successor and successor.head else link.size
        if link.size < max(end, durable):
            problem = f"the file ends here; {max(end, durable)} bytes of it were durable"
            self.report.damaged(path, problem, link.size)
        if self._lost:
            self._expected, self._lost = link.frame.base_offset, False
        if not link.frame.base_offset == link.name.base_offset == self._expected:
            problem = f"expected it to begin at offset {self._expected}, its head says {link.frame.base_offset}"
            self.report.damaged(path, problem, 0)
            self._expected = link.frame.base_offset
        file = SegmentFile(self.files, self.place.path, link.name)
        try:
            codec = BatchCodec(pa.ipc.read_schema(link.frame.body))
            self.schemas.append((path, codec.schema))
            self._frames_of(file, codec, min(end, link.size), durable, last=successor is None)
        finally:
            file.close()

    def _frames_of(self, file: SegmentFile, codec: BatchCodec, end: int, durable: int, *, last: bool) -> None:
        position = 0
        while position < end:
            try:
                frame, after = file.frame_at(position)
                if after > end:
                    raise FrameDamaged(f"expected the frame to end at or before {end}, it ends at {after}")
            except FrameDamaged as error:
                following = file.whole_frame_after(position, end)
                if last and position >= durable and following is None:
                    self._tail(file, position, end)
                    return
                self.report.damaged(file.path, error, position)
                if following is None:
                    self._lost = True
                    return
                # Later damage is worth knowing too; the rows between are what this one costs.
                position, self._expected = following, file.frame_at(following)[0].base_offset
                continue
            self._place(file, Place(file.name.number, position))
            if position:
                self._frame(file, position, frame, codec)
            self._bytes += after - position
            self.progress(after - position)
            position = after
            self._end = Place(file.name.number, after)
        self._place(file, self._end)

    def _place(self, file: SegmentFile, place: Place) -> None:
        """What a snapshot of this place says must be what the frames before it say."""
        known = self._snapshots.get(place)
        if known is not None and known.next_offset != self._expected:
            problem = f"it says that offset {known.next_offset} comes next, the frames before it say {self._expected}"
            self.report.damaged(file.path.with_name(str(place)), problem)

    def _frame(self, file: SegmentFile, position: int, frame: Frame, codec: BatchCodec) -> None:
        if frame.base_offset != self._expected:
            self.report.damaged(
                file.path, f"expected offset {self._expected}, found {frame.base_offset}: a frame is missing", position
            )
        self._expected = frame.next_offset
        self._frames += 1
        if frame.kind is not Kind.ROWS:
            return
        table = RowsTable.unpack(frame.table)
        told = (sum(entry.rows for entry in table.appends), sum(table.days.values()))
        try:
            decoded = codec.decode(frame.body).num_rows if frame.rows else 0
        except (pa.ArrowInvalid, OSError) as error:
            self.report.damaged(file.path, f"its rows can't be decoded: {error}", position)
            return
        if told != (frame.rows, frame.rows) or decoded != frame.rows:
            self.report.damaged(
                file.path,
                f"expected {frame.rows} rows, found {decoded} in the batch, {told[0]} in its appends and "
                f"{told[1]} by date",
                position,
            )
        self._rows += frame.rows
        counted = Place(file.name.number, position) < self._days_from
        wanted = frame.next_offset <= self.days_below
        if counted != wanted:
            for day, rows in table.days.items():
                self.days[day] = self.days.get(day, 0) + (rows if wanted else -rows)

    def _tail(self, file: SegmentFile, position: int, end: int) -> None:
        self.report.notes.append(
            f"{file.path}: {end - position} bytes from byte {position} on are no whole frame: being written just now, "
            "or a write that was never acknowledged, which the service cuts when it starts"
        )
