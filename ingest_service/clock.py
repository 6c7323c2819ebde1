"""Time, passed in wherever it is needed, so that tests can set it."""

# ruff: noqa: D102 - the protocol says what its implementations' methods do
from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now_us(self) -> int:
        """Microseconds since 1970-01-01 UTC, by the wall clock."""

    def monotonic_s(self) -> float:
        """Seconds that never go backwards."""


class SystemClock:
    """The machine's own clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        return time.monotonic()
