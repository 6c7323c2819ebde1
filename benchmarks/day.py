"""The day: from the trigger to the published warehouse, in a warm Airflow; and the same models by Cosmos."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tidemill
from benchmarks.peers.cosmos import DAG_ID, CosmosProject, cosmos_packages
from benchmarks.peers.peer import PeerMissing
from benchmarks.result import Result
from benchmarks.service import PROJECT, data_folder
from tidemill.local.airflow_client import AirflowClient
from tidemill.local.folder import DataFolder
from tidemill.local.stack import Stack
from tidemill.simulate import simulate_day

LINES = 5_000
MILLION = 1_000_000
_DAYS = (dt.date(2026, 3, 3), dt.date(2026, 3, 4))
BATCH_ROWS = 50_000


def daily() -> list[Result]:
    """daily_dag_s: the second of two days of 5,000 events; the first one warms what a running Airflow has warm."""
    with data_folder() as data, _running(data, None) as (stack, airflow):
        for date in _DAYS:
            run = _day(stack, airflow, date, LINES)
    return [Result("daily_dag_s", run.seconds, f"s, {LINES:,} events")]


def million() -> list[Result]:
    """day_million_…: a day of a million events, from its trigger to published, by task; its models by Cosmos too.

    The day before, of 5,000 events, warms what a running Airflow has warm. versus_cosmos: seconds from the first dbt
    task's begin to the last one's end, ours divided by those of Cosmos with one task a model, on the same pinned rows
    into a copy of the same warehouse.
    """
    try:
        packages: Path | None = cosmos_packages()
    except PeerMissing as error:
        print(f"skipped: Cosmos: {error}", file=sys.stderr)
        packages = None
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name, data_folder() as data:
        peer = CosmosProject(Path(name), packages, PROJECT) if packages is not None else None
        with _running(data, peer) as (stack, airflow):
            _day(stack, airflow, _DAYS[0], LINES)
            before = Path(name) / "before.duckdb"
            shutil.copyfile(data.warehouse, before)
            run = _day(stack, airflow, _DAYS[1], MILLION)
            results = [Result("day_million_published_s", run.published_s, f"s, {MILLION:,} events, to published")]
            results += [
                Result(f"day_million_{task.replace('dbt.', 'dbt_')}_s", seconds, "s, of which")
                for task, seconds in run.tasks.items()
            ]
            if peer is not None:
                theirs = peer.run(airflow, data, run.run_id, before, _DAYS[1])
                ours = run.span_s("dbt")
                results.append(Result("day_million_versus_cosmos", ours, "s, dbt tasks", "Cosmos, a task a model",
                                      ours / theirs))  # fmt: skip
    return results


class _Run:
    """A finished run of `daily`, as Airflow tells of it."""

    def __init__(self, airflow: AirflowClient, dag_run_id: str, started: float) -> None:
        self.seconds = time.time() - started
        tasks = [task for task in airflow.tasks("daily", dag_run_id) if task["start_date"] and task["end_date"]]
        self._spans = {task["task_id"]: (_time(task["start_date"]), _time(task["end_date"])) for task in tasks}
        self.tasks = {task: end - start for task, (start, end) in sorted(self._spans.items(), key=lambda e: e[1])}
        self.published_s = self._spans["publish"][1] - started
        self.run_id = airflow.result("daily", dag_run_id, "publish")["run_id"]

    def span_s(self, group: str) -> float:
        """Seconds from the first begin to the last end of a group's tasks."""
        spans = [span for task, span in self._spans.items() if task.startswith(f"{group}.")]
        return max(end for _, end in spans) - min(start for start, _ in spans)


@contextmanager
def _running(data: DataFolder, peer: CosmosProject | None) -> Iterator[tuple[Stack, AirflowClient]]:
    dags = None
    if peer is not None:
        dags = peer.dags
        os.environ.update(peer.environment)
    with Stack(data, PROJECT, scheduled=False, dags=dags) as stack:
        stack.start_service()
        stack.start_airflow()
        airflow = stack.wait_airflow()
        airflow.unpause("daily")
        if peer is not None:
            airflow.wait_dag(DAG_ID, check=stack.check)
            airflow.unpause(DAG_ID)
        yield stack, airflow


def _day(stack: Stack, airflow: AirflowClient, date: dt.date, lines: int) -> _Run:
    with tidemill.connect(stack.address) as client:
        stream = client.stream("order_lines", on_rejected=_ignore)
        for batch in simulate_day(date, lines=lines).table.to_batches(BATCH_ROWS):
            last = stream.send_table(batch)
        last.result(120)
    run_id, started = f"bench-{date}", time.time()
    airflow.trigger("daily", {"date": str(date), "force": True}, run_id)
    for _ in airflow.follow("daily", run_id, check=stack.check):
        pass
    if airflow.run_state("daily", run_id) != "success":
        raise RuntimeError(f"daily failed: {airflow.failures('daily', run_id)}")
    return _Run(airflow, run_id, started)


def _time(text: Any) -> float:
    return dt.datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()


def _ignore(row: tidemill.Rejected) -> None:
    """The simulated day's broken rows are part of it."""
