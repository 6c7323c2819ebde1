"""A backup's manifest: every file in it with size and checksum, and what the copy holds.

A backup is a folder laid out as a data folder, with `manifest.json` beside it in the same folder. The manifest is
written last: a folder without one is no backup.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ingest_service.data.copying import checksum
from ingest_service.errors import ConfigError, IngestError
from ingest_service.log.files import OsFiles

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1


class BackupDamaged(IngestError):
    """A backup's file is not what was backed up; the text names it and says what to do."""


@dataclass(frozen=True, slots=True)
class BackedUpFile:
    """One file. path: in the folder, with slashes; sha256: in hex.

    mtime_ns: when the original was last written, to tell whether it was written since; 0: that can't be told.
    """

    path: str
    bytes: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class BackedUpStream:
    """How far a stream's copy goes: the log to next_offset, the lake (None: not in the backup) to lake_offset."""

    next_offset: int
    lake_version: int | None
    lake_offset: int | None


@dataclass(slots=True)
class Manifest:
    """What a backup holds. data_format: that of the data folder; views: the offset of each live view."""

    created_at: str
    data_format: str
    streams: dict[str, BackedUpStream] = field(default_factory=dict)
    views: dict[str, int] = field(default_factory=dict)
    files: list[BackedUpFile] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)

    def write(self, folder: Path) -> None:
        """Make the folder a backup, durably."""
        content = {"format": FORMAT_VERSION, **dataclasses.asdict(self)}
        OsFiles().replace(folder / MANIFEST_NAME, json.dumps(content, indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of the backup in `folder`.

        Raises:
            ConfigError: there is none, or one of another release.
            BackupDamaged: it can't be read.
        """
        path = folder / MANIFEST_NAME
        if not path.is_file():
            raise ConfigError(f"{folder} is no backup: it has no {MANIFEST_NAME}, which is written when one is whole")
        try:
            content = json.loads(path.read_bytes())
            found = content.pop("format")
            if found != FORMAT_VERSION:
                raise ConfigError(
                    f"expected a backup of format {FORMAT_VERSION}, {path} is of format {found}: use a newer release"
                )
            streams = {name: BackedUpStream(**stream) for name, stream in content.pop("streams").items()}
            files = [BackedUpFile(**file) for file in content.pop("files")]
            if any(Path(file.path).is_absolute() or ".." in Path(file.path).parts for file in files):
                raise ValueError("a path leads out of the backup")
            return cls(**content, streams=streams, files=files)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BackupDamaged(f"{path} is damaged ({error}): take another backup") from error


def check_files(folder: Path, told: Callable[[int], None]) -> Iterator[tuple[BackedUpFile, str]]:
    """The files of a backup that are not what was backed up, each with what is wrong; all of them are read.

    Raises:
        ConfigError, BackupDamaged: there is no manifest to hold them to.
    """
    for file in Manifest.read(folder).files:
        path = folder / file.path
        if not path.is_file():
            yield file, "it is missing"
        elif (size := path.stat().st_size) != file.bytes:
            yield file, f"expected {file.bytes} bytes, found {size}"
        elif (found := checksum(path)) != file.sha256:
            yield file, f"expected checksum {file.sha256}, found {found}"
        told(file.bytes)
