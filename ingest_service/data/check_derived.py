"""Reading what a log keeps beside its segments: snapshots, and the quarantined rows of segments that were dropped."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import msgpack

from ingest_service.data.report import Report
from ingest_service.log.counters import Counters
from ingest_service.log.files import Files
from ingest_service.log.frame import FrameDamaged, Kind
from ingest_service.log.producers import Producers
from ingest_service.log.quarantine import SUFFIX, KeptName
from ingest_service.log.segment import SegmentFile, SegmentName
from ingest_service.log.snapshot import Place, Snapshot, read_snapshots, snapshot_places
from ingest_service.log.state import LogState
from ingest_service.log.table import RowsTable
from ingest_service.log.watermark import Watermark

LISTINGS = 10
"""How often the snapshots are listed: a running service may put a newer one in the place of one just listed."""
_NO_BOUND = 1 << 62


@dataclass(frozen=True, slots=True)
class KnownState:
    """What a snapshot says of the log before its place. days: rows appended by event date, in days since 1970."""

    place: Place
    next_offset: int
    days: dict[int, int]


def check_snapshots(files: Files, folder: Path, stream: str, report: Report) -> list[KnownState]:
    """What the snapshots say, the newest first; those that can't be read go to the report. Raises OSError."""
    places, readable = _read_all(files, folder, stream)
    known: dict[Place, KnownState] = {}
    for snapshot in readable:
        with contextlib.suppress(ValueError, TypeError, LookupError, msgpack.UnpackException):
            known[snapshot.place] = _known(snapshot)
    for place in places:
        if place not in known and files.exists(folder / str(place)):
            report.damaged(folder / str(place), "the snapshot can't be read")
    return list(known.values())


def _read_all(files: Files, folder: Path, stream: str) -> tuple[list[Place], list[Snapshot]]:
    for _ in range(LISTINGS):
        places = snapshot_places(files, folder)
        with contextlib.suppress(FileNotFoundError):
            return places, list(read_snapshots(files, folder, stream))
    raise FileNotFoundError(f"the snapshots in {folder} are replaced faster than they can be read")


def _known(snapshot: Snapshot) -> KnownState:
    state = LogState(Producers(_NO_BOUND, _NO_BOUND), None, Watermark(0, 0), Counters(_NO_BOUND))
    state.restore(snapshot.state)
    return KnownState(snapshot.place, state.next_offset, state.counters.appended_by_day)


def check_kept_quarantine(files: Files, folder: Path, report: Report) -> None:
    """Every frame of the files that keep dropped segments' quarantined rows. Raises OSError."""
    for text in files.list_folder(folder):
        name = SegmentName.parse(text.removesuffix(SUFFIX) + ".seg")
        if text.endswith(SUFFIX) and name is not None:
            # Rows expire, and their file with them.
            with contextlib.suppress(FileNotFoundError):
                _check_kept(files, folder, KeptName(name.base_offset, name.number), report)


def _check_kept(files: Files, folder: Path, name: KeptName, report: Report) -> None:
    with contextlib.closing(SegmentFile(files, folder, name)) as file:
        position = 0
        try:
            for _, frame, after in file.scan(0, files.size(file.path)):
                if frame.kind is not Kind.QUARANTINE:
                    raise FrameDamaged(f"expected quarantined rows, found a frame of kind {frame.kind.name}")
                RowsTable.unpack(frame.table[1])
                position = after
        except FrameDamaged as error:
            report.damaged(file.path, error, position)
