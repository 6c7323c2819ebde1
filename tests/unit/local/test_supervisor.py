"""The supervisor with real processes: restarted when they die, and none left when it ends, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tidemill.local import guard
from tidemill.local.errors import ProcessFailed
from tidemill.local.process import LOG_SIZE_BYTES_MAX, ProcessEvent, ProcessSpec, RestartPolicy, Run, State
from tidemill.local.supervisor import Supervisor

FAST = RestartPolicy(first_delay_s=0.01, delay_s_max=0.02, max_quick_deaths=3)
# Says on a pipe of its own what it is, then waits for a signal: no sleep, nothing to time.
FAMILY = """
    import json, os, signal, subprocess, sys
    {before}
    child = subprocess.Popen([sys.executable, "-c", "import signal, os; os.setpgid(0, 0); {grandchild}signal.pause()"])
    tell = open({told!r}, "a"); tell.write(json.dumps([os.getpid(), child.pid]) + "\\n"); tell.close()
    signal.pause()
"""


def family(told: Path, *, before: str = "", grandchild: str = "") -> list[str]:
    """A process with a child in a process group of its own, as Airflow's tasks are; it writes both pids to a file."""
    program = textwrap.dedent(FAMILY).format(before=before, grandchild=grandchild, told=str(told))
    return [sys.executable, "-c", program]


def said(file: Path) -> bool:
    return file.exists() and file.read_text().endswith("\n")


def pids(file: Path) -> list[int]:
    return [pid for line in file.read_text().splitlines() for pid in json.loads(line)]


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


class Events:
    """Collects events and waits for one."""

    def __init__(self) -> None:
        self.seen: list[ProcessEvent] = []
        self._changed = threading.Condition()

    def __call__(self, event: ProcessEvent) -> None:
        with self._changed:
            self.seen.append(event)
            self._changed.notify_all()

    def wait_for(self, wanted: Callable[[list[ProcessEvent]], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: wanted(self.seen), timeout=30), self.seen


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def supervisor(events: Events) -> Iterator[Supervisor]:
    with Supervisor(on_event=events, policy=FAST) as running:
        yield running


def test_a_process_that_dies_is_restarted_and_counted(supervisor: Supervisor, events: Events, tmp_path: Path) -> None:
    told = tmp_path / "told"
    spec = ProcessSpec("one", family(told), tmp_path / "one.log", ready=lambda: said(told))
    supervisor.start(spec)
    supervisor.wait_ready("one")
    first, its_child = pids(told)
    os.kill(first, signal.SIGKILL)
    events.wait_for(lambda seen: [e.state for e in seen].count(State.READY) == 2)
    (status,) = supervisor.status()
    assert status.restarts == 1
    assert status.pid != first
    assert not alive(its_child), "what the dead one left would be in the way of the new one"
    assert "SIGKILL" in next(e.detail for e in events.seen if e.state is State.WAITING)


def test_stop_ends_grandchildren_in_groups_of_their_own(events: Events, tmp_path: Path) -> None:
    told = tmp_path / "told"
    with Supervisor(on_event=events) as supervisor:
        supervisor.start(ProcessSpec("one", family(told), tmp_path / "one.log", ready=lambda: said(told)))
        supervisor.wait_ready("one")
        assert all(alive(pid) for pid in pids(told))
    assert not any(alive(pid) for pid in pids(told))
    assert events.seen[-1].state is State.STOPPED


def test_a_process_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    with Supervisor() as supervisor:
        command = family(told, before=ignore, grandchild=f"{ignore};")
        spec = ProcessSpec("stubborn", command, tmp_path / "one.log", ready=lambda: said(told), grace_s=0.05)
        supervisor.start(spec)
        supervisor.wait_ready("stubborn")
    assert not any(alive(pid) for pid in pids(told))


def test_a_killed_supervisor_leaves_nothing(tmp_path: Path) -> None:
    told = tmp_path / "told"
    program = f"""
        import signal
        from pathlib import Path
        from tidemill.local.process import ProcessSpec
        from tidemill.local.supervisor import Supervisor
        from tests_told import command
        supervisor = Supervisor()
        supervisor.start(ProcessSpec("one", command, Path({str(tmp_path / "one.log")!r})))
        signal.pause()
    """
    (tmp_path / "tests_told.py").write_text(f"command = {family(told)!r}")
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )
    try:
        wait_until(lambda: said(told))
    finally:
        owner.kill()
        owner.wait()
    wait_until(lambda: not any(alive(pid) for pid in pids(told)))


def test_a_killed_guard_is_replaced(supervisor: Supervisor, events: Events, tmp_path: Path) -> None:
    told = tmp_path / "told"
    supervisor.start(ProcessSpec("one", family(told), tmp_path / "one.log", ready=lambda: said(told)))
    supervisor.wait_ready("one")
    for process in psutil.Process().children():
        if str(Path(guard.__file__)) in " ".join(process.cmdline()):
            process.kill()
            process.wait()
    os.kill(pids(told)[0], signal.SIGKILL)
    events.wait_for(lambda seen: [e.state for e in seen].count(State.READY) == 2)
    guards = [p for p in psutil.Process().children() if str(Path(guard.__file__)) in " ".join(p.cmdline())]
    assert len(guards) == 1


def test_a_process_that_dies_before_it_is_ready_fails_at_once_with_its_last_words(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    log = tmp_path / "bad.log"
    log.write_text("of an earlier start\n")
    program = "import sys; print('the table is missing'); sys.exit(3)"
    supervisor.start(ProcessSpec("bad", [sys.executable, "-c", program], log, ready=lambda: False))
    with pytest.raises(ProcessFailed) as failed:
        supervisor.wait_ready("bad")
    assert failed.value.tail == "the table is missing"
    assert "bad ended with status 3" in str(failed.value)
    assert str(log) in str(failed.value)


def test_a_process_that_keeps_dying_is_given_up(supervisor: Supervisor, events: Events, tmp_path: Path) -> None:
    supervisor.start(ProcessSpec("weak", [sys.executable, "-c", "raise SystemExit(1)"], tmp_path / "weak.log"))
    with pytest.raises(ProcessFailed, match="4 times in a row and is given up"):
        supervisor.wait_failure(30)
    assert supervisor.status()[0].restarts == FAST.max_quick_deaths
    events.wait_for(lambda seen: seen[-1].state is State.FAILED)


def test_a_process_that_is_never_ready_is_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    told = tmp_path / "told"
    spec = ProcessSpec("slow", family(told), tmp_path / "slow.log", ready=lambda: False, ready_timeout_s=0.5)
    supervisor.start(spec)
    with pytest.raises(ProcessFailed, match="was not ready in time"):
        supervisor.wait_ready("slow")
    assert not told.exists() or not any(alive(pid) for pid in pids(told))


def test_a_program_that_does_not_exist(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(ProcessSpec("absent", [str(tmp_path / "absent")], tmp_path / "absent.log"))
    with pytest.raises(ProcessFailed, match="cannot be started: "):
        supervisor.wait_ready("absent")


def test_later_stages_stop_first(tmp_path: Path) -> None:
    events = Events()
    files = {name: tmp_path / name for name in ("database", "user")}
    with Supervisor(on_event=events) as supervisor:
        for stage, (name, told) in enumerate(files.items()):
            log = tmp_path / f"{name}.log"
            supervisor.start(ProcessSpec(name, family(told), log, ready=lambda t=told: said(t), stage=stage))
        supervisor.wait_ready(*files)
    assert [e.name for e in events.seen if e.state is State.STOPPED] == ["user", "database"]


def test_the_log_is_kept_within_bounds(supervisor: Supervisor, tmp_path: Path) -> None:
    log = tmp_path / "full.log"
    with log.open("wb") as file:
        file.truncate(LOG_SIZE_BYTES_MAX + 1)
    told = tmp_path / "told"
    supervisor.start(ProcessSpec("full", family(told), log, ready=lambda: said(told)))
    supervisor.wait_ready("full")
    assert log.stat().st_size < LOG_SIZE_BYTES_MAX
    assert (tmp_path / "full.log.1").stat().st_size > LOG_SIZE_BYTES_MAX


def test_the_log_of_a_running_process_is_kept_within_bounds(tmp_path: Path) -> None:
    log = tmp_path / "busy.log"
    program = "print('first', flush=True); import signal; signal.pause()"
    run = Run(ProcessSpec("busy", [sys.executable, "-c", program], log))
    try:
        wait_until(lambda: run.tail() == "first")
        with log.open("ab") as file:
            file.truncate(LOG_SIZE_BYTES_MAX + 1)
        run.trim_log()
        assert log.stat().st_size == 0
        assert (tmp_path / "busy.log.1").read_bytes().startswith(b"first")
        assert run.tail() == ""
    finally:
        guard.kill_session(run.pid)
        run.popen.wait()


def test_the_pause_between_starts_doubles_up_to_its_bound() -> None:
    policy = RestartPolicy(first_delay_s=1, delay_s_max=5)
    assert [policy.delay_s(deaths) for deaths in range(1, 6)] == [1, 2, 4, 5, 5]


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll for what no event tells of: files and processes of somebody else's children."""
    pause = threading.Event()
    for _ in range(600):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError("it did not happen within 30 s")
