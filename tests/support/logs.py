"""A small schema, rows of it, and a clock that tests set."""

import datetime as dt
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ingest_service.log import Append, Log, LogSpec

SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("amount", pa.int64(), nullable=False),
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
SPEC = LogSpec("payments", SCHEMA, 1, "at", "event_id", 3600)
NOON_US = int(dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC).timestamp() * 1_000_000)


@dataclass
class SetClock:
    """A clock that stands until it is moved."""

    us: int = NOON_US

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return self.us / 1_000_000


def batch(ids: list[str], at_us: int | list[int] = NOON_US) -> pa.RecordBatch:
    """One row an id; amount counts up."""
    times = np.broadcast_to(np.asarray(at_us, dtype=np.int64), len(ids))
    return pa.RecordBatch.from_arrays(
        [
            pa.array(ids, pa.string()),
            pa.array(range(len(ids)), pa.int64()),
            pa.array(times).cast(SCHEMA.field("at").type),
        ],
        schema=SCHEMA,
    )


def append(ids: list[str], *, producer: str = "", sequence: int = 0, at_us: int | list[int] = NOON_US, sent: int = 0):
    """An append of valid rows."""
    return Append(batch(ids, at_us), len(ids), (), producer, sequence, sent)


def ids_in(log: Log, from_offset: int = 0) -> list[str]:
    """All event ids of the log, in offset order, with offsets and system columns checked."""
    reader = log.reader(from_offset)
    found: list[str] = []
    try:
        while entries := reader.read(1 << 20, 0):
            for entry in entries:
                if hasattr(entry, "batch"):
                    offsets = entry.batch.column("_offset").to_pylist()
                    assert offsets == list(range(entry.base_offset, entry.next_offset))
                    assert entry.base_offset == from_offset + len(found)
                    found += entry.batch.column("event_id").to_pylist()
    finally:
        reader.close()
    assert from_offset + len(found) == max(from_offset, log.durable_offset)
    return found
