"""Peers in Python that need packages of their own: a venv below build/peers, and processes in it that answer requests.

A job is a script in this folder that knows nothing of the project. It is started with `-P`, so that its folder's
modules don't stand in front of packages of the same name. It answers each line on standard input (a request as JSON)
by a line on standard output; its first answer, to nothing, says that it is ready.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import PeerMissing
from benchmarks.service import PROJECT

_FOLDER = PROJECT / "build" / "peers"
_REQUIREMENTS = Path(__file__).with_name("requirements.txt")


class Job:
    """A peer's process. Use it from one thread."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def ask(self, **request: object) -> dict[str, Any]:
        """Sends a request and waits for its answer. Raises PeerMissing when the process has ended instead."""
        self.send(**request)
        return self.answer()

    def send(self, **request: object) -> None:
        """Sends a request; `answer` gives its answer."""
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """Waits for the next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing"]
            raise PeerMissing(f"its process ended with code {self._process.wait()} and said: {said[0][:300]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def job(script: str, *arguments: str) -> Iterator[Job]:
    """Runs a job of this folder in the peers' venv until the end of the block. Raises PeerMissing."""
    python = _python()
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        folder = Path(name)
        command = [str(python), "-P", str(Path(__file__).with_name(script)), str(folder), *arguments]
        with (folder / "job.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        started = Job(process, folder / "job.log")
        try:
            started.answer()
            yield started
        finally:
            process.terminate()
            process.communicate()


def _python() -> Path:
    """The venv's Python; the venv is made once, and again when the requirements have changed."""
    venv, digest = _FOLDER / "venv", hashlib.sha256(_REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    python, made = venv / "bin" / "python", venv / "made"
    if made.is_file() and made.read_text() == digest:
        return python
    uv = Path(sys.executable).with_name("uv")
    if not uv.is_file():
        raise PeerMissing("there is no uv beside this Python (make setup)")
    print("making build/peers (once) …", file=sys.stderr, flush=True)
    shutil.rmtree(venv, ignore_errors=True)
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, venv],
        [uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", _REQUIREMENTS],
    ):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerMissing(f"its packages can't be had: {' '.join(done.stderr.split())[:300]}")
    made.write_text(digest)
    return python
