"""Reading a log's segments from end to end: every checksum, every head, every offset."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from ingest_service.data.chain import Chain, Link, read_chain
from ingest_service.data.folder import LogPlace
from ingest_service.data.report import LogChecked, Progress, Report
from ingest_service.log.files import Files, OsFiles
from ingest_service.log.frame import BatchCodec, Frame, FrameDamaged, Kind
from ingest_service.log.recovery import read_mark
from ingest_service.log.segment import SegmentFile
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
    """Rows by event date, in days since 1970, as the frames' tables say."""
    _expected: int = 0
    _lost: bool = False
    """Frames before the next segment can't be read: where it begins says nothing of it."""
    _frames: int = 0
    _rows: int = 0
    _bytes: int = 0

    def run(self) -> None:
        """Read everything; what is found goes to the report."""
        folder = self.place.path
        mark = read_mark(self.files, folder)
        chain = read_chain(self.files, folder, self.place.stream)
        for name, problem in chain.problems:
            self.report.damaged(folder / str(name), problem, 0)
        if mark and (not chain.links or chain.links[-1].name.number < mark[0]):
            self.report.damaged(folder, f"expected a segment number {mark[0]}, which was durable; it is missing")
        self._check_begin(chain)
        for i, link in enumerate(chain.links):
            durable = mark[1] if mark and mark[0] == link.name.number else 0
            self._link(link, chain.links[i + 1] if i + 1 < len(chain.links) else None, durable)
        counted = (len(chain.links), self._frames, self._bytes, self._rows, self._expected)
        self.report.logs.append(LogChecked(self.place.stream, folder.name, *counted))

    def _check_begin(self, chain: Chain) -> None:
        if chain.dropped:
            first = chain.links[0]
            self.report.damaged(
                self.place.path / str(first.name), f"its predecessor, number {chain.dropped}, is missing", 0
            )
            self._lost = True

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
            if position:
                self._frame(file, position, frame, codec)
            self._bytes += after - position
            self.progress(after - position)
            position = after

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
        counted = (sum(entry.rows for entry in table.appends), sum(table.days.values()))
        try:
            decoded = codec.decode(frame.body).num_rows if frame.rows else 0
        except (pa.ArrowInvalid, OSError) as error:
            self.report.damaged(file.path, f"its rows can't be decoded: {error}", position)
            return
        if counted != (frame.rows, frame.rows) or decoded != frame.rows:
            self.report.damaged(
                file.path,
                f"expected {frame.rows} rows, found {decoded} in the batch, {counted[0]} in its appends and "
                f"{counted[1]} by date",
                position,
            )
        self._rows += frame.rows
        if frame.next_offset <= self.days_below:
            for day, rows in table.days.items():
                self.days[day] = self.days.get(day, 0) + rows

    def _tail(self, file: SegmentFile, position: int, end: int) -> None:
        self.report.notes.append(
            f"{file.path}: {end - position} bytes from byte {position} on are no whole frame: being written just now, "
            "or a write that was never acknowledged, which the service cuts when it starts"
        )
