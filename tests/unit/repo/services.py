"""The services of docker-compose.yml as processes of this machine."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest
from unit.repo import compose

from tidemill.local.ports import free_port

READY_S = 120


class Containers:
    """The file's services as processes of this machine, each in a session of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.here = compose.Here(folder / "data", free_port(), free_port(), free_port())
        self.here.data.mkdir()
        self.services = compose.load({**compose.SECRETS, "AIRFLOW_PORT": "8080"})["services"]
        self._running: list[subprocess.Popen[bytes]] = []

    def run_once(self, name: str) -> None:
        done = subprocess.run(
            self.here.command(self.services[name]), env=self.here.environment(self.services[name]),
            cwd=compose.ROOT, capture_output=True, text=True, timeout=READY_S * 2, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{name}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"

    def start(self, name: str, command: list[str] | None = None) -> None:
        service = self.services[name]
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                command or self.here.command(service), env=self.here.environment(service), cwd=compose.ROOT,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self._running.append(process)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def wait_healthy(self, name: str, command: list[str] | None = None) -> None:
        """Ask the service's health check once a second, as Compose does at the start, until it says yes."""
        service, process = self.services[name], self._running[-1]
        asked = command or self.here.health_command(service)
        said = ""
        for _ in range(READY_S):
            check = subprocess.run(
                asked, env=self.here.environment(service), capture_output=True, text=True, timeout=30, check=False
            )
            if check.returncode == 0:
                return
            said = check.stderr[-500:]
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
                break
        log = self.log(name).read_text(errors="replace")[-3000:]
        pytest.fail(f"{name} never became healthy ({process.poll()=}): {said}\n{log}")

    def stop(self) -> None:
        for process in reversed(self._running):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            # What the leader left of its session (Airflow's workers) goes too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
