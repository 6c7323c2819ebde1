"""Which live views there are, kept in the data folder: what was applied holds, also after a restart.

    live/manifest.json          the manifest in force
    live/manifest.json.taken    SHA-256 (hexadecimal) of the file that --manifest named when the service last took it

Who put a manifest in force last, wins: a file that --manifest names is taken when it differs from the one taken before;
otherwise what was applied since then stays. The file may be `live/manifest.json` itself: `tidemill up` writes it there.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ingest_service.errors import BadRequest, ConfigError, StorageError
from ingest_service.live.manifest import parse_manifest
from ingest_service.log.files import Files, OsFiles

MANIFEST_BYTES_MAX = 32 << 20

_Result = TypeVar("_Result")


class ViewManifest:
    """The manifest in force. `at_start` and `taken` are for the start; `apply` is thread-safe."""

    def __init__(self, path: Path, given: Path | None = None, files: Files | None = None) -> None:
        """path: where it is kept. given: what --manifest names."""
        self._path, self._given = path, given
        self._mark = path.with_name(path.name + ".taken")
        self._files = files or OsFiles()
        self._lock = threading.Lock()

    def at_start(self) -> Path | None:
        """The file to open the views from; None: there are none.

        Raises:
            ConfigError: a file can't be read.
        """
        if self._is_new():
            return self._given
        return self._path if self._path.is_file() else None

    def taken(self) -> None:
        """The views of `at_start` are open: keep the manifest that they came from.

        A crash between the steps takes the same file again. Raises StorageError.
        """
        if self._given is None or not self._is_new():
            return
        manifest = self._read(self._given)
        self._keep(self._path, manifest)
        self._keep(self._mark, _digest(manifest))

    def apply(self, manifest: bytes, apply: Callable[[bytes], _Result]) -> _Result:
        """Put a manifest in force: 1 check it; 2 keep it; 3 let it take effect. One at a time.

        A crash before 2 leaves all as it was; after 2 the next start puts in force what was kept. When 3 fails, the
        one before is kept again: it is what the next start finds.

        Raises:
            BadRequest: see `check_manifest`.
            StorageError: it can't be kept; nothing happened.
            Exception: what `apply` raises.
        """
        with self._lock:
            check_manifest(manifest)  # 1
            before = self._read(self._path) if self._path.is_file() else b'{"nodes": {}}'
            self._keep(self._path, manifest)  # 2
            try:
                return apply(manifest)  # 3
            except BaseException:
                self._keep(self._path, before)
                raise

    def _is_new(self) -> bool:
        """Whether --manifest names another file, and one that was not taken yet."""
        if self._given is None or os.path.realpath(self._given) == os.path.realpath(self._path):
            return False
        return not self._mark.is_file() or self._read(self._mark) != _digest(self._read(self._given))

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(f"--manifest: {path} can't be read: {error.strerror or error}") from error

    def _keep(self, path: Path, data: bytes) -> None:
        try:
            self._files.make_folder(path.parent)
            self._files.replace(path, data)
        except OSError as error:
            raise StorageError(
                f"the manifest of the live views can't be kept in {path}: {error.strerror or error}; the one before "
                "stays in force. Apply it again once the cause is gone"
            ) from error


def check_manifest(manifest: bytes) -> None:
    """See that it is a manifest that views can be opened from.

    Raises:
        BadRequest: it is none, or too large.
    """
    if len(manifest) > MANIFEST_BYTES_MAX:
        raise BadRequest(
            f"manifest: expected at most {MANIFEST_BYTES_MAX >> 20} MiB, came {len(manifest)} bytes; leave out all "
            "nodes but the live models and their seeds, as `tidemill view apply` does",
            "manifest",
        )
    try:
        parse_manifest(manifest)
    except ConfigError as error:
        # It is the caller's, not an option of the service.
        raise BadRequest(str(error), "manifest") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise BadRequest(
            f"manifest: expected one that dbt compiled; some part of it is missing or something else: {error!r}",
            "manifest",
        ) from error


def _digest(manifest: bytes) -> bytes:
    return hashlib.sha256(manifest).hexdigest().encode()
