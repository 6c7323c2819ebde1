"""The dedup window's table of ids: exact, whatever the hashes are."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from ingest_service.log.dedup import DedupWindow
from ingest_service.log.id_hash import IdHash


class FewHashes(IdHash):
    """A hash that collides nearly always."""

    def of(self, strings: pa.Array) -> np.ndarray:
        return super().of(strings) % 5 + 1


@pytest.mark.parametrize("hash_", [IdHash(), FewHashes()], ids=["good hash", "colliding hash"])
@pytest.mark.parametrize("seed", range(40))
def test_the_window_is_exact(seed: int, hash_: IdHash) -> None:
    rng = random.Random(seed)
    ids_max, age_us = rng.choice([1, 3, 10, 40]), rng.choice([5, 50, 10**9])
    window = DedupWindow(ids_max, age_us, hash_)
    kept: list[tuple[str, int]] = []
    now_us = 0
    for _ in range(60):
        now_us += rng.randrange(4)
        ids = [f"i{rng.randrange(60)}" for _ in range(rng.randrange(1, 9))]
        inside = {event_id for event_id, at_us in kept[-ids_max:] if now_us - at_us <= age_us}
        fresh = dict.fromkeys(event_id for event_id in ids if event_id not in inside)
        first = {event_id: ids.index(event_id) for event_id in fresh}
        expected = [row for row, event_id in enumerate(ids) if first.get(event_id) != row]
        duplicates = window.take(pa.array(ids), now_us)
        assert (duplicates.tolist() if duplicates is not None else []) == expected, f"seed {seed}"
        if rng.random() < 0.2:
            window.roll_back()
        else:
            window.commit()
            kept += [(event_id, now_us) for event_id in fresh]
        assert window.ids <= 1.5 * ids_max + 3 * 8


def test_memory_an_id_stays_below_its_bound() -> None:
    window = DedupWindow(200_000, 10**9)
    for begin in range(0, 600_000, 5_000):
        assert window.take(pa.array([f"{n:036d}" for n in range(begin, begin + 5_000)]), begin) is None
        window.commit()
    assert window.ids <= 300_000
    # 16 of slots, 8 of hash, 4 of end, 36 of text, a quarter reserved.
    assert window.size_bytes / window.ids < 90


@pytest.mark.parametrize(
    "strings",
    [
        ["", "a", "ab", "a\0", "\0", "a" * 8, "a" * 9, "é" * 5],
        [f"{'x' * 600}{n}" for n in range(50)],
        [f"{'x' * 300}{n:03d}{'y' * 300}" for n in range(3)],
        [f"{n}-{n * 7}" for n in range(5_000)],
    ],
    ids=["short", "long", "differing in the middle", "many"],
)
def test_a_hash_depends_on_the_string_alone(strings: list[str]) -> None:
    hash_ = IdHash()
    together = hash_.of(pa.array(strings))
    alone = np.concatenate([hash_.of(pa.array([string])) for string in strings[:50]])
    sliced = hash_.of(pa.array(["before", *strings, "behind"])[1:-1])
    assert (together[:50] == alone).all()
    assert (together == sliced).all()
    assert (together != 0).all()
    if "y" not in strings[0]:  # of very long strings the middle is not looked at
        assert len(set(together.tolist())) == len(strings)


def test_nulls_are_no_duplicates() -> None:
    window = DedupWindow(10, 10)
    assert window.take(pa.array(["a", None, None]), 1) is None
    duplicates = window.take(pa.array([None, "b", "a", None, "b"]), 2)
    assert duplicates is not None
    assert duplicates.tolist() == [2, 4]
