"""A real ingest service as a process of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START_S = 60.0

SALES_BY_MINUTE = """
select
    time_bucket(interval '1 minute', invoiced_at) as window_start,
    country,
    count(*) as lines,
    sum(quantity * unit_price) as revenue,
    count(distinct customer_id) as customers
from "warehouse"."events"."order_lines"
where quantity > 0
group by all
"""


class IngestProcess:
    """`python -m ingest_service` in a data folder; it can be killed and started again on the same port.

    program: what Python runs, with the service's options behind it.
    """

    program: tuple[str, ...] = ("-m", "ingest_service")

    def __init__(self, folder: Path, manifest: Path | None = None, *options: str) -> None:
        self.data = folder / "data"
        self.log = folder / "service.log"
        self.port = 0
        self._manifest = manifest
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it says where it listens."""
        command = [sys.executable, *self.program, "--data", str(self.data), "--proto", str(ROOT / "proto")]
        command += ["--listen", f"127.0.0.1:{self.port}"]
        if self._manifest is not None:
            command += ["--manifest", str(self._manifest)]
        command += self._options
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            )
        self.port = int(self._first_line().rpartition(":")[2])

    def _first_line(self) -> str:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline().decode() if ready else ""
        if not line.startswith("listening on "):
            self.kill()
            pytest.fail(f"the ingest service did not start; it said {line!r} and\n{self.log.read_text()[-3000:]}")
        return line.strip()

    def has_ended(self, timeout_s: float = 0) -> bool:
        """Whether it ended by itself, by then."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process is None or self._process.wait(timeout_s) is not None
        return False

    def kill(self) -> None:
        """SIGKILL: it gets no chance to tidy up."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM: it ends as it should."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"the ingest service did not end within 30 s of {how.name}\n{self.log.read_text()[-3000:]}")
        finally:
            assert process.stdout is not None
            process.stdout.close()


def live_manifest(folder: Path) -> Path:
    """A dbt manifest with one live model: what `dbt compile` writes, as far as the service reads it."""
    path = folder / "manifest.json"
    source = {
        "name": "order_lines",
        "relation_name": '"warehouse"."events"."order_lines"',
        "meta": {"stream": "order_lines"},
    }
    model = {
        "resource_type": "model",
        "name": "sales_by_minute",
        "original_file_path": "models/live/sales_by_minute.sql",
        "tags": ["live"],
        "config": {"materialized": "incremental", "incremental_strategy": "microbatch"},
        "compiled_code": SALES_BY_MINUTE,
        "raw_code": SALES_BY_MINUTE,
    }
    path.write_text(json.dumps({"nodes": {"model.m": model}, "sources": {"source.s": source}}))
    return path


@pytest.fixture
def ingest(tmp_path: Path) -> Iterator[IngestProcess]:
    """A service of the test's own, in an empty data folder."""
    process = IngestProcess(tmp_path, live_manifest(tmp_path))
    process.start()
    yield process
    process.kill()


@pytest.fixture(scope="module")
def shared_ingest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestProcess]:
    """One service for a module's tests that don't mind each other's events."""
    folder = tmp_path_factory.mktemp("ingest")
    process = IngestProcess(folder, live_manifest(folder))
    process.start()
    yield process
    process.stop()


@pytest.fixture
def event_id(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Event ids that no other test uses."""
    numbers = itertools.count()
    prefix = f"{request.node.name[:30]}-{time.time_ns()}"
    return lambda: f"{prefix}-{next(numbers)}"
