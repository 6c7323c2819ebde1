"""SIGKILL in the middle of a day: of a dbt task, of the scheduler. The day is published all the same."""

from __future__ import annotations

import datetime as dt
import os
import signal

import psutil
import pytest
from support.airflow_runs import content, end_of, send_lines, tasks_of

from tidemill.local.airflow_client import AirflowClient
from tidemill.local.stack import Stack

pytestmark = pytest.mark.airflow
DATE = dt.date(2011, 12, 12)
ROWS = 200


def test_a_killed_dbt_task_is_tried_again(client: AirflowClient, stack: Stack) -> None:
    send_lines(stack, DATE, ROWS)
    run = "killed-task"
    client.trigger("daily", {"date": str(DATE), "force": True}, run)
    ti_id = wait_running(client, stack, run, "dbt.staging")
    named = [process for process in psutil.process_iter() if ti_id in " ".join(command_of(process))]
    # Its supervisor and, forked from that, the process that runs dbt.
    (task,) = [process for process in named if process.ppid() in {each.pid for each in named}] or named
    task.kill()
    assert end_of(client, stack, "daily", run) == "success", client.failures("daily", run)
    tries = {task["task_id"]: task["try_number"] for task in tasks_of(client, "daily", run)}
    assert tries["dbt.staging"] > 1


def test_a_killed_scheduler_s_day_goes_on(client: AirflowClient, stack: Stack) -> None:
    before = content(stack)
    run = "killed-scheduler"
    client.trigger("daily", {"date": str(DATE), "force": True}, run)
    wait_running(client, stack, run, "dbt.staging")
    (scheduler,) = [status for status in stack.supervisor.status() if status.name == "airflow-scheduler"]
    assert scheduler.pid is not None
    os.kill(scheduler.pid, signal.SIGKILL)
    assert end_of(client, stack, "daily", run) == "success", client.failures("daily", run)
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
