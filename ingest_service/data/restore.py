"""A data folder out of a backup: copied beside its place, held to its checksums, and put there by one rename."""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ingest_service.clock import Clock, SystemClock
from ingest_service.data.backup import backups_in
from ingest_service.data.copying import copy_file, sync_folders
from ingest_service.data.folder import FORMAT_VERSION, LOCK_NAME, STACK_LOCK_NAME
from ingest_service.data.manifest import MANIFEST_NAME, BackupDamaged, Manifest
from ingest_service.errors import ConfigError, StorageError
from ingest_service.log.files import OsFiles


@dataclass(frozen=True, slots=True)
class Restored:
    """A data folder that was restored. before: where the folder went that stood in its place, or None."""

    path: str
    backup: str
    files: int
    bytes: int
    next_offsets: dict[str, int]
    before: str | None


def restore(source: Path, target: Path, *, force: bool, clock: Clock | None = None) -> Restored:
    """Restore a backup, or the newest one in a folder of backups, to the data folder `target`.

    force: a folder that stands there is moved aside, whole; nothing is deleted.

    Raises:
        ConfigError: no backup, one of another format, or the target is not empty (without `force`) or in use.
        BackupDamaged: a file is not what was backed up; the target is untouched.
        StorageError: something can't be read or written; the target is untouched.
    """
    chosen = _choose(source)
    manifest = Manifest.read(chosen)
    if manifest.data_format != FORMAT_VERSION:
        raise ConfigError(
            f"{chosen} holds a data folder of format {manifest.data_format}, this release knows {FORMAT_VERSION}: "
            "restore it with the release that made it"
        )
    target = target.absolute()
    now = dt.datetime.fromtimestamp((clock or SystemClock()).now_us() / 1_000_000, dt.UTC)
    try:
        return _restore(chosen, manifest, target, f"{now:%Y-%m-%dT%H-%M-%SZ}", force=force)
    except OSError as error:
        raise StorageError(f"{chosen} can't be restored to {target}: {error}") from error


def _choose(source: Path) -> Path:
    if (source / MANIFEST_NAME).is_file():
        return source
    if found := backups_in(source):
        return found[-1]
    raise ConfigError(f"expected a backup or a folder of backups, there is none in {source}")


def _restore(chosen: Path, manifest: Manifest, target: Path, stamp: str, *, force: bool) -> Restored:
    place = _Place(target, stamp)
    with ExitStack() as stack:
        if place.occupied:
            _take_over(stack, target, force=force)
        place.copy.mkdir(parents=True, mode=0o750)
        try:
            _fill(chosen, manifest, place.copy)
            before = place.exchange()
        except BaseException:
            shutil.rmtree(place.copy, ignore_errors=True)
            raise
    offsets = {name: stream.next_offset for name, stream in manifest.streams.items()}
    return Restored(
        str(target), str(chosen), len(manifest.files), manifest.bytes, offsets, str(before) if before else None
    )


class _Place:
    """Where a folder is restored to: `copy` is filled first, then it takes the folder's place.

    By one rename, where that can be. A mount point (a container's volume) can't be renamed: there what the folder holds
    is exchanged, entry by entry.
    """

    def __init__(self, target: Path, stamp: str) -> None:
        self._target = target
        self._mounted = target.is_mount()
        root = target if self._mounted else target.parent
        self.copy = root / f".{target.name}.restoring-{os.getpid()}"
        self._before = root / f"{target.name}.before-{stamp}"
        self.occupied = bool(self._entries())

    def exchange(self) -> Path | None:
        """Put the copy in its place; where the former content is now, or None when there was none."""
        if self._mounted:
            former = self._entries()
            if former:
                self._before.mkdir(mode=0o750)
            for path in former:
                path.rename(self._before / path.name)
            for path in list(self.copy.iterdir()):
                path.rename(self._target / path.name)
            self.copy.rmdir()
        else:
            if self.occupied:
                self._target.rename(self._before)
            self.copy.rename(self._target)
        OsFiles().sync_folder(self.copy.parent)
        return self._before if self.occupied else None

    def _entries(self) -> list[Path]:
        if not self._target.is_dir():
            return []
        # A file system's own folder is nobody's data; former contents stay where they are.
        kept = ("lost+found", f"{self._target.name}.before-", self.copy.name)
        return [path for path in self._target.iterdir() if not path.name.startswith(kept)]


def _take_over(stack: ExitStack, target: Path, *, force: bool) -> None:
    """See that the folder in the target's place may be moved aside, and that nobody begins to use it meanwhile."""
    if not force:
        raise ConfigError(
            f"--data: {target} is not empty: name another folder, or say --force, which moves what is there aside"
        )
    for name in (LOCK_NAME, STACK_LOCK_NAME):
        if not (target / name).exists():
            continue
        handle = stack.enter_context((target / name).open("r+"))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"--data: {target} is in use (process {handle.read().strip()}): stop it first") from None


def _fill(chosen: Path, manifest: Manifest, copy: Path) -> None:
    for file in manifest.files:
        if not (chosen / file.path).is_file():
            raise _damaged(chosen, file.path, "it is missing")
        copied, digest = copy_file(chosen / file.path, copy / file.path)
        if (copied, digest) != (file.bytes, file.sha256):
            raise _damaged(chosen, file.path, f"expected {file.bytes} bytes with checksum {file.sha256[:16]}…, "
                                              f"found {copied} with {digest[:16]}…")  # fmt: skip
    sync_folders(copy)


def _damaged(chosen: Path, path: str, why: str) -> BackupDamaged:
    return BackupDamaged(f"{chosen / path} is not what was backed up: {why}. Restore another backup")
