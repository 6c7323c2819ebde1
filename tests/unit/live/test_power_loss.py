"""A power loss, or SIGKILL, at any step of a life of log and live views that share a disk."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.live_faults import Machine, Moment, play, play_long, pragmas, recover
from support.power import Disk
from support.sqlite_power import why_not

from ingest_service.live.store import WriteTransaction

STEPS = 10
"""How many steps of a life are looked at; the soak looks at each of them."""
SOAK_SEEDS = 1
PARTS = 8
"""Lives in which the soak looks at each step once: what the moments leave has to be kept."""
LATER_STEPS = 60
"""One step in so many, after a start on what a moment left, is one at which the power goes again."""


@pytest.fixture(autouse=True)
def _sqlite(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SQLite on a disk of our own, with its WAL brought into the database every few commits; 40 rows are many."""
    if reason := why_not():
        pytest.skip(reason)
    monkeypatch.setattr("ingest_service.live.follower.BULK_ROWS", 40)
    with pragmas("wal_autocheckpoint = 16"):
        yield


class Lives:
    """Makes machines, each with a folder of its own below the test's."""

    def __init__(self, folder: Path, duck: Any) -> None:
        self.duck = duck
        self._folder, self._made = folder, 0

    def machine(self, disk: Disk, seed: object, **options: Any) -> Machine:
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        return Machine(disk, folder, random.Random(f"{seed}"), **options)

    def life(self, seed: object, play: Callable[[Machine], None] = play, **options: Any) -> Machine:
        """A machine that has had its life."""
        machine = self.machine(Disk(), seed, **options)
        play(machine)
        return machine

    def recover(self, seed: object, moment: Moment, **options: Any) -> list[str]:
        """Go on from a moment, and from a later one at which the power goes again; which views were found first."""
        chance = random.Random(f"{seed}, {moment.step}")
        machine = self.machine(moment.disk, seed, is_kept=lambda *_: chance.random() < 1 / LATER_STEPS, **options)
        try:
            found = recover(machine, moment, self.duck)
            for again in machine.moments[:1]:
                recover(self.machine(again.disk, f"{seed} again", **options), again, self.duck)
        except Exception as error:
            raise AssertionError(f"seed {seed}, step {moment.step}: {error}") from error
        return sorted(found)


@pytest.fixture
def lives(tmp_path: Path, duck: Any) -> Lives:
    return Lives(tmp_path, duck)


def look_at(
    lives: Lives, seed: int, play: Callable[[Machine], None], is_kept: Callable[[int, str], bool]
) -> Counter[str]:
    """What was found at the moments of a life, each of which was gone on from."""
    moments = lives.life(seed, play, is_kept=is_kept, kills=0.25).moments
    return Counter(" ".join(lives.recover(seed, moment)) for moment in moments)


FIRST = "by_customer returns sales totals"
SECOND = "by_country by_customer returns sales"
REBUILDING = "by_customer returns sales sales__rebuild totals"
FOUND = {play: {FIRST, SECOND, REBUILDING}, play_long: {"returns sales", "returns sales sales__rebuild"}}


@pytest.mark.parametrize(("play", "steps"), [(play, STEPS), (play_long, STEPS // 2)])
def test_what_is_found_after_a_power_loss_is_a_prefix_and_goes_on_to_the_whole(
    lives: Lives, play: Callable[[Machine], None], steps: int
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    made = range(lives.life(seed, play).steps)
    assert len(made) > 300
    wanted = set(chance.sample(made, steps))
    found = look_at(lives, seed, play, lambda step, _: step in wanted)
    assert found.total() > steps // 2  # lives differ by some steps
    assert len(found) > 1, found


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("play", FOUND)
def test_at_every_step_what_is_found_is_a_prefix_and_goes_on_to_the_whole(
    lives: Lives, play: Callable[[Machine], None], part: int
) -> None:
    for _ in range(SOAK_SEEDS):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        found = look_at(lives, seed, play, lambda step, _: step % PARTS == part)
        assert FOUND[play] <= set(found), found


# The tests above find what they are to find.


def is_one_of_four(chance: random.Random, doing: str, step: int, now: str) -> bool:
    return doing in now and chance.random() < 0.25


def damage(lives: Lives, doing: str, like: str = "", *, acknowledged: bool = True, **options: Any) -> str:
    """What was found to be wrong at the first moment that shows such a thing, of those in which SQLite did that."""
    for _ in range(20):
        seed = random.randrange(1 << 32)
        print(f"seed {seed}")
        life = lives.life(seed, **options, is_kept=partial(is_one_of_four, random.Random(seed), doing))
        for moment in life.moments:
            moment.acknowledged = moment.acknowledged if acknowledged else 0
            try:
                recover(lives.machine(moment.disk, seed, **options), moment, lives.duck, go_on=False)
            except Exception as error:
                if like in (found := f"{type(error).__name__}: {error}"):
                    return found
    pytest.fail("nothing was found to be wrong: the test is blind")


def test_a_store_that_syncs_nothing_is_found_out(lives: Lives) -> None:
    with pragmas("synchronous = OFF"):
        print(damage(lives, "database"))


@pytest.mark.parametrize("sync", ["wal sync", "database sync"])
def test_a_sync_of_sqlites_that_is_not_made_is_found_out(lives: Lives, sync: str) -> None:
    print(damage(lives, "database", sqlite_left_out=[sync]))


SAVE, REPLACE = WriteTransaction.save, WriteTransaction.replace


def rows_first(transaction: WriteTransaction, *checkpoint: Any, **more: Any) -> None:
    """The checkpoint in a transaction of its own, behind the rows'."""
    next_transaction(transaction)
    SAVE(transaction, *checkpoint, **more)


def checkpoint_first(transaction: WriteTransaction, *checkpoint: Any, **more: Any) -> None:
    """The rows in a transaction of their own, behind the checkpoint's."""
    SAVE(transaction, *checkpoint, **more)
    next_transaction(transaction)
    for rows in vars(transaction).pop("rows", ()):
        REPLACE(transaction, *rows)


def next_transaction(transaction: WriteTransaction) -> None:
    for statement in ("COMMIT", "BEGIN IMMEDIATE"):
        transaction.connection.exec_driver_sql(statement)


@pytest.mark.parametrize("saves", [rows_first, checkpoint_first])
def test_rows_and_checkpoint_that_are_not_one_transaction_are_found_out(
    lives: Lives, monkeypatch: pytest.MonkeyPatch, saves: Callable[..., None]
) -> None:
    monkeypatch.setattr(WriteTransaction, "save", saves)
    if saves is checkpoint_first:
        later = lambda transaction, *rows: vars(transaction).setdefault("rows", []).append(rows)  # noqa: E731
        monkeypatch.setattr(WriteTransaction, "replace", later)
    print(damage(lives, "wal", "live"))


def test_a_log_that_shows_what_is_not_durable_is_found_out(lives: Lives) -> None:
    """Log and store lose power together: else the store's being ahead of the log could not be seen."""
    print(damage(lives, "", "covers", acknowledged=False, left_out=["SegmentWriter.write: sync"]))
