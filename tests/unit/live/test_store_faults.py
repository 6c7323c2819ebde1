"""The live views' store fails for a while: nothing is wrong meanwhile, and the views go on by themselves."""

from __future__ import annotations

import datetime as dt
import errno
import itertools
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.live_faults import CHANGED, DAY, MODELS, Machine, Models, pragmas, until
from support.power import Disk
from support.sqlite_power import why_not

from ingest_service.errors import StorageError
from ingest_service.live import ViewQuery
from ingest_service.live.store import WriteTransaction

ROUNDS = 3
SOAK_ROUNDS = 150
BULK_ROWS = 40


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine that is on, with seven rows in its log; 40 rows at once are many."""
    monkeypatch.setattr("ingest_service.live.follower.BULK_ROWS", BULK_ROWS)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    machine = Machine(Disk(), tmp_path, random.Random(seed))
    with pragmas("wal_autocheckpoint = 16", "busy_timeout = 10"), machine.on():
        machine.send(7)
        yield machine


def errors(machine: Machine) -> list[str]:
    return [status.error for status in machine.views.status()]


# A statement fails.


class Failing:
    """Fails the n-th statement from now on of the threads whose names begin so; as often as it is said."""

    def __init__(self, at: int, *, thread: str = "live-", like: str = "", times: int = 1) -> None:
        self._left, self._thread, self._like, self._times = at, thread, like, times
        self.failed = 0

    def __call__(self, connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if not (threading.current_thread().name.startswith(self._thread) and statement.startswith(self._like)):
            return
        self._left -= 1
        if self._left < 0 and self.failed < self._times:
            self.failed += 1
            raise sa.exc.OperationalError(statement, parameters, sqlite3.OperationalError("the store is away"))

    @contextmanager
    def listening(self) -> Iterator[Failing]:
        sa.event.listen(sa.Engine, "before_cursor_execute", self)
        try:
            yield self
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", self)


def a_few_rows(machine: Machine) -> None:
    machine.send(3)


def many_rows(machine: Machine) -> None:
    machine.send(BULK_ROWS)


def a_seal(machine: Machine) -> None:
    machine.log.seal(DAY, DAY + dt.timedelta(days=1), force=True)
    machine.send(1)


def a_rebuild(machine: Machine) -> None:
    machine.views.rebuild("sales")


@pytest.mark.parametrize("work", [a_few_rows, many_rows, a_seal, a_rebuild])
def test_whichever_statement_fails_the_views_go_on_by_themselves(
    machine: Machine, duck: Any, work: Callable[[Machine], None]
) -> None:
    with machine.following(MODELS):
        machine.settle()
        for number in itertools.count():
            with Failing(number).listening() as failing:
                work(machine)
                machine.settle()
            if not failing.failed:
                break
        machine.check_whole(duck)
        assert number >= 10


def test_a_swap_that_fails_several_times_is_made_in_the_end(machine: Machine, duck: Any) -> None:
    with machine.following(MODELS), Failing(0, like="ALTER TABLE", times=4).listening() as failing:
        machine.settle()
        machine.views.rebuild("sales")
        machine.send(3)
        machine.settle()
        assert failing.failed == 4
        machine.check_whole(duck)


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.soak)])
def test_whichever_statement_of_applying_fails_applying_again_does_the_rest(
    machine: Machine, duck: Any, every: int
) -> None:
    failures = 0
    with machine.following(MODELS):
        for number in itertools.count(machine.chance.randrange(every), every):
            machine.settle()
            models = CHANGED if machine.models == MODELS else MODELS
            with Failing(number, thread=threading.current_thread().name).listening() as failing:
                with suppress(StorageError):
                    machine.apply(models)
                machine.send(2)
                machine.apply(models)
            if not failing.failed:
                break
            failures += 1
        machine.settle()
        machine.check_whole(duck)
    assert failures > 30 // every


def test_a_question_that_the_store_does_not_answer_can_be_asked_again(machine: Machine) -> None:
    with machine.following(MODELS) as views:
        machine.settle()
        with Failing(0, thread=threading.current_thread().name).listening(), pytest.raises(StorageError, match="away"):
            views.query(ViewQuery("sales"))
        assert views.query(ViewQuery("sales")).offset == 7
        assert errors(machine) == [""] * len(MODELS)


# A commit is made, and its answer is lost: the connection to PostgreSQL broke.


def lose_an_answer(machine: Machine, monkeypatch: pytest.MonkeyPatch, begins: str) -> list[bool]:
    """The next commit of a transaction in which that method is called is made, and is said to have failed."""
    armed, lost = threading.local(), []
    dialect = machine.views._store.engine.dialect
    commit, method = dialect.do_commit, getattr(WriteTransaction, begins)

    def call(transaction: WriteTransaction, *arguments: Any, **more: Any) -> Any:
        armed.now = not lost
        return method(transaction, *arguments, **more)

    def commit_in_silence(connection: Any) -> None:
        commit(connection)
        if getattr(armed, "now", False):
            armed.now = False
            lost.append(True)
            raise sqlite3.OperationalError("the connection broke")

    monkeypatch.setattr(WriteTransaction, begins, call)
    monkeypatch.setattr(dialect, "do_commit", commit_in_silence)
    return lost


@pytest.mark.parametrize(
    ("work", "begins"), [(a_few_rows, "save"), (many_rows, "save"), (a_seal, "seal"), (a_rebuild, "swap")]
)
def test_what_was_committed_is_not_done_again_when_the_answer_was_lost(
    machine: Machine, duck: Any, monkeypatch: pytest.MonkeyPatch, work: Callable[[Machine], None], begins: str
) -> None:
    with machine.following(MODELS):
        machine.settle()
        lost = lose_an_answer(machine, monkeypatch, begins)
        work(machine)
        until(machine.views, lambda: bool(lost))
        machine.send(3)
        machine.settle()
        machine.check_whole(duck)


# The disk is full, or fails.

needs_vfs = pytest.mark.skipif(bool(why_not()), reason=why_not() or "SQLite can be watched")


@needs_vfs
@pytest.mark.parametrize(("code", "message"), [(errno.ENOSPC, "full"), (errno.EIO, "disk I/O error")])
def test_a_full_disk_stops_the_views_and_nothing_else_until_there_is_room(
    machine: Machine, duck: Any, code: int, message: str
) -> None:
    with machine.following(MODELS) as views:
        machine.settle()
        machine.fails = lambda doing: code if doing.endswith(("write", "create")) else 0
        for count in (1, BULK_ROWS, 5):
            machine.send(count)
        until(views, lambda: all(message in error for error in errors(machine)))
        assert [views.query(ViewQuery(name)).offset for name in MODELS] == [7] * len(MODELS)
        machine.fails = lambda doing: 0
        machine.settle()
        machine.check_whole(duck)


@needs_vfs
@pytest.mark.parametrize("rounds", [ROUNDS, pytest.param(SOAK_ROUNDS, marks=pytest.mark.soak)])
def test_a_disk_that_fails_at_random_leaves_nothing_wrong(machine: Machine, duck: Any, rounds: int) -> None:
    chance = random.Random(machine.chance.random())
    share = 0.0

    def fails(doing: str) -> int:
        return chance.choice([errno.ENOSPC, errno.EIO]) if chance.random() < share else 0

    for number in range(rounds):
        share = 0.0
        with machine.following([MODELS, CHANGED][number % 2]) as views:
            machine.fails = fails
            share = chance.choice([0.01, 0.05, 0.2])
            for work in chance.choices([a_few_rows, many_rows, a_seal, a_rebuild], k=8):
                with suppress(StorageError):  # of a rebuild that could not be begun
                    work(machine)
                until(views, lambda: chance.random() < 0.3, wait_s=600)
            share = 0.0
            machine.settle()
            machine.check_whole(duck)
        connection = sqlite3.connect(machine.folder / "live.sqlite")
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        connection.close()


def test_a_database_that_may_not_grow_goes_on_when_it_may(machine: Machine, duck: Any) -> None:
    with machine.following(MODELS) as views:
        machine.settle()
        with pragmas("max_page_count = 1"):  # as large as it is, that is
            for _ in range(10):
                machine.send(200)
            until(views, lambda: any("full" in error for error in errors(machine)))
        with pragmas("max_page_count = 1073741823"):
            machine.settle()
        machine.check_whole(duck)


# Others use the database.

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    print(connection.execute(statement).fetchall(), flush=True)
sys.stdin.readline()
print(connection.execute(statement).fetchall(), flush=True)
"""


@contextmanager
def held(machine: Machine, *statements: str) -> Iterator[Callable[[], str]]:
    """Another process, in the middle of a transaction of these; the function gives what its last one answers."""
    command = [sys.executable, "-c", HOLD, str(machine.folder / "live.sqlite"), *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers = process.stdout
        for _ in statements:
            assert answers.readline()

        def answer() -> str:
            process.stdin.write("\n")
            process.stdin.flush()
            return answers.readline().strip()

        try:
            yield answer
        finally:
            process.kill()


def test_a_database_that_another_process_has_locked_is_written_when_it_lets_go(machine: Machine, duck: Any) -> None:
    with machine.following(MODELS) as views:
        machine.settle()
        with held(machine, "begin immediate", "select 1"):
            machine.send(3)
            until(views, lambda: all("locked" in error for error in errors(machine)))
            assert [views.query(ViewQuery(name)).offset for name in MODELS] == [7] * len(MODELS)
        machine.settle()
        machine.check_whole(duck)


def test_somebody_who_reads_for_long_sees_one_state_and_holds_up_nothing(machine: Machine, duck: Any) -> None:
    with machine.following(MODELS):
        machine.settle()
        with held(machine, "begin", "select lines from totals") as answer:
            for count in (1, BULK_ROWS, 3, 3, 3):
                machine.send(count)
                machine.settle()
            machine.views.rebuild("totals")
            machine.settle()
            machine.check_whole(duck)
            assert answer() == "[(7,)]"
        machine.send(1)
        machine.settle()
        machine.check_whole(duck)


# The database is gone.


def test_a_store_that_is_lost_is_made_again_from_the_log(machine: Machine, duck: Any) -> None:
    with machine.following(MODELS):
        machine.settle()
    for file in machine.folder.glob("live.sqlite*"):
        file.unlink()
    for file in machine.files.list_folder(machine.LIVE):
        machine.files.unlink(machine.LIVE / file)
    with machine.following(MODELS):
        machine.settle()
        machine.check_whole(duck)


@pytest.mark.parametrize("models", [MODELS, CHANGED])
def test_views_of_more_than_the_log_has_are_made_again(
    machine: Machine, duck: Any, tmp_path: Path, models: Models
) -> None:
    """The log came out of a backup, and the store, a PostgreSQL perhaps, did not."""
    earlier = machine.disk.copy()
    with machine.following(MODELS):
        machine.send(BULK_ROWS)
        machine.settle()
    machine.files.kill()
    folder = tmp_path / "restored"
    folder.mkdir()
    shutil.copy(machine.folder / "live.sqlite", folder)
    restored = Machine(earlier, folder, random.Random(machine.chance.random()))
    with restored.on(), restored.following(models):
        restored.send(BULK_ROWS + 5)
        restored.settle()
        restored.check_whole(duck)
