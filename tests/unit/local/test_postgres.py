"""The bundled PostgreSQL with real servers: a first start, a second one, and what a crash leaves."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from tidemill.local.postgres import SOCKET_FOLDER_BYTES_MAX, Postgres
from tidemill.local.process import Run
from tidemill.local.supervisor import Supervisor

psycopg2 = pytest.importorskip("psycopg2")


def ask(server: Postgres, sql: str) -> object:
    connection = psycopg2.connect(server.url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0] if cursor.description else None
    finally:
        connection.close()


def test_data_outlives_a_restart_and_a_crash(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", tmp_path / "postgres.log")
    assert server.prepare() is True
    with Supervisor() as supervisor:
        supervisor.start(server.spec())
        supervisor.wait_ready("postgres")
        ask(server, "create table kept (answer int)")
        ask(server, "insert into kept values (42)")
    assert server.prepare() is False
    # A server that nobody supervises, as a crash leaves it: prepare ends it.
    left = Run(server.spec())
    try:
        ready = server.spec().ready
        assert ready is not None
        while not ready():
            assert left.popen.poll() is None, left.tail()
        assert server.prepare() is False
        assert left.popen.wait(10) == 0, "it was asked, not killed"
    finally:
        left.popen.kill()
        left.popen.wait()
    with Supervisor() as supervisor:
        supervisor.start(server.spec())
        supervisor.wait_ready("postgres")
        assert ask(server, "select answer from kept") == 42


def test_a_stale_lock_that_names_an_innocent_process_is_removed(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", tmp_path / "postgres.log")
    server.prepare()
    (tmp_path / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n")
    server.prepare()
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()
    assert psutil.Process().is_running()


def test_an_interrupted_first_start_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "base").mkdir(parents=True)
    (tmp_path / "postgres" / "base" / "half").write_text("half")
    assert Postgres(tmp_path / "postgres", tmp_path / "postgres.log").prepare() is True


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 30) / "postgres"
    server = Postgres(folder, tmp_path / "postgres.log")
    server.prepare()
    socket_folder = Path(server.url.partition("host=")[2])
    try:
        assert len(os.fsencode(socket_folder)) <= SOCKET_FOLDER_BYTES_MAX
        assert socket_folder.stat().st_mode & 0o077 == 0
        with Supervisor() as supervisor:
            supervisor.start(server.spec())
            supervisor.wait_ready("postgres")
            assert ask(server, "select 1") == 1
    finally:
        socket_folder.rmdir()


def test_a_killed_server_is_started_again(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", tmp_path / "postgres.log")
    server.prepare()
    with Supervisor() as supervisor:
        supervisor.start(server.spec())
        supervisor.wait_ready("postgres")
        first = supervisor.status()[0].pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(first)] if psutil.pid_exists(first) else [], timeout=10)
        while supervisor.status()[0].restarts == 0:
            supervisor.wait_failure(0.05)
        supervisor.wait_ready("postgres")
        assert ask(server, "select 1") == 1
