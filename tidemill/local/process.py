"""One supervised process: what to start, how it is seen to be ready, and what is known of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

LOG_SIZE_BYTES_MAX = 20_000_000
TAIL_BYTES_MAX = 16_384


class State(StrEnum):
    """Where a process stands."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting to be restarted"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class ProcessSpec:
    """What to start.

    name: shown, and names the log; unique in its supervisor.
    command, environment, folder: as for a child process; environment None takes this process's own.
    log: file that stdout and stderr are appended to; above 20 MB it becomes `<name>.log.1`, and a new one begins.
    ready: says whether the process does its work yet, without raising and within a second; None: as soon as it runs.
    ready_timeout_s: a first start that takes longer has failed.
    stop_signal, grace_s: what asks it to stop, and how long it may take before it is killed.
    stage: higher stages are stopped first (a database after those that use it).
    nice: how far it stands back behind others for the processor (0 to 19), its children too.
    once: a task that ends by itself: ready when it has ended with status 0, within ready_timeout_s; never restarted.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] | None = None
    folder: Path | None = None
    ready: Callable[[], bool] | None = None
    ready_timeout_s: float = 60.0
    stop_signal: int = signal.SIGTERM
    grace_s: float = 10.0
    stage: int = 1
    nice: int = 0
    once: bool = False


@dataclass(frozen=True)
class RestartPolicy:
    """When a dead process is started again.

    The pause doubles from first_delay_s up to delay_s_max. A process that died max_quick_deaths times in a row, each
    time before it was ready or within quick_s seconds of its start, is given up.
    """

    first_delay_s: float = 0.2
    delay_s_max: float = 10.0
    quick_s: float = 10.0
    max_quick_deaths: int = 5

    def delay_s(self, quick_deaths: int) -> float:
        """The pause before the next start, after this many quick deaths in a row."""
        return min(self.delay_s_max, float(self.first_delay_s * 2 ** max(0, quick_deaths - 1)))


@dataclass(frozen=True)
class ProcessEvent:
    """What happened to a process: its new state, and the cause when there is one."""

    name: str
    state: State
    detail: str = ""


@dataclass(frozen=True)
class ProcessStatus:
    """What is known of a process now; `restarts` counts the starts after the first."""

    name: str
    state: State
    pid: int | None
    restarts: int
    log: Path


class Run:
    """One start of a process, leader of its own session; not thread-safe beyond what Popen is."""

    def __init__(self, spec: ProcessSpec) -> None:
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        _rotate(spec.log)
        with spec.log.open("ab") as output:
            self._log_start = output.tell()
            self._log = spec.log
            self.popen = subprocess.Popen(
                list(spec.command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if spec.environment is None else dict(spec.environment),
                cwd=spec.folder,
                start_new_session=True,
            )
        if spec.nice:
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, self.popen.pid, spec.nice)
        self.started = time.monotonic()

    @property
    def pid(self) -> int:
        """The process's id, and its session's."""
        return self.popen.pid

    def trim_log(self) -> None:
        """Keep a log within its bound while its process goes on writing: moved aside by copy, and cut to nothing."""
        if self._log.stat().st_size > LOG_SIZE_BYTES_MAX:
            shutil.copyfile(self._log, self._log.with_name(self._log.name + ".1"))
            # The process appends, so its next line is the first of the emptied file.
            os.truncate(self._log, 0)

    def tail(self, lines: int = 15) -> str:
        """The last lines that this start said."""
        return log_tail(self._log, lines, self._log_start)


def log_tail(log: Path, lines: int = 15, start: int = 0) -> str:
    """The last lines of a log file from a position (bytes) on, at most 16 kB; empty when there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= size else 0, size - TAIL_BYTES_MAX))
            text = file.read(TAIL_BYTES_MAX).decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def describe_exit(code: int) -> str:
    """Say how a process ended, from its return code."""
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_SIZE_BYTES_MAX:
        log.replace(log.with_name(log.name + ".1"))
