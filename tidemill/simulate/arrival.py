"""How a day's lines arrive: some out of order, some broken, some twice."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.simulate.day import make_lines

SHARE_OUT_OF_ORDER = 0.02
DELAY_US_MAX = 3_600_000_000
SHARE_BROKEN = 0.001
SHARE_RESENT = 0.0005
_RESENT_MIN = 3

Row = dict[str, Any]

BREAKS: tuple[tuple[str, object], ...] = (
    ("quantity", 0),
    ("country", ""),
    ("invoice_no", "no number"),
    ("stock_code", ""),
    ("description", "?" * 201),
    ("quantity", 1_000_001),
    ("customer_id", 0),
    ("event_id", ""),
    ("country", "X" * 65),
)
"""Fields, and values for them that break their rules; each event sent broken breaks one, in turn."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What was simulated, to compare with what was counted; in rows.

    sent = good + broken + resent. out_of_order: sent after a line that happened later.
    """

    sent: int
    good: int
    broken: int
    resent: int
    out_of_order: int
    broken_fields: dict[str, int]


@dataclass(frozen=True)
class SimulatedDay:
    """A day's lines in the order of their arrival, in the contract's columns and types."""

    date: dt.date
    table: pa.Table
    truth: Truth

    def batches(self, rows_max: int = 1_000) -> Iterator[pa.RecordBatch]:
        """The lines in batches, as `Stream.send_table` takes them."""
        yield from self.table.to_batches(max_chunksize=rows_max)

    def events(self) -> Iterator[Row]:
        """The lines as dicts, as `Stream.send` takes them."""
        for batch in self.table.to_batches(max_chunksize=1_000):
            yield from batch.to_pylist()


def simulate_day(date: dt.date, *, seed: int = 1, lines: int = 5_000) -> SimulatedDay:
    """A shop's day: `lines` different lines, of which 0.1 % break the contract, and a few that are sent twice.

    2 % are sent up to an hour after they happened. The same date, seed and lines give the same day. Event ids begin
    with date, seed and size, so that other days' never meet them. Raises ValueError for less than one line.
    """
    if lines < 1:
        raise ValueError(f"lines must be at least 1, not {lines}")
    rng = np.random.default_rng([seed, date.toordinal(), lines])
    table = make_lines(date, rng, lines, f"{date:%Y%m%d}-{seed}-{lines}-")
    table, broken, fields = break_some(table, rng)
    times = table["invoiced_at"].cast(pa.int64()).to_numpy()
    arrival = times + np.where(rng.random(lines) < SHARE_OUT_OF_ORDER, rng.integers(1, DELAY_US_MAX, lines), 0)
    good = np.setdiff1d(np.arange(lines), broken)
    resent = rng.choice(good, min(len(good), max(_RESENT_MIN, round(lines * SHARE_RESENT))), replace=False)
    rows = np.concatenate([np.arange(lines), resent])
    # Sent again after the first time, and within the hour too.
    left = times[resent] + DELAY_US_MAX - arrival[resent]
    again = arrival[resent] + np.maximum(1, (left * rng.random(len(resent))).astype(np.int64))
    arrival = np.concatenate([arrival, again])
    rows = rows[np.argsort(arrival, kind="stable")]
    sent_times = times[rows]
    out_of_order = int((sent_times < np.maximum.accumulate(sent_times)).sum())
    truth = Truth(len(rows), len(good), len(broken), len(resent), out_of_order, fields)
    return SimulatedDay(date, table.take(pa.array(rows)), truth)


def break_some(table: pa.Table, rng: np.random.Generator) -> tuple[pa.Table, np.ndarray, dict[str, int]]:
    """The table with some rows broken, which ones, and how many by field; at least one from 500 rows on."""
    lines = table.num_rows
    count = round(lines * SHARE_BROKEN) if lines < 500 else max(1, round(lines * SHARE_BROKEN))
    chosen = np.sort(rng.choice(lines, count, replace=False))
    fields: dict[str, int] = {}
    columns = {name: table[name].combine_chunks() for name in table.schema.names}
    changes: dict[str, dict[int, object]] = {}
    # A thousandth of the rows: a loop over them is cheap, and says plainly what happens to each.
    for number, row in enumerate(chosen.tolist()):
        field, broken = BREAKS[number % len(BREAKS)]
        changes.setdefault(field, {})[row] = broken
        fields[field] = fields.get(field, 0) + 1
    for field, values in changes.items():
        mask = np.zeros(lines, bool)
        mask[list(values)] = True
        new = pa.array([values[row] for row in sorted(values)], columns[field].type)
        columns[field] = pc.replace_with_mask(columns[field], pa.array(mask), new)
    return pa.table(columns), chosen, dict(sorted(fields.items()))
