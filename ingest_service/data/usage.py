"""What takes room in a data folder, what grows, and for how many days the disk lasts.

Growth is measured where the data themselves say when they came: a log's segments begin with the time at which they
were begun, and its rows say what the lake gains. What carries no times is taken to have grown evenly since the folder
was made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from deltalake.exceptions import DeltaError

from ingest_service.clock import Clock, SystemClock
from ingest_service.data.chain import read_chain, read_end
from ingest_service.data.check_lake import active_files, open_table
from ingest_service.data.folder import FORMAT_NAME, DataFolder, LogPlace, hold_segments
from ingest_service.log.files import OsFiles

WINDOW_DAYS = 7
"""Growth is that of so many days, or of all there are."""
_DAY_US = 86_400_000_000
_PARTS = (
    ("live store", "live"),
    ("warehouse", "warehouse"),
    ("contracts", "contracts"),
    ("runs", "runs"),
    ("docs", "docs"),
    ("alerts", "alerts"),
    ("imported files' ledger", "landing"),
    ("Airflow's database", "airflow/postgres"),
    ("Airflow", "airflow"),
    ("logs", "logs"),
)
"""What is beside log and lake, by folder; of two that contain each other the inner one comes first."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the folder. bytes: on disk; growth: bytes a day, None when it can't be told; how: what that is."""

    name: str
    bytes: int
    growth: float | None
    how: str


@dataclass(frozen=True, slots=True)
class Usage:
    """The whole folder. free, disk: bytes of the file system; days_left: None when unsure, and `unsure` says why."""

    data: str
    parts: list[Part]
    total: int
    free: int
    disk: int
    growth: float | None
    days_left: float | None
    unsure: str


@dataclass(frozen=True, slots=True)
class _History:
    """How a log grew: at each time (µs, rising) the next offset and the bytes so far. dropped: retention is at work."""

    times_us: list[int]
    offsets: list[int]
    bytes: list[int]
    dropped: bool

    def per_day(self, values: list[int], now_us: int) -> float | None:
        """How much was gained a day lately; None with less than a day to go by."""
        since_us = max(self.times_us[0], now_us - WINDOW_DAYS * _DAY_US)
        if now_us - self.times_us[0] < _DAY_US:
            return None
        gained = values[-1] - float(np.interp(since_us, self.times_us, values))
        return gained / ((now_us - since_us) / _DAY_US)


def usage(folder: DataFolder, clock: Clock | None = None) -> Usage:
    """Measure the folder as it is now.

    Raises:
        OSError: a part of it can't be read.
    """
    now_us = (clock or SystemClock()).now_us()
    with hold_segments(folder.root):
        histories = {place: _history(place) for place in folder.logs()}
    made_us = min(
        [history.times_us[0] for history in histories.values() if history]
        + [(folder.root / FORMAT_NAME).stat().st_mtime_ns // 1000]
    )
    counted: set[tuple[int, int]] = set()
    parts = [_log_part(place, history, counted, now_us) for place, history in histories.items()]
    parts += _lake_parts(folder, histories, counted, now_us)
    parts += [_plain_part(name, folder.root / path, counted, now_us - made_us) for name, path in _PARTS]
    parts.append(_plain_part("other", folder.root, counted, now_us - made_us))
    parts = [part for part in parts if part.bytes]
    disk = shutil.disk_usage(folder.root)
    growth, days_left, unsure = _outlook(parts, disk.free, now_us - made_us)
    total = sum(part.bytes for part in parts)
    return Usage(str(folder.root), parts, total, disk.free, disk.total, growth, days_left, unsure)


def _outlook(parts: list[Part], free: int, age_us: int) -> tuple[float | None, float | None, str]:
    """Growth of all parts, days left, and why these are unsure."""
    untold = [part.name for part in parts if part.growth is None]
    if untold:
        why = "there is less than a day of data" if age_us < _DAY_US else f"too little is known of {', '.join(untold)}"
        return None, None, why
    growth = sum(part.growth or 0.0 for part in parts)
    return (growth, free / growth, "") if growth >= 1 else (growth, None, "nothing grows")


def _history(place: LogPlace) -> _History | None:
    """How the log grew, or None for one without a frame."""
    files = OsFiles()
    chain = read_chain(files, place.path, place.stream)
    links = [link for link in chain.links if link.frame is not None]
    if not links:
        return None
    end = read_end(files, place.path, links[-1])
    times, offsets, sizes = [], [], [0]
    for link in links:
        assert link.frame is not None
        times.append(link.frame.append_time_us)
        offsets.append(link.frame.base_offset)
        sizes.append(sizes[-1] + link.size)
    return _History([*times, end.append_time_us], [*offsets, end.next_offset], sizes, chain.start.segment > 0)


def _log_part(place: LogPlace, history: _History | None, counted: set[tuple[int, int]], now_us: int) -> Part:
    size = sum(_sizes(place.path, counted))
    name = f"log of {place.stream}"
    if history is None:
        return Part(name, size, 0.0, "empty")
    if history.dropped:
        return Part(name, size, 0.0, "old segments are dropped: it stays about as large")
    return Part(name, size, history.per_day(history.bytes, now_us), "by the append times of its segments")


def _lake_parts(
    folder: DataFolder, histories: dict[LogPlace, _History | None], counted: set[tuple[int, int]], now_us: int
) -> list[Part]:
    parts = []
    for stream, history in {place.stream: history for place, history in histories.items()}.items():
        path = folder.lake_root / stream
        size = sum(_sizes(path, counted))
        rows = history.per_day(history.offsets, now_us) if history else 0.0
        growth = rows * _bytes_per_row(path) if rows is not None else None
        parts.append(Part(f"lake of {stream}", size, growth, "by the rows that the log gains"))
    return parts


def _bytes_per_row(path: Path) -> float:
    """Of the files of the table's present version; those of earlier ones go with the next vacuum."""
    try:
        table = open_table(str(path.absolute()))
        files = active_files(table) if table is not None else []
    except DeltaError:
        return 0.0
    rows = sum(action["num_records"] or 0 for action in files)
    return sum(action["size_bytes"] for action in files) / rows if rows else 0.0


def _plain_part(name: str, path: Path, counted: set[tuple[int, int]], age_us: int) -> Part:
    size = sum(_sizes(path, counted))
    growth = size / (age_us / _DAY_US) if age_us >= _DAY_US else None
    return Part(name, size, growth, "on average since the folder was made")


def _sizes(path: Path, counted: set[tuple[int, int]]) -> Iterator[int]:
    """Bytes on disk of each file below `path` that was not counted before; a file with several names is one."""
    try:
        entries = list(os.scandir(path))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _sizes(Path(entry.path), counted)
                continue
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # a running service removes files too
        if (found.st_dev, found.st_ino) not in counted:
            counted.add((found.st_dev, found.st_ino))
            yield found.st_blocks * 512
