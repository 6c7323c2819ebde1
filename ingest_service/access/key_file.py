"""The file of the API keys."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ingest_service.access.key import ApiKey
from ingest_service.errors import ConfigError

KEY_FILE = "keys.json"
"""Its name in the data folder."""
_FORMAT = 1


class KeyFile:
    """`keys.json` in a data folder: `{"format": 1, "keys": [...]}`, readable by its owner alone (0600).

    A reader sees the file as it was before a change or after it, never in between: it is replaced as a whole. Those
    that change it wait for each other (`keys.json.lock`).
    """

    def __init__(self, data: Path) -> None:
        self.path = data / KEY_FILE

    def exists(self) -> bool:
        """Whether there is one: a service that finds one asks every caller for a key."""
        return self.path.exists()

    def read(self) -> list[ApiKey]:
        """The keys, oldest first; none when there is no file.

        Raises:
            ConfigError: the file can't be read, or is not what this release writes.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(f"the API keys in {self.path} can't be read: {error.strerror}") from error
        try:
            found = json.loads(content)
            if found["format"] != _FORMAT:
                raise ConfigError(
                    f"expected format {_FORMAT} in {self.path}, found {found['format']!r}: another release wrote it"
                )
            return [ApiKey.from_json(each) for each in found["keys"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self.path} is no file of API keys ({type(error).__name__}); restore it, or move it away and make "
                "the keys anew with `tidemill key create`"
            ) from None

    @contextlib.contextmanager
    def changing(self) -> Iterator[list[ApiKey]]:
        """The keys, to be changed in place: written at the end, unless it ends with an error.

        Raises:
            ConfigError: the file can't be read or written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            lock = os.open(self.path.with_name(KEY_FILE + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _give_to_owner(lock, self.path.parent)
        except OSError as error:
            raise ConfigError(f"the folder {self.path.parent} can't be written: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self.read()
            yield keys
            self._write(keys)
        finally:
            os.close(lock)

    def _write(self, keys: Iterable[ApiKey]) -> None:
        """1 Write beside it. 2 Sync. 3 Rename over it. 4 Sync the folder."""
        content = json.dumps({"format": _FORMAT, "keys": [key.to_json() for key in keys]}, indent=1) + "\n"
        beside = self.path.with_name(KEY_FILE + ".new")
        try:
            beside.unlink(missing_ok=True)
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                _give_to_owner(file.fileno(), self.path.parent)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise ConfigError(f"the API keys can't be written to {self.path}: {error.strerror}") from error


def _give_to_owner(file: int, folder: Path) -> None:
    """Made by root, the file is still for the service, which the folder belongs to."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(file, owner.st_uid, owner.st_gid)
