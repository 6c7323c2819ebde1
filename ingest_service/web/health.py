"""Whether the service is alive, and whether it is ready for events."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ingest_service.web.observed import Observed

PROBE_S = 5.0
"""For how long the answer of the disk counts; no probe writes more often."""
_PROBE_BYTES = 64 << 10


class Health:
    """Two questions, each answered by the list of what is wrong. For one thread."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._disk = _Disk(observed.data)

    def dead(self) -> list[str]:
        """What only a restart mends: a committer that is gone."""
        streams = self._observed.streams.items()
        return [f"stream {name}: its committer has ended" for name, each in streams if not each.log.load().committing]

    def not_ready(self) -> list[str]:
        """Why some events would be refused, or would not reach the lake."""
        return [*self.dead(), *self._problems()]

    def _problems(self) -> Iterator[str]:
        disk = self._disk.error()
        if disk:
            yield f"the data folder can't be written: {disk}"
        for name, error in self._observed.refused.items():
            yield f"stream {name}: {error}"
        for name, stream in self._observed.streams.items():
            if stream.error:
                yield f"stream {name} takes no events: {stream.error}"
            if stream.lake.last_error is not None:
                yield f"stream {name}: the lake does not follow: {stream.lake.last_error}"


class _Disk:
    """Tries whether the data folder can be written.

    The log's own last error would not do: where nothing is sent because the service is not ready, nothing would ever
    show that the disk has room again.
    """

    def __init__(self, data: Path) -> None:
        self._file = data / "PROBE"
        self._asked_s: float | None = None
        self._error = ""

    def error(self) -> str:
        """Why not; empty when it can."""
        now_s = time.monotonic()
        if self._asked_s is None or now_s - self._asked_s >= PROBE_S:
            self._asked_s = now_s
            try:
                self._write()
                self._error = ""
            except OSError as error:
                self._error = error.strerror or str(error)
        return self._error

    def _write(self) -> None:
        fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, bytes(_PROBE_BYTES))
            os.fsync(fd)
        finally:
            os.close(fd)
            with contextlib.suppress(OSError):
                self._file.unlink()
