"""Many dates at once: runs queue for the turn, share what can be shared, and none fails."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.airflow_runs import ask, end_of, publications, send_lines, task_states

from quality import turn
from quality.config import DayConfig
from quality.run import load_run
from tidemill.local.airflow_client import AirflowClient
from tidemill.local.stack import Stack

pytestmark = pytest.mark.airflow
BY_REST = [dt.date(2011, 11, day) for day in (1, 2, 3)]
BY_COMMAND = [dt.date(2011, 11, day) for day in (8, 9)]


def runs_of(client: AirflowClient) -> list[tuple[str, str]]:
    """DAG and run of every backfilled date."""
    dag_runs = [client._call("GET", f"/dags/{dag}/dagRuns?limit=100")["dag_runs"] for dag in ("calendar", "almanac")]
    return [(run["dag_id"], run["dag_run_id"]) for runs in dag_runs for run in runs]


def test_backfills_by_rest_and_by_command_share_their_publications(client: AirflowClient, stack: Stack) -> None:
    for date in [*BY_REST, *BY_COMMAND]:
        send_lines(stack, date, 20)
    config = DayConfig(data=stack.folder.root, project=stack.project, address=stack.address)
    # Somebody has the turn, so that all five wait for it at once.
    mine = turn.Ticket.of(
        {"ticket_id": "test", "run_id": "test", "date": "2011-01-01", "shares": False, "holder": turn.this_process()}
    )
    assert turn.take(config, mine)["turn"] == "held"
    body = {"dag_id": "calendar", "from_date": f"{BY_REST[0]}T00:00:00Z", "to_date": f"{BY_REST[-1]}T00:00:00Z",
            "max_active_runs": 16, "dag_run_conf": {"force": True}, "reprocess_behavior": "none"}  # fmt: skip
    client._call("POST", "/backfills", body)
    assert stack._airflow is not None
    command = (
        f"airflow backfill create --dag-id almanac --from-date {BY_COMMAND[0]} --to-date {BY_COMMAND[-1]} "
        "--max-active-runs 16 --dag-run-conf"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-m", *command.split(), '{"force": true}'],
        env=stack._airflow.environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    deadline = time.monotonic() + 300
    while len(turn.waiting(config)) < 5:
        stack.check()
        assert time.monotonic() < deadline, [task_states(client, *run) for run in runs_of(client)]
        time.sleep(0.2)
    before = publications(stack) if stack.folder.warehouse.exists() else []
    turn.give(config, "test", failed=False)

    runs = runs_of(client)
    assert len(runs) == 5
    for run in runs:
        assert end_of(client, stack, *run) == "success", client.failures(*run)
    new = publications(stack)[len(before) :]
    assert sorted((first, last) for _, first, last in new) == [
        ("2011-11-01", "2011-11-03"),
        ("2011-11-08", "2011-11-09"),
    ]
    skipped = [run for run in runs if task_states(client, *run)["publish"] == ["skipped"]]
    assert len(skipped) == 3
    for run in skipped:
        states = task_states(client, *run)
        assert states["take_turn"] == ["skipped"]
        assert states["wait"] == ["success"]
        assert any(f"published by run {publisher}" in log_of(client, *run, "take_turn") for publisher, _, _ in new)
    # One writer: the second is sealed after the first is published.
    spans = sorted(
        (record.stages["seal"]["started_at"], record.stages["publish"]["ended_at"])
        for record in (load_run(config, publisher) for publisher, _, _ in new)
    )
    assert spans[0][1] <= spans[1][0]
    dates = [date for (date,) in ask(stack, "select distinct order_date from fct_orders order by 1")]
    assert {*BY_REST, *BY_COMMAND} <= set(dates)


def log_of(client: AirflowClient, dag_id: str, run: str, task: str) -> str:
    tasks = client._call("GET", f"/dags/{dag_id}/dagRuns/{run}/taskInstances/{task}")
    path = f"/dags/{dag_id}/dagRuns/{run}/taskInstances/{task}/logs/{tasks['try_number']}?full_content=true"
    return str(client._call("GET", path).get("content"))


def test_a_holder_that_is_gone_loses_its_turn(client: AirflowClient, stack: Stack) -> None:
    config = DayConfig(data=stack.folder.root, project=stack.project, address=stack.address)
    ghost = {"kind": "airflow", "dag_id": "daily", "run_id": "never-there"}
    ticket = turn.Ticket.of({"ticket_id": "ghost", "run_id": "ghost", "date": "2011-01-01", "holder": ghost})
    assert turn.take(config, ticket)["turn"] == "held"
    client.trigger(
        "daily", {"date": "2011-11-01", "as_of": "no-such-run"}, run := f"ghost-{Path(config.data).stat().st_ino}"
    )
    assert end_of(client, stack, "daily", run) == "failed"
    assert [failure.task_id for failure in client.failures("daily", run)] == ["seal"]
    assert task_states(client, "daily", run)["take_turn"] == ["success"]
    assert turn.current(config) is None
