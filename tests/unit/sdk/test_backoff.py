"""Waiting between attempts."""

from __future__ import annotations

import random

from tidemill.client.backoff import Backoff


def test_it_grows_to_its_bound_and_begins_anew() -> None:
    backoff = Backoff(random.Random(1), first_s=0.02, max_s=1.0)
    waits = [backoff.next_s() for _ in range(50)]
    for attempt, wait_s in enumerate(waits):
        ceiling_s = min(1.0, 0.02 * 2**attempt)
        assert ceiling_s / 2 <= wait_s <= ceiling_s
    backoff.reset()
    assert backoff.next_s() <= 0.02


def test_no_two_clients_keep_in_step() -> None:
    waits = set()
    for seed in range(100):
        backoff = Backoff(random.Random(seed))
        waits.add(sum(backoff.next_s() for _ in range(6)))
    assert len(waits) == 100
    assert max(waits) - min(waits) > 0.1


def test_what_the_service_asks_for_is_waited_at_least() -> None:
    backoff = Backoff(random.Random(1))
    assert all(backoff.next_s(at_least_s=3.0) >= 3.0 for _ in range(20))
