"""How fast rows come in, from a count a second."""

from __future__ import annotations

from array import array

WINDOWS_S = (10, 60, 900)
"""The spans that averages are told of, in seconds."""
_US_PER_S = 1_000_000


class Rates:
    """Appended rows of each of the last 900 seconds, by append time. Not thread-safe: its log guards it."""

    def __init__(self) -> None:
        self._rows = array("q", [0]) * WINDOWS_S[-1]
        self._newest_s = 0

    def add(self, rows: int, append_time_us: int) -> None:
        """Count a frame's rows; append times never go back."""
        self._turn(append_time_us // _US_PER_S)
        self._rows[self._newest_s % len(self._rows)] += rows

    def per_second(self, now_us: int) -> tuple[float, ...]:
        """Average rows a second over each of WINDOWS_S, the second at hand included."""
        now_s = now_us // _US_PER_S
        self._turn(now_s)
        # The clock may have been set back: what was counted after it is of this second then.
        newest = max(now_s, self._newest_s) % len(self._rows)
        backwards = (self._rows[newest + 1 :] + self._rows[: newest + 1])[::-1]
        return tuple(sum(backwards[:seconds]) / seconds for seconds in WINDOWS_S)

    def _turn(self, now_s: int) -> None:
        """Begin a new second: those that fell out of the ring count nothing."""
        for second in range(max(self._newest_s, now_s - len(self._rows)) + 1, now_s + 1):
            self._rows[second % len(self._rows)] = 0
        self._newest_s = max(self._newest_s, now_s)
