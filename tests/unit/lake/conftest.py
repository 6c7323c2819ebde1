from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from ingest_service.log import Append, Log, LogSpec

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("price", pa.decimal128(12, 3), nullable=False),
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("customer", pa.int64()),
    ]
)
SPEC = LogSpec("things", SCHEMA, contract_version=1, event_time="at", event_id=None, out_of_orderness_s=3600)
FIRST = datetime(2011, 12, 5, tzinfo=UTC)


def rows(first: int, count: int, days: int) -> pa.RecordBatch:
    """Rows whose ids tell their place, spread over some days in turn."""
    numbers = range(first, first + count)
    return pa.RecordBatch.from_pydict(
        {
            "id": [f"n{number}" for number in numbers],
            "price": [None if number is None else number % 7 for number in numbers],
            "at": [FIRST + timedelta(days=number % days, seconds=number % 3600) for number in numbers],
            "customer": [number if number % 2 else None for number in numbers],
        },
        schema=pa.schema([SCHEMA.field(0), pa.field("price", pa.decimal128(21, 0)), SCHEMA.field(2), SCHEMA.field(3)]),
    ).cast(SCHEMA)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    opened = Log.open(tmp_path / "log", SPEC)
    yield opened
    opened.close()


@pytest.fixture
def set_log(tmp_path: Path) -> Iterator[tuple[Log, object]]:
    """A log whose clock the test sets."""
    from support.logs import SetClock  # this file is also imported by itself, in a process that a test kills

    clock = SetClock()
    opened = Log.open(tmp_path / "log", SPEC, clock=clock)
    yield opened, clock
    opened.close()


@pytest.fixture
def fill(log: Log) -> Callable[..., int]:
    """Appends rows to the log in some appends; gives the durable offset."""

    def append(count: int, *, days: int = 3, appends: int = 5) -> int:
        base = log.durable_offset
        size = -(-count // appends)
        waiting = []
        for start in range(0, count, size):
            batch = rows(base + start, min(size, count - start), days)
            waiting.append(log.append(Append(batch, batch.num_rows)))
        for each in waiting:
            each.result(timeout=30)
        return log.durable_offset

    return append


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "lake" / "things")
