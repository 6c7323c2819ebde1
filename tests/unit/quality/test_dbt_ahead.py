"""dbt made ready ahead: forks have it, and no thread is left that a fork would miss."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quality.dbt_ahead import warm_up

ROOT = Path(__file__).parents[3]
PROGRAM = """
import os
import sys

import dbt.adapters.duckdb.impl
from dbt.cli.main import dbtRunner

from quality.dbt_ahead import warm_up

threads = len(os.listdir("/proc/self/task"))
assert warm_up()
assert len(os.listdir("/proc/self/task")) == threads
child = os.fork()
if child == 0:
    project, folder = sys.argv[1:]
    places = ["--project-dir", project, "--profiles-dir", project, "--target-path", folder, "--log-path", folder]
    result = dbtRunner().invoke(["parse", *places, "--quiet"])
    os._exit(0 if result.success else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_reads_a_project_after_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ROOT / "dbt_project"), str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "manifest.json").is_file()


def test_without_a_place_to_write_it_is_left_to_each_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no-such-folder"))
    assert not warm_up()
