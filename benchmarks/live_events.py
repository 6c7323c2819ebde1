"""The events of the live views' benchmarks: order lines in time order, as Parquet files and in a service's log."""

from __future__ import annotations

import atexit
import datetime as dt
import functools
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import tidemill
from benchmarks.live_service import live_service

EVENTS_A_DAY = 20_000_000
"""How dense they are: 13,889 a minute, so 1,000 groups of minute and country hold 460,000 events."""
CHUNK_ROWS = 200_000
CUSTOMERS = 1_000_000
BEGIN = dt.datetime(2026, 3, 4, tzinfo=dt.UTC)

_COUNTRIES = [
    "United Kingdom", "Germany", "France", "EIRE", "Spain", "Netherlands", "Belgium", "Switzerland", "Portugal",
    "Australia", "Norway", "Italy", "Channel Islands", "Finland", "Cyprus", "Sweden", "Austria", "Denmark", "Japan",
    "Poland", "Israel", "USA", "Singapore", "Iceland", "Canada", "Greece", "Malta", "Lebanon", "Brazil", "Bahrain",
]  # fmt: skip
_ARTICLES = 4_000
_SEED = 20260304


@dataclass(frozen=True)
class Events:
    """The same events twice. parquet: files of CHUNK_ROWS rows, named in time order; data: a service's folder."""

    rows: int
    parquet: Path
    data: Path


@functools.cache
def events(rows: int) -> Events:
    """Events as Parquet and in a log; made once a run, gone when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="tidemill-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = Events(rows, folder / "parquet", folder / "data")
    made.parquet.mkdir()
    for number, chunk in enumerate(chunks(rows)):
        pq.write_table(chunk, made.parquet / f"part-{number:05}.parquet", use_dictionary=_DICTIONARIES)
    send(made.data, chunks(rows))
    return made


_DICTIONARIES = ["invoice_no", "stock_code", "description", "unit_price", "country"]


def send(data: Path, tables: Iterator[pa.Table]) -> None:
    """Has a service append the tables' rows to its log in a data folder."""
    with live_service(data) as service, tidemill.connect(service.address) as client:
        stream = client.stream("order_lines")
        for table in tables:
            acked = stream.send_table(table).result(300)
            if acked.appended != table.num_rows:
                raise RuntimeError(f"expected {table.num_rows} rows appended, came {acked}")


def chunks(rows: int, begin: int = 0) -> Iterator[pa.Table]:
    """The events number `begin` to `rows`, in tables of up to CHUNK_ROWS rows."""
    for start in range(begin, rows, CHUNK_ROWS):
        yield order_lines(start, min(CHUNK_ROWS, rows - start))


def order_lines(begin: int, rows: int, *, step_us: int = 86_400_000_000 // EVENTS_A_DAY) -> pa.Table:
    """Events by their numbers; the same ones every time: 30 countries, a million customers, 3 % of them returns.

    step_us: the event time between two of them.
    """
    random = np.random.default_rng([_SEED, begin])
    index = np.arange(begin, begin + rows)
    articles = random.integers(0, _ARTICLES, rows)
    quantity = random.integers(1, 25, rows) * np.where(random.random(rows) < 0.03, -1, 1)
    at_us = int(BEGIN.timestamp()) * 1_000_000 + index * step_us
    # Numbers of a geometric distribution: the first country has a sixth of all lines, the last ones a few in a hundred.
    countries = np.minimum(random.geometric(0.16, rows) - 1, 3 * len(_COUNTRIES)) % len(_COUNTRIES)
    return pa.table(
        {
            "event_id": _numbered("e", index),
            "invoice_no": _take([f"{number:06}" for number in range(500_000, 501_000)], index // 20 % 1000),
            "stock_code": _take([f"{number:05}" for number in range(_ARTICLES)], articles),
            "description": _take([f"ARTICLE NUMBER {number:05} OF MANY" for number in range(_ARTICLES)], articles),
            "quantity": pa.array(quantity),
            "unit_price": _take([f"{0.25 + number % 997 / 100:.3f}" for number in range(_ARTICLES)], articles).cast(
                pa.decimal128(12, 3)
            ),
            "invoiced_at": pa.array(at_us).cast(pa.timestamp("us", tz="UTC")),
            "customer_id": pa.array(random.integers(1, CUSTOMERS + 1, rows)),
            "country": _take(_COUNTRIES, countries),
        }
    )


def _take(values: list[str], index: np.ndarray) -> pa.Array:
    return pa.array(values).take(pa.array(index))


def _numbered(prefix: str, index: np.ndarray) -> pa.Array:
    """`e000000000` and so on."""
    return pa.array(np.char.add(prefix, np.char.zfill(index.astype(str), 9)))
