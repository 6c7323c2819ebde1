"""The file operations that the log stands on: single steps, and what is made durable out of them.

A step may be lost or be half done when the power goes; an operation is on disk, whole, once it returned. `OsFiles`
takes the steps from the machine, tests take them from a disk that loses whatever was not synced, so that the operations
stand the same test as the log.
"""

# ruff: noqa: D102 - the base class says what its steps do
from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol

REWRITE_BYTES = 1 << 20
"""How much is read and written again at once."""


class WriteHandle(Protocol):
    """A file that is only appended to. Not thread-safe."""

    def write(self, data: bytes) -> None:
        """Append all of `data`, or raise OSError; then nothing is known of how much of it was written."""

    def sync(self) -> None:
        """Return once everything written is on disk, or raise OSError; then nothing of it counts as written."""

    def close(self) -> None:
        """Close without syncing."""


class ReadHandle(Protocol):
    """A file that is read at positions. Thread-safe."""

    def read_at(self, position: int, size: int) -> bytes:
        """Up to `size` bytes from `position` (bytes); fewer only at the end of the file."""

    def close(self) -> None:
        """Close."""


class PatchHandle(Protocol):
    """A file whose bytes are put right. Not thread-safe."""

    def write_at(self, position: int, data: bytes) -> None:
        """Put all of `data` at `position` (bytes), over what is there."""

    def cut(self, size: int) -> None:
        """Make the file `size` bytes long."""

    def sync(self) -> None:
        """Return once all of it is on disk, or raise OSError."""

    def close(self) -> None:
        """Close without syncing."""


class Files(ABC):
    """What the log asks of a file system. All of it raises OSError."""

    # Operations: durable once they return.

    def make_folder(self, folder: Path) -> None:
        """Make the folder and its parents."""
        missing = []
        present = folder
        while not self.exists(present):
            missing.append(present)
            present = present.parent
        # Whoever made the lowest one there is may have been killed before its entry was on disk. Where the parent may
        # not even be opened, it was made by somebody else.
        with contextlib.suppress(PermissionError):
            self.sync_folder(present.parent)
        for each in reversed(missing):
            self.make_entry(each)
            self.sync_folder(each.parent)

    def truncate(self, path: Path, size: int) -> None:
        """Cut the file to `size` bytes."""
        handle = self.open_patch(path)
        try:
            handle.cut(size)
            handle.sync()
        finally:
            handle.close()

    def rewrite(self, path: Path, position: int) -> None:
        """Write what the file holds from `position` on in place once more.

        Bytes that can be read may be on no disk, and after a failed sync no later one need bring them there: the
        kernel may count their pages as written.
        """
        end = self.size(path)
        source = self.open_read(path)
        handle = self.open_patch(path)
        try:
            for at in range(position, end, REWRITE_BYTES):
                handle.write_at(at, source.read_at(at, min(REWRITE_BYTES, end - at)))
            handle.sync()
        finally:
            handle.close()
            source.close()

    def remove(self, path: Path) -> None:
        """Remove the file."""
        self.unlink(path)
        self.sync_folder(path.parent)

    def replace(self, path: Path, data: bytes) -> None:
        """Make `data` the file's content, at once or not at all."""
        temporary = path.with_name(path.name + ".tmp")
        if self.exists(temporary):
            self.unlink(temporary)
        handle = self.create(temporary)
        try:
            handle.write(data)
            handle.sync()
        finally:
            handle.close()
        self.rename(temporary, path)
        self.sync_folder(path.parent)

    # Steps.

    @abstractmethod
    def exists(self, path: Path) -> bool:
        """Whether there is such a file or folder."""

    @abstractmethod
    def list_folder(self, folder: Path) -> list[str]:
        """Names in the folder, sorted."""

    @abstractmethod
    def size(self, path: Path) -> int:
        """The file's length in bytes."""

    @abstractmethod
    def create(self, path: Path) -> WriteHandle:
        """A new file; FileExistsError if there is one."""

    @abstractmethod
    def open_append(self, path: Path) -> WriteHandle:
        """An existing file, to append to."""

    @abstractmethod
    def open_read(self, path: Path) -> ReadHandle:
        """An existing file, to read."""

    @abstractmethod
    def open_patch(self, path: Path) -> PatchHandle:
        """An existing file, to put right."""

    @abstractmethod
    def make_entry(self, folder: Path) -> None:
        """Make one folder, whose parent is there; nothing happens when it is there itself."""

    @abstractmethod
    def rename(self, path: Path, new: Path) -> None:
        """Give the file another name in the same folder, at once, in place of a file of that name."""

    @abstractmethod
    def unlink(self, path: Path) -> None:
        """Take the file's name away."""

    @abstractmethod
    def sync_folder(self, folder: Path) -> None:
        """Return once the folder's entries are on disk."""


class _OsHandle:
    def __init__(self, path: Path, flags: int) -> None:
        self._fd = os.open(path, flags | os.O_CLOEXEC, 0o640)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def write_at(self, position: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, position)
            view, position = view[written:], position + written

    def read_at(self, position: int, size: int) -> bytes:
        data = os.pread(self._fd, size, position)
        while 0 < len(data) < size:
            more = os.pread(self._fd, size - len(data), position + len(data))
            if not more:
                break
            data += more
        return data

    def cut(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        # fdatasync also brings the file's new length to disk; macOS has no fdatasync.
        getattr(os, "fdatasync", os.fsync)(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class OsFiles(Files):
    """The machine's own file system."""

    def exists(self, path: Path) -> bool:
        return path.exists()

    def list_folder(self, folder: Path) -> list[str]:
        return sorted(os.listdir(folder))

    def size(self, path: Path) -> int:
        return path.stat().st_size

    def create(self, path: Path) -> WriteHandle:
        return _OsHandle(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND)

    def open_append(self, path: Path) -> WriteHandle:
        return _OsHandle(path, os.O_WRONLY | os.O_APPEND)

    def open_read(self, path: Path) -> ReadHandle:
        return _OsHandle(path, os.O_RDONLY)

    def open_patch(self, path: Path) -> PatchHandle:
        return _OsHandle(path, os.O_WRONLY)

    def make_entry(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True, mode=0o750)

    def rename(self, path: Path, new: Path) -> None:
        os.replace(path, new)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def sync_folder(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
