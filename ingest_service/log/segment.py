"""Segments: the files of a log, each a run of frames.

A file is named `<base offset>-<number>.seg`; numbers rise by one and give the order, also of two segments with the
same base offset (after a failed write a new one starts at the durable offset). The first frame is the HEAD: stream,
contract version, schema, and of its predecessor the name and how many bytes of it are valid: what a predecessor
holds beyond that was never durable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingest_service.errors import LogDamaged
from ingest_service.log import frame as frames
from ingest_service.log.files import Files, ReadHandle
from ingest_service.log.frame import Frame, FrameDamaged, Kind

FORMAT_VERSION = 1
_NAME = re.compile(r"^(\d{20})-(\d{6,})\.seg$")


@dataclass(frozen=True, slots=True)
class SegmentName:
    """A segment's base offset and number."""

    base_offset: int
    number: int

    def __str__(self) -> str:
        return f"{self.base_offset:020d}-{self.number:06d}.seg"

    @classmethod
    def parse(cls, name: str) -> SegmentName | None:
        """The name's parts, or None when it is no segment's."""
        match = _NAME.match(name)
        return cls(int(match[1]), int(match[2])) if match else None


@dataclass(frozen=True, slots=True)
class Head:
    """What a segment's first frame says."""

    stream: str
    contract_version: int
    previous_number: int
    previous_valid_bytes: int

    @classmethod
    def of(cls, frame: Frame) -> Head:
        """The head in a HEAD frame."""
        return cls(*frame.table[1:5])

    def table(self) -> list[object]:
        """The HEAD frame's table."""
        return [FORMAT_VERSION, self.stream, self.contract_version, self.previous_number, self.previous_valid_bytes]


class SegmentFile:
    """Reads one segment's frames by position (bytes). Thread-safe once open."""

    def __init__(self, files: Files, folder: Path, name: SegmentName) -> None:
        self.name = name
        self.path = folder / str(name)
        self._handle: ReadHandle = files.open_read(self.path)

    def frame_at(self, position: int) -> tuple[Frame, int]:
        """The frame at `position` and the position after it.

        Raises:
            FrameDamaged: what is there is no whole, unaltered frame.
        """
        prefix = self._handle.read_at(position, frames.PREFIX.size)
        length = frames.payload_length(prefix)
        payload = self._handle.read_at(position + frames.PREFIX.size, length)
        return frames.decode(prefix, payload), position + frames.PREFIX.size + length

    def scan(self, position: int, end: int) -> Iterator[tuple[int, Frame, int]]:
        """The frames from `position` up to `end`, each with where it begins and ends.

        Raises:
            FrameDamaged: at the first that is damaged, or that reaches beyond `end`.
        """
        while position < end:
            frame, after = self.frame_at(position)
            if after > end:
                raise FrameDamaged(f"expected the frame to end at or before {end}, it ends at {after}")
            yield position, frame, after
            position = after

    def whole_frame_after(self, position: int, end: int) -> int | None:
        """Where the first whole frame after `position` begins, or None: tells damage inside from a torn end."""
        chunk_bytes = 1 << 20
        at = position + 1
        while at < end:
            chunk = self._handle.read_at(at, chunk_bytes + len(frames.MAGIC))
            found = chunk.find(frames.MAGIC)
            while found >= 0:
                try:
                    self.frame_at(at + found)
                except FrameDamaged:
                    found = chunk.find(frames.MAGIC, found + 1)
                else:
                    return at + found
            at += chunk_bytes
        return None

    def damaged(self, position: int, why: object) -> LogDamaged:
        """The error that names this file and position."""
        return damaged(self.path, position, why)

    def close(self) -> None:
        """Close the file."""
        self._handle.close()


def damaged(path: Path, position: int, why: object) -> LogDamaged:
    """The error that names a file of the log and a position in it."""
    return LogDamaged(
        f"{path} is damaged at byte {position}: {why}. Rows below the durable offset are affected, so the stream does "
        "not start. Restore the file from a backup, or move the stream's folder away to begin anew.",
        str(path),
        position,
    )


def check_head(file: SegmentFile, frame: Frame, stream: str) -> Head:
    """The segment's head, checked.

    Raises:
        LogDamaged: another kind of frame, another stream's segment, or a format that this release does not know.
    """
    if frame.kind is not Kind.HEAD:
        raise file.damaged(0, f"expected the segment to begin with its head, found a frame of kind {frame.kind.name}")
    if frame.table[0] != FORMAT_VERSION:
        raise file.damaged(0, f"expected format version {FORMAT_VERSION}, found {frame.table[0]}; use a newer release")
    head = Head.of(frame)
    if head.stream != stream:
        raise file.damaged(0, f"expected stream {stream!r}, found {head.stream!r}: the file belongs elsewhere")
    return head
