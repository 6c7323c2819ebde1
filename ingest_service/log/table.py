"""The tables in frames: what became of each append of a ROWS frame, and the dates of a SEAL frame."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from ingest_service.log.records import AppendResult, QuarantinedRow, RowVerdict, Seal, Verdict

_EPOCH = dt.date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class AppendEntry:
    """One append of a frame. first_row: place of its first row in the frame; received = rows + duplicate + quarantined.

    verdicts: of all its rows that were not plainly appended, by index; quarantined: those rows as they were sent.
    """

    producer_id: str
    sequence: int
    rows_sent: int
    first_row: int
    rows: int
    received: int
    verdicts: tuple[RowVerdict, ...]
    quarantined: tuple[QuarantinedRow, ...]

    @property
    def duplicate(self) -> int:
        """Rows that were not appended because their event id had been."""
        return self.received - self.rows - len(self.quarantined)

    @property
    def late(self) -> int:
        """Rows that were appended to a sealed date."""
        return sum(verdict.verdict is Verdict.LATE for verdict in self.verdicts)

    def result(self, base_offset: int, durable_offset: int, partition: int) -> AppendResult:
        """The response to this append, of a frame that begins at `base_offset`."""
        return AppendResult(partition, base_offset + self.first_row, self.rows, durable_offset, False, self.verdicts)


@dataclass(frozen=True, slots=True)
class RowsTable:
    """The table of a ROWS frame. max_event_us: greatest event time of its rows, None without rows; days: appended
    rows by event date, in days since 1970."""

    appends: tuple[AppendEntry, ...]
    max_event_us: int | None
    days: dict[int, int]

    def pack(self) -> list[Any]:
        """As MessagePack takes it."""
        appends = [
            [
                entry.producer_id,
                entry.sequence,
                entry.rows_sent,
                entry.first_row,
                entry.rows,
                entry.received,
                [[v.index, int(v.verdict), v.rule, v.field, v.message] for v in entry.verdicts],
                [[q.index, q.payload] for q in entry.quarantined],
            ]
            for entry in self.appends
        ]
        return [appends, self.max_event_us, self.days]

    @classmethod
    def unpack(cls, table: list[Any]) -> RowsTable:
        """From what MessagePack gives."""
        return cls(tuple(_unpack_append(entry) for entry in table[0]), table[1], table[2])


def _unpack_append(entry: list[Any]) -> AppendEntry:
    producer_id, sequence, rows_sent, first_row, rows, received, verdict_list, payload_list = entry
    verdicts = tuple(RowVerdict(v[0], Verdict(v[1]), v[2], v[3], v[4]) for v in verdict_list)
    reasons = {v.index: v for v in verdicts if v.verdict is Verdict.QUARANTINED}
    quarantined = tuple(
        QuarantinedRow(index, reasons[index].rule, reasons[index].field, reasons[index].message, payload)
        for index, payload in payload_list
    )
    return AppendEntry(producer_id, sequence, rows_sent, first_row, rows, received, verdicts, quarantined)


def pack_seal(seal: Seal) -> list[Any]:
    """The table of a SEAL frame."""
    return [(seal.first_date - _EPOCH).days, (seal.last_date - _EPOCH).days, seal.sealed_at_us]


def unpack_seal(table: list[Any], seal_offset: int) -> Seal:
    """The seal in a SEAL frame that stands at `seal_offset`."""
    first, last, sealed_at_us = table
    return Seal(_EPOCH + dt.timedelta(days=first), _EPOCH + dt.timedelta(days=last), seal_offset, sealed_at_us)
