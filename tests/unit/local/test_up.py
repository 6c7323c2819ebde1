"""`tidemill up` as its user runs it: a process that prints, is interrupted, is killed, and is given wrong options."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tidemill.local.folder import find_project
from tidemill.local.ports import LOOPBACK
from tidemill.local.service import is_serving

pytest.importorskip("dbt")
PROJECT = find_project(start=Path(__file__).parent, environment={})
UP = [sys.executable, "-c", "import sys; from tidemill.cli import main; sys.exit(main())", "up"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up") / "data"


class Running:
    """`tidemill up --no-airflow`, whose lines are read one by one."""

    def __init__(self, data: Path) -> None:
        options = ["--no-airflow", "--port", "0", "--data", str(data), "--project", str(PROJECT)]
        self.process = subprocess.Popen([*UP, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[str] = []
        self.read_until("Ctrl-C stops it")
        found = re.search(r"127\.0\.0\.1:(\d+)", self.said)
        assert found is not None, self.said
        self.port = int(found[1])
        self.children = psutil.Process(self.process.pid).children(recursive=True)

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def read_until(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return
        raise AssertionError(f"it ended before it said {words!r}:\n{self.said}")

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)
        return self.process.wait(60)

    def left(self) -> list[psutil.Process]:
        _, alive = psutil.wait_procs(self.children, timeout=30)
        return alive


@pytest.fixture
def start(data: Path) -> Iterator[Callable[[], Running]]:
    started: list[Running] = []

    def begin() -> Running:
        started.append(Running(data))
        return started[-1]

    yield begin
    for running in started:
        running.process.kill()
        running.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(start: Callable[[], Running], number: int) -> None:
    up = start()
    assert is_serving(up.port)
    assert f'tidemill.connect("127.0.0.1:{up.port}")' in up.said
    assert "\x1b" not in up.said, "colour belongs on a terminal"
    assert up.end(number) == 0
    assert up.lines[-1] == "stopped\n"
    assert up.left() == []


def test_a_dead_service_is_started_again_and_it_says_so(start: Callable[[], Running]) -> None:
    up = start()
    (service,) = [child for child in up.children if "ingest_service" in child.cmdline()]
    service.kill()
    up.read_until("ingest-service was ended by SIGKILL; starting it again")
    up.read_until("ingest-service runs again")
    assert is_serving(up.port)
    assert up.end(signal.SIGINT) == 0


def test_nothing_outlives_it_when_it_is_killed_and_the_next_one_starts(start: Callable[[], Running]) -> None:
    killed = start()
    killed.end(signal.SIGKILL)
    again = start()
    assert killed.left() == []
    assert again.end(signal.SIGINT) == 0


def test_a_second_one_in_the_same_folder_is_refused(start: Callable[[], Running], data: Path) -> None:
    up = start()
    answer = fail("--no-airflow", "--port", "0", "--data", str(data), "--project", str(PROJECT))
    assert answer == (
        f"tidemill: {data} is in use by another `tidemill up` or `tidemill demo` (process {up.process.pid}): "
        "stop that one, or choose another folder with --data"
    )
    assert up.end(signal.SIGINT) == 0


def test_a_busy_port_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        server.listen()
        port = server.getsockname()[1]
        answer = fail("--no-airflow", "--port", str(port), "--data", str(tmp_path), "--project", str(PROJECT))
    assert answer.startswith(f"tidemill: port {port} on 127.0.0.1, wanted for the ingest service, is in use")


def test_no_project_is_one_line(tmp_path: Path) -> None:
    assert fail("--no-airflow", folder=tmp_path).startswith("tidemill: no Tidemill project in")


def fail(*options: str, folder: Path = PROJECT) -> str:
    """Run it, see it fail with a single line, and give the line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    answer = subprocess.run(
        [*UP, *options], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    return line
