"""The file operations that the log stands on, behind a protocol: tests put faults and power losses in their place."""

# ruff: noqa: D102 - the protocol says what its implementations' methods do
from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class WriteHandle(Protocol):
    """A file that is only appended to. Not thread-safe."""

    def write(self, data: bytes) -> None:
        """Append all of `data`, or raise OSError; then nothing is known of how much of it was written."""

    def sync(self) -> None:
        """Return once everything written is on disk, or raise OSError."""

    def close(self) -> None:
        """Close without syncing."""


class ReadHandle(Protocol):
    """A file that is read at positions. Thread-safe."""

    def read_at(self, position: int, size: int) -> bytes:
        """Up to `size` bytes from `position` (bytes); fewer only at the end of the file."""

    def close(self) -> None:
        """Close."""


class Files(Protocol):
    """What the log asks of a file system."""

    def make_folder(self, folder: Path) -> None:
        """Make the folder and its parents, durably."""

    def list_folder(self, folder: Path) -> list[str]:
        """Names in the folder, sorted."""

    def create(self, path: Path) -> WriteHandle:
        """A new file; FileExistsError if there is one."""

    def open_append(self, path: Path) -> WriteHandle:
        """An existing file, to append to."""

    def open_read(self, path: Path) -> ReadHandle:
        """An existing file, to read."""

    def size(self, path: Path) -> int:
        """The file's length in bytes."""

    def truncate(self, path: Path, size: int) -> None:
        """Cut the file to `size` bytes, durably."""

    def remove(self, path: Path) -> None:
        """Remove the file."""

    def replace(self, path: Path, data: bytes) -> None:
        """Make `data` the file's content at once or not at all, durably."""

    def sync_folder(self, folder: Path) -> None:
        """Return once the folder's entries are on disk."""


class _OsWriteHandle:
    def __init__(self, path: Path, flags: int) -> None:
        self._fd = os.open(path, flags | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def sync(self) -> None:
        # fdatasync also brings the file's new length to disk; macOS has no fdatasync.
        getattr(os, "fdatasync", os.fsync)(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class _OsReadHandle:
    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read_at(self, position: int, size: int) -> bytes:
        data = os.pread(self._fd, size, position)
        while 0 < len(data) < size:
            more = os.pread(self._fd, size - len(data), position + len(data))
            if not more:
                break
            data += more
        return data

    def close(self) -> None:
        os.close(self._fd)


class OsFiles:
    """The machine's own file system."""

    def make_folder(self, folder: Path) -> None:
        made = []
        parent = folder
        while not parent.exists():
            made.append(parent)
            parent = parent.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        for each in made:
            self.sync_folder(each.parent)

    def list_folder(self, folder: Path) -> list[str]:
        return sorted(os.listdir(folder))

    def create(self, path: Path) -> WriteHandle:
        return _OsWriteHandle(path, os.O_CREAT | os.O_EXCL)

    def open_append(self, path: Path) -> WriteHandle:
        return _OsWriteHandle(path, 0)

    def open_read(self, path: Path) -> ReadHandle:
        return _OsReadHandle(path)

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def truncate(self, path: Path, size: int) -> None:
        with path.open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())

    def remove(self, path: Path) -> None:
        path.unlink()
        self.sync_folder(path.parent)

    def replace(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        self.sync_folder(path.parent)

    def sync_folder(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
