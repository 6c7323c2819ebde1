"""SQLite on a disk of our own: what it writes, syncs, makes and deletes below a folder goes to a `Files` as well.

A VFS (https://www.sqlite.org/vfs.html) in the very library that Python's sqlite3 uses: SQLite's own one for Unix, of
which four functions are ours. They tell a `Files` of each step before it is made: a `PowerFiles`, which keeps what a
power loss leaves; or one that fails, whose error SQLite gets in place of the step. Reading, locks and the WAL's index
in shared memory (of which nothing outlives the machine) are SQLite's own, on real files.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import errno
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from ingest_service.log.files import Files, PatchHandle

_OK, _CANTOPEN, _FULL = 0, 14, 13
_IOERR, _IOERR_WRITE, _IOERR_SYNC, _IOERR_TRUNCATE, _IOERR_DELETE = 10, 778, 1034, 1546, 2570
_OPEN_CREATE = 0x4
_KINDS = {0x100: "database", 0x800: "journal", 0x80000: "wal"}

_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, POINTER(c_int))
_DELETE = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_CUT = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)
_OPEN_FOLDER = CFUNCTYPE(c_int, c_char_p, POINTER(c_int))
_SET_SYSTEM_CALL = CFUNCTYPE(c_int, c_void_p, c_char_p, c_void_p)
_GET_SYSTEM_CALL = CFUNCTYPE(c_void_p, c_void_p, c_char_p)


class _Vfs(ctypes.Structure):
    """sqlite3_vfs, version 3."""

    _fields_ = (
        ("version", c_int), ("file_bytes", c_int), ("path_bytes_max", c_int), ("next", c_void_p), ("name", c_char_p),
        ("data", c_void_p), ("open", _OPEN), ("delete", _DELETE), ("others", c_void_p * 11),
        ("set_system_call", _SET_SYSTEM_CALL), ("get_system_call", _GET_SYSTEM_CALL), ("next_system_call", c_void_p),
    )  # fmt: skip


class _Methods(ctypes.Structure):
    """sqlite3_io_methods, version 3."""

    _fields_ = (
        ("version", c_int), ("close", c_void_p), ("read", c_void_p), ("write", _WRITE), ("cut", _CUT), ("sync", _SYNC),
        ("others", c_void_p * 13),
    )  # fmt: skip


class SqliteFiles:
    """What is seen of SQLite's files in a folder.

    folder: where they really are; files: what is told of each step; at: the folder's name there. left_out: syncs that
    are not told of, such as "wal sync" or "folder sync". counts: steps by kind of file; doing: the present one's kind.
    """

    def __init__(self, folder: Path, files: Files, at: Path, left_out: Collection[str] = ()) -> None:
        self.files = files
        self.counts: Counter[str] = Counter()
        self.doing = ""
        self.errors: list[BaseException] = []
        self._folder, self._at, self._left_out = folder.resolve(), at, left_out
        self._handles: dict[int, tuple[str, PatchHandle]] = {}

    def place(self, path: bytes) -> Path | None:
        """Where `files` has a file of SQLite's; None for one that is not in the folder."""
        real = Path(path.decode())
        return self._at / real.name if real.parent == self._folder else None

    def open(self, file: int, place: Path, flags: int) -> None:
        """SQLite opens a file of the folder."""
        kind = next((name for bit, name in _KINDS.items() if flags & bit), "other")
        if self.files.exists(place):
            self._handles[file] = kind, self.files.open_patch(place)
        elif flags & _OPEN_CREATE:
            with self._step(f"{kind} create"):
                self.files.create(place).close()
            self._handles[file] = kind, self.files.open_patch(place)

    def forget(self, file: int) -> None:
        """The memory that stood for a file stands for another one, which is not in the folder."""
        self._handles.pop(file, None)

    def write(self, file: int, position: int, data: bytes) -> None:
        """SQLite writes into a file that it opened here."""
        if file in self._handles:
            kind, handle = self._handles[file]
            with self._step(f"{kind} write"):
                handle.write_at(position, data)

    def cut(self, file: int, size: int) -> None:
        """SQLite cuts a file."""
        if file in self._handles:
            kind, handle = self._handles[file]
            with self._step(f"{kind} cut"):
                handle.cut(size)

    def sync(self, file: int) -> None:
        """SQLite syncs a file."""
        if file in self._handles:
            kind, handle = self._handles[file]
            with self._step(f"{kind} sync"):
                if f"{kind} sync" not in self._left_out:
                    handle.sync()

    def delete(self, place: Path) -> None:
        """SQLite deletes a file."""
        if self.files.exists(place):
            with self._step("delete"):
                self.files.unlink(place)

    def sync_folder(self, place: Path) -> None:
        """SQLite syncs the folder that a file is in."""
        with self._step("folder sync"):
            if "folder sync" not in self._left_out:
                self.files.sync_folder(place.parent)

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        self.counts[what] += 1
        self.doing = what
        try:
            yield
        finally:
            self.doing = ""


class _Shim:
    """Our VFS; one for a process, and never gone: connections may be closed long after its last use.

    Nothing raises through C: an OSError becomes SQLite's own error code, anything else is kept and is an error too.
    """

    def __init__(self, library: Any) -> None:
        self.watched: list[SqliteFiles] = []
        self._library = library
        find = library.sqlite3_vfs_find
        find.restype = POINTER(_Vfs)
        self._unix = find(b"unix")
        if not self._unix:
            raise OSError("SQLite has no VFS named unix here")
        real = self._unix.contents
        if real.version < 3:
            raise OSError(f"SQLite's VFS has version {real.version} here; expected 3 or more")
        self._real_open_folder = _OPEN_FOLDER(real.get_system_call(self._unix, b"openDirectory"))
        self._methods: dict[int, _Methods] = {}
        # The same functions with the same data, but for these.
        self._vfs = _Vfs.from_buffer_copy(real)
        self._vfs.name = b"tidemill_watched"
        self._vfs.open = _OPEN(self._open)
        self._vfs.delete = _DELETE(self._delete)
        self._open_folder_callback = _OPEN_FOLDER(self._open_folder)
        self._write_callback, self._cut_callback = _WRITE(self._write), _CUT(self._cut)
        self._sync_callback = _SYNC(self._sync)

    def begin(self) -> None:
        """From now on files are opened here."""
        self._check(self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1))
        callback = ctypes.cast(self._open_folder_callback, c_void_p)
        self._check(self._unix.contents.set_system_call(self._unix, b"openDirectory", callback))

    def end(self) -> None:
        """From now on files are opened by SQLite's own VFS."""
        self._check(self._unix.contents.set_system_call(self._unix, b"openDirectory", None))
        self._check(self._library.sqlite3_vfs_register(self._unix, 1))

    @staticmethod
    def _check(code: int) -> None:
        if code != _OK:
            raise OSError(f"SQLite answered {code} when its VFS was changed")

    def _place(self, path: bytes | None) -> tuple[SqliteFiles, Path] | None:
        for each in self.watched if path else ():
            assert path is not None
            place = each.place(path)
            if place is not None:
                return each, place
        return None

    def _told(self, code: int, tell: Any, *arguments: Any) -> int:
        """Tell of a step; the code with which SQLite's own function is not called any more."""
        try:
            tell(*arguments)
        except OSError as error:
            return _FULL if error.errno == errno.ENOSPC and code == _IOERR_WRITE else code
        except BaseException as error:
            for each in self.watched:
                each.errors.append(error)
            return _IOERR
        return _OK

    def _open(self, vfs: int, name: int | None, file: int, flags: int, out: Any) -> int:
        found = self._place(ctypes.string_at(name) if name else None)
        for each in self.watched:
            each.forget(file)
        if found is not None and (code := self._told(_CANTOPEN, found[0].open, file, found[1], flags)):
            c_void_p.from_address(file).value = None  # there is nothing to close
            return code
        code = self._unix.contents.open(ctypes.cast(self._unix, c_void_p), name, file, flags, out)
        methods = c_void_p.from_address(file)  # an open file begins with what its methods are
        if found is not None and methods.value:
            methods.value = ctypes.addressof(self._ours(methods.value))
        return int(code)

    def _ours(self, real: int) -> _Methods:
        """A file's methods, with those in place that write."""
        if real not in self._methods:
            self._real = _Methods.from_address(real)  # the same functions, whatever the file locks by
            methods = _Methods.from_buffer_copy(self._real)
            methods.version = min(methods.version, 2)  # no memory maps: they are written without a call
            methods.write, methods.cut = self._write_callback, self._cut_callback
            methods.sync = self._sync_callback
            self._methods[real] = methods
        return self._methods[real]

    def _write(self, file: int, data: int, size: int, position: int) -> int:
        content = ctypes.string_at(data, size)
        for each in self.watched:
            if code := self._told(_IOERR_WRITE, each.write, file, position, content):
                return code
        return int(self._real.write(file, data, size, position))

    def _cut(self, file: int, size: int) -> int:
        for each in self.watched:
            if code := self._told(_IOERR_TRUNCATE, each.cut, file, size):
                return code
        return int(self._real.cut(file, size))

    def _sync(self, file: int, flags: int) -> int:
        for each in self.watched:
            if code := self._told(_IOERR_SYNC, each.sync, file):
                return code
        return int(self._real.sync(file, flags))

    def _delete(self, vfs: int, path: bytes, sync_folder: int) -> int:
        found = self._place(path)
        if found is not None and (code := self._told(_IOERR_DELETE, found[0].delete, found[1])):
            return code
        return int(self._unix.contents.delete(ctypes.cast(self._unix, c_void_p), path, sync_folder))

    def _open_folder(self, path: bytes, out: Any) -> int:
        """SQLite opens the folder of a file; it does so only to sync it."""
        found = self._place(path)
        if found is not None and (code := self._told(_CANTOPEN, found[0].sync_folder, found[1])):
            return code
        return int(self._real_open_folder(path, out))


@cache
def _shim() -> _Shim | str:
    """The VFS, or why there can be none."""
    try:
        # Its symbols are those of the libsqlite3 that it was linked with.
        library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
        library.sqlite3_libversion.restype = c_char_p
        found = library.sqlite3_libversion().decode()
        shim = _Shim(library)
    except (AttributeError, OSError) as error:
        return f"SQLite's library cannot be reached by ctypes ({error})"
    if found != sqlite3.sqlite_version:
        return f"ctypes finds SQLite {found}, and Python uses {sqlite3.sqlite_version}"
    return shim


def why_not() -> str:
    """Why SQLite cannot be watched with this Python, or ""."""
    shim = _shim()
    return shim if isinstance(shim, str) else ""


@contextmanager
def watched_sqlite(
    folder: Path, files: Files, at: Path = Path("/"), *, left_out: Collection[str] = ()
) -> Iterator[SqliteFiles]:
    """Within the block `files` is told of what SQLite does in `folder`, by connections opened in the block.

    Close them in the block: after it nothing is told.
    """
    shim = _shim()
    assert not isinstance(shim, str), shim
    watched = SqliteFiles(folder, files, at, left_out)
    if not shim.watched:
        shim.begin()
    shim.watched.append(watched)
    try:
        yield watched
    finally:
        shim.watched.remove(watched)
        if not shim.watched:
            shim.end()
    if watched.errors:
        raise watched.errors[0]
