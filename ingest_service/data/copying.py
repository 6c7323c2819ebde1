"""Copying files so that a copy is known to be right, and on disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ingest_service.log.files import OsFiles

CHUNK_BYTES = 1 << 20


def copy_file(source: Path, target: Path, size: int | None = None) -> tuple[int, str]:
    """Copy the first `size` bytes of a file (None: all), durably but for the folder's entry; bytes copied, SHA-256.

    Folders are made, and the file's permissions are kept. Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    digest, copied = hashlib.sha256(), 0
    with source.open("rb") as old:
        mode = os.fstat(old.fileno()).st_mode & 0o777
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as new:
            while chunk := old.read(CHUNK_BYTES if size is None else min(CHUNK_BYTES, size - copied)):
                digest.update(chunk)
                new.write(chunk)
                copied += len(chunk)
            new.flush()
            os.fchmod(new.fileno(), mode)
            os.fsync(new.fileno())
    return copied, digest.hexdigest()


def checksum(path: Path) -> str:
    """A file's SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folders(root: Path) -> None:
    """Bring the entries of a folder, and of all below it, to disk."""
    files = OsFiles()
    for folder, _, _ in os.walk(root, topdown=False):
        files.sync_folder(Path(folder))
