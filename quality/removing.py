"""Removes files and folders that nobody needs, and tells what that freed. What is gone already is no error."""

from __future__ import annotations

import shutil
import time
from pathlib import Path


def newest_below(path: Path) -> float:
    """When a file, or the newest below a folder, was last written; now when it is gone: nothing is to be removed."""
    try:
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_mtime
        return max([path.stat().st_mtime, *(each.lstat().st_mtime for each in path.rglob("*"))])
    except FileNotFoundError:
        return time.time()


def remove(path: Path) -> int:
    """Remove a file or a folder; the bytes on disk that nothing else has. What is gone already counts as nothing."""
    files = [path] if not path.is_dir() or path.is_symlink() else [each for each in path.rglob("*") if each.is_file()]
    freed = 0
    for file in files:
        try:
            found = file.lstat()
        except FileNotFoundError:
            continue
        freed += found.st_blocks * 512 if found.st_nlink == 1 else 0
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return freed


def remove_empty(root: Path) -> None:
    """Remove folders without anything in them, from the inside out."""
    for folder in sorted(root.rglob("*"), key=lambda path: -len(path.parts)):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
