"""What happens in the life of a view: appends, restarts, seals; made at random."""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass
from typing import Any

from support.random_events import RandomEvents

Event = dict[str, Any]


@dataclass(frozen=True)
class Append:
    """Events that arrive, in so many appends; the view gets the last `again` earlier rows with the first.

    bulk: they are taken in first and committed after all of them.
    """

    batches: tuple[tuple[Event, ...], ...]
    again: int = 0
    bulk: bool = False


@dataclass(frozen=True)
class Restart:
    """The service is stopped and started again."""


@dataclass(frozen=True)
class SealDates:
    """The dates are declared complete."""

    first: dt.date
    last: dt.date


@dataclass(frozen=True)
class Rebuild:
    """The view is made again from the first event on, beside the old one, and takes its place.

    bulk: as in Append.
    """

    bulk: bool = False


Step = Append | Restart | SealDates | Rebuild


def random_steps(rng: random.Random) -> list[Step]:
    """A view's life: mostly small batches, sometimes empty ones, rarely one of thousands of rows."""
    events = RandomEvents(rng, tame=rng.random() < 0.6)
    steps: list[Step] = []
    for number in range(rng.randint(2, 8)):
        chance = rng.random() if number else 1.0
        if chance < 0.2:
            steps.append(Restart())
        elif chance < 0.3:
            first = dt.date(2011, 12, 5) - dt.timedelta(days=rng.choice((0, 0, 1, 2)))
            steps.append(SealDates(first, first + dt.timedelta(days=rng.choice((0, 0, 1)))))
        elif chance < 0.35:
            steps.append(Rebuild(bulk=rng.random() < 0.7))
        else:
            sizes = [rng.choice((0, 1, 1, 2, 5, 12, 40)) for _ in range(rng.choice((1, 1, 2, 4)))]
            if not any(isinstance(step, Append) for step in steps):
                sizes[0] = 30
            batches = tuple(tuple(events.batch(size)) for size in sizes)
            if rng.random() < 0.02:
                few = events.batch(50)
                batches = (*batches, tuple(rng.choice(few) for _ in range(3000)))
            steps.append(Append(batches, rng.choice((0, 0, 0, 1, 7)), bulk=rng.random() < 0.3))
    return steps
