"""A folder of `.proto` files as it was in an earlier revision, by git."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest_service.errors import ConfigError

TIMEOUT_S = 60
"""git takes milliseconds; one that takes this long hangs."""


@contextmanager
def folder_at(folder: Path, revision: str) -> Iterator[Path]:
    """The folder as it was in a revision ("main", "v1.2", "HEAD~3"), as a temporary copy; empty where it was not there.

    Raises ConfigError when there is no git, no repository around the folder, or no such revision.
    """
    if not folder.is_dir():
        raise ConfigError(f"expected a folder with .proto files at {folder}, but there is none; name it with --proto")
    # A revision is no option, whatever it begins with.
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if commit is None:
        raise ConfigError(f"--against: git knows no revision {revision!r} around {folder}; in CI, fetch it first")
    with tempfile.TemporaryDirectory(prefix="tidemill-revision-") as copy:
        # In a folder, git archives that folder alone; where the revision has no such folder it fails.
        archive = _git(folder, "archive", "--format=tar", commit.decode().strip())
        if archive is not None:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(copy, filter="data")
        yield Path(copy)


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git says; None when it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], check=False, capture_output=True, timeout=TIMEOUT_S
        )
    except FileNotFoundError:
        raise ConfigError("--against compares with an earlier revision by git, which is not installed") from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"git did not end within {TIMEOUT_S} s in {folder}") from None
    return done.stdout if done.returncode == 0 else None
