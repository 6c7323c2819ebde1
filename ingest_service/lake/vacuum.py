"""Deletes what no version of a lake table needs that has to stay readable.

delta-rs has a vacuum of its own. It is not used: its full mode deletes files of young versions too, and its other mode
never finds the files of a commit that failed, nor those whose removal a checkpoint no longer tells of.

A table in an object store is vacuumed by a process of its own (this module, run as a program): delta-rs's access to
files holds Python's lock for as long as a request takes, and all of the service would stand still meanwhile.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pa_fs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.fs import DeltaStorageHandler

PROPERTIES = {"delta.enableExpiredLogCleanup": "false"}
"""Delta would delete log entries by itself after 30 days, also those that lead to a version that shall stay."""

TIMEOUT_S = 1800.0
"""How long the vacuum of a table in an object store may take, s."""

_LOG = "_delta_log/"
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(\.\d{10}\.\d{10})?\.parquet")
_OF_A_VERSION = re.compile(r"(\d{20})[.](?:json|crc|checkpoint[.].*parquet|\d{20}[.]compacted[.]json)")
_UNFINISHED = re.compile(r"_commit_.*\.tmp")


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """What was deleted, and what stays. kept_files: not of the present version, but of one that stays, or young.

    missing: of the versions that were to be kept, those to which the Delta log does not lead any more.
    """

    deleted_files: int
    deleted_log_files: int
    freed_bytes: int
    files: int
    bytes: int
    kept_files: int
    kept_bytes: int
    missing: tuple[int, ...]


class DeltaLog:
    """Which versions the files of a Delta log lead to. It is a listing of one moment; immutable.

    A version can be read when every commit is there from its last checkpoint, or from the first one, on.
    """

    def __init__(self, infos: Iterable[pa_fs.FileInfo]) -> None:
        self.infos = [info for info in infos if info.path.startswith(_LOG)]
        self._commits: dict[int, int] = {}
        checkpoints = set()
        for info in self.infos:
            name = info.path.removeprefix(_LOG)
            if match := _COMMIT.fullmatch(name):
                self._commits[int(match[1])] = info.mtime_ns
            elif match := _CHECKPOINT.fullmatch(name):
                checkpoints.add(int(match[1]))
        self._checkpoints = sorted(checkpoints)

    def checkpoint_before(self, version: int) -> int | None:
        """The last checkpoint at or below a version; None when there is none."""
        return max((each for each in self._checkpoints if each <= version), default=None)

    def leads_to(self, version: int) -> bool:
        """Whether the version can be read."""
        checkpoint = self.checkpoint_before(version)
        first = 0 if checkpoint is None else checkpoint + 1
        return all(each in self._commits for each in range(first, version + 1))

    def oldest_young(self, cutoff_ns: int, present: int) -> int:
        """The oldest version that was the present one at the cutoff or later, and can be read."""
        versions = sorted(version for version in self._commits if version <= present)
        at_cutoff = max((version for version in versions if self._commits[version] <= cutoff_ns), default=0)
        younger = versions[bisect_left(versions, at_cutoff) :]
        return next((version for version in younger if self.leads_to(version)), present)


class Vacuum:
    """One vacuum of one table, which nobody else may write to meanwhile: hold the exporter's lock.

    In this order: 0 the table's own clean-up is switched off, once; 1 list the folder; 2 find the files of every
    version that stays readable; 3 bring to disk what those versions consist of, as delta-rs does not sync what it
    writes; 4 delete the data files that are in none of them and were last written before the cutoff; 5 delete the Delta
    log's entries before the last checkpoint that all those versions can do with. After a crash in between, the next one
    does the rest.
    """

    def __init__(
        self,
        table: DeltaTable,
        storage_options: Mapping[str, str] | None,
        keep_versions: Collection[int],
        cutoff_ns: int,
        sync: Callable[[], None] = os.sync,
    ) -> None:
        """`cutoff_ns`: every version stays that was the present one then or later, in ns since 1970."""
        self._table = table
        self._options = dict(storage_options) if storage_options else None
        self._asked, self._cutoff_ns, self._sync = sorted(set(keep_versions)), cutoff_ns, sync
        self._files = _files_of(table.table_uri, self._options)

    def run(self) -> Vacuumed:
        """Do it. Raises DeltaError, OSError; what was not deleted then is deleted by the next one."""
        if not PROPERTIES.items() <= self._table.metadata().configuration.items():
            self._table.alter.set_table_properties(PROPERTIES)  # 0
        present = self._table.version()
        infos = self._listed()  # 1
        log = DeltaLog(infos)
        known = [version for version in self._asked if version <= present and log.leads_to(version)]
        versions = sorted({*known, log.oldest_young(self._cutoff_ns, present), present})
        now = _paths(self._table)  # 2
        needed = now.union(*(self._paths_at(version) for version in versions if version != present))
        data = [info for info in infos if info.path.endswith(".parquet") and not info.path.startswith(_LOG)]
        if lost := sorted(now.difference(info.path for info in data)):
            raise FileNotFoundError(f"{lost[0]} is missing, and {len(lost) - 1} others; restore it from a backup")
        doomed = [info for info in data if info.path not in needed and info.mtime_ns <= self._cutoff_ns]
        doomed_entries = self._doomed_entries(log, versions[0])
        if doomed or doomed_entries:
            self._sync()  # 3
        deleted = [info for info in doomed if self._delete(info)]  # 4
        deleted_entries = [info for info in doomed_entries if self._delete(info)]  # 5
        gone = {info.path for info in doomed}
        kept = [info for info in data if info.path not in now and info.path not in gone]
        present_files = [info for info in data if info.path in now]
        return Vacuumed(
            deleted_files=len(deleted),
            deleted_log_files=len(deleted_entries),
            freed_bytes=_bytes([*deleted, *deleted_entries]),
            files=len(present_files),
            bytes=_bytes(present_files),
            kept_files=len(kept),
            kept_bytes=_bytes(kept),
            missing=tuple(version for version in self._asked if version not in known),
        )

    def _listed(self) -> list[pa_fs.FileInfo]:
        selector = pa_fs.FileSelector("", recursive=True)
        return [info for info in self._files.get_file_info(selector) if info.type == pa_fs.FileType.File]

    def _paths_at(self, version: int) -> set[str]:
        return _paths(DeltaTable(self._table.table_uri, version=version, storage_options=self._options))

    def _doomed_entries(self, log: DeltaLog, oldest: int) -> list[pa_fs.FileInfo]:
        """Entries that no version needs from `oldest` on, oldest first: what is left leads somewhere at any moment."""
        first = log.checkpoint_before(oldest) or 0
        doomed = []
        for info in sorted(log.infos, key=lambda info: info.path):
            name = info.path.removeprefix(_LOG)
            match = _OF_A_VERSION.fullmatch(name)
            unneeded = int(match[1]) < first if match else _UNFINISHED.fullmatch(name) is not None
            if unneeded and info.mtime_ns <= self._cutoff_ns:
                doomed.append(info)
        return doomed

    def _delete(self, info: pa_fs.FileInfo) -> bool:
        try:
            self._files.delete_file(info.path)
        except FileNotFoundError:
            return False
        return True


def vacuum(
    table: DeltaTable,
    uri: str,
    storage_options: Mapping[str, str] | None,
    keep_versions: Collection[int],
    cutoff_ns: int,
    sync: Callable[[], None] = os.sync,
) -> Vacuumed:
    """Vacuum a table, in an object store by a process of its own; see `Vacuum`. Raises DeltaError, OSError."""
    if "://" not in uri:
        return Vacuum(table, storage_options, keep_versions, cutoff_ns, sync).run()
    # On its standard input, as the options may hold a secret.
    asked = {"uri": uri, "options": dict(storage_options or {}), "keep": sorted(keep_versions), "cutoff_ns": cutoff_ns}
    # -P: the folder that it runs in must not hide a module.
    command = [sys.executable, "-P", "-m", __name__]
    try:
        ended = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        # Nobody can write to the table meanwhile.
        raise OSError(f"it took longer than {TIMEOUT_S / 60:g} minutes; the next vacuum does the rest") from None
    if ended.returncode:
        raise OSError(ended.stderr.strip()[-2000:] or f"its process ended with {ended.returncode}")
    told = json.loads(ended.stdout)
    return Vacuumed(**{**told, "missing": tuple(told["missing"])})


def main() -> int:
    """Do what standard input asks for, and tell on standard output what was done, or on the other one why not."""
    asked = json.load(sys.stdin)
    options = asked["options"] or None
    try:
        table = DeltaTable(asked["uri"], storage_options=options)
        done = Vacuum(table, options, asked["keep"], asked["cutoff_ns"]).run()
    except (DeltaError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the program's output
        return 1
    print(json.dumps(dataclasses.asdict(done)))  # noqa: T201 - the program's output
    return 0


def _files_of(uri: str, options: dict[str, str] | None) -> pa_fs.FileSystem:
    """The table's folder as Arrow's file system; paths in it are relative."""
    path = unquote(urlsplit(uri).path) if uri.startswith("file://") else uri
    if "://" in path:
        return pa_fs.PyFileSystem(DeltaStorageHandler(uri, options))
    return pa_fs.SubTreeFileSystem(path.rstrip("/"), pa_fs.LocalFileSystem())


def _paths(table: DeltaTable) -> set[str]:
    actions = pa.table(table.get_add_actions(flatten=True))
    paths: list[Any] = actions.column("path").to_pylist()
    return set(paths)


def _bytes(infos: Iterable[pa_fs.FileInfo]) -> int:
    return sum(info.size for info in infos)


if __name__ == "__main__":
    sys.exit(main())
