"""Reading everything in a data folder back, to see whether it is still what was written.

Works beside a running service: each part is read as of one moment, and in the order in which each may only be behind
the next: 1 live views; 2 lake; 3 warehouse; 4 log; 5 contracts; 6 what they say of each other.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable

from ingest_service.data.check_contracts import check_contracts, check_keys
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
    checks = [LogCheck(place, report, progress, lakes[place.stream].offset) for place in logs]  # 4
    for check in checks:
        check.run()
    check_contracts(folder, checks, report)  # 5
    check_keys(folder, report)
    if (folder.root / MANIFEST_NAME).is_file():
        _check_backup(folder, report, progress)
    _compare(folder, report, lakes, {check.place.stream: check.days for check in checks})  # 6
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
        elif problem := _difference(days[stream], lake.days):
            report.damaged(folder.lake_uri(stream), f"up to offset {lake.offset}, {problem}")


def _difference(in_log: dict[int, int], in_lake: dict[int, int]) -> str | None:
    """On which dates log and lake have other counts of rows; None when on none."""
    differing = sorted(day for day in in_log | in_lake if in_log.get(day, 0) != in_lake.get(day, 0))
    if not differing:
        return None
    first = dt.date(1970, 1, 1) + dt.timedelta(days=differing[0])
    return (
        f"it has other counts of rows than the log on {len(differing)} dates: on {first}, it has "
        f"{in_lake.get(differing[0], 0)} and the log {in_log.get(differing[0], 0)}"
    )
