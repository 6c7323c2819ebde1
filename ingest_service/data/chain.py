"""The segments of a log that may be written to meanwhile: which they are, and how they hang together."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from ingest_service.errors import LogDamaged
from ingest_service.log.files import Files
from ingest_service.log.frame import Frame, FrameDamaged
from ingest_service.log.segment import Head, SegmentFile, SegmentName, check_head
from ingest_service.log.start import START_NAME, Start, read_start


@dataclass(frozen=True, slots=True)
class Link:
    """A segment's file as it was when it was looked at.

    size: bytes. frame: its head's; None, and `problem` says why, when it can't be read or belongs elsewhere.
    """

    name: SegmentName
    size: int
    frame: Frame | None
    head: Head | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Chain:
    """The segments that make up a log, oldest first, and what is wrong with how they follow one another.

    start: where the log begins; above 0 when retention has dropped segments.
    """

    links: list[Link]
    problems: list[tuple[str, str]]
    start: Start


def segment_names(files: Files, folder: Path) -> list[SegmentName]:
    """The segments in a log's folder, by number."""
    parsed = (SegmentName.parse(name) for name in files.list_folder(folder))
    return sorted((name for name in parsed if name), key=lambda name: (name.number, name.base_offset))


def read_chain(files: Files, folder: Path, stream: str) -> Chain:
    """Look at all segments of a log, from the newest back: each head names its predecessor.

    Told are segments that are missing, each with the file that says so. No part of the log are a segment that no head
    names and that has no frame behind its head (what is left of one that failed to begin), and those below the log's
    start (what an interrupted retention has left).

    Raises:
        LogDamaged: where the log begins can't be told.
        OSError: the folder can't be read.
    """
    start = read_start(files, folder)
    links: list[Link] = []
    problems: list[tuple[str, str]] = []
    wanted: int | None = None
    for name in reversed(segment_names(files, folder)):
        if name.number < start.segment:
            break
        with_frames, link = _look(files, folder, name, stream)
        if (wanted is not None and name.number > wanted) or (not links and link.head is None and not with_frames):
            if with_frames:
                problems.append((str(links[-1].name), f"its predecessor is number {wanted}, found {name}"))
            continue
        if wanted is not None and name.number < wanted:
            problems.append((str(links[-1].name), f"its predecessor, number {wanted}, is missing"))
        links.append(link)
        wanted = link.head.previous_number if link.head else None
    if start.segment and (not links or links[-1].name.number != start.segment):
        problems.append((START_NAME, f"it names segment number {start.segment} as the first, which is missing"))
    elif wanted and not start.segment:
        problems.append((str(links[-1].name), f"its predecessor, number {wanted}, is missing"))
    return Chain(links[::-1], problems, start)


@dataclass(frozen=True, slots=True)
class LogEnd:
    """What stands before the first byte that is no whole frame: bytes, offset and append time after the last one."""

    position: int
    next_offset: int
    append_time_us: int


def read_end(files: Files, folder: Path, link: Link) -> LogEnd:
    """Where the last segment ended when its link was made: reads it to its last whole frame. Raises OSError."""
    assert link.frame is not None, "only a segment with a head has an end"
    end = LogEnd(0, link.frame.base_offset, link.frame.append_time_us)
    file = SegmentFile(files, folder, link.name)
    try:
        with contextlib.suppress(FrameDamaged):
            for _, frame, after in file.scan(0, link.size):
                end = LogEnd(after, frame.next_offset, frame.append_time_us)
    finally:
        file.close()
    return end


def _look(files: Files, folder: Path, name: SegmentName, stream: str) -> tuple[bool, Link]:
    file = SegmentFile(files, folder, name)
    frame, head, problem, after = None, None, None, 0
    try:
        size = files.size(file.path)
        try:
            found, after = file.frame_at(0)
            frame, head = found, check_head(file, found, stream)
        except (FrameDamaged, LogDamaged) as error:
            frame, problem = None, str(error)
        # Searched only where it decides something: it reads the file as far as the next whole frame.
        with_frames = (head is not None and size > after) or file.whole_frame_after(0, size) is not None
        return with_frames, Link(name, size, frame, head, problem)
    finally:
        file.close()
