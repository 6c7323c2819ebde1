"""The published warehouse's versions: each a file of its own that never changes, and the one name that readers open.

    warehouse/versions/<time>-<run>/warehouse.duckdb    a publication
    warehouse/warehouse.duckdb                          a symbolic link to the newest

DuckDB opens a database by its path more than once: the headers first, then the rest. Were the file itself replaced,
a reader could get the headers of one publication with the blocks of another. It resolves a link once, before; so who
opens the name reads one version, and a process that has an older one open gets the newest when it connects again, as
that is another path. A version stays for a while after it was replaced, for those who have resolved the link and not
opened it yet; who has it open keeps it anyway.

To put a file in place:

    1. fsync it, and give it its name among the versions: the same file, under two names
    2. point the link to it, by one rename: from here it is the published one
    3. drop what was replaced: all but the last few, and these after some time
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from quality.config import DayConfig
from quality.files import sync_folder

REPLACED_S = 600.0
"""How long a version stays after another one took its place, in seconds; longer when nobody publishes or tidies up."""
REPLACED_MAX = 2
"""How many of these there are at the most: it takes a reader a moment to open a file, and a run much longer to end."""


def put_in_place(config: DayConfig, work: Path, run_id: str) -> None:
    """Make the work copy the warehouse that readers open; durable when it returns. The work copy is still there."""
    warehouse = config.warehouse
    version = _versions(config) / f"{time.time_ns()}-{run_id}" / warehouse.name
    with work.open("rb") as file:  # 1
        os.fsync(file.fileno())
    version.parent.mkdir(parents=True)
    os.link(work, version)
    for folder in (version.parent, version.parent.parent, warehouse.parent):
        sync_folder(folder)
    former = _current(config)
    link = warehouse.with_name(f".{warehouse.name}.{os.getpid()}")
    link.unlink(missing_ok=True)
    link.symlink_to(version.relative_to(warehouse.parent))
    link.replace(warehouse)  # 2
    sync_folder(warehouse.parent)
    if former is not None:
        os.utime(former)
    for folder in replaced(config):  # 3
        shutil.rmtree(folder, ignore_errors=True)


def is_in_place(config: DayConfig, work: Path) -> bool:
    """Tell whether the work copy is the published file: its run was killed before it could take the copy away."""
    return work.exists() and config.warehouse.exists() and work.samefile(config.warehouse)


def replaced(config: DayConfig, *, now_s: float | None = None) -> list[Path]:
    """Give the folders of the versions that may go: replaced more than REPLACED_S ago, or not among the last few."""
    oldest_s = (time.time() if now_s is None else now_s) - REPLACED_S
    current, versions = _current(config), _versions(config)
    # Named by their time, the oldest first.
    others = sorted(each for each in versions.iterdir() if each != current) if versions.is_dir() else []
    kept = {folder for folder in others[-REPLACED_MAX:] if folder.stat().st_mtime >= oldest_s}
    return [folder for folder in others if folder not in kept]


def _versions(config: DayConfig) -> Path:
    return config.warehouse.parent / "versions"


def _current(config: DayConfig) -> Path | None:
    """The folder of the published version; None without one, and where the file itself has the name."""
    warehouse = config.warehouse
    return (warehouse.parent / warehouse.readlink()).parent if warehouse.is_symlink() else None
