"""The landing folder as a file system: a local folder, or a place in an object store, through Arrow's file systems.

<landing>/<stream>/<file>       waits to be imported
<landing>/<stream>/import.yml   how the stream's files are read
<landing>/<stream>/done/        imported
<landing>/<stream>/failed/      could not be imported; beside each file the reason
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quality.errors import ConfigWrong, LandingFailed

if TYPE_CHECKING:
    import pyarrow.fs

DONE, FAILED, SETTINGS = "done", "failed", "import.yml"
REASON_ENDING = ".reason.txt"
UNFINISHED_ENDINGS = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart", ".swp", "~")
"""Names under which programs write what is not whole yet; so are names that begin with a dot or an underscore."""
_COPY_BYTES = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LandedFile:
    """A file in the landing folder. stream: its folder's name, empty for a file beside the streams' folders.

    modified_ns: when the store says that it was last written, ns since 1970; 0 where it does not say. seen_at: since
    when it is known to be as it is, s since 1970.
    """

    stream: str
    name: str
    size_bytes: int
    modified_ns: int
    seen_at: float

    @property
    def path(self) -> str:
        """Where it is, below the landing folder."""
        return f"{self.stream}/{self.name}" if self.stream else self.name

    @classmethod
    def parse(cls, file: dict[str, Any]) -> LandedFile:
        """From what `look` gave; LandingFailed for a name that would lead elsewhere."""
        try:
            parsed = cls(**file)
            names_ok = _is_plain(parsed.name) and (not parsed.stream or _is_plain(parsed.stream))
        except (TypeError, AttributeError) as error:
            raise LandingFailed(f"expected a file as `look` gives it, came {file!r}: {error}", file=str(file)) from None
        if not names_ok:
            raise LandingFailed(
                f"expected the plain names of a stream's folder and of a file in it, came {parsed.path!r}",
                file=parsed.path,
            )
        return parsed

    def to_json(self) -> dict[str, Any]:
        """For a task's result."""
        return asdict(self)


class LandingFolder:
    """A landing folder. Paths are relative to it, with slashes; none leads out of it, by a name or by a link.

    files: Arrow's file system, rooted in the folder. local: the folder where it is a local one, else None.
    """

    def __init__(self, files: pyarrow.fs.FileSystem, url: str, local: Path | None = None) -> None:
        self.files, self.url, self.local = files, url, local

    @classmethod
    def open(cls, url: str) -> LandingFolder:
        """The folder at a path or URL (`s3://bucket/prefix`; credentials and region come from the environment).

        Raises ConfigWrong when there is none, or Arrow knows no such store.
        """
        import pyarrow as pa
        from pyarrow import fs

        try:
            if "://" in url:
                files, path = fs.FileSystem.from_uri(url)
            else:
                files, path = fs.LocalFileSystem(), str(Path(url).absolute())
            found = files.get_file_info(path)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ConfigWrong(f"TIDEMILL_LANDING: {url} cannot be opened: {error}") from error
        local = Path(path) if isinstance(files, fs.LocalFileSystem) else None
        if local is not None and found.type != fs.FileType.Directory:
            raise ConfigWrong(f"TIDEMILL_LANDING: expected a folder at {url}, there is none. Make it, or name another")
        return cls(fs.SubTreeFileSystem(path.rstrip("/"), files), url, local)

    def streams(self) -> list[str]:
        """The folders in it, by name; one that is a link to elsewhere is none."""
        from pyarrow import fs

        folders = [info.base_name for info in self._listed("") if info.type == fs.FileType.Directory]
        named = sorted(name for name in folders if not _is_unfinished(name) and name not in {DONE, FAILED})
        for name in named:
            if not self.is_inside(name):
                _log.warning("%s: %s is a link out of the landing folder: nothing in it is imported", self.url, name)
        return [name for name in named if self.is_inside(name)]

    def waiting(self, stream: str) -> list[tuple[str, int, int]]:
        """Name, size and time (ns) of each file in a stream's folder that may be imported; of the root for ""."""
        from pyarrow import fs

        found = [info for info in self._listed(stream) if info.type == fs.FileType.File]
        return sorted(
            (info.base_name, info.size or 0, max(0, info.mtime_ns or 0))
            for info in found
            if not _is_unfinished(info.base_name) and info.base_name != SETTINGS
        )

    def _listed(self, folder: str) -> list[Any]:
        from pyarrow import fs

        return list(self.files.get_file_info(fs.FileSelector(folder, allow_not_found=True)))

    def is_inside(self, path: str) -> bool:
        """Whether links do not lead out of the folder there; a path that does not exist yet is where it would be."""
        if self.local is None:
            return True
        return Path(os.path.realpath(self.local / path)).is_relative_to(os.path.realpath(self.local))

    def is_as(self, file: LandedFile) -> bool:
        """Whether it has the size and the time still; False also when it is gone."""
        from pyarrow import fs

        info = self.files.get_file_info(file.path)
        # Stores tell a listed object's time to the millisecond, and a single one's to the second.
        unit_ns = 1 if self.local is not None else 1_000_000_000
        return bool(
            info.type == fs.FileType.File
            and info.size == file.size_bytes
            and max(0, info.mtime_ns or 0) // unit_ns == file.modified_ns // unit_ns
        )

    def exists(self, path: str) -> bool:
        """Whether there is something of that name."""
        from pyarrow import fs

        return bool(self.files.get_file_info(path).type != fs.FileType.NotFound)

    def copy(self, path: str, target: Path) -> str:
        """Copy a file out of it; the content's SHA-256. Raises OSError."""
        digest = hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True)
        # As it is stored: `.gz` must not be unpacked on the way.
        with self.files.open_input_stream(path, compression=None) as source, target.open("wb") as written:
            while chunk := source.read(_COPY_BYTES):
                digest.update(chunk)
                written.write(chunk)
        return digest.hexdigest()

    def read_end(self, path: str, size_bytes: int) -> bytes:
        """A file's last bytes. Raises OSError."""
        with self.files.open_input_file(path) as source:
            length = source.size()
            source.seek(max(0, length - size_bytes))
            return bytes(source.read())

    def read_text(self, path: str) -> str | None:
        """A small file's text; None when there is none. Raises OSError."""
        try:
            with self.files.open_input_stream(path, compression=None) as source:
                return bytes(source.read()).decode("utf-8")
        except FileNotFoundError:
            return None

    def _make(self, folder: str) -> None:
        """Make a folder; where folders are but the beginnings of names, none is needed."""
        if getattr(self.files, "base_fs", self.files).type_name not in {"s3", "gcs", "abfs"}:
            self.files.create_dir(folder, recursive=True)

    def write_text(self, path: str, text: str) -> None:
        """Write a small file. Raises OSError, also where a link of that name leads out."""
        if not self.is_inside(path):
            raise PermissionError(f"{path} is a link out of the landing folder")
        self._make(path.rpartition("/")[0])
        with self.files.open_output_stream(path, compression=None) as written:
            written.write(text.encode("utf-8"))

    def put_away(self, file: LandedFile, folder: str, content: str) -> str:
        """Move a file to its stream's `done` or `failed`; where it is now.

        A file of the same name there stays: this one gets the beginning of its content's hash into its name.
        Raises OSError where nothing may be moved, LandingFailed when a link leads out.
        """
        base = f"{file.stream}/{folder}" if file.stream else folder
        if not self.is_inside(base):
            raise LandingFailed(f"{self.url}: {base} is a link out of the landing folder: nothing is moved there",
                                stream=file.stream, file=file.name)  # fmt: skip
        self._make(base)
        target = f"{base}/{file.name}"
        if self.exists(target):
            stem, dot, endings = file.name.partition(".")
            target = f"{base}/{stem}-{content[:12]}{dot}{endings}"
        self.files.move(file.path, target)
        return target


def _is_plain(name: str) -> bool:
    return bool(name) and "/" not in name and "\\" not in name and "\0" not in name and not _is_unfinished(name)


def _is_unfinished(name: str) -> bool:
    return name.startswith((".", "_")) or name.lower().endswith(UNFINISHED_ENDINGS)
