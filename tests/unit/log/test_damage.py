"""Files that were altered: cut at any byte, zeroed, with flipped bits. Damage is detected, and never served."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.ledger import GateClock, Ledger
from support.logs import SPEC, ids_in
from support.power import Disk, PowerFiles

from ingest_service.errors import LogDamaged
from ingest_service.log import Log, LogSettings

FOLDER = Path("/data/log/payments/0")
SETTINGS = LogSettings(segment_bytes=4000, tail_bytes=0)


@dataclass(frozen=True)
class Written:
    """A log's files by name, its ids, and for each frame of the last segment where it ends and how many rows then are.

    closed: it was closed in good order, so its mark says how far it was durable.
    """

    files: dict[str, bytes]
    ids: list[str]
    ends: list[tuple[int, int]]
    closed: bool

    @property
    def last(self) -> str:
        """The last segment's name."""
        return max(name for name in self.files if name.endswith(".seg"))


@cache
def written(closed: bool) -> Written:
    disk, ledger = Disk(), Ledger()
    log = Log.open(
        FOLDER, SPEC, clock=GateClock(), files=(files := PowerFiles(disk, random.Random(0))), settings=SETTINGS
    )
    ends = []
    for number in range(14):
        ledger.send(log, ledger.next("ab"[number % 2], 5, again=number % 3 > 1, bad=number % 3))
        if log.segments[-1].name != (log.segments[-2].name if len(log.segments) > 1 else None):
            ends.append((log.segments[-1].name, log.segments[-1].valid_end, log.durable_offset))
    last = log.segments[-1].name
    ids = ids_in(log)
    if not closed:
        files.kill()
    log.close()
    return Written(disk.files(FOLDER), ids, [(end, rows) for name, end, rows in ends if name == last], closed)


def served(files: dict[str, bytes]) -> list[str] | None:
    """What a log with these files serves; None: it says that it is damaged, when it is opened or when it is read."""
    disk = Disk.holding(FOLDER, files)
    try:
        log = Log.open(FOLDER, SPEC, clock=GateClock(), files=PowerFiles(disk, random.Random(0)), settings=SETTINGS)
    except LogDamaged:
        return None
    try:
        return ids_in(log)
    except LogDamaged:
        return None
    finally:
        log.close()


def check(before: Written, name: str, damaged: bytes) -> None:
    """Whatever became of a file: all rows, the error, or, at the end of an unclosed log, what stands before it."""
    found = served({**before.files, name: damaged})
    if found is None or found == before.ids:
        return
    assert name == before.last, "damage in the middle was passed over"
    assert not before.closed, "damage below the durable mark was passed over"
    first = first_difference(before.files[name], damaged)
    kept = max((rows for end, rows in before.ends if end <= first), default=None)
    assert kept is not None, "the segment's earlier frames were passed over"
    assert found == before.ids[:kept], f"damage at byte {first}: expected {kept} rows, found {len(found)}"


def first_difference(a: bytes, b: bytes) -> int:
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@pytest.mark.parametrize("closed", [False, True])
def test_a_log_cut_at_every_byte_of_its_last_frames(closed):
    before = written(closed)
    whole = before.files[before.last]
    for cut in range(before.ends[-3][0], len(whole)):
        found = served({**before.files, before.last: whole[:cut]})
        kept = max((rows for end, rows in before.ends if end <= cut), default=None)
        if closed or kept is None:
            assert found is None, f"cut at {cut}"
        else:
            # Without a mark nothing tells a frame that is gone from one that was never written.
            assert found == before.ids[:kept], f"cut at {cut}"


@settings(deadline=None)
@given(st.booleans(), st.data())
def test_flipped_bits_are_never_served(closed, draw):
    before = written(closed)
    name = draw.draw(st.sampled_from(sorted(before.files)))
    damaged = bytearray(before.files[name])
    for place in draw.draw(st.lists(st.integers(0, 8 * len(damaged) - 1), min_size=1, max_size=3, unique=True)):
        damaged[place // 8] ^= 1 << place % 8
    check(before, name, bytes(damaged))


@settings(deadline=None)
@given(st.booleans(), st.data())
def test_zeros_and_garbage_are_never_served(closed, draw):
    before = written(closed)
    name = draw.draw(st.sampled_from(sorted(before.files)))
    whole = before.files[name]
    begin = draw.draw(st.integers(0, len(whole) - 1))
    end = draw.draw(st.integers(begin + 1, len(whole)))
    filler = draw.draw(st.sampled_from([bytes, random.Random(begin).randbytes]))
    check(before, name, whole[:begin] + filler(end - begin) + whole[end:])


@settings(deadline=None)
@given(st.booleans(), st.binary(min_size=1, max_size=2000) | st.integers(1, 10_000).map(bytes))
def test_what_is_behind_the_last_frame_is_cut(closed, tail):
    before = written(closed)
    assert served({**before.files, before.last: before.files[before.last] + tail}) == before.ids


@pytest.mark.parametrize("closed", [False, True])
def test_a_zeroed_length_is_damage(closed):
    before = written(closed)
    whole = before.files[before.last]
    for end, rows in before.ends[:-1]:
        # The length follows the magic of the frame that begins there.
        found = served({**before.files, before.last: whole[: end + 4] + bytes(4) + whole[end + 8 :]})
        is_last = end == before.ends[-2][0]
        assert found == (before.ids[:rows] if is_last and not closed else None)
