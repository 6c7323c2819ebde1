"""Rounds of readings, each when it is due, as rows of stream `readings`."""

from __future__ import annotations

import datetime as dt
import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tidemill.collect.host import Reading

FIELDS = ("event_id", "measured_at", "host", "sensor", "metric", "value", "unit")
"""What a row of readings has: the contract's fields."""
FIRST_AFTER_S_MAX = 1.0
"""How long the first round waits at the most: rates need some time that they are of."""


class Sensors(Protocol):
    """Whatever gives readings when it is asked."""

    def read(self) -> list[Reading]:
        """Give every reading of now."""
        ...


@dataclass(frozen=True, slots=True)
class Round:
    """What was measured at one time."""

    host: str
    measured_at: dt.datetime
    readings: Sequence[Reading]
    name: str
    """Unique for ever: the readings' event ids begin with it."""

    def rows(self) -> list[dict[str, Any]]:
        """Give one row a reading, as the contract of stream `readings` wants them."""
        return [
            {
                "event_id": f"{self.name}-{reading.sensor}-{reading.metric}",
                "measured_at": self.measured_at,
                "host": self.host,
                "sensor": reading.sensor,
                "metric": reading.metric,
                "value": float(reading.value),
                "unit": reading.unit,
            }
            for reading in self.readings
        ]


def rounds(
    sensors: Sensors,
    host: str,
    interval_s: float,
    count: int | None = None,
    *,
    wait: Callable[[float], None] = time.sleep,
    monotonic_s: Callable[[], float] = time.monotonic,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> Iterator[Round]:
    """Give a round every `interval_s` seconds, the first after a second at the most; `count` of them, or without end.

    A round that is overdue comes at once, and none is made up for: the rounds keep to the grid of the first.
    wait: called with the seconds until a round is due. monotonic_s, now: the clocks.
    """
    run = uuid.uuid4().hex
    due_s = monotonic_s() + min(interval_s, FIRST_AFTER_S_MAX)
    for number in range(count) if count is not None else itertools.count():
        wait(max(0.0, due_s - monotonic_s()))
        yield Round(host, now(), sensors.read(), f"{run}-{number}")
        missed = max(0.0, monotonic_s() - due_s) // interval_s
        due_s += (1 + missed) * interval_s
