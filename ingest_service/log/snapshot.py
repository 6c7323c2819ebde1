"""Snapshots: what a log knows beside its bytes, as of one place in it, so that a start-up reads only what comes after.

A snapshot is a pure function of the frames before its place, and may be thrown away as long as all of them are there.
Once retention has dropped segments it is the only account of them (counts, seals, producers), so two are kept, and no
segment is dropped that the older one lacks.

A file is named `<segment number>-<position>.snapshot` and is one frame (see `frame`) of kind SNAPSHOT, with the table
`[format version, stream, state, index]` (see `LogState.pack`, `Index.pack`). The dedup window is not in it: its ids are
read again from the frames that hold them, which retention leaves alone.

Whoever copies a log that is being written copies its snapshots before its segments: a snapshot that names a place
beyond the log's end proves that rows are missing.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ingest_service.log import frame as frames
from ingest_service.log.files import Files
from ingest_service.log.frame import Frame, FrameDamaged, Kind

FORMAT_VERSION = 1
SNAPSHOTS_KEPT = 2
_NAME = re.compile(r"^(\d{6,})-(\d{12})\.snapshot$", re.ASCII)


class Place(NamedTuple):
    """A place between two frames: a segment's number, and a position (bytes) in it."""

    segment: int
    position: int

    def __str__(self) -> str:
        return f"{self.segment:06d}-{self.position:012d}.snapshot"


LOG_BEGIN = Place(0, 0)
"""Before every frame."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot as read: everything before `place` is in `state` and `index`, as their `restore` takes them."""

    place: Place
    state: list[Any]
    index: list[Any]


def write_snapshot(files: Files, folder: Path, stream: str, snapshot: Snapshot) -> None:
    """Make the snapshot durable, then remove those that are too old to be kept.

    Raises:
        OSError: it can't be written, or is larger than a frame may be: then the log is read from an older one on.
    """
    table = [FORMAT_VERSION, stream, snapshot.state, snapshot.index]
    frame = frames.encode(Kind.SNAPSHOT, 0, 0, 0, table, b"")
    if len(frame) > frames.FRAME_BYTES_MAX:
        raise OSError(errno.EFBIG, f"expected at most {frames.FRAME_BYTES_MAX} bytes, it has {len(frame)}")
    files.replace(folder / str(snapshot.place), frame)
    for old in snapshot_places(files, folder)[SNAPSHOTS_KEPT:]:
        # A start-up that finds it all the same takes a newer one.
        with contextlib.suppress(OSError):
            files.remove(folder / str(old))


def snapshot_places(files: Files, folder: Path) -> list[Place]:
    """Where the snapshots in the folder stand, the newest first."""
    matches = (_NAME.match(name) for name in files.list_folder(folder))
    return sorted((Place(int(match[1]), int(match[2])) for match in matches if match), reverse=True)


def read_snapshots(files: Files, folder: Path, stream: str) -> Iterator[Snapshot]:
    """The snapshots that can be read, the newest first; damaged ones and those of another format are passed over."""
    for place in snapshot_places(files, folder):
        with contextlib.suppress(FrameDamaged):
            version, name, *rest = _read(files, folder / str(place)).table
            if version == FORMAT_VERSION and name == stream:
                yield Snapshot(place, *rest)


def _read(files: Files, path: Path) -> Frame:
    handle = files.open_read(path)
    try:
        prefix = handle.read_at(0, frames.PREFIX.size)
        return frames.decode(prefix, handle.read_at(frames.PREFIX.size, frames.payload_length(prefix)))
    finally:
        handle.close()
