"""How long something takes, in counts that a dashboard can read."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the buckets, in seconds; one more takes what is above the last."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What was counted: how many fell into each of BUCKETS_S and above them, and the sum of all, in seconds."""

    counts: tuple[int, ...]
    sum_s: float


class Timings:
    """Durations, counted by bucket. One thread adds; any may read, and then may miss the newest one."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(BUCKETS_S, seconds)] += 1
        self._sum_s += seconds

    def distribution(self) -> Distribution:
        """What was counted so far."""
        return Distribution(tuple(self._counts), self._sum_s)
