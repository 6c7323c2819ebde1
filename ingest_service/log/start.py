"""Where a log begins: a small file that retention writes before it removes segments.

It tells a segment that was dropped from one that is missing. Whoever finds segments below it may remove them: an
interrupted retention has left them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ingest_service.errors import LogDamaged
from ingest_service.log.files import Files

START_NAME = "start.json"


@dataclass(frozen=True, slots=True)
class Start:
    """The first segment that the log keeps, by number, and its base offset."""

    segment: int = 0
    offset: int = 0


def read_start(files: Files, folder: Path) -> Start:
    """Where the log in `folder` begins; `Start()` while nothing was dropped.

    Raises:
        LogDamaged: the file can't be understood.
    """
    path = folder / START_NAME
    if not files.exists(path):
        return Start()
    handle = files.open_read(path)
    try:
        return Start(**json.loads(handle.read_at(0, 1 << 12)))
    except (ValueError, TypeError) as error:
        raise LogDamaged(
            f"{path} can't be understood: {error}. It says where the log begins; restore it from a backup, or write it "
            'anew: {"segment": <number of the first .seg file>, "offset": <its base offset>}',
            str(path),
            0,
        ) from error
    finally:
        handle.close()


def write_start(files: Files, folder: Path, start: Start) -> None:
    """Record, durably, that the log begins there; raises OSError."""
    files.replace(folder / START_NAME, json.dumps(asdict(start)).encode())
