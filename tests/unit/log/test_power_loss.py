"""A power loss, or SIGKILL, at any step of a log's life; and what each of its syncs is good for."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection

import pytest
from support.ledger import Ledger
from support.lives import open_log, play, restart, steps_of_a_life
from support.power import Disk, PowerFiles

EVERY = 3
"""Of a life's steps one in so many is looked at, from a random one on; the soak looks at each, with so many seeds."""
SOAK_SEEDS = 60

Happens = Callable[..., Counter[str]]


def lose_power(seed: int, step: int, left_out: Collection[str] = ()) -> Counter[str]:
    """The power goes at a step; what the next start finds must keep to what was acknowledged."""
    chance = random.Random(f"{seed}/{step}")
    disk, ledger = Disk(), Ledger()
    play(PowerFiles(disk, chance, power_off_at=step, left_out=left_out), ledger)
    files = PowerFiles(disk.after_power_loss(chance), chance, left_out=left_out)
    restart(files, ledger, resend=True)
    return files.sites


def kill_then_lose_power(seed: int, step: int, left_out: Collection[str] = ()) -> Counter[str]:
    """SIGKILL at a step, a start that serves readers and resends, goes on a little, and then the power goes."""
    chance = random.Random(f"{seed}/{step}")
    disk, ledger = Disk(), Ledger()
    play(PowerFiles(disk, chance, power_off_at=step, left_out=left_out), ledger)
    second = PowerFiles(disk, chance, left_out=left_out)
    served = restart(second, ledger, resend=False, steps=chance.randrange(12))
    third = PowerFiles(disk.after_power_loss(chance), chance, left_out=left_out)
    again = restart(third, ledger, resend=True)
    assert again[: len(served)] == served, "rows that readers had seen are gone"
    return second.sites + third.sites


def run(happens: Happens, seed: int, step: int, left_out: Collection[str] = ()) -> Counter[str]:
    try:
        return happens(seed, step, left_out)
    except Exception as error:
        raise AssertionError(f"{happens.__name__}({seed}, {step}, {left_out}): {error!r}") from error


@pytest.mark.parametrize(("seeds", "every"), [(1, EVERY), pytest.param(SOAK_SEEDS, 1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("happens", [lose_power, kill_then_lose_power])
def test_nothing_acknowledged_is_lost_or_doubled_whenever_the_power_goes(happens, seeds, every):
    files = steps_of_a_life()
    assert files.steps > 150
    sites = files.sites
    for seed in random.sample(range(1 << 32), seeds):
        for step in range(seed % every, files.steps, every):
            sites += run(happens, seed, step)
    unjudged = set(sites) - set(NEEDED) - HARMLESS
    assert not unjudged, f"say of these syncs whether they are needed: {unjudged}"


NEEDED = {
    "Log.open > Files.make_folder: sync_folder": "",
    "SegmentWriter._active: sync": "SegmentWriter._active",
    "SegmentWriter._active: sync_folder": "SegmentWriter._active",
    "SegmentWriter.write: sync": "",
    "_Recovery._make_durable > Files.rewrite: sync": "SegmentWriter.write",
    "_Recovery._make_durable: sync_folder": "SegmentWriter._active",
    "write_snapshot > Files.replace: sync": "Retention._remove_files",
    "Quarantine.keep > Files.replace: sync": "Retention._remove_files",
    "Quarantine.keep > Files.replace: sync_folder": "write_start > Files.replace: rename",
    "write_start > Files.replace: sync": "write_start",
    "write_start > Files.replace: sync_folder": "write_start > Files.replace: rename",
}
"""Syncs without which something acknowledged is lost, or a log no longer opens; and where the power goes to show it."""

HARMLESS = {
    # An unreadable mark is passed over, an older one says less and nothing untrue.
    "write_mark > Files.replace: sync",
    "write_mark > Files.replace: sync_folder",
    # The older of two snapshots does as well. It would matter where retention followed on a log's very first one.
    "write_snapshot > Files.replace: sync_folder",
    # An old snapshot that comes back is older than the others.
    "write_snapshot > Files.remove: sync_folder",
    # A dropped segment that comes back is known by its number, and removed again.
    "Retention._remove_files > Files.remove: sync_folder",
    "_Recovery._names > Files.remove: sync_folder",
    # A torn end that comes back is cut again, or covered by the next frame and its sync.
    "_Recovery._scan > Files.truncate: sync",
    # A segment that failed to begin and comes back is known again: no head names it.
    "_Recovery.run > Files.remove: sync_folder",
}
"""Syncs that lose nothing when they are left out. They stay: each is made once a start, or seldom."""

HIDING = ["write_mark > Files.replace: sync_folder", "write_snapshot > Files.replace: sync_folder"]
"""Syncs of the log's folder that come soon after others, and hide it when those are missing."""


@pytest.mark.parametrize(("site", "where"), NEEDED.items())
def test_without_a_sync_that_is_needed_the_same_test_fails(site, where):
    left_out = [site, *HIDING]
    trace = steps_of_a_life(left_out).trace
    near = [step for step in range(2, len(trace)) if any(what.startswith(where) for what in trace[step - 2 : step + 1])]
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(3000):
        happens = chance.choice([lose_power, kill_then_lose_power])
        try:
            happens(chance.randrange(1 << 32), chance.choice(near), left_out)
        except Exception:
            return
    pytest.fail(f"seed {seed}: nothing was lost without {site}: the test is blind, or the sync is not needed")


@pytest.mark.parametrize("share", [0.1, pytest.param(10, marks=pytest.mark.soak)])
@pytest.mark.parametrize("site", sorted(HARMLESS))
def test_without_a_sync_that_is_not_needed_nothing_is_lost(site, share):
    steps = steps_of_a_life([site]).steps
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(int(steps * share)):
        happens = chance.choice([lose_power, kill_then_lose_power])
        run(happens, chance.randrange(1 << 32), chance.randrange(steps), [site])


def test_a_log_that_was_closed_needs_no_repair():
    files = PowerFiles(disk := Disk(), random.Random(0))
    play(files, Ledger())
    again = PowerFiles(disk, random.Random(0))
    log = open_log(again)
    assert set(again.sites) == {"Log.open > Files.make_folder: sync_folder"}
    log.close()
