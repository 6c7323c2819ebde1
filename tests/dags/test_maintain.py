"""`maintain` in a real Airflow, whose database and logs it cleans from inside a task."""

from __future__ import annotations

import os
import time

import pytest
from support.airflow_runs import run_dag, task_states

from orchestration.maintain import STEPS
from quality import upkeep
from tidemill.local.airflow_client import AirflowClient
from tidemill.local.stack import Stack

pytestmark = pytest.mark.airflow
DAY_S = 86_400


def test_every_part_of_the_upkeep_is_a_task() -> None:
    assert set(STEPS) == set(upkeep.PARTS)


def test_all_is_looked_after(client: AirflowClient, stack: Stack) -> None:
    logs = stack.folder.airflow / "logs" / "dag_id=gone" / "run_id=old"
    logs.mkdir(parents=True)
    old, new = logs / "attempt=1.log", logs / "attempt=2.log"
    for file in (old, new):
        file.write_text("a line\n")
    os.utime(old, (time.time() - 91 * DAY_S,) * 2)
    run, state = run_dag(client, stack, "maintain", {})
    assert state == "success", client.failures("maintain", run)
    assert task_states(client, "maintain", run) == {
        task: ["success"] for task in [*STEPS, "airflow_database", "airflow_logs"]
    }
    assert client.result("maintain", run, "airflow_logs") == {"files": 1, "bytes": 7}
    assert (old.exists(), new.exists()) == (False, True)
    assert set(client.result("maintain", run, "airflow_database")) == {"kept_from"}
    assert client.result("maintain", run, "disk")["free_bytes"] > 0
