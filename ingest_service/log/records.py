"""What goes into the log and what comes out of it. Knows no protobuf and no gRPC."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import IntEnum

import pyarrow as pa

PARTITION = 0
"""The embedded log's only partition."""

SYSTEM_COLUMNS: tuple[pa.Field, ...] = (
    pa.field("_partition", pa.int32(), nullable=False),
    pa.field("_offset", pa.int64(), nullable=False),
    pa.field("_append_time", pa.timestamp("us", tz="UTC"), nullable=False),
    pa.field("event_date", pa.date32(), nullable=False),
)
"""The columns that every row gets beyond its contract's, in this order, after them."""


def with_system_columns(schema: pa.Schema) -> pa.Schema:
    """The schema of rows as readers, live views and lake see them: the contract's columns, then SYSTEM_COLUMNS."""
    return pa.schema([*schema, *SYSTEM_COLUMNS])


class Verdict(IntEnum):
    """What became of a row that was not plainly appended; numbers as in tidemill/v1/append.proto."""

    QUARANTINED = 1
    DUPLICATE = 2
    LATE = 3


@dataclass(frozen=True, slots=True)
class RowVerdict:
    """A row that was not plainly appended: its index in its append, what became of it and why."""

    index: int
    verdict: Verdict
    rule: str = ""
    field: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A row that broke its contract: index in its append, the rule, and the row as it was sent."""

    index: int
    rule: str
    field: str
    message: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row in quarantine, as it is kept.

    row_id: names it for as long as it is kept; at_offset: the stream's durable offset when it was refused; replayed:
    it was appended since, or found to have been appended before.
    """

    row_id: str
    at_offset: int
    append_time_us: int
    producer_id: str
    sequence: int
    row: QuarantinedRow
    replayed: bool


@dataclass(frozen=True, slots=True)
class Replayed:
    """Quarantined rows of one frame that are appended now; bit k of `rows` stands for the frame's k-th."""

    segment: int
    position: int
    rows: int


@dataclass(frozen=True, slots=True)
class Append:
    """A batch that a producer sent, after validation.

    rows: the rows that keep the contract, in the order sent; columns and types are the contract's (no system columns).
    row_count: rows that were sent; rows.num_rows + len(quarantined).
    quarantined: the other rows, by rising index. The rows of `rows` take the remaining indices in order.
    producer_id: empty when the producer did not name itself; then `sequence` means nothing.
    rows_sent: the producer's own count of rows sent, this append included; 0 when it does not count.
    replays: the quarantined rows that `rows` are, all of them; they were received and counted before.
    size_bytes: how large it was when it was received; 0: not known, what its rows take in memory is asked for.
    """

    rows: pa.RecordBatch
    row_count: int
    quarantined: tuple[QuarantinedRow, ...] = ()
    producer_id: str = ""
    sequence: int = 0
    rows_sent: int = 0
    replays: tuple[Replayed, ...] = ()
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What became of an append. Its rows have the offsets base_offset … base_offset + rows_appended - 1."""

    partition: int
    base_offset: int
    rows_appended: int
    durable_offset: int
    replayed: bool
    verdicts: tuple[RowVerdict, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of the log with system columns; offsets base_offset … next_offset - 1."""

    batch: pa.RecordBatch
    base_offset: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class Seal:
    """The record that seals the dates first_date … last_date (UTC, both included) at seal_offset.

    All rows with an offset below seal_offset stand before this record in the log. It takes no offset itself.
    """

    first_date: dt.date
    last_date: dt.date
    seal_offset: int
    sealed_at_us: int


Entry = Rows | Seal
"""What a log reader yields, in log order."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a log counted from its first frame on; rows, unless said otherwise.

    sent: by the producers' own count, over the producers that count; received_counted: received from those.
    quarantined: those that were replayed since are counted as appended or duplicate instead.
    """

    sent: int
    received_counted: int
    received: int
    appended: int
    duplicate: int
    quarantined: int
    late: int
    appended_by_date: dict[dt.date, int]


@dataclass(frozen=True, slots=True)
class LogSpec:
    """What a log must know of its stream's contract.

    schema: the contract's columns; event_time: the timestamp[us, UTC] column; event_id: the string column, or None.
    """

    stream: str
    schema: pa.Schema
    contract_version: int
    event_time: str
    event_id: str | None
    out_of_orderness_s: int
