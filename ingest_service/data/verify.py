"""Reading everything in a data folder back, to see whether it is still what was written.

Works beside a running service: each part is read as of one moment, and in the order in which each may only be behind
the next: 1 live views; 2 lake; 3 warehouse; 4 log; 5 what they say of each other.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Callable

from ingest_service.data.check_lake import LakeCheck
from ingest_service.data.check_log import LogCheck
from ingest_service.data.check_tables import check_live_store, check_warehouse
from ingest_service.data.folder import DataFolder, hold_segments
from ingest_service.data.manifest import MANIFEST_NAME, BackupDamaged, check_files
from ingest_service.data.report import Progress, Report
from ingest_service.errors import ConfigError

Shown = Callable[[int, int], None]
"""Told of the bytes read and those to read, both about."""


def verify(folder: DataFolder, shown: Shown | None = None) -> Report:
    """Read every checksum of the folder; gives what was read and what is damaged.

    Raises:
        OSError: the folder itself can't be read.
    """
    # Nobody drops anything from a backup; nothing is written into it either.
    is_backup = (folder.root / MANIFEST_NAME).is_file()
    with contextlib.nullcontext() if is_backup else hold_segments(folder.root):
        return _verify(folder, shown or (lambda done, total: None))  # noqa: ARG005 - nobody looks


def _verify(folder: DataFolder, shown: Shown) -> Report:
    report = Report(str(folder.root))
    logs = folder.logs()
    done = total = 0

    def progress(size: int) -> None:
        nonlocal done
        done += size
        shown(min(done, total), total)

    lakes = {stream: LakeCheck(folder.lake_uri(stream), stream, report, progress) for stream in _streams(folder)}
    total = sum(lake.bytes for lake in lakes.values())
    total += sum(file.stat().st_size for log in logs for file in log.path.glob("*.seg"))
    total += sum(path.stat().st_size for path in (folder.live_store, folder.warehouse) if path.is_file())
    check_live_store(folder.live_store, report, progress)  # 1
    for lake in lakes.values():  # 2
        lake.run()
    check_warehouse(folder.warehouse, report, progress)  # 3
    days = {}
    for place in logs:  # 4
        check = LogCheck(place, report, progress, lakes[place.stream].offset)
        check.run()
        days[place.stream] = check.days
    _check_keys(folder, report)
    if (folder.root / MANIFEST_NAME).is_file():
        _check_backup(folder, report, progress)
    _compare(folder, report, lakes, days)  # 5
    return report


def _streams(folder: DataFolder) -> list[str]:
    return sorted({place.stream for place in folder.logs()})


def _check_backup(folder: DataFolder, report: Report, progress: Progress) -> None:
    """The files of a backup against its manifest."""
    try:
        for file, problem in check_files(folder.root, progress):
            report.damaged(folder.root / file.path, problem)
    except (ConfigError, BackupDamaged) as error:
        report.damaged(folder.root / MANIFEST_NAME, error)
        return
    report.other.append("the backup's checksums")


def _check_keys(folder: DataFolder, report: Report) -> None:
    if not folder.keys.is_file():
        return
    try:
        json.loads(folder.keys.read_bytes())
    except ValueError as error:
        report.damaged(folder.keys, f"it is no JSON: {error}")
        return
    report.other.append("keys")


def _compare(folder: DataFolder, report: Report, lakes: dict[str, LakeCheck], days: dict[str, dict[int, int]]) -> None:
    """Views and lake are functions of a prefix of the log: neither is ahead of it, and the lake has its rows."""
    if not report.ok:
        # What can't be read can't be counted: the damage that was found says more than its consequences.
        return
    for view in report.views:
        end = report.next_offset(view.stream)
        if end is None or view.offset > end:
            report.damaged(
                folder.live_store,
                f"view {view.view!r} covers offset {view.offset} of stream {view.stream!r}, whose log ends at {end}",
            )
    for stream, lake in lakes.items():
        end = report.next_offset(stream) or 0
        if lake.offset > end:
            report.damaged(folder.lake_uri(stream), f"it reaches to offset {lake.offset}, the log ends at {end}")
        elif lake.offset and days[stream] != lake.days:
            differing = sorted(day for day in days[stream] | lake.days if days[stream].get(day) != lake.days.get(day))
            first = dt.date(1970, 1, 1) + dt.timedelta(days=differing[0])
            report.damaged(
                folder.lake_uri(stream),
                f"on {first} and {len(differing) - 1} other dates, it has other counts of rows than the log below "
                f"offset {lake.offset}: {lake.days.get(differing[0], 0)} rows, the log "
                f"{days[stream].get(differing[0], 0)}",
            )
