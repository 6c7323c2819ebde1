"""Late rows start their reprocessing themselves, and are in the warehouse after it."""

from __future__ import annotations

import datetime as dt
import time

import pytest
from support.airflow_runs import ask, end_of, publications, run_dag, send_lines, task_states

from quality import late
from quality.config import DayConfig
from tidemill.local.airflow_client import AirflowClient
from tidemill.local.stack import Stack

pytestmark = pytest.mark.airflow
DATE = dt.date(2011, 10, 5)
OTHER = dt.date(2011, 10, 7)
LINES = "select sum(lines)::int from fct_orders where order_date = ?"


@pytest.fixture(scope="module")
def config(client: AirflowClient, stack: Stack) -> DayConfig:
    send_lines(stack, DATE, 20)
    send_lines(stack, OTHER, 20)
    run, state = run_dag(
        client, stack, "daily", {"date": str(DATE), "last_date": str(OTHER), "streams": ["order_lines"], "force": True}
    )
    assert state == "success", client.failures("daily", run)
    return DayConfig(data=stack.folder.root, project=stack.project, address=stack.address)


def test_late_rows_are_published_by_themselves(client: AirflowClient, stack: Stack, config: DayConfig) -> None:
    assert late.pending(config) == {}
    ((before,),) = ask(stack, LINES, DATE)
    client.wait_dag("late_by_itself", check=stack.check)
    client.unpause("late_by_itself")
    # Two dates that are no neighbours, in two goes that come to one.
    send_lines(stack, DATE, 5, name="late", hour=20)
    send_lines(stack, OTHER, 5, name="late", hour=20)
    assert late.pending(config) == {"order_lines": {str(DATE): 5, str(OTHER): 5}}
    deadline = time.monotonic() + 300
    while not (runs := client._call("GET", "/dags/late_by_itself/dagRuns?limit=10")["dag_runs"]):
        stack.check()
        assert time.monotonic() < deadline, "late rows started nothing"
        time.sleep(0.2)
    run = runs[0]["dag_run_id"]
    assert end_of(client, stack, "late_by_itself", run) == "success", client.failures("late_by_itself", run)
    assert task_states(client, "late_by_itself", run)["dates.publish"] == ["success", "success"]
    assert {(first, last) for _, first, last in publications(stack)[-2:]} == {(str(DATE),) * 2, (str(OTHER),) * 2}
    assert late.pending(config) == {}
    assert ask(stack, LINES, DATE) == [(before + 5,)]
    assert len(client._call("GET", "/dags/late_by_itself/dagRuns?limit=10")["dag_runs"]) == 1


def test_dates_may_be_given_by_hand(client: AirflowClient, stack: Stack, config: DayConfig) -> None:
    run, state = run_dag(client, stack, "late_events", {"date": str(DATE), "streams": ["order_lines"]})
    assert state == "success", client.failures("late_events", run)
    assert publications(stack)[-1][1:] == (str(DATE), str(DATE))


def test_without_late_rows_there_is_nothing_to_do(client: AirflowClient, stack: Stack, config: DayConfig) -> None:
    run, state = run_dag(client, stack, "late_events", {})
    assert state == "success"
    assert task_states(client, "late_events", run)["dates.seal"] == ["skipped"]
