"""Writing frames: the active segment, its fsyncs, and what happens when one fails."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from ingest_service.log import frame as frames
from ingest_service.log.files import Files, WriteHandle
from ingest_service.log.frame import Kind
from ingest_service.log.records import LogSpec
from ingest_service.log.recovery import write_mark
from ingest_service.log.segment import Head, SegmentName
from ingest_service.log.segments import SegmentInfo, Segments
from ingest_service.log.timings import Timings


class SegmentWriter:
    """Appends frames to the active segment and begins new ones. Not thread-safe: the committer alone uses it.

    A frame is durable once `write` returns. When it raises, nothing of the frame counts: the segment is given up at
    its last valid byte, and the next write begins a new one.
    """

    def __init__(self, files: Files, folder: Path, spec: LogSpec, segments: Segments, segment_bytes: int) -> None:
        self._files, self._folder, self._spec = files, folder, spec
        self._segments = segments
        self._segment_bytes = segment_bytes
        self._handle: WriteHandle | None = None
        self.sync_times = Timings()
        self._number = segments[-1].name.number if segments else 0
        if segments and segments[-1].schema.equals(spec.schema) and segments[-1].valid_end < segment_bytes:
            self._handle = files.open_append(folder / str(segments[-1].name))

    def write(self, frame: bytes, base_offset: int, now_us: int) -> tuple[SegmentInfo, int]:
        """Write and sync one frame; returns its segment and position, and makes them part of the log.

        Raises:
            OSError: it is not durable.
        """
        handle, info = self._active(base_offset, now_us)
        position = info.valid_end
        try:
            handle.write(frame)
            begun_s = time.perf_counter()
            handle.sync()
            self.sync_times.add(time.perf_counter() - begun_s)
        except BaseException:
            self._give_up()
            # What was refused must not be there after the next start either, where that can be helped.
            with contextlib.suppress(OSError):
                self._files.truncate(self._folder / str(info.name), position)
            raise
        info.valid_end = position + len(frame)
        if info.valid_end >= self._segment_bytes:
            self._give_up()
        return info, position

    def take_spec(self, spec: LogSpec) -> None:
        """Write by another spec from the next frame on, which begins a segment: one has one schema."""
        self._give_up()
        self._spec = spec

    def _active(self, base_offset: int, now_us: int) -> tuple[WriteHandle, SegmentInfo]:
        if self._handle is not None:
            return self._handle, self._segments[-1]
        # The number is used up even if this fails: a name is never used twice.
        self._number += 1
        name = SegmentName(base_offset, self._number)
        previous = self._segments[-1] if self._segments else None
        head = Head(
            self._spec.stream,
            self._spec.contract_version,
            previous.name.number if previous else 0,
            previous.valid_end if previous else 0,
        )
        body = self._spec.schema.serialize().to_pybytes()
        frame = frames.encode(Kind.HEAD, base_offset, 0, now_us, head.table(), body)
        path = self._folder / str(name)
        handle = self._files.create(path)
        try:
            handle.write(frame)
            handle.sync()
            self._files.sync_folder(self._folder)
        except BaseException:
            handle.close()
            with contextlib.suppress(OSError):
                self._files.remove(path)
            raise
        info = SegmentInfo(name, self._spec.schema, len(frame), now_us)
        self._segments.append(info)
        self._handle = handle
        self.mark()
        return handle, info

    def _give_up(self) -> None:
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._handle.close()
            self._handle = None

    def mark(self) -> None:
        """Record what is durable now; recovery is stricter below it. Best effort: nothing depends on it."""
        if self._segments:
            with contextlib.suppress(OSError):
                write_mark(self._files, self._folder, self._segments[-1].name.number, self._segments[-1].valid_end)

    def close(self) -> None:
        """Close the active segment."""
        self._give_up()
        self.mark()
