"""Writes files so that a reader sees the old content or the new one, also after a power cut."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

_FICLONE = 0x40049409
"""Linux: make a file share another's blocks until one of them is written (linux/fs.h)."""


def write_atomically(path: Path, text: str) -> None:
    """Write a text file by a temporary file beside it; returns once it is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def replace_durably(source: Path, target: Path) -> None:
    """Put `source` in the place of `target`, on disk before it returns; who has `target` open keeps the old file."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
    sync_folder(target.parent)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, sharing its blocks where the file system can (then it takes no time, whatever the size)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform == "linux" and _clone(source, target):
        return
    shutil.copyfile(source, target)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _clone(source: Path, target: Path) -> bool:
    import fcntl

    with source.open("rb") as old, target.open("wb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:  # the file system cannot: ext4, overlay, or two file systems
            return False
    return True
