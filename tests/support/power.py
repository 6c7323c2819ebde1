"""A disk in memory that loses at a power loss what was not synced: file contents and folder entries.

`PowerFiles` takes the steps of `Files` from it. Every step that changes or syncs anything is numbered, and made by one
thread at a time; at a chosen one the power goes, or the step fails. What a file may hold afterwards: what was synced,
and of everything written since nothing, all, the first part, or any of its sectors, the others being zeros, garbage or
the file's end. Of a folder's entries: those synced, and of the changes since none, all, the first ones, or any. A
failed sync leaves readable what it did not bring to disk, and no later sync brings it there: Linux counts such pages as
written (PostgreSQL's "fsyncgate", https://wiki.postgresql.org/wiki/Fsync_Errors).
"""

from __future__ import annotations

import copy
import errno
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ingest_service.log import files as files_module
from ingest_service.log.files import Files

SECTOR = 512
"""Bytes that a disk writes at once."""


@dataclass
class _File:
    """disk: what a power loss leaves for certain; cache: what is read; writes: since the last sync; no data: a cut."""

    disk: bytearray = field(default_factory=bytearray)
    cache: bytearray = field(default_factory=bytearray)
    writes: list[tuple[int, bytes | None]] = field(default_factory=list)

    def write(self, position: int, data: bytes | None) -> None:
        _put(self.cache, position, data)
        self.writes.append((position, data))

    def sync(self) -> None:
        for write in self.writes:
            _put(self.disk, *write)
        self.writes.clear()

    def survivor(self, chance: random.Random, mode: str) -> bytearray:
        """What the disk may hold when the power goes now."""
        content = bytearray(self.disk)
        if mode == "all":
            for write in self.writes:
                _put(content, *write)
        elif mode == "first" and self.writes:
            kept = chance.randrange(len(self.writes) + 1)
            for write in self.writes[:kept]:
                _put(content, *write)
            if kept < len(self.writes) and (data := self.writes[kept][1]) is not None:
                _put(content, self.writes[kept][0], data[: chance.randrange(len(data) + 1)])
        elif mode == "any":
            for position, data in self.writes:
                if data is not None:
                    _put_sectors(content, position, data, chance)
                elif chance.random() < 0.5:
                    _put(content, position, None)
        return content


@dataclass
class _Folder:
    """disk and cache: name → file or folder; changes: since the last sync, each made at once: name → what it got."""

    disk: dict[str, _File | _Folder] = field(default_factory=dict)
    cache: dict[str, _File | _Folder] = field(default_factory=dict)
    changes: list[dict[str, _File | _Folder | None]] = field(default_factory=list)

    def change(self, change: dict[str, _File | _Folder | None]) -> None:
        _enter(self.cache, change)
        self.changes.append(change)

    def sync(self) -> None:
        for change in self.changes:
            _enter(self.disk, change)
        self.changes.clear()

    def survivor(self, chance: random.Random, mode: str) -> _Folder:
        """The folder, and all below it, as the disk may hold it when the power goes now."""
        entries = dict(self.disk)
        own = mode if mode in ("none", "all") else chance.choice(["none", "all", "first", "any"])
        first = chance.randrange(len(self.changes) + 1)
        for number, change in enumerate(self.changes):
            if own == "all" or (own == "first" and number < first) or (own == "any" and chance.random() < 0.5):
                _enter(entries, change)
        left: dict[str, _File | _Folder] = {}
        for name, node in entries.items():
            if isinstance(node, _Folder):
                left[name] = node.survivor(chance, mode)
            else:
                content = node.survivor(chance, mode if mode in ("none", "all") else chance.choice(_FILE_MODES))
                left[name] = _File(content, bytearray(content))
        return _Folder(left, dict(left))


_FILE_MODES = ["none", "all", "first", "any"]


def _put(content: bytearray, position: int, data: bytes | None) -> None:
    if data is None:
        del content[position:]
        return
    if len(content) < position:
        content.extend(bytes(position - len(content)))
    content[position : position + len(data)] = data


def _put_sectors(content: bytearray, position: int, data: bytes, chance: random.Random) -> None:
    """Some sectors of the data. Those that did not come are as they were, or zeros or garbage where nothing was."""
    length = len(content)
    filler = chance.choice([bytes, chance.randbytes])
    at = position
    while at < position + len(data):
        end = min((at // SECTOR + 1) * SECTOR, position + len(data))
        if chance.random() < 0.5:
            _put(content, at, data[at - position : end - position])
        elif end > length:
            _put(content, at, filler(end - at))
        at = end
    if len(content) > length and chance.random() < 0.5:
        # The new length came to disk, its last bytes did not; or it never did.
        _put(content, chance.randrange(length, len(content)), None)


def _enter(entries: dict[str, _File | _Folder], change: Mapping[str, _File | _Folder | None]) -> None:
    for name, node in change.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


class Disk:
    """The disk's root folder. `after_power_loss` is another disk; what happens to this one no longer matters."""

    def __init__(self, root: _Folder | None = None) -> None:
        self.root = root or _Folder()

    @classmethod
    def holding(cls, folder: Path, files: Mapping[str, bytes]) -> Disk:
        """A disk on which nothing but these files, by name, are in a folder, durably."""
        node = _Folder()
        node.disk = {name: _File(bytearray(data), bytearray(data)) for name, data in files.items()}
        node.cache = dict(node.disk)
        for part in reversed(folder.parts[1:]):
            node = _Folder({part: node}, {part: node})
        return cls(node)

    def files(self, folder: Path) -> dict[str, bytes]:
        """What can be read of the files in a folder, by name."""
        node: _File | _Folder = self.root
        for part in folder.parts[1:]:
            assert isinstance(node, _Folder)
            node = node.cache[part]
        assert isinstance(node, _Folder)
        return {name: bytes(file.cache) for name, file in node.cache.items() if isinstance(file, _File)}

    def copy(self) -> Disk:
        """The disk as it is, with what is not on it yet: where the process is killed now, the next one finds this."""
        return copy.deepcopy(self)

    def after_power_loss(self, chance: random.Random) -> Disk:
        """One of the states in which the disk may be found after a power loss now, chosen by `chance`."""
        return Disk(self.root.survivor(chance, chance.choice(["none", "all", "mixed", "mixed"])))


class PowerFiles(Files):
    """What one run of a process sees of a disk: from its start to a power loss, to SIGKILL (`kill`), or to its end.

    power_off_at: the step at which the power goes. faults: step → errno with which it fails. left_out: sites whose
    syncs are not made. on_step: called with a step's number before it has an effect. trace: which place in the code
    took each step; sites: how often each place synced.
    """

    def __init__(
        self,
        disk: Disk,
        chance: random.Random,
        *,
        power_off_at: int | None = None,
        faults: Mapping[int, int] | None = None,
        left_out: Collection[str] = (),
        on_step: Callable[[int], None] = lambda step: None,
    ) -> None:
        self.disk, self._chance = disk, chance
        self.power_off_at, self._faults, self._left_out = power_off_at, faults or {}, left_out
        self._on_step = on_step
        self.lock = threading.RLock()
        self.trace: list[str] = []
        self.off = False
        self.failed: list[str] = []
        self.sites: Counter[str] = Counter()

    @property
    def steps(self) -> int:
        """How many steps there were."""
        return len(self.trace)

    def kill(self) -> None:
        """Nothing that this process does from now on reaches the disk."""
        self.off = True

    def exists(self, path: Path) -> bool:
        return self._find(path) is not None

    def list_folder(self, folder: Path) -> list[str]:
        return sorted(self._folder(folder).cache)

    def size(self, path: Path) -> int:
        return len(self._file(path).cache)

    def create(self, path: Path) -> _Handle:
        if path.name in self._folder(path.parent).cache:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        file = _File()
        self._change(path.parent, {path.name: file}, "create")
        return _Handle(self, file)

    def open_append(self, path: Path) -> _Handle:
        return _Handle(self, self._file(path))

    def open_read(self, path: Path) -> _Handle:
        return _Handle(self, self._file(path))

    def open_patch(self, path: Path) -> _Handle:
        return _Handle(self, self._file(path))

    def make_entry(self, folder: Path) -> None:
        if self._find(folder) is None:
            self._change(folder.parent, {folder.name: _Folder()}, "make_entry")

    def rename(self, path: Path, new: Path) -> None:
        self._change(path.parent, {path.name: None, new.name: self._file(path)}, "rename")

    def unlink(self, path: Path) -> None:
        self._file(path)
        self._change(path.parent, {path.name: None}, "unlink")

    def sync_folder(self, folder: Path) -> None:
        node = self._folder(folder)
        if self.syncs("sync_folder"):
            with self.lock:
                self.step("sync_folder")
                node.sync()

    def _change(self, folder: Path, change: dict[str, _File | _Folder | None], what: str) -> None:
        node = self._folder(folder)
        with self.lock:
            try:
                self.step(what)
            except PowerOff:
                if self._chance.random() < 0.5:
                    node.change(change)
                raise
            node.change(change)

    def step(self, what: str) -> None:
        """Count a step that changes or syncs something; it may be the one that fails."""
        self.check()
        number = len(self.trace)
        self._on_step(number)
        self.trace.append(f"{_site()}: {what}")
        if number == self.power_off_at:
            self.off = True
            raise PowerOff
        if number in self._faults:
            self.failed.append(what)
            raise OSError(self._faults[number], os.strerror(self._faults[number]))

    def check(self) -> None:
        """See that the process is alive."""
        if self.off:
            raise PowerOff

    def syncs(self, what: str) -> bool:
        """Whether this sync is made."""
        site = f"{_site()}: {what}"
        self.sites[site] += 1
        return site not in self._left_out

    def lose(self, file: _File) -> None:
        """A sync failed: what is on disk is decided now, and no later sync changes it."""
        file.disk = file.survivor(self._chance, self._chance.choice(_FILE_MODES))
        file.writes.clear()

    def torn(self, data: bytes) -> bytes:
        """The part of a write that was made before it failed."""
        return data[: self._chance.randrange(len(data) + 1)]

    def _find(self, path: Path) -> _File | _Folder | None:
        self.check()
        node: _File | _Folder | None = self.disk.root
        for part in path.parts[1:]:
            node = node.cache.get(part) if isinstance(node, _Folder) else None
        return node

    def _file(self, path: Path) -> _File:
        node = self._find(path)
        if not isinstance(node, _File):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return node

    def _folder(self, path: Path) -> _Folder:
        node = self._find(path)
        if not isinstance(node, _Folder):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return node


class PowerOff(OSError):
    """The power is gone, or the process is: nothing it does has an effect any more."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "the power is off")


class _Handle:
    """An open file of any kind."""

    def __init__(self, files: PowerFiles, file: _File) -> None:
        self._files, self._file = files, file

    def write(self, data: bytes) -> None:
        self.write_at(len(self._file.cache), data)

    def write_at(self, position: int, data: bytes) -> None:
        self._files.check()
        with self._files.lock:
            try:
                self._files.step("write")
            except OSError:
                self._file.write(position, self._files.torn(data))
                raise
            self._file.write(position, data)

    def cut(self, size: int) -> None:
        with self._files.lock:
            self._files.step("cut")
            self._file.write(size, None)

    def sync(self) -> None:
        self._files.check()
        if not self._files.syncs("sync"):
            return
        with self._files.lock:
            try:
                self._files.step("sync")
            except PowerOff:
                raise
            except OSError:
                self._files.lose(self._file)
                raise
            self._file.sync()

    def read_at(self, position: int, size: int) -> bytes:
        self._files.check()
        return bytes(self._file.cache[position : position + size])

    def close(self) -> None:
        """Nothing to let go of."""


def _site() -> str:
    """The function that asked for a sync; within an operation of `Files` the operation too, and who asked for it."""
    names: list[str] = []
    for filename, name in _callers():
        if filename == __file__:
            continue
        names.append(name)
        if filename != files_module.__file__:
            break
    return " > ".join(reversed(names))


def _callers() -> Iterator[tuple[str, str]]:
    frame = sys._getframe(1)
    while frame is not None:
        yield frame.f_code.co_filename, frame.f_code.co_qualname
        frame = frame.f_back
