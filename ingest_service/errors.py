"""The errors that the ingest service raises.

    IngestError
    ├── ContractError            a .proto file that is no contract; its stream stops, the service does not
    │   └── IncompatibleContract a changed contract that rows, readers or producers of the one in force do not fit
    ├── UnknownStream            no contract has that stream name
    ├── UnknownView              no live view has that name
    ├── BadRequest               the request itself is wrong: a retry cannot help
    ├── Unauthenticated          no API key came, or one that is unknown, revoked or expired
    ├── PermissionDenied         the API key does not allow this
    ├── ProducerError            a sequence that does not follow the producer's last one
    ├── Overloaded               a bounded queue is full: a retry helps
    ├── StorageError             disk or store failed: a retry helps once the cause is gone
    ├── LogDamaged               the log cannot be trusted below its durable offset
    ├── OffsetDropped            the log no longer keeps the rows asked for
    ├── NotComplete              a date whose end the watermark has not passed cannot be sealed
    ├── ViewRefused              a dbt model that cannot be a live view
    ├── ViewBehind               a view did not reach the offset in time
    ├── BatchMissing             rows have left a live view, and the published warehouse does not have them
    └── ConfigError              an option that is wrong: a folder, an address, a missing manifest

`ingest_service.rpc.status` turns each into a gRPC status. Fields that are text or numbers travel with it (google.rpc's
ErrorInfo), under the names that they have here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class IngestError(Exception):
    """Root of the service's errors; its text says what was expected, what came and what to do."""


class ContractError(IngestError):
    """A .proto file that is no contract, or whose contract is wrong. `stream`: its name where it is known, or ""."""

    def __init__(self, message: str, stream: str = "") -> None:
        super().__init__(message)
        self.stream = stream


class Breach(NamedTuple):
    """What a changed contract breaks at one place: the field's path, empty for the message as a whole, and how."""

    field: str
    message: str


class IncompatibleContract(ContractError):
    """A changed contract that cannot take the place of the one in force; `changes` is all that it breaks."""

    def __init__(self, stream: str, changes: Sequence[Breach]) -> None:
        listed = "; ".join(
            f"{change.field}: {change.message}" if change.field else change.message for change in changes
        )
        super().__init__(
            f"stream {stream!r}: the contract can't change like this, {len(changes)} of the changes break something: "
            f"{listed}. Take them back, or declare another stream for them and read both in one dbt model",
            stream,
        )
        self.changes = tuple(changes)


class UnknownStream(IngestError):
    """No contract has that stream name."""

    def __init__(self, stream: str, known: list[str]) -> None:
        listed = ", ".join(sorted(known)) or "none"
        super().__init__(f"there is no stream {stream!r}; the streams are: {listed}")
        self.stream = stream
        self.known = known


class UnknownView(IngestError):
    """No live view has that name."""

    def __init__(self, view: str, known: list[str]) -> None:
        listed = ", ".join(sorted(known)) or "none"
        super().__init__(f"there is no live view {view!r}; the live views are: {listed}")
        self.view = view
        self.known = known


class BadRequest(IngestError):
    """The request is wrong in itself; the same request will fail again. `field`: the path of what is wrong, or ""."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Unauthenticated(IngestError):
    """No API key came, or one that is unknown, revoked or expired. The text tells nothing of the key."""


class PermissionDenied(IngestError):
    """The API key is valid, but does not allow this; `needs` is the right that it lacks."""

    def __init__(self, message: str, needs: str) -> None:
        super().__init__(message)
        self.needs = needs


class ProducerError(IngestError):
    """A sequence that does not follow the producer's last one.

    `expected_sequence` is the one that would be taken, or None when the producer is unknown.
    """

    def __init__(self, message: str, expected_sequence: int | None) -> None:
        super().__init__(message)
        self.expected_sequence = expected_sequence


class Overloaded(IngestError):
    """A bounded queue is full; the same request may be sent again after `retry_after_ms`."""

    def __init__(self, message: str, retry_after_ms: int = 100) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class StorageError(IngestError):
    """Disk or store failed; nothing of the request is durable, and it may be sent again."""


class LogDamaged(IngestError):
    """The log is damaged below its durable offset: `file` and `position` (bytes) say where."""

    def __init__(self, message: str, file: str, position: int) -> None:
        super().__init__(message)
        self.file = file
        self.position = position


class OffsetDropped(IngestError):
    """The log was asked for rows from `offset` on, and keeps only those from `start_offset` on."""

    def __init__(self, stream: str, offset: int, start_offset: int) -> None:
        super().__init__(
            f"stream {stream!r}: the log keeps rows from offset {start_offset} on, came {offset}: older ones were "
            "dropped by retention; read them from the lake"
        )
        self.offset = offset
        self.start_offset = start_offset


class NotComplete(IngestError):
    """A date cannot be sealed: its stream's watermark has not passed the date's end."""


class ViewRefused(IngestError):
    """A dbt model that cannot be a live view; the text names file, column and reason."""


class ViewBehind(IngestError):
    """A view did not reach the wanted offset in the time given."""


class BatchMissing(IngestError):
    """A view cannot be read across time: rows left its live table, and the published warehouse does not have them."""


class ConfigError(IngestError):
    """An option that is wrong; the text says which and what to do."""
