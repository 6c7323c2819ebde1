"""The tables in frames: what became of each append of a ROWS frame, and the dates of a SEAL frame."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from ingest_service.log.records import AppendResult, QuarantinedRow, Replayed, RowVerdict, Seal, Verdict

_EPOCH = dt.date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class AppendEntry:
    """One append of a frame. first_row: place of its first row in the frame; received = rows + duplicate + quarantined.

    verdicts: of all its rows that were not plainly appended, by index; quarantined: those rows as they were sent.
    replays: the rows that it took out of quarantine, when it is a replay: then `received` are rows received before.
    """

    producer_id: str
    sequence: int
    rows_sent: int
    first_row: int
    rows: int
    received: int
    verdicts: tuple[RowVerdict, ...]
    quarantined: tuple[QuarantinedRow, ...]
    replays: tuple[Replayed, ...] = ()

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
        return [[_pack_append(entry) for entry in self.appends], self.max_event_us, self.days]

    @classmethod
    def unpack(cls, table: list[Any]) -> RowsTable:
        """From what MessagePack gives."""
        return cls(tuple(_unpack_append(entry) for entry in table[0]), table[1], table[2])


def pack_verdicts(verdicts: tuple[RowVerdict, ...]) -> list[Any]:
    """As MessagePack takes them."""
    return [[v.index, int(v.verdict), v.rule, v.field, v.message] for v in verdicts]


def unpack_verdicts(packed: list[Any]) -> tuple[RowVerdict, ...]:
    """From what MessagePack gives."""
    return tuple(RowVerdict(v[0], Verdict(v[1]), v[2], v[3], v[4]) for v in packed)


def _pack_append(entry: AppendEntry) -> list[Any]:
    packed = [
        entry.producer_id,
        entry.sequence,
        entry.rows_sent,
        entry.first_row,
        entry.rows,
        entry.received,
        pack_verdicts(entry.verdicts),
        [[q.index, q.payload] for q in entry.quarantined],
    ]
    if entry.replays:
        packed.append([[r.segment, r.position, pack_bits(r.rows)] for r in entry.replays])
    return packed


def pack_bits(bits: int) -> bytes:
    """A number of any size as MessagePack takes it: its bytes, the lowest first."""
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def _unpack_append(entry: list[Any]) -> AppendEntry:
    producer_id, sequence, rows_sent, first_row, rows, received, verdict_list, payload_list, *rest = entry
    verdicts = unpack_verdicts(verdict_list)
    reasons = {v.index: v for v in verdicts if v.verdict is Verdict.QUARANTINED}
    quarantined = tuple(
        QuarantinedRow(index, reasons[index].rule, reasons[index].field, reasons[index].message, payload)
        for index, payload in payload_list
    )
    replays = tuple(Replayed(r[0], r[1], int.from_bytes(r[2], "little")) for r in rest[0]) if rest else ()
    return AppendEntry(producer_id, sequence, rows_sent, first_row, rows, received, verdicts, quarantined, replays)


def pack_seal(seal: Seal) -> list[Any]:
    """The table of a SEAL frame."""
    return [(seal.first_date - _EPOCH).days, (seal.last_date - _EPOCH).days, seal.sealed_at_us]


def unpack_seal(table: list[Any], seal_offset: int) -> Seal:
    """The seal in a SEAL frame that stands at `seal_offset`."""
    first, last, sealed_at_us = table
    return Seal(_EPOCH + dt.timedelta(days=first), _EPOCH + dt.timedelta(days=last), seal_offset, sealed_at_us)
