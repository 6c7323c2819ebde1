"""The outbox, as its owner looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tidemill.client.outbox_file import OutboxFile
from tidemill.v1 import append_pb2


@dataclass(frozen=True, slots=True)
class SetAside:
    """A batch that stays in the outbox because it can't be delivered: the service refused it, or it is in doubt.

    id: names it in this outbox. events: the serialized messages; empty for rows of a table, which `arrow` holds as an
    Arrow IPC stream. error: why.
    """

    id: int
    stream: str
    rows: int
    error: str
    events: tuple[bytes, ...]
    arrow: bytes | None


class Outbox:
    """Looks into the outbox that was given to `connect`: `Client.outbox`. Thread-safe; raises OutboxError."""

    def __init__(self, file: OutboxFile) -> None:
        self._file = file

    @property
    def path(self) -> Path:
        """Its file."""
        return self._file.path

    @property
    def pending_rows(self) -> int:
        """Rows that wait for delivery, those of earlier programs included."""
        return self._file.pending_rows()

    def set_aside(self) -> tuple[SetAside, ...]:
        """What can't be delivered, oldest first: to be sent again by you, or discarded. It takes room until then."""
        return tuple(
            SetAside(
                number, stream, rows, error,
                () if arrow else tuple(append_pb2.ProtoRows.FromString(payload).messages), payload if arrow else None,
            )
            for number, stream, rows, error, arrow, payload in self._file.set_aside_batches()
        )  # fmt: skip

    def discard(self, *batches: SetAside) -> None:
        """Remove batches that were set aside: their rows are given up."""
        self._file.discard(batch.id for batch in batches)
