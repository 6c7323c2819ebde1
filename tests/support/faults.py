"""A file layer that fails on purpose."""

from __future__ import annotations

import errno
from pathlib import Path

from ingest_service.log.files import OsFiles, WriteHandle


class FailingFiles(OsFiles):
    """The machine's files, of which the n-th operation of a kind fails.

    `fail`: operation ("create", "write", "short_write", "sync", "sync_folder") → how many succeed before one fails.
    """

    def __init__(self, **fail: int) -> None:
        self.left = fail
        self.failed: list[str] = []

    def strike(self, operation: str) -> None:
        if operation in self.left:
            if self.left[operation] == 0:
                del self.left[operation]
                self.failed.append(operation)
                raise OSError(errno.ENOSPC, "No space left on device")
            self.left[operation] -= 1

    def create(self, path: Path) -> WriteHandle:
        self.strike("create")
        return _FailingHandle(super().create(path), self)

    def open_append(self, path: Path) -> WriteHandle:
        return _FailingHandle(super().open_append(path), self)

    def sync_folder(self, folder: Path) -> None:
        self.strike("sync_folder")
        super().sync_folder(folder)


class _FailingHandle:
    def __init__(self, inner: WriteHandle, files: FailingFiles) -> None:
        self._inner, self._files = inner, files

    def write(self, data: bytes) -> None:
        self._files.strike("write")
        try:
            self._files.strike("short_write")
        except OSError:
            self._inner.write(data[: len(data) // 2])
            raise
        self._inner.write(data)

    def sync(self) -> None:
        self._files.strike("sync")
        self._inner.sync()

    def close(self) -> None:
        self._inner.close()
