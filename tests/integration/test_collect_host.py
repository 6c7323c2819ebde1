"""`tidemill collect host` against the real service: every reading once, through a restart, and a clean end."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tidemill
from tidemill.cli import main

# A shell that runs tests in the background has SIGINT ignored; the command must see it.
CODE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from tidemill.cli import main
sys.exit(main())
"""
COLLECT = [sys.executable, "-c", CODE, "collect", "host"]


def test_one_round_is_shown_and_can_be_read(shared_ingest: Any, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["collect", "host", "--once", "--interval", "0.1", "--address", shared_ingest.address]
    assert main([*given, "--host", "shown"]) == 0
    out = capsys.readouterr().out
    assert "used_percent" in out
    assert "0 duplicate, 0 quarantined" in out

    assert main([*given, "--host", "told", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["stream"], told["host"], told["rounds"]) == ("readings", "told", 1)
    with tidemill.connect(shared_ingest.address) as tm:
        rows = [row for row in tm.stream("readings").read() if row.host == "told"]
    assert [(row.sensor, row.metric, row.value, row.unit) for row in rows] == [
        (each["sensor"], each["metric"], each["value"], each["unit"]) for each in told["readings"]
    ]
    assert told["summary"]["appended"] == len(rows) >= 5


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--once", "--count", "2"], 2, "--once is --count 1"),
        (["--interval", "0"], 2, "'--interval'"),
        (["--disk", "nowhere"], 2, "'--disk'"),
        (["--once", "--stream", "order_lines"], 2, "stream 'order_lines' has no field measured_at, host, sensor"),
        (["--once", "--stream", "nowhere"], 1, "nowhere"),
    ],
)
def test_what_is_wrong_is_one_line(
    shared_ingest: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert main(["collect", "host", *arguments, "--address", shared_ingest.address]) == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def follow(tm: tidemill.Client, rounds: int) -> None:
    """Read the stream from its beginning until so many rounds are there."""
    seen: set[int] = set()
    with tm.stream("readings").read(follow=True) as rows:
        for row in rows:
            seen.add(row.measured_at.ToNanoseconds())
            if len(seen) >= rounds:
                return
    raise AssertionError("the stream ended")


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the block, whatever fails in it."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_restart_of_the_service_costs_no_reading(ingest: Any) -> None:
    command = [*COLLECT, "--interval", "0.1", "--json", "--address", ingest.address]
    with running(command) as collector:
        with tidemill.connect(ingest.address, wait_s=20) as tm:
            follow(tm, 3)
        ingest.kill()
        ingest.start()
        with tidemill.connect(ingest.address, wait_s=20) as tm:
            follow(tm, 12)
        collector.send_signal(signal.SIGINT)
        out, err = collector.communicate(timeout=60)
        assert collector.returncode == 130, err
    summary = json.loads(out)["summary"]
    assert summary["interrupted"]
    assert summary["sent"] == summary["appended"] > 0
    assert err == ""
    with tidemill.connect(ingest.address, wait_s=20) as tm:
        rows = list(tm.stream("readings").read())
    assert len(rows) == summary["sent"]
    assert len({row.event_id for row in rows}) == len(rows)
    # Whole rounds alone: Ctrl-C tears none.
    rounds = [row.event_id.split("-")[1] for row in rows]
    assert len({rounds.count(number) for number in set(rounds)}) == 1


def test_ctrl_c_does_not_wait_for_a_service_that_is_away(ingest: Any, tmp_path: Path) -> None:
    command = [*COLLECT, "--interval", "0.1", "--host", "left", "--address", ingest.address]
    with running(command) as collector:
        with tidemill.connect(ingest.address, wait_s=20) as tm:
            follow(tm, 3)
        ingest.kill()
        collector.send_signal(signal.SIGINT)
        out, err = collector.communicate(timeout=60)
        assert collector.returncode == 130, err
    assert "rows sent in" in out
