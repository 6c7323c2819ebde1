"""The example in Node: a client in another language, from the .proto files alone, and as exact as the SDK."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import tidemill

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example with its packages installed, beside a copy of proto/."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node or npm is not installed")
    folder = tmp_path_factory.mktemp("node")
    shutil.copytree(ROOT / "proto", folder / "proto")
    source = ROOT / "examples" / "node"
    example = folder / "examples" / "node"
    shutil.copytree(source, example, ignore=shutil.ignore_patterns("node_modules"))
    install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--prefer-offline"]
    done = subprocess.run(install, cwd=example, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"npm can't install the example's packages: {' '.join(done.stderr.split())[:200]}")
    return example


def start(example: Path, service: Any, *options: str) -> subprocess.Popen[str]:
    command = ["node", "main.js", "--address", service.address, *options]
    return subprocess.Popen(command, cwd=example, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_events_are_sent_and_read_back(example: Path, ingest: Any) -> None:
    with start(example, ingest, "--producer", "till-7", "--rows", "250") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert 'acknowledged: {"appended":250,"duplicate":0,"quarantined":0,"replayed":0}' in out
    assert re.findall(r"offset (\d+): till-7-(\d+), (\d+) x 12.75", out) == [
        ("247", "247", "248"), ("248", "248", "249"), ("249", "249", "250"),
    ]  # fmt: skip
    with start(example, ingest, "--producer", "till-7", "--rows", "300") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "250 rows were sent before" in out
    assert '"appended":50' in out
    with tidemill.connect(ingest.address) as tm:
        state = tm.stream("order_lines").producer_state("till-7")
        assert (state.known, state.next_sequence, state.rows_sent, state.after_offset) == (True, 4, 300, 300)
        assert tm.stream_status("order_lines").counts.sent == 300


def test_nothing_is_lost_or_doubled_when_the_service_is_killed(example: Path, ingest: Any) -> None:
    rows = 60_000
    with (
        tidemill.connect(ingest.address) as tm,
        start(example, ingest, "--producer", "till-8", "--rows", str(rows), "--batch", "50") as process,
    ):
        for share in (0.1, 0.4):
            while tm.stream_status("order_lines").durable_offset < rows * share:
                assert process.poll() is None, "it ended before the service could be killed"
            ingest.kill()
            ingest.start()
            tm.wait_ready()
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        assert f'"appended":{rows},"duplicate":0,"quarantined":0' in out
        counts = tm.stream_status("order_lines").counts
    assert (counts.sent, counts.received, counts.appended, counts.duplicate) == (rows, rows, rows, 0)
