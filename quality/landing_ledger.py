"""What was imported: by content, so that a file is sent once whatever its name, and for ever.

    <data>/landing/looks.json                    which files lie there, since when as they are
    <data>/landing/ledger/<stream>/<sha256>.json what is known of a content
    <data>/landing/put_aside/<hash of path>.json files that could not be moved, and that are done with
    <data>/landing/work/                         copies of files that are being sent

The service remembers producers for some days only. The ledger is kept: it is small, and part of what is true.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quality.config import DayConfig
from quality.errors import LandingFailed
from quality.files import write_atomically

SENDING, SENT = "sending", "sent"
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass
class Entry:
    """What is known of one content in one stream.

    producer_id, mapping, timezone: how it is sent; whoever goes on does so the same way. parts: acknowledged for sure.
    counts: of their rows. began_at: s since 1970. result: of the import, once it was sent. moved_to: where its file is
    then, below the landing folder; empty until it was moved.
    """

    state: str
    name: str
    producer_id: str
    mapping: list[str]
    timezone: str | None
    began_at: float
    parts: int = 0
    counts: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    moved_to: str = ""


class Ledger:
    """The ledger of one data folder. Entries are replaced as a whole, and are on disk when a call returns."""

    def __init__(self, config: DayConfig) -> None:
        self.root = config.data / "landing"

    @property
    def work(self) -> Path:
        """Folder of the copies of files that are being sent."""
        return self.root / "work"

    @contextlib.contextmanager
    def holding(self, stream: str, content: str) -> Iterator[bool]:
        """Whether this process alone may send this content now; the kernel lets go of it when the process dies."""
        # One lock for some contents, as a lock's file must never be removed: another process may be about to lock it.
        path = self._file(stream, content).with_name(f"{content[:2]}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def entry(self, stream: str, content: str) -> Entry | None:
        """What is known of a content; None: nothing. Raises LandingFailed when the entry cannot be read."""
        path = self._file(stream, content)
        try:
            return Entry(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise LandingFailed(
                f"expected what is known of an imported file in {path}; it cannot be read ({error}). Nothing is sent: "
                "it may have been sent before. Restore it from a backup, or remove it to send the file again",
                stream=stream,
            ) from error

    def keep(self, stream: str, content: str, entry: Entry) -> None:
        """Write what is known of a content."""
        write_atomically(self._file(stream, content), json.dumps(dataclasses.asdict(entry), ensure_ascii=False) + "\n")

    def looks(self) -> dict[str, Any]:
        """What the last look saw, by path; what cannot be read counts as nothing: files are looked at again."""
        try:
            seen = json.loads((self.root / "looks.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return seen if isinstance(seen, dict) else {}

    def keep_looks(self, looks: dict[str, Any]) -> None:
        """Write what this look saw."""
        write_atomically(self.root / "looks.json", json.dumps(looks, ensure_ascii=False) + "\n")

    def is_put_aside(self, path: str, size_bytes: int, modified_ns: int) -> bool:
        """Whether a file was done with as it is, although it could not be moved."""
        try:
            known = json.loads(self._marker(path).read_text(encoding="utf-8"))
            return bool(known["size_bytes"] == size_bytes and known["modified_ns"] == modified_ns)
        except (OSError, ValueError, TypeError, KeyError):
            return False

    def put_aside(self, path: str, size_bytes: int, modified_ns: int, why: str) -> Path:
        """Note that a file is done with, where it could not be moved; the note."""
        note = {"path": path, "size_bytes": size_bytes, "modified_ns": modified_ns, "why": why}
        write_atomically(self._marker(path), json.dumps(note, ensure_ascii=False) + "\n")
        return self._marker(path)

    def _marker(self, path: str) -> Path:
        return self.root / "put_aside" / f"{hashlib.sha256(path.encode()).hexdigest()[:40]}.json"

    def _file(self, stream: str, content: str) -> Path:
        assert _HASH.fullmatch(content), content
        assert stream not in {"", ".", ".."}, stream
        assert "/" not in stream, stream
        return self.root / "ledger" / stream / f"{content}.json"
