"""Reading the log in order, from an offset on, and following its tail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from ingest_service.log.frame import BatchCodec, Frame, FrameDamaged, Kind
from ingest_service.log.records import Entry, Rows, Seal
from ingest_service.log.recovery import conform
from ingest_service.log.segment import SegmentFile
from ingest_service.log.segments import SegmentInfo
from ingest_service.log.state import concat, with_system_columns_of
from ingest_service.log.table import unpack_seal

if TYPE_CHECKING:
    from ingest_service.log.log import Log

READ_BYTES_MAX = 64 << 20
"""What one read gives, about, at the most: rows may be large."""
_FRAME_BYTES_MAX = 16 << 20  # compressed, as frames that are decoded together may grow


class LogReader:
    """Yields durable entries in log order: rows, and seals where they stand. Use it from one thread at a time.

    Reading holds nobody up: the committer does not know its readers. All rows have the columns of `schema`, which the
    contract had when the reader was opened: what was written under another one is null where it lacks a column.
    """

    def __init__(self, log: Log, from_offset: int, columns: Sequence[str] | None = None) -> None:
        """`columns`: of these alone, in the order that they have in the log; the others are not even decompressed."""
        self._log = log
        wanted = [field for field in log.schema if columns is None or field.name in columns]
        self.schema = pa.schema(wanted)
        self._from_offset = from_offset
        self._segment, self._position = log.locate(from_offset)
        self._file: SegmentFile | None = None
        self._codec: BatchCodec | None = None

    def read(self, max_rows: int, timeout_s: float, max_bytes: int = READ_BYTES_MAX) -> list[Entry]:
        """The next entries, about `max_rows` rows and `max_bytes` at the most; [] when none came within `timeout_s`.

        Consecutive rows are one `Rows` entry. A frame is never divided, so a large one may exceed both.

        Raises:
            LogDamaged: a frame that was durable can't be read back.
            OffsetDropped: retention was faster than this reader.
        """
        if not self._log.wait_readable(self._has_more, timeout_s):
            return []
        entries: list[Entry] = []
        run = _Run(self)
        while run.rows < max_rows and run.size_bytes < max_bytes and (found := self._next(run)) is not None:
            if isinstance(found, Seal):
                run.flush(entries)
                entries.append(found)
            else:
                run.add(found)
        run.flush(entries)
        return entries

    def close(self) -> None:
        """Let go of the file; reading on opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _has_more(self) -> bool:
        here = self._segment
        if here is not None and self._position < here.valid_end:
            return True
        segments = self._log.segments
        return bool(segments) and (here is None or segments[-1].name.number > here.name.number)

    def _next(self, run: _Run) -> Rows | Frame | Seal | None:
        """What comes next: rows from memory, a frame with rows, or a seal."""
        while self._has_more():
            # In this order: a segment that has a successor grows no more, so its end is final then.
            number = self._segment.name.number if self._segment else 0
            following = self._log.segments.after(number)
            if self._segment is None or self._position >= self._segment.valid_end:
                if following is None:
                    return None
                self._log.check_kept(number)
                run.decode()  # the next segment may have another schema
                self._segment, self._position = following, 0
                self.close()
            found = self._found_at(self._segment)
            if isinstance(found, Rows) and found.next_offset <= self._from_offset:
                found = None
            if isinstance(found, Seal) and found.seal_offset < self._from_offset:
                found = None
            if found is not None:
                return found
        return None

    def _found_at(self, info: SegmentInfo) -> Rows | Frame | Seal | None:
        """What the frame at the present position holds, which moves behind it; None for one that gives nothing."""
        remembered = self._log.tail.get(info.name.number, self._position)
        if remembered is not None:
            self._position += remembered[1]
            return remembered[0]
        if self._file is None or self._file.name != info.name:
            self.close()
            self._file = self._log.open_segment(info)
            self._codec = BatchCodec(info.schema)
        try:
            frame, after = self._file.frame_at(self._position)
        except FrameDamaged as error:
            raise self._file.damaged(self._position, error) from error
        self._position = after
        if frame.kind is Kind.SEAL:
            return unpack_seal(frame.table, frame.base_offset)
        if frame.kind is Kind.HEAD or not frame.rows or frame.next_offset <= self._from_offset:
            return None
        return frame

    def rows_of(self, frames: Sequence[Frame]) -> Rows:
        """Consecutive frames' rows, decoded together."""
        assert self._codec is not None
        event_time = self._log.spec.event_time
        batch = self._codec.decode_all([frame.body for frame in frames], {*self.schema.names, event_time})
        times = [(frame.append_time_us, frame.rows) for frame in frames]
        batch = with_system_columns_of(batch, self.schema, event_time, frames[0].base_offset, times)
        return Rows(batch, frames[0].base_offset, frames[-1].next_offset)

    def conformed(self, rows: Rows) -> Rows:
        """Rows from memory, with this reader's columns, from the wanted offset on."""
        skip = max(0, self._from_offset - rows.base_offset)
        batch = conform(rows.batch, self.schema)
        return Rows(batch.slice(skip) if skip else batch, rows.base_offset + skip, rows.next_offset)


class _Run:
    """Consecutive rows that one read gives as one entry."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self._done: list[Rows] = []
        self._frames: list[Frame] = []
        self._frame_bytes = 0
        self.rows = 0
        self.size_bytes = 0

    def add(self, found: Rows | Frame) -> None:
        """One frame's rows more; those from files are decoded together."""
        self.rows += found.next_offset - found.base_offset
        if isinstance(found, Frame):
            self._frames.append(found)
            self._frame_bytes += found.body.size
            if self._frame_bytes >= _FRAME_BYTES_MAX:
                self.decode()
            return
        self.decode()
        self._take(found)

    def decode(self) -> None:
        """Decodes what was added; no later frame may be decoded with it."""
        if self._frames:
            self._take(self._reader.rows_of(self._frames))
            self._frames = []
            self._frame_bytes = 0

    def _take(self, rows: Rows) -> None:
        rows = self._reader.conformed(rows)
        self._done.append(rows)
        self.size_bytes += rows.batch.nbytes

    def flush(self, entries: list[Entry]) -> None:
        """Adds the rows so far to a read's entries."""
        self.decode()
        if self._done:
            batch = concat([rows.batch for rows in self._done])
            entries.append(Rows(batch, self._done[0].base_offset, self._done[-1].next_offset))
            self._done = []
