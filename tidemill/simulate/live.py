"""The shop at the present time: its lines happen now."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa

from tidemill.simulate.arrival import DELAY_US_MAX, SHARE_OUT_OF_ORDER, break_some
from tidemill.simulate.day import make_lines


class LiveShop:
    """Makes lines that happen at the time they are asked for, without end. Not thread-safe.

    Ids begin with the seed and the time that the shop was opened at: a second shop's never meet them.
    """

    def __init__(self, seed: int, opened_at: dt.datetime) -> None:
        self._rng = np.random.default_rng([seed, int(opened_at.timestamp() * 1000)])
        self._prefix = f"live-{seed}-{opened_at:%Y%m%d%H%M%S%f}-"
        self._made = 0

    def take(self, lines: int, now: dt.datetime) -> pa.Table:
        """The next `lines` lines: they happen at `now` (UTC), 2 % of them up to an hour before; 0.1 % are broken."""
        rng = self._rng
        table = make_lines(now.date(), rng, lines, f"{self._prefix}{self._made}-", self._made)
        self._made += lines
        table, _, _ = break_some(table, rng)
        now_us = int(now.timestamp() * 1_000_000)
        late = np.where(rng.random(lines) < SHARE_OUT_OF_ORDER, rng.integers(1, DELAY_US_MAX, lines), 0)
        times = pa.array(now_us - late, pa.timestamp("us", "UTC"))
        return table.set_column(table.schema.get_field_index("invoiced_at"), "invoiced_at", times)
