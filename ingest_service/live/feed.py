"""What the live views need of a stream's log: the part of `ingest_service.log.Log` that they use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from ingest_service.log.records import Entry, LogSpec


class ReaderLike(Protocol):
    """Reads a log in order; used by one thread at a time."""

    def read(self, max_rows: int, timeout_s: float) -> list[Entry]:
        """The next durable entries; waits up to `timeout_s` for them, and answers [] when none came."""

    def close(self) -> None:
        """Lets go of the log's files."""


class LogLike(Protocol):
    """One stream's log; thread-safe."""

    @property
    def spec(self) -> LogSpec:
        """What the log knows of its stream's contract."""

    @property
    def schema(self) -> pa.Schema:
        """The rows' columns: the contract's, then the system columns."""

    @property
    def durable_offset(self) -> int:
        """Everything strictly below it is on disk."""

    @property
    def watermark_us(self) -> int | None:
        """Event time below which the stream is believed complete (µs since 1970 UTC); None before the first event."""

    def reader(self, from_offset: int, columns: Sequence[str] | None = None) -> ReaderLike:
        """A reader that starts at `from_offset`; it also yields the seals with a seal offset at or above it.

        columns: the rows have at least these; None: all.
        """
