"""PostgreSQL as the live views' store: the engine's own tests over it, and connections and servers that die."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa
from support.live_faults import CHANGED, DAY, MODELS, Machine, assert_same, batch_rows, rows_of, until
from support.power import Disk
from unit.live import test_across, test_changing, test_engine, test_view, test_windows
from unit.live.conftest import Kit

from ingest_service.errors import IngestError
from ingest_service.live import ViewQuery
from ingest_service.live.duck import open_duck
from tidemill.local.postgres import SETTINGS, Postgres

ROUNDS = 10
SOAK_ROUNDS = 600
START_S = 60
BULK_ROWS = 40


class Server:
    """A PostgreSQL of the tests' own, on a socket in a folder; it can be killed and started again."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._postgres = Postgres(folder / "postgres", folder / "postgres.log", {**SETTINGS, **settings})
        self._names = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._postgres.prepare()
        spec = self._postgres.spec()
        assert spec.ready is not None
        with spec.log.open("ab") as log:
            self._process = subprocess.Popen(spec.command, stdout=log, stderr=log, env=spec.environment)
        deadline_s = time.monotonic() + START_S
        while not spec.ready():
            assert self._process.poll() is None, spec.log.read_text()[-3000:]
            assert time.monotonic() < deadline_s, spec.log.read_text()[-3000:]
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: it ends as it should. SIGQUIT: at once, as in a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """A database for the block; its URL."""
        name = f"live{next(self._names)}"
        with self.admin() as connection:
            connection.exec_driver_sql(f"create database {name}")
        yield self._url(name)
        with self.admin() as connection:
            connection.exec_driver_sql(f"drop database {name} with (force)")

    def _url(self, database: str) -> str:
        url = sa.make_url(self._postgres.url).set(drivername="postgresql+psycopg2", database=database)
        return url.render_as_string()

    @contextlib.contextmanager
    def admin(self) -> Iterator[sa.Connection]:
        """A connection that stays when the others are ended."""
        engine = sa.create_engine(self._url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            yield connection


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # The machine stays on: what the server has written is there, synced or not.
    server = Server(tmp_path_factory.mktemp("server"), synchronous_commit="on", fsync="off")
    server.start()
    yield server
    server.stop(signal.SIGQUIT)


@pytest.fixture(scope="module")
def duck() -> Iterator[Any]:
    connection = open_duck()
    yield connection
    connection.close()


# The engine's own tests, but for those that look into SQLite.


@pytest.fixture
def kit(tmp_path: Path, duck: Any, server: Server) -> Iterator[Kit]:
    kit = Kit(tmp_path, duck)
    with server.database() as kit.url:
        yield kit


RACES = {
    # The old definition may answer first, as it goes on beside its rebuild.
    "test_a_changed_definition_is_rebuilt_while_the_old_one_serves",
    "test_an_interrupted_rebuild_goes_on",
}


def engine_tests(module: ModuleType) -> dict[str, Any]:
    """A module's fixtures, and its tests that any store has to pass."""
    found = {}
    for name, each in vars(module).items():
        if name in RACES:
            continue
        is_fixture = type(each).__name__ == "FixtureFunctionDefinition"
        is_test = name.startswith("test_") and inspect.isfunction(each) and "sqlite" not in inspect.getsource(each)
        if is_fixture or is_test:
            found[name] = each
    return found


for tests in (test_across, test_changing, test_engine, test_view, test_windows):
    globals().update(engine_tests(tests))


# Connections are ended.


@pytest.fixture
def machine(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine that is on, with seven rows in its log, and its views in PostgreSQL; 40 rows at once are many."""
    monkeypatch.setattr("ingest_service.live.follower.BULK_ROWS", BULK_ROWS)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    machine = Machine(Disk(), tmp_path, random.Random(seed))
    with server.database() as machine.url, machine.on():
        machine.send(7)
        yield machine


def few(machine: Machine) -> None:
    machine.send(3)


def many(machine: Machine) -> None:
    machine.send(BULK_ROWS)


def seal(machine: Machine) -> None:
    machine.log.seal(DAY, DAY, force=True)
    machine.send(1)


def rebuild(machine: Machine) -> None:
    machine.views.rebuild("sales")


class Ending:
    """Ends the connection of the n-th statement from now on of the views' own threads, before or after it is made.

    A number beyond the statements ends none.
    """

    def __init__(self, server: Server, number: int, event: str) -> None:
        self._server, self._left, self._event = server, number, event
        self.ended = False

    def __call__(self, connection: sa.Connection, *_: Any) -> None:
        if not threading.current_thread().name.startswith("live-"):
            return
        self._left -= 1
        if self._left == -1:
            self.ended = True
            pid = connection.connection.dbapi_connection.info.backend_pid  # type: ignore[union-attr]
            with self._server.admin() as admin:
                admin.exec_driver_sql(f"select pg_terminate_backend({pid}, 10000)")

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        sa.event.listen(sa.Engine, self._event, self)
        try:
            yield
        finally:
            sa.event.remove(sa.Engine, self._event, self)


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("event", ["before_cursor_execute", "commit"])
@pytest.mark.parametrize("work", [few, many, seal, rebuild])
def test_whichever_connection_is_ended_the_views_go_on_by_themselves(
    machine: Machine, server: Server, duck: Any, work: Callable[[Machine], None], event: str, every: int
) -> None:
    every = 1 if event == "commit" else every
    with machine.following(MODELS):
        machine.settle()
        for number in itertools.count(machine.chance.randrange(every), every):
            ending = Ending(server, number, event)
            with ending.listening():
                work(machine)
                machine.settle()
            if not ending.ended:
                break
        machine.check_whole(duck)
        assert number > 0


def errors(machine: Machine) -> str:
    return " ".join(status.error for status in machine.views.status())


def assert_prefixes(machine: Machine, duck: Any) -> None:
    """Every view's answer is DuckDB's over the rows below its offset."""
    for name in machine.models:
        answer = machine.views.query(ViewQuery(name))
        rows = rows_of(machine.log).slice(0, answer.offset)
        batches = [batch_rows(duck, each[name], rows) for each in (MODELS, CHANGED) if name in each]
        batch = next(each for each in batches if each.schema.names == answer.table.schema.names)
        assert_same(answer.table, batch, answer.columns, f"{name} at {answer.offset}")


@pytest.mark.parametrize("rounds", [ROUNDS, pytest.param(SOAK_ROUNDS, marks=pytest.mark.soak)])
def test_connections_that_are_ended_at_any_moment_leave_a_prefix(
    machine: Machine, server: Server, duck: Any, rounds: int
) -> None:
    end_all = "select pg_terminate_backend(pid) from pg_stat_activity where datname = '{}' and pid <> pg_backend_pid()"
    end_all = end_all.format(sa.make_url(machine.url).database)
    chance = machine.chance
    with machine.following(MODELS), server.admin() as admin:
        for number in range(rounds):
            for work in chance.choices([few, many, seal, rebuild], weights=[4, 4, 2, 2], k=3):
                with contextlib.suppress(IngestError):  # of a rebuild that could not be begun
                    work(machine)
                for _ in range(chance.randrange(10)):
                    admin.exec_driver_sql("select 1")
                admin.exec_driver_sql(end_all)
            with contextlib.suppress(IngestError):
                assert_prefixes(machine, duck)
            if number % 10 == 9:
                machine.settle()
                with contextlib.suppress(IngestError):
                    machine.apply(CHANGED if machine.models is MODELS else MODELS)
                admin.exec_driver_sql(end_all)
                until(machine.views, lambda: applied(machine))
        machine.settle()
        machine.check_whole(duck)


def applied(machine: Machine) -> bool:
    with contextlib.suppress(IngestError):
        machine.apply(machine.models)
        return True
    return False


@pytest.mark.parametrize("synchronous", ["on", "off"])
def test_a_server_that_crashes_leaves_a_prefix_and_the_views_go_on_when_it_is_back(
    tmp_path: Path, duck: Any, synchronous: str
) -> None:
    """Without synchronous commits what it said it had committed may be gone: the views take those rows in again."""
    server = Server(tmp_path, synchronous_commit=synchronous, wal_writer_delay="10s", fsync="off")
    server.start()
    machine = Machine(Disk(), tmp_path, random.Random(0))
    try:
        with server.database() as machine.url, machine.on(), machine.following(MODELS):
            machine.send(10)
            machine.settle()
            with server.admin() as admin:
                admin.exec_driver_sql("checkpoint")  # the tables are to be there
            for work in (few, many, seal, rebuild, few):
                for _ in range(3):
                    machine.send(5)
                    machine.settle()
                work(machine)
                server.stop(signal.SIGQUIT)
                machine.send(2)
                server.start()
                assert_prefixes(machine, duck)
                if synchronous == "off" and work is rebuild:
                    # Its tables may be gone, which is said, and is put right by this.
                    until(machine.views, lambda: machine.is_settled() or "view apply" in errors(machine))
                    machine.apply(MODELS)
                machine.settle()
                machine.check_whole(duck)
    finally:
        server.stop(signal.SIGQUIT)
