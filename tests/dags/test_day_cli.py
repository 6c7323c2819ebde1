"""`tidemill day` by the Airflow of a data folder."""

import datetime as dt
import json
import subprocess
import sys

import pytest
from support.airflow_runs import end_of, send_lines

from tidemill.local.airflow_client import AirflowClient
from tidemill.local.stack import Stack

pytestmark = pytest.mark.airflow
DATE = dt.date(2011, 9, 5)


def tidemill_day(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tidemill", "day", *arguments]
    where = ["--data", str(stack.folder.root), "--project", str(stack.project), "--address", stack.address]
    return subprocess.run([*command, *where], capture_output=True, text=True, timeout=900, check=False)


def test_a_day_is_run_by_airflow_and_its_state_told(stack: Stack, client: AirflowClient):
    send_lines(stack, DATE, 50)
    done = tidemill_day(stack, "run", str(DATE), "--force")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{stack.airflow_url}/dags/daily/runs/{DATE}_cli-")
    assert any(line.split()[:2] == ["publish", "success"] for line in lines)
    assert lines[-1] == f"{DATE}: success"
    said = tidemill_day(stack, "status", f"--from={DATE}", f"--to={DATE}", "--json")
    assert said.returncode == 0, said.stderr
    (state,) = map(json.loads, said.stdout.splitlines())
    assert (state["date"], state["state"], state["late_rows"]) == (str(DATE), "published", 0)
    assert state["verdict"].startswith("passed")


def test_a_backfill_is_a_run_for_each_date_and_may_be_left_to_airflow(stack: Stack, client: AirflowClient):
    last = DATE + dt.timedelta(days=1)
    done = tidemill_day(
        stack, "backfill", f"--from={DATE}", f"--to={last}", "--force", "--stream=readings", "--no-wait", "--json"
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["date"] for each in told] == [str(DATE), str(last)]
    assert {each["state"] for each in told} == {"queued"}
    for each in told:
        assert end_of(client, stack, "daily", each["run"]) == "success", client.failures("daily", each["run"])


def test_a_run_that_fails_says_by_what(stack: Stack, client: AirflowClient):
    done = tidemill_day(stack, "run", "2011-09-07", "--as-of", "no-such-run")
    assert done.returncode == 1
    assert "seal: run no-such-run: expected" in done.stderr
    assert done.stderr.splitlines()[-1] == "tidemill: the run failed"


def test_where_no_airflow_is_what_to_do_is_told(stack: Stack, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tidemill", "day", "run", str(DATE), "--data", str(tmp_path),
         "--project", str(stack.project)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "--local runs here" in done.stderr
    done = tidemill_day(stack, "run", str(DATE), "--airflow-url", "http://127.0.0.1:1")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "does not answer" in done.stderr
