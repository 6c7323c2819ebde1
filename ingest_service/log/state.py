"""What a log knows beside its bytes: everything here can be made again from the frames."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
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
from ingest_service.log.records import PARTITION, Append, Seal
from ingest_service.log.table import RowsTable, pack_seal, unpack_seal
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


def concat(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """The batches as one; they are of one schema, and there is at least one."""
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def add_system_columns(
    batch: pa.RecordBatch, schema: pa.Schema, event_time: str, base_offset: int, append_time_us: int
) -> pa.RecordBatch:
    """The batch with Tidemill's own columns behind the contract's; `schema` is the result's."""
    return with_system_columns_of(batch, schema, event_time, base_offset, [(append_time_us, batch.num_rows)])


def with_system_columns_of(
    batch: pa.RecordBatch, schema: pa.Schema, event_time: str, base_offset: int, times: Sequence[tuple[int, int]]
) -> pa.RecordBatch:
    """The columns of `schema`: of the batch, null where it lacks one, and Tidemill's own.

    times: append times (µs since 1970 UTC), each with how many rows it is of, in order.
    """
    rows = batch.num_rows

    def column(field: pa.Field) -> pa.Array:
        match field.name:
            case "_partition":
                return pa.array(np.full(rows, PARTITION, dtype=np.int32))
            case "_offset":
                return pa.array(np.arange(base_offset, base_offset + rows, dtype=np.int64))
            case "_append_time":
                at, counts = zip(*times, strict=True)
                return pa.array(np.repeat(np.array(at, dtype=np.int64), counts)).cast(field.type)
            case "event_date":
                return pc.cast(batch.column(event_time), pa.date32())
        if field.name in batch.schema.names:
            return batch.column(field.name)
        return pa.nulls(rows, field.type)

    return pa.RecordBatch.from_arrays([column(field) for field in schema], schema=schema)
