"""Waiting between attempts: longer each time, and never in step with other clients."""

from __future__ import annotations

import random


class Backoff:
    """Exponential backoff with full jitter, from `first_s` up to `max_s` seconds. Not thread-safe."""

    def __init__(self, rng: random.Random, first_s: float = 0.02, max_s: float = 1.0) -> None:
        self._rng = rng
        self._first_s = first_s
        self._max_s = max_s
        self.attempts = 0

    def next_s(self, at_least_s: float = 0.0) -> float:
        """How long to wait now, in seconds; not less than the service asked for."""
        ceiling = min(self._max_s, self._first_s * 2.0 ** min(self.attempts, 30))
        self.attempts += 1
        return at_least_s + self._rng.uniform(ceiling / 2, ceiling)

    def reset(self) -> None:
        """Begin anew: something succeeded."""
        self.attempts = 0
