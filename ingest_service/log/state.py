"""What a log knows beside its bytes: everything here can be made again from the frames."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest_service.log.counters import Counters
from ingest_service.log.dedup import DedupWindow
from ingest_service.log.frame import Frame
from ingest_service.log.producers import Producers
from ingest_service.log.quarantine_index import QuarantineIndex
from ingest_service.log.rates import Rates
from ingest_service.log.records import PARTITION, Append, RowVerdict, Seal, Verdict
from ingest_service.log.table import AppendEntry, RowsTable, pack_seal, unpack_seal
from ingest_service.log.watermark import Watermark

_US_PER_DAY = 86_400_000_000


@dataclass(frozen=True, slots=True)
class FrameRef:
    """Where a frame is: its segment's number and position (bytes), and its place in the log."""

    segment: int
    position: int
    base_offset: int
    rows: int
    append_time_us: int


@dataclass(slots=True)
class LogState:
    """What follows from a log's frames, in their order. Not thread-safe: its log guards it.

    rates: of the last quarter of an hour, by append time.
    """

    producers: Producers
    dedup: DedupWindow | None
    watermark: Watermark
    counters: Counters
    seals: list[Seal] = field(default_factory=list)
    sealed_days: set[int] = field(default_factory=set)
    quarantine: QuarantineIndex = field(default_factory=QuarantineIndex)
    rates: Rates = field(default_factory=Rates)
    next_offset: int = 0
    last_append_us: int = 0

    def apply_rows(self, ref: FrameRef, table: RowsTable) -> None:
        """Take in a durable ROWS frame; producers and dedup window have it already or get it by `restore_producers`."""
        self.counters.apply(table)
        self.last_append_us = max(self.last_append_us, ref.append_time_us)
        self.next_offset = ref.base_offset + ref.rows
        if table.max_event_us is not None:
            self.watermark.advance(table.max_event_us, ref.append_time_us)
        self.rates.add(ref.rows, ref.append_time_us)
        kept = 0
        for entry in table.appends:
            kept += len(entry.quarantined)
            if entry.replays:
                self.quarantine.mark_replayed(entry.replays)
        if kept:
            self.quarantine.add(ref.segment, ref.position, ref.base_offset, ref.append_time_us, kept)

    def apply_seal(self, seal: Seal) -> None:
        """Take in a durable seal."""
        self.seals.append(seal)
        first = (seal.first_date - dt.date(1970, 1, 1)).days
        self.sealed_days.update(range(first, first + (seal.last_date - seal.first_date).days + 1))

    def pack(self) -> list[Any]:
        """All of it but the dedup window, as MessagePack takes it: what a snapshot keeps."""
        return [
            self.next_offset,
            self.last_append_us,
            self.producers.pack(),
            self.watermark.pack(),
            self.counters.pack(),
            [[seal.seal_offset, *pack_seal(seal)] for seal in self.seals],
            self.quarantine.pack(),
        ]

    def restore(self, packed: list[Any]) -> None:
        """Take what `pack` gave; to be called on a state that has taken in nothing yet."""
        self.next_offset, self.last_append_us, producers, watermark, counters, seals, quarantine = packed
        self.producers.restore(producers)
        self.watermark.restore(watermark)
        self.counters.restore(counters)
        for seal_offset, *table in seals:
            self.apply_seal(unpack_seal(table, seal_offset))
        self.quarantine.restore(quarantine)

    def restore_producers(self, frame: Frame, table: RowsTable) -> None:
        """Make the producers remember a frame that is read again."""
        for entry in table.appends:
            if entry.producer_id:
                append = Append(
                    rows=None, row_count=entry.received, producer_id=entry.producer_id,
                    sequence=entry.sequence, rows_sent=entry.rows_sent,
                )  # fmt: skip
                result = entry.result(frame.base_offset, frame.next_offset, PARTITION)
                self.producers.take(append, result, frame.append_time_us)
        self.producers.commit()


@dataclass(slots=True)
class Staged:
    """The rows and table of a frame in the making; its rows have the contract's columns only."""

    batches: list[pa.RecordBatch] = field(default_factory=list)
    entries: list[AppendEntry] = field(default_factory=list)
    rows: int = 0
    days: dict[int, int] = field(default_factory=dict)
    max_event_us: int | None = None

    def add(self, append: Append, state: LogState, event_time: str, event_id: str | None, now_us: int) -> AppendEntry:
        """Take in an append: drop its duplicates, name its late rows, count its days."""
        batch, kept = append.rows, _sent_indices(append)
        verdicts = [RowVerdict(q.index, Verdict.QUARANTINED, q.rule, q.field, q.message) for q in append.quarantined]
        if state.dedup is not None and event_id is not None and batch.num_rows:
            ids = batch.column(event_id)
            duplicates = state.dedup.take(ids, now_us)
            if duplicates is not None:
                # Duplicates are exceptions: each gets a verdict of its own.
                verdicts += [
                    RowVerdict(
                        int(kept[i]), Verdict.DUPLICATE, "event_id", event_id, f"{ids[i].as_py()!r} was appended before"
                    )
                    for i in duplicates
                ]
                rest = np.delete(np.arange(batch.num_rows), duplicates)
                batch, kept = batch.take(pa.array(rest)), np.delete(kept, duplicates)
        if batch.num_rows:
            verdicts += self._add_rows(batch, kept, state.sealed_days, event_time)
        verdicts.sort(key=lambda verdict: verdict.index)
        entry = AppendEntry(
            append.producer_id, append.sequence, append.rows_sent, self.rows - batch.num_rows, batch.num_rows,
            append.row_count, tuple(verdicts), append.quarantined, append.replays,
        )  # fmt: skip
        self.entries.append(entry)
        return entry

    def _add_rows(
        self, batch: pa.RecordBatch, kept: np.ndarray, sealed_days: set[int], event_time: str
    ) -> list[RowVerdict]:
        times = batch.column(event_time)
        event_us = np.asarray(times.cast(pa.int64()))
        days = event_us // _US_PER_DAY
        values, counts = np.unique(days, return_counts=True)
        late: list[RowVerdict] = []
        for day, count in zip(values.tolist(), counts.tolist(), strict=True):
            self.days[day] = self.days.get(day, 0) + count
            if day in sealed_days:
                date = dt.date(1970, 1, 1) + dt.timedelta(days=day)
                message = f"{date} was sealed before this row came"
                late += [
                    RowVerdict(int(kept[i]), Verdict.LATE, "sealed", event_time, message)
                    for i in np.flatnonzero(days == day)
                ]
        newest = int(event_us.max())
        self.max_event_us = newest if self.max_event_us is None else max(newest, self.max_event_us)
        self.batches.append(batch)
        self.rows += batch.num_rows
        return late

    def table(self) -> RowsTable:
        """The frame's table."""
        return RowsTable(tuple(self.entries), self.max_event_us, self.days)

    def batch(self) -> pa.RecordBatch | None:
        """All rows as one batch, or None when there are none."""
        return concat(self.batches) if self.batches else None


def concat(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """The batches as one; they are of one schema, and there is at least one."""
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def add_system_columns(
    batch: pa.RecordBatch, schema: pa.Schema, event_time: str, base_offset: int, append_time_us: int
) -> pa.RecordBatch:
    """The batch with Tidemill's own columns behind the contract's; `schema` is the result's."""
    rows = batch.num_rows
    columns = [
        pa.array(np.full(rows, PARTITION, dtype=np.int32)),
        pa.array(np.arange(base_offset, base_offset + rows, dtype=np.int64)),
        pa.array(np.full(rows, append_time_us, dtype=np.int64)).cast(pa.timestamp("us", tz="UTC")),
        pc.cast(batch.column(event_time), pa.date32()),
    ]
    return pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=schema)


def _sent_indices(append: Append) -> np.ndarray:
    """Index in the append, as sent, of each row in `append.rows`."""
    indices = np.arange(append.row_count)
    if not append.quarantined:
        return indices
    return np.delete(indices, [row.index for row in append.quarantined])
