"""A copy of a data folder, taken while the service writes, in which everything holds that holds in the original.

Live views, warehouse and lake are functions of a prefix of the log: a copy is right when each of them was copied before
the log, and the contracts, which may be newer than the rows but never older, after it:

    1 keep the log's segments where they are
    2 live views, at one transaction of their store
    3 warehouse: the published file; which files were imported
    4 lake, each table at one Delta version
    5 log, each up to the last whole frame of its last segment
    6 contracts, keys
    7 the manifest

What the former backup has already, and what was not written since, is linked to, not copied.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from deltalake.exceptions import DeltaError

from ingest_service.clock import Clock, SystemClock
from ingest_service.data.chain import read_chain, read_end
from ingest_service.data.check_derived import LISTINGS
from ingest_service.data.check_lake import active_files, open_table
from ingest_service.data.copier import Copier
from ingest_service.data.copying import checksum, sync_folders
from ingest_service.data.folder import FORMAT_NAME, FORMAT_VERSION, DataFolder, LogPlace, hold_segments
from ingest_service.data.manifest import MANIFEST_NAME, BackedUpFile, BackedUpStream, Manifest
from ingest_service.errors import ConfigError, IngestError, StorageError
from ingest_service.lake.table import transaction_id
from ingest_service.log.files import Files, OsFiles
from ingest_service.log.quarantine import SUFFIX as QUARANTINE_SUFFIX
from ingest_service.log.snapshot import snapshot_places

UNFINISHED = ".unfinished"
"""Behind the name of a backup in the making."""
LOCK_NAME = "LOCK"
_DELTA_LOG = "_delta_log"
_VERSION_DIGITS = 20


@dataclass(frozen=True, slots=True)
class BackupMade:
    """A backup that was made. linked_bytes: of its bytes, those that the former backup `base` has too."""

    path: str
    files: int
    bytes: int
    linked_bytes: int
    base: str | None
    streams: dict[str, BackedUpStream]
    notes: list[str]


def backups_in(folder: Path) -> list[Path]:
    """The whole backups in a folder of backups, oldest first."""
    if not folder.is_dir():
        return []
    named = (path for path in folder.iterdir() if not path.name.endswith(UNFINISHED))
    return sorted(path for path in named if (path / MANIFEST_NAME).is_file())


def backup(folder: DataFolder, destination: Path, clock: Clock | None = None) -> BackupMade:
    """Make a backup, named by the time, in the folder `destination`, which is made when it is missing.

    Raises:
        ConfigError: the destination lies in the data folder, or another backup is being made there.
        StorageError: something can't be read or written; nothing of the unfinished backup is left.
    """
    if destination.resolve().is_relative_to(folder.root.resolve()):
        raise ConfigError(f"expected a folder outside of the data folder {folder.root}, came {destination}")
    now = dt.datetime.fromtimestamp((clock or SystemClock()).now_us() / 1_000_000, dt.UTC)
    try:
        destination.mkdir(parents=True, exist_ok=True, mode=0o750)
        with _alone(destination), hold_segments(folder.root):  # 1
            for left in destination.glob(f"*{UNFINISHED}"):
                shutil.rmtree(left)
            return _Backup(folder, destination, now).run()
    except (OSError, DeltaError, sqlite3.Error) as error:
        raise StorageError(f"the backup to {destination} can't be made: {error}") from error


@contextlib.contextmanager
def _alone(destination: Path) -> Iterator[None]:
    with (destination / LOCK_NAME).open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another backup to {destination} is being made: wait until it is done") from None
        yield


class _Backup:
    """One backup in the making."""

    def __init__(self, folder: DataFolder, destination: Path, now: dt.datetime) -> None:
        self._folder = folder
        name = f"{now:%Y-%m-%dT%H-%M-%SZ}"
        former = backups_in(destination)
        self._base = former[-1] if former else None
        self._final = destination / name
        if self._final.exists():
            raise ConfigError(f"there is a backup {self._final} already: try again in a second")
        self._target = destination / (name + UNFINISHED)
        self._manifest = Manifest(now.isoformat(), FORMAT_VERSION)
        self._notes: list[str] = []
        self._copier = Copier(folder.root, self._target, self._former_files(), now)

    def _former_files(self) -> dict[Path, BackedUpFile]:
        """What the former backup has, by where it has it; nothing of one that can't be read."""
        if self._base is None:
            return {}
        try:
            return {self._base / file.path: file for file in Manifest.read(self._base).files}
        except IngestError as error:
            self._notes.append(f"everything is copied: {error}")
            self._base = None
            return {}

    def run(self) -> BackupMade:
        self._target.mkdir(mode=0o750)
        try:
            self._take_all()
            self._manifest.files = self._copier.files
            sync_folders(self._target)
            self._manifest.write(self._target)  # 7
            self._target.rename(self._final)
            OsFiles().sync_folder(self._final.parent)
        except BaseException:
            shutil.rmtree(self._target, ignore_errors=True)
            raise
        return BackupMade(
            str(self._final),
            len(self._manifest.files),
            self._manifest.bytes,
            self._copier.linked_bytes,
            str(self._base) if self._base else None,
            self._manifest.streams,
            self._notes,
        )

    def _take_all(self) -> None:
        self._take_live_store()  # 2
        for file in (self._folder.live_manifest, self._folder.live_manifest_mark):
            self._copier.take_if_there(file)
        self._copier.take_if_there(self._folder.warehouse)  # 3
        for path in _files_below(self._folder.imported):
            if path.suffix == ".json":
                # Replaced as a whole, now and then.
                with contextlib.suppress(FileNotFoundError):
                    self._copier.take(path)
        places = self._folder.logs()
        lakes = {stream: self._take_lake(stream) for stream in sorted({place.stream for place in places})}  # 4
        for place in places:  # 5
            self._manifest.streams[place.stream] = BackedUpStream(self._take_log(place), *lakes[place.stream])
        for path in _files_below(self._folder.contracts):  # 6
            self._copier.take(path)
        self._copier.take_if_there(self._folder.keys)
        self._copier.take(self._folder.root / FORMAT_NAME)

    # Parts.

    def _take_live_store(self) -> None:
        source = self._folder.live_store
        if not source.is_file():
            self._notes.append("no live store in the data folder: views are rebuilt from the log, or are elsewhere")
            return
        target = self._target / source.relative_to(self._folder.root)
        target.parent.mkdir(parents=True)
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            # All pages in one step: in several, each write of the service would make it begin again.
            old.backup(new)
            # One file that can be read where nothing can be written; the service switches the log on again.
            new.execute("pragma journal_mode = delete").fetchall()
            self._manifest.views = dict(new.execute("select view, next_offset from tidemill_views").fetchall())
        with target.open("rb") as file:
            os.fsync(file.fileno())
        self._copier.add(target, checksum(target), source.stat().st_mtime_ns)

    def _take_lake(self, stream: str) -> tuple[int | None, int | None]:
        """Copy a lake table; version and offset, or None for both when it is not below the data folder."""
        root = self._folder.lake_root / stream
        # Before the version is pinned: earlier versions' files, so that the pins of past runs can still be read.
        parquet = [path for path in _files_below(root) if path.suffix == ".parquet" and _DELTA_LOG not in path.parts]
        table = open_table(str(root.absolute()))
        if table is None:
            self._notes.append(f"no lake of {stream} in the data folder: it is exported anew, or is elsewhere")
            return None, None
        version = table.version()
        pinned = {root / action["path"] for action in active_files(table)}
        for path in sorted(pinned):
            self._copier.take(path)
        for path in sorted(set(parquet) - pinned):
            # Vacuum may take such a file away at any time.
            with contextlib.suppress(FileNotFoundError):
                self._copier.take(path)
        for path in _files_below(root / _DELTA_LOG):
            if _delta_version(path) <= version:
                self._copier.take(path)
        copied = open_table(str((self._target / root.relative_to(self._folder.root)).absolute()))
        if copied is None or copied.version() != version:
            raise StorageError(f"the lake table {root} was altered while it was copied: begin again")
        return version, table.transaction_version(transaction_id(stream)) or 0

    def _take_log(self, place: LogPlace) -> int:
        """Copy one log; the offset after its last row.

        What is derived from the segments comes before them, so that it never knows of more than there is.
        """
        files = OsFiles()
        self._take_snapshots(files, place.path)
        for path in _files_below(place.path):
            if path.suffix in {".json", QUARANTINE_SUFFIX}:
                # Quarantined rows expire, and their file with them, also while segments are held.
                with contextlib.suppress(FileNotFoundError):
                    self._copier.take(path)
        chain = read_chain(files, place.path, place.stream)
        for name, problem in chain.problems:
            self._notes.append(f"damaged: {place.path / name}: {problem}; `tidemill data verify` tells more")
        for link in chain.links[:-1]:
            self._copier.take(place.path / str(link.name))
        if not chain.links:
            return chain.start.offset
        last = chain.links[-1]
        if last.frame is None:
            raise StorageError(f"the log's last segment can't be read: {last.problem}")
        end = read_end(files, place.path, last)
        self._copier.take(place.path / str(last.name), end.position)
        return end.next_offset

    def _take_snapshots(self, files: Files, folder: Path) -> None:
        for _ in range(LISTINGS):
            places = snapshot_places(files, folder)
            before = len(self._copier.files)
            for place in places:
                # A running service puts a newer one in the place of the oldest.
                with contextlib.suppress(FileNotFoundError):
                    self._copier.take(folder / str(place))
            if not places or len(self._copier.files) > before:
                return
        raise FileNotFoundError(f"the snapshots in {folder} are replaced faster than they can be copied")


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _delta_version(path: Path) -> int:
    """The version that a file of a Delta log is of; the hint at the last checkpoint may be of any, and is left out."""
    digits = path.name[:_VERSION_DIGITS]
    return int(digits) if digits.isdigit() and len(digits) == _VERSION_DIGITS else 1 << 63
