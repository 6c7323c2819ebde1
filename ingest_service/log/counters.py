"""What a log counts, from frames alone: the same whether they were just written or are read again."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from ingest_service.log.records import Counts
from ingest_service.log.table import AppendEntry, RowsTable

_EPOCH = dt.date(1970, 1, 1)
_PACKED = (
    "sent", "received_counted", "received", "appended", "duplicate", "quarantined", "late", "appended_by_day",
    "_sent_by_producer",
)  # fmt: skip


@dataclass(slots=True)
class Counters:
    """Rows counted over the frames applied so far. Not thread-safe.

    producers_max: producers whose own count is remembered, those heard of last.
    """

    producers_max: int
    sent: int = 0
    received_counted: int = 0
    received: int = 0
    appended: int = 0
    duplicate: int = 0
    quarantined: int = 0
    late: int = 0
    appended_by_day: dict[int, int] = field(default_factory=dict)
    _sent_by_producer: dict[str, int] = field(default_factory=dict)

    def apply(self, table: RowsTable) -> None:
        """Count a durable frame."""
        for entry in table.appends:
            self._count(entry)
        for day, rows in table.days.items():
            self.appended_by_day[day] = self.appended_by_day.get(day, 0) + rows

    def _count(self, entry: AppendEntry) -> None:
        if entry.replays:
            # Received and quarantined before: now it is appended, or a duplicate, instead.
            self.quarantined -= entry.received
        else:
            self.received += entry.received
        self.appended += entry.rows
        self.duplicate += entry.duplicate
        self.late += entry.late
        self.quarantined += len(entry.quarantined)
        if entry.rows_sent:
            self.received_counted += entry.received
            # A producer that was forgotten here is unknown to `Producers` too, and begins anew.
            self.sent += entry.rows_sent - self._sent_by_producer.pop(entry.producer_id, 0)
            self._sent_by_producer[entry.producer_id] = entry.rows_sent
            while len(self._sent_by_producer) > self.producers_max:
                del self._sent_by_producer[next(iter(self._sent_by_producer))]

    def pack(self) -> list[Any]:
        """As MessagePack takes it."""
        return [getattr(self, name) for name in _PACKED]

    def restore(self, packed: list[Any]) -> None:
        """Take what `pack` gave."""
        for name, value in zip(_PACKED, packed, strict=True):
            setattr(self, name, value)

    def counts(self) -> Counts:
        """The counts now."""
        by_date = {_EPOCH + dt.timedelta(days=day): rows for day, rows in sorted(self.appended_by_day.items())}
        return Counts(
            self.sent,
            self.received_counted,
            self.received,
            self.appended,
            self.duplicate,
            self.quarantined,
            self.late,
            by_date,
        )
