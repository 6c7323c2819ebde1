"""`import_files` in a real Airflow: each file is a task, and a bad one fails alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.airflow_runs import run_dag, task_states, tasks_of
from support.hook import Hook

import tidemill
from tidemill.local.airflow_client import AirflowClient
from tidemill.local.stack import Stack

pytestmark = pytest.mark.airflow
HEADER = "event_id,requested_at,host,method,url,status,bytes\n"


def test_a_bad_file_fails_alone(client: AirflowClient, stack: Stack, landing: Path, hook: Hook) -> None:
    folder = landing / "web_requests"
    folder.mkdir()
    (folder / "good.csv").write_text(HEADER + "file-1,2011-12-01 08:00:00+00:00,a.example,GET,/,200,5\n")
    (folder / "bad.csv").write_text(HEADER + "file-2,no time at all,a.example,GET,/,200,5\n")
    with tidemill.connect(stack.address) as service:
        before = service.stream_status("web_requests").counts.appended
        run, state = run_dag(client, stack, "import_files", {})
        assert (state, task_states(client, "import_files", run)) == (
            "success",
            {"look": ["success"], "take": ["skipped"]},
        )
        # Files are taken that were the same in two looks, some seconds apart.
        for _ in range(20):
            run, state = run_dag(client, stack, "import_files", {})
            if state == "failed":
                break
        states = task_states(client, "import_files", run)
        assert sorted(states["take"]) == ["failed", "success"]
        assert service.stream_status("web_requests").counts.appended == before + 1
    alert = hook.wait(dag_run_id=run)
    assert "bad.csv" in alert["message"]
    assert [task["try_number"] for task in tasks_of(client, "import_files", run) if task["state"] == "failed"] == [1]
    assert sorted(path.name for path in folder.glob("*.csv")) == []
    run, state = run_dag(client, stack, "import_files", {})
    assert (state, task_states(client, "import_files", run)["take"]) == ("success", ["skipped"])
