"""The data folder: where its parts are, its format, and who may do what with it at the same time.

    LOCK      held by the one service that writes (flock, exclusive); holds its process id
    HOLD      held by whoever needs the log's segments to stay (flock, shared), and by whoever drops some (exclusive)
    FORMAT    the folder's format version

Each is a file in the folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingest_service.errors import ConfigError
from ingest_service.log.files import OsFiles

FORMAT_VERSION = "1"
"""The data folder's format; written into its file FORMAT."""
FORMAT_NAME = "FORMAT"
LOCK_NAME = "LOCK"
HOLD_NAME = "HOLD"
STACK_LOCK_NAME = "stack.lock"
"""Held by `tidemill up`, which starts the service."""


@dataclass(frozen=True, slots=True)
class LogPlace:
    """The log of one partition of a stream."""

    stream: str
    path: Path


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Where the parts of a data folder are. Nothing is made by asking.

    lake: the lake's folder or URL when it is not below `root`, as the service was told by --lake.
    """

    root: Path
    lake: str | None = None

    @classmethod
    def existing(cls, root: Path, lake: str | None = None) -> DataFolder:
        """The folder, which must be one of Tidemill's, and of a format that this release knows.

        Raises:
            ConfigError: it is not there, no data folder, or of another format.
        """
        if not root.is_dir():
            raise ConfigError(f"--data: expected a data folder, there is none at {root}. Name it with --data")
        if not (root / FORMAT_NAME).is_file():
            raise ConfigError(f"--data: {root} is no data folder of Tidemill: it has no file {FORMAT_NAME} in it")
        check_format(root / FORMAT_NAME)
        return cls(root, lake)

    @property
    def live_store(self) -> Path:
        """The live views' SQLite database."""
        return self.root / "live" / "live.sqlite"

    @property
    def live_manifest(self) -> Path:
        """What dbt compiled of the live models."""
        return self.root / "live" / "manifest.json"

    @property
    def live_manifest_mark(self) -> Path:
        """Which file the manifest was last taken from, see `ingest_service/rpc/view_manifest.py`."""
        return self.live_manifest.with_name(self.live_manifest.name + ".taken")

    @property
    def warehouse(self) -> Path:
        """The published warehouse."""
        return self.root / "warehouse" / "warehouse.duckdb"

    @property
    def imported(self) -> Path:
        """Which files were imported from a landing folder (`quality/landing_ledger.py`)."""
        return self.root / "landing" / "ledger"

    @property
    def contracts(self) -> Path:
        """The contracts in force, and those before them."""
        return self.root / "contracts"

    @property
    def keys(self) -> Path:
        """The API keys, hashed."""
        return self.root / "keys.json"

    @property
    def lake_root(self) -> Path:
        """The lake below the data folder."""
        return self.root / "lake"

    def lake_uri(self, stream: str) -> str:
        """Where a stream's lake table is: a folder or a URL."""
        return f"{self.lake.rstrip('/')}/{stream}" if self.lake else str(self.lake_root.absolute() / stream)

    def logs(self) -> list[LogPlace]:
        """Every partition's log, by stream and partition."""
        root = self.root / "log"
        if not root.is_dir():
            return []
        return [
            LogPlace(stream.name, partition)
            for stream in sorted(root.iterdir())
            if stream.is_dir()
            for partition in sorted(stream.iterdir())
            if partition.is_dir()
        ]


@contextlib.contextmanager
def lock_folder(data: Path) -> Iterator[None]:
    """Make the folder where it is missing, hold it for this process alone, and see that its format is known.

    Raises:
        ConfigError: it can't be used, another process holds it, or it is of another format.
    """
    try:
        OsFiles().make_folder(data)
        handle = (data / LOCK_NAME).open("a+")
    except OSError as error:
        raise ConfigError(f"--data: the folder {data} can't be used: {error.strerror}") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            raise ConfigError(
                f"--data: {data} is in use by another ingest service (process {handle.read().strip() or 'unknown'}). "
                "Stop it, or give this one a folder of its own"
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        if not (data / FORMAT_NAME).exists():
            OsFiles().replace(data / FORMAT_NAME, f"{FORMAT_VERSION}\n".encode())
        check_format(data / FORMAT_NAME)
        yield


@contextlib.contextmanager
def hold_segments(data: Path) -> Iterator[None]:
    """Keep the log's segments where they are: retention drops none meanwhile. Any number may hold at a time.

    Waits while segments are being dropped. On a folder that can't be written nobody drops any, so nothing is held.
    """
    try:
        descriptor = os.open(data / HOLD_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def check_format(path: Path) -> None:
    """See that a FORMAT file names the format of this release.

    Raises:
        ConfigError: another one.
    """
    found = path.read_text().strip()
    if found != FORMAT_VERSION:
        raise ConfigError(
            f"--data: expected format {FORMAT_VERSION} in {path}, found {found[:20]!r}: the folder was written by "
            "another release; use that one, or a newer one"
        )
