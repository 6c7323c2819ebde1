"""Rates: averages over the last seconds, whatever the clock does."""

import random

from ingest_service.log.rates import Rates

S = 1_000_000
BEGIN = 1_700_000_000


def test_they_are_averages_over_whole_windows():
    rates = Rates()
    assert rates.per_second(BEGIN * S) == (0, 0, 0)
    for second in range(100):
        rates.add(30, (BEGIN + second) * S)
    assert rates.per_second((BEGIN + 99) * S) == (30, 30, 30 * 100 / 900)
    assert rates.per_second((BEGIN + 104) * S) == (15, 30 * 55 / 60, 30 * 100 / 900)
    assert rates.per_second((BEGIN + 5000) * S) == (0, 0, 0)


def test_a_clock_that_is_set_back_counts_what_came_after_it_as_now():
    rates = Rates()
    rates.add(100, BEGIN * S)
    assert rates.per_second((BEGIN - 500) * S)[0] == 10


def test_they_equal_a_plain_sum():
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    rates, counted, now = Rates(), [], BEGIN
    for _ in range(300):
        now += chance.choice([0, 0, 1, 1, 2, 30, 1000])
        rows = chance.randrange(100)
        rates.add(rows, now * S + chance.randrange(S))
        counted.append((now, rows))
        now += chance.choice([0, 0, 3])
        expected = tuple(sum(rows for at, rows in counted if now - at < window) / window for window in (10, 60, 900))
        assert rates.per_second(now * S) == expected
