"""Airflow under the supervisor: runs are triggered, followed and explained, and it survives the loss of a part."""

from __future__ import annotations

import dataclasses
import os
import signal
import stat
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest

from tidemill.local.airflow_client import AirflowClient
from tidemill.local.errors import AirflowError, DagBroken
from tidemill.local.process import State
from tidemill.local.stack import Stack

pytestmark = pytest.mark.airflow


def new_run() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


def test_a_run_is_followed_to_its_end(client: AirflowClient) -> None:
    run = new_run()
    client.trigger("small", {}, run)
    changes = list(client.follow("small", run))
    assert [change.task_id for change in changes if change.state == "success"] == ["first", "second"]
    assert all(change.duration_s is not None for change in changes if change.ended)
    assert client.run_state("small", run) == "success"
    assert client.result("small", run, "first") == {"answer": 42}
    assert client.result("small", run, "second") == 43
    assert client.failures("small", run) == []


def test_a_repeated_request_starts_nothing_twice(client: AirflowClient) -> None:
    run = new_run()
    for _ in range(2):
        client.trigger("small", {}, run)
    assert [c.task_id for c in client.follow("small", run) if c.ended] == ["first", "second"]


def test_a_failure_is_explained_and_not_retried(client: AirflowClient) -> None:
    run = new_run()
    client.trigger("failing", {}, run)
    ended = {change.task_id: change for change in client.follow("failing", run) if change.ended}
    assert client.run_state("failing", run) == "failed"
    assert (ended["refuse"].state, ended["refuse"].try_number) == ("failed", 1)
    assert ended["after"].state == "upstream_failed"
    (failure,) = client.failures("failing", run)
    assert (failure.task_id, failure.message) == ("refuse", "view sales_by_minute differs by 12.50")
    assert failure.url.endswith(f"/dags/failing/runs/{run}/tasks/refuse")


def test_a_wrong_param_is_refused(client: AirflowClient) -> None:
    with pytest.raises(AirflowError, match="answered 400") as refused:
        client.trigger("small", {"size": 3}, new_run())
    assert refused.value.status == 400


def test_a_broken_dag_file_is_shown(client: AirflowClient, dags_folder: Path) -> None:
    broken = dags_folder / "cracked.py"
    broken.write_text("from airflow.sdk import dag\nimport nothing_of_that_name\n")
    try:
        with pytest.raises(DagBroken, match="cannot import the DAG 'cracked'") as shown:
            client.wait_dag("cracked")
        assert "No module named 'nothing_of_that_name'" in str(shown.value)
    finally:
        broken.unlink()


def test_an_unknown_dag_is_waited_for_within_bounds(client: AirflowClient) -> None:
    with pytest.raises(AirflowError, match="did not find a DAG 'absent' within 0 s"):
        client.wait_dag("absent", timeout_s=0)


def test_nothing_is_told_without_login(stack: Stack) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(f"{stack.airflow_url}/api/v2/dags", timeout=10)
    refused.value.close()
    stranger = AirflowClient(stack.airflow_url, dataclasses.replace(stack.login, password="guess"))
    with pytest.raises(AirflowError, match="answered 401"):
        stranger.health()


def test_secrets_are_the_owners_alone(stack: Stack) -> None:
    files = [stack.login.file, stack.folder.airflow / "secrets.json"]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
    told = "".join(log.read_text(errors="replace") for log in stack.folder.logs.glob("*.log"))
    assert stack.login.password not in told


def test_every_component_beats(stack: Stack, client: AirflowClient) -> None:
    stack.supervisor.wait_ready("airflow-triggerer")
    while None in (health := client.health()).values():
        stack.check()
        stack.supervisor.wait_failure(0.2)
    assert health == dict.fromkeys(["metadatabase", "scheduler", "triggerer", "dag_processor"], "healthy")


def test_a_killed_scheduler_is_started_again_and_runs_go_on(stack: Stack, client: AirflowClient) -> None:
    before = next(status for status in stack.supervisor.status() if status.name == "airflow-scheduler")
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    run = new_run()
    client.trigger("small", {}, run)
    assert [c.task_id for c in client.follow("small", run, check=stack.check) if c.state == "success"]
    assert client.run_state("small", run) == "success"
    after = next(status for status in stack.supervisor.status() if status.name == "airflow-scheduler")
    assert (after.state, after.restarts) == (State.READY, before.restarts + 1)
