"""Copying a data folder's files into a backup, or linking to what the former backup has of them."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping
from pathlib import Path

from ingest_service.data.copying import copy_file
from ingest_service.data.manifest import BackedUpFile

SETTLED = dt.timedelta(seconds=2)
"""A file that was written less than this before the backup began may be written again within the same tick of the file
system's clock: the next backup does not trust its time."""


class Copier:
    """Copies files below `root` to the same places below `target`. Not thread-safe.

    former: the former backup's files, by where they are: one that has the size and the time of writing of now is linked
    to, not copied. now: when the backup began.
    """

    def __init__(self, root: Path, target: Path, former: Mapping[Path, BackedUpFile], now: dt.datetime) -> None:
        self.files: list[BackedUpFile] = []
        self.linked_bytes = 0
        self._root, self._target = root, target
        self._former = {file.path: (path, file) for path, file in former.items()}
        self._settled_ns = int((now - SETTLED).timestamp() * 1_000_000_000)

    def take_if_there(self, path: Path) -> None:
        """Take a file that need not exist."""
        if path.is_file():
            self.take(path)

    def take(self, path: Path, size: int | None = None) -> None:
        """Take a file, or its first `size` bytes.

        Raises:
            FileNotFoundError: it is not there (any more); nothing of it was copied.
            OSError: it can't be read, or the copy can't be written.
        """
        relative = path.relative_to(self._root)
        target = self._target / relative
        found = path.stat()
        wanted = (found.st_size if size is None else size, found.st_mtime_ns)
        former, known = self._former.get(relative.as_posix(), (None, None))
        if former and known and (known.bytes, known.mtime_ns) == wanted and _link(former, target, known.bytes):
            self.files.append(known)
            self.linked_bytes += known.bytes
            return
        _, digest = copy_file(path, target, size)
        self.add(target, digest, found.st_mtime_ns)

    def add(self, target: Path, digest: str, mtime_ns: int) -> None:
        """Take note of a file that was put into the backup by other means; mtime_ns: of its original."""
        path = target.relative_to(self._target).as_posix()
        settled = mtime_ns if mtime_ns < self._settled_ns else 0
        self.files.append(BackedUpFile(path, target.stat().st_size, digest, settled))


def _link(source: Path, target: Path, size: int) -> bool:
    """Give the file another name, if it is there in that size and the file system can; whether that was done."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    try:
        if source.stat().st_size != size:
            return False
        os.link(source, target)
    except OSError:
        return False
    return True
