"""Disks that fail: full, broken, read-only, at any step and for any while. Every append is answered truthfully."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import pytest
from support.ledger import Batch, Ledger
from support.lives import open_log, play, restart, steps_of_a_life
from support.logs import ids_in
from support.power import Disk, PowerFiles

from ingest_service.errors import StorageError
from ingest_service.log import Log

EVERY = 4
"""Of a life's steps one in so many is looked at, from a random one on; the soak looks at each, with so many seeds."""
SOAK_SEEDS = 40
ERRORS = [errno.ENOSPC, errno.EIO, errno.EROFS]
TRIES = 20
"""More than the faults below last."""


def fails_for_a_while(seed: int, step: int) -> None:
    """Steps fail, one or several in a row; appends are refused, reads go on; everything is taken once that is over."""
    chance = random.Random(f"{seed}/{step}")
    disk = Disk()
    files = PowerFiles(disk, chance, faults=faults(chance, step, chance.choice([1, 1, 2, 5, 10])))
    ledger = Ledger(is_not_in)
    play(files, ledger, tries=TRIES)
    assert not ledger.open(), "appends did not resume"
    # Whatever was acknowledged is durable, in spite of syncs that failed in between.
    restart(PowerFiles(disk.after_power_loss(chance), chance), ledger, resend=True)


def fails_once_then_ends(seed: int, step: int) -> None:
    """One step fails, and the process or the power goes as soon as an append was refused for it."""
    chance = random.Random(f"{seed}/{step}")
    disk = Disk()
    files = PowerFiles(disk, chance, faults=faults(chance, step, 1))
    refused: list[str] = []

    def end(log: Log, batch: Batch) -> None:
        if not files.off:
            is_not_in(log, batch)
            refused.extend(batch.fresh)
            files.kill()

    ledger = Ledger(end)
    play(files, ledger)
    after = chance.choice([disk, disk.after_power_loss(chance)])
    found = restart(PowerFiles(after, chance), ledger, resend=True)
    assert not set(refused) & set(found), "a batch that was refused is in the log"


def fails_until_it_ends(seed: int, step: int) -> None:
    """From one step on all fail, the cutting of what was written included, and then the process or the power goes.

    A refused batch may be there after the next start then: sent again, it is recognised.
    """
    chance = random.Random(f"{seed}/{step}")
    disk, ledger = Disk(), Ledger(is_not_in)
    files = PowerFiles(disk, chance, faults=faults(chance, step, 10_000))
    play(files, ledger, tries=3)
    files.kill()
    after = chance.choice([disk, disk.after_power_loss(chance)])
    restart(PowerFiles(after, chance), ledger, resend=True)


def faults(chance: random.Random, step: int, steps: int) -> dict[int, int]:
    return dict.fromkeys(range(step, step + steps), chance.choice(ERRORS))


def is_not_in(log: Log, batch: Batch) -> None:
    """See that the log can be read, and does not hold a batch that it has just refused."""
    assert not set(batch.fresh) & set(ids_in(log, log.start_offset)), f"refused, and in the log: {batch}"


@pytest.mark.parametrize(("seeds", "every"), [(1, EVERY), pytest.param(SOAK_SEEDS, 1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("happens", [fails_for_a_while, fails_once_then_ends, fails_until_it_ends])
def test_every_append_is_answered_truthfully_whichever_step_fails(
    happens: Callable[[int, int], None], seeds: int, every: int
):
    steps = steps_of_a_life().steps
    for seed in random.sample(range(1 << 32), seeds):
        for step in range(seed % every, steps, every):
            try:
                happens(seed, step)
            except Exception as error:
                raise AssertionError(f"{happens.__name__}({seed}, {step}): {error!r}") from error


def test_a_log_that_cannot_be_opened_says_why_and_opens_once_the_cause_is_gone():
    disk, ledger = Disk(), Ledger()
    files = PowerFiles(disk, random.Random(0))
    log = open_log(files)
    ledger.send(log, ledger.next("a", 2))
    files.kill()
    log.close()
    broken = PowerFiles(disk, random.Random(0), faults=dict.fromkeys(range(100), errno.EROFS))
    with pytest.raises(StorageError, match="can't be opened: Read-only file system"):
        open_log(broken)
    restart(PowerFiles(disk, random.Random(0)), ledger, resend=True)
