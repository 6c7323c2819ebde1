"""`daily` in a real Airflow, over a real service: sealed, checked, built, reconciled, published, documented."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from support.airflow_runs import (
    STAGES,
    TASKS,
    ask,
    content,
    end_of,
    new_run,
    publications,
    run_dag,
    send_lines,
    task_states,
    tasks_of,
)
from support.hook import Hook

import tidemill
from tidemill.local.airflow_client import AirflowClient, TaskChange
from tidemill.local.stack import Stack

pytestmark = pytest.mark.airflow
DATE = dt.date(2011, 12, 5)
ROWS = 500
BROKEN_SUITE = """'What no day keeps.'

from quality.suite import STOP, MartSuite, holds

orders = MartSuite(
    "fct_orders", holds(STOP, "country <> 'France'"), name="broken", date="order_date", key=("invoice_no",)
)
"""


@pytest.fixture(scope="module")
def published(client: AirflowClient, stack: Stack) -> str:
    """The run that published a morning of sales."""
    send_lines(stack, DATE, ROWS)
    run, state = run_dag(client, stack, "daily", {"date": str(DATE), "force": True})
    assert state == "success", client.failures("daily", run)
    return run


def test_a_day_is_published(client: AirflowClient, stack: Stack, published: str) -> None:
    assert task_states(client, "daily", published) == {task: ["success"] for task in TASKS}
    results = {stage: client.result("daily", published, stage) for stage in STAGES}
    with tidemill.connect(stack.address) as service:
        sent = service.stream_status("order_lines").durable_offset
    assert results["seal"]["streams"]["order_lines"]["seal_offset"] == sent >= ROWS
    view = results["reconcile"]["views"]["sales_by_minute"]
    assert view["windows"] > 0
    assert view["differences"] == 0
    assert (results["publish"]["date"], results["publish"]["run_id"]) == (str(DATE), results["seal"]["run_id"])
    for made in (stack.folder.warehouse, stack.folder.dbt_docs, stack.folder.data_docs):
        assert made.stat().st_size > 0


def test_the_warehouse_is_an_asset_that_others_can_start_after(client: AirflowClient, published: str) -> None:
    events = client._call("GET", "/assets/events?limit=100")["asset_events"]
    of_run = [event for event in events if event["source_run_id"] == published]
    assert [event["name"] for event in of_run] == ["tidemill_warehouse"]
    assert (of_run[0]["extra"]["date"], of_run[0]["extra"]["published"]) == (str(DATE), True)


def test_a_mart_that_breaks_an_expectation_publishes_nothing_and_alerts(
    client: AirflowClient, stack: Stack, published: str, hook: Hook
) -> None:
    before, marts = publications(stack), content(stack)
    suite = stack.project / "suites" / "broken.py"
    suite.write_text(BROKEN_SUITE)
    try:
        run, state = run_dag(client, stack, "daily", {"date": str(DATE), "force": True})
    finally:
        suite.unlink()
    assert state == "failed"
    tasks = {task["task_id"]: task for task in tasks_of(client, "daily", run)}
    assert (tasks["check_marts"]["state"], tasks["check_marts"]["try_number"]) == ("failed", 1)
    assert (tasks["publish"]["state"], tasks["give_turn"]["state"]) == ("upstream_failed", "success")
    assert (publications(stack), content(stack)) == (before, marts)

    alert = hook.wait(dag_run_id=run)
    assert (alert["kind"], alert["dag_id"], alert["task_id"]) == ("failed", "daily", "check_marts")
    assert "marts_broken.country_not_france" in alert["message"]
    assert alert["count"] > 0
    assert alert["sample"]
    assert stack.folder.root in Path(alert["where"]).parents
    assert alert["url"] == f"{stack.airflow_url}/dags/daily/runs/{run}/tasks/check_marts"
    (kept,) = [found for found in alerts_of(stack) if found["run_id"] == alert["run_id"]]
    assert (kept["task_id"], kept["message"]) == ("check_marts", alert["message"])
    logs = [log.read_text(errors="replace") for log in (stack.folder.airflow / "logs").rglob("*.log")]
    assert not [text for text in logs if hook.TOKEN in text], "the webhook's token was logged"


def test_cleared_at_a_task_it_ends_in_the_same_tables(client: AirflowClient, stack: Stack, published: str) -> None:
    task = "dbt.marts"
    before, tries = (
        content(stack),
        {task["task_id"]: task["try_number"] for task in tasks_of(client, "daily", published)},
    )
    assert len(before) > 5
    body = {"dry_run": False, "dag_run_id": published, "task_ids": [task], "include_downstream": True,
            "only_failed": False, "reset_dag_runs": True}  # fmt: skip
    client._call("POST", "/dags/daily/clearTaskInstances", body)
    assert end_of(client, stack, "daily", published) == "success", client.failures("daily", published)
    again = {
        task["task_id"] for task in tasks_of(client, "daily", published) if task["try_number"] > tries[task["task_id"]]
    }
    # The turn is taken again, whatever task it is that is cleared.
    assert again == {"take_turn", *STAGES[STAGES.index(task) :], "give_turn"}
    assert content(stack) == before
    # The publication took the alert of before along.
    assert ("check_marts",) in ask(stack, "select task_id from alerts where kind = 'failed'")


def test_killed_in_its_middle_it_ends_in_the_same_tables(client: AirflowClient, stack: Stack, published: str) -> None:
    """SIGKILL of a dbt task, then of the scheduler while the next layer is built."""
    before, run = content(stack), new_run()
    client.trigger("daily", {"date": str(DATE), "force": True}, run)
    ti_id = wait_running(client, stack, run, "dbt.staging")
    named = [process for process in psutil.process_iter() if ti_id in " ".join(command_of(process))]
    # Its supervisor and, forked from that, the process that runs dbt.
    (task,) = [process for process in named if process.ppid() in {each.pid for each in named}] or named
    task.kill()
    wait_running(client, stack, run, "dbt.intermediate")
    (scheduler,) = [status for status in stack.supervisor.status() if status.name == "airflow-scheduler"]
    assert scheduler.pid is not None
    os.kill(scheduler.pid, signal.SIGKILL)
    assert end_of(client, stack, "daily", run) == "success", client.failures("daily", run)
    tries = {task["task_id"]: task["try_number"] for task in tasks_of(client, "daily", run)}
    assert tries["dbt.staging"] > 1
    assert publications(stack)[-1][1:] == (str(DATE), str(DATE))
    assert content(stack) == before


def wait_running(client: AirflowClient, stack: Stack, run: str, task_id: str) -> str:
    """Wait until a task runs; its id."""
    for change in client.follow("daily", run, check=stack.check):
        if (change.task_id, change.state) == (task_id, "running"):
            (task,) = [task for task in tasks_of(client, "daily", run) if task["task_id"] == task_id]
            return str(task["id"])
    raise AssertionError(f"{task_id} did not run")


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def send_request(service: tidemill.Client, name: str, at: dt.datetime) -> None:
    event = {"event_id": name, "requested_at": at, "host": "a.example", "method": "GET", "url": "/", "status": 200,
             "bytes": 1}  # fmt: skip
    service.stream("web_requests").send(event).result()


def test_it_waits_without_a_worker_until_the_watermark_has_passed(
    client: AirflowClient, stack: Stack, published: str
) -> None:
    seen: list[tuple[str, str]] = []
    deferred = threading.Event()
    date = dt.datetime(2011, 12, 6, 8, tzinfo=dt.UTC)

    def keep_sending() -> None:
        """Events of the date, so that the stream is never idle: then its watermark would follow the clock."""
        with tidemill.connect(stack.address) as service:
            for number in itertools.count():
                send_request(service, f"of-the-date-{number}", date + dt.timedelta(seconds=number))
                if deferred.wait(5):
                    # And one of the next day: the watermark passes the date.
                    send_request(service, "of-the-next-day", date + dt.timedelta(days=1))
                    return

    def look(change: TaskChange) -> None:
        seen.append((change.task_id, change.state))
        if seen[-1] == ("wait", "deferred"):
            deferred.set()

    with tidemill.connect(stack.address) as service:
        # A stream without any event holds nothing up.
        send_request(service, "the-first", date)
    with ThreadPoolExecutor() as pool:
        sending = pool.submit(keep_sending)
        try:
            run, state = run_dag(client, stack, "daily", {"date": "2011-12-06", "streams": ["web_requests"]}, look)
        finally:
            deferred.set()
        sending.result()
    assert state == "success", client.failures("daily", run)
    assert seen.index(("wait", "deferred")) < seen.index(("wait", "success"))
    sealed = client.result("daily", run, "seal")["streams"]
    with tidemill.connect(stack.address) as service:
        assert sealed["web_requests"]["seal_offset"] == service.stream_status("web_requests").durable_offset
    assert sealed["web_requests"]["fresh"]
    # The other streams stay as they were published.
    assert not sealed["order_lines"]["fresh"]
    assert (
        sealed["order_lines"]["seal_offset"]
        == client.result("daily", published, "seal")["streams"]["order_lines"]["seal_offset"]
    )


def test_a_run_without_any_date_says_what_is_missing(client: AirflowClient, stack: Stack) -> None:
    run, state = run_dag(client, stack, "daily", {})
    assert state == "failed"
    (failure,) = client.failures("daily", run)
    assert failure.message == "this run has neither a date nor a data interval: trigger it again with a date"


def alerts_of(stack: Stack) -> list[dict[str, object]]:
    return [json.loads(file.read_text()) for file in sorted((stack.folder.root / "alerts").glob("*.json"))]
