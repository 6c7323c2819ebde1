"""Reading the log in order, from an offset on, and following its tail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingest_service.log.frame import BatchCodec, FrameDamaged, Kind
from ingest_service.log.records import Entry, Rows, contract_columns
from ingest_service.log.recovery import conform
from ingest_service.log.segment import SegmentFile
from ingest_service.log.segments import SegmentInfo
from ingest_service.log.state import add_system_columns, concat
from ingest_service.log.table import unpack_seal

if TYPE_CHECKING:
    from ingest_service.log.log import Log

READ_BYTES_MAX = 64 << 20
"""What one read gives, about, at the most: rows may be large."""


class LogReader:
    """Yields durable entries in log order: rows, and seals where they stand. Use it from one thread at a time.

    Reading holds nobody up: the committer does not know its readers. All rows have the columns of `schema`, which the
    contract had when the reader was opened: what was written under another one is null where it lacks a column.
    """

    def __init__(self, log: Log, from_offset: int) -> None:
        self._log = log
        self.schema = log.schema
        self._in_frames = contract_columns(self.schema)
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
        run: list[Rows] = []
        rows = size_bytes = 0
        while rows < max_rows and size_bytes < max_bytes and (entry := self._next()) is not None:
            if isinstance(entry, Rows):
                run.append(entry)
                rows += entry.next_offset - entry.base_offset
                size_bytes += entry.batch.nbytes
            else:
                _flush(run, entries)
                entries.append(entry)
        _flush(run, entries)
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

    def _next(self) -> Entry | None:
        while self._has_more():
            # In this order: a segment that has a successor grows no more, so its end is final then.
            number = self._segment.name.number if self._segment else 0
            following = self._log.segments.after(number)
            if self._segment is None or self._position >= self._segment.valid_end:
                if following is None:
                    return None
                self._log.check_kept(number)
                self._segment, self._position = following, 0
                self.close()
            entry = self._entry_at(self._segment)
            if isinstance(entry, Rows):
                entry = self._from_wanted(entry)
            elif entry is not None and entry.seal_offset < self._from_offset:
                entry = None
            if entry is not None:
                return entry
        return None

    def _entry_at(self, info: SegmentInfo) -> Entry | None:
        """The entry of the frame at the present position, which moves behind it; None for one without entry."""
        remembered = self._log.tail.get(info.name.number, self._position)
        if remembered is not None:
            self._position += remembered[1]
            rows = remembered[0]
            return Rows(conform(rows.batch, self.schema), rows.base_offset, rows.next_offset)
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
        assert self._codec is not None
        event_time = self._log.spec.event_time
        batch = conform(self._codec.decode(frame.body), self._in_frames)
        batch = add_system_columns(batch, self.schema, event_time, frame.base_offset, frame.append_time_us)
        return Rows(batch, frame.base_offset, frame.next_offset)

    def _from_wanted(self, rows: Rows) -> Rows | None:
        skip = self._from_offset - rows.base_offset
        if skip <= 0:
            return rows
        if rows.next_offset <= self._from_offset:
            return None
        return Rows(rows.batch.slice(skip), self._from_offset, rows.next_offset)


def _flush(run: list[Rows], entries: list[Entry]) -> None:
    if run:
        batch = concat([rows.batch for rows in run])
        entries.append(Rows(batch, run[0].base_offset, run[-1].next_offset))
        run.clear()
