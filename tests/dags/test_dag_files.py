"""Every DAG file: quick to import, thin, and says who owns it, what it is for and what a retry can help."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quality.run import check_run_id
from tidemill.local.folder import find_project

pytest.importorskip("airflow")
DAGS = find_project(start=Path(__file__).parent, environment={}) / "dags"
HEAVY = ["dbt", "duckdb", "great_expectations", "pandas", "pyarrow", "deltalake", "grpc._channel", "sqlglot", "quality"]
# Airflow's own imports are not the file's: they are there before it, as they are in Airflow.
INSPECT = """
import importlib.util, json, sys
from airflow.sdk import DAG, dag, task
from airflow.sdk.definitions._internal.contextmanager import DagContext
before = set(sys.modules)
DagContext.current_autoregister_module_name = "inspected"
spec = importlib.util.spec_from_file_location("inspected", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["inspected"] = module
spec.loader.exec_module(module)
print("RESULT" + json.dumps({
    "value": eval(sys.argv[2], vars(module)),
    "imported": sorted(set(sys.modules) - before),
    "dags": [
        {
            "dag_id": d.dag_id, "doc": d.doc_md, "tags": sorted(d.tags), "catchup": d.catchup,
            "max_active_runs": d.max_active_runs, "params": d.params.dump(), "timetable": type(d.timetable).__name__,
            "tasks": [
                {"task_id": t.task_id, "owner": t.owner, "retries": t.retries, "doc": t.doc_md, "pool": t.pool,
                 "upstream": sorted(t.upstream_task_ids)}
                for t in d.tasks
            ],
        }
        for d, _ in DagContext.autoregistered_dags
    ],
}))
"""


def inspect(file: Path, home: Path, expression: str = "None", **environment: str) -> dict[str, Any]:
    answer = subprocess.run(
        [sys.executable, "-c", INSPECT, str(file), expression],
        env={**os.environ, "AIRFLOW_HOME": str(home), "PYTHONWARNINGS": "ignore", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    (line,) = [line for line in answer.stdout.splitlines() if line.startswith("RESULT")]
    return dict(json.loads(line.removeprefix("RESULT")))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="module", params=sorted(DAGS.glob("*.py")), ids=lambda file: file.stem)
def inspected(request: pytest.FixtureRequest, home: Path) -> dict[str, Any]:
    return inspect(request.param, home)


def test_it_imports_nothing_heavy(inspected: dict[str, Any]) -> None:
    assert [name for name in inspected["imported"] if any(f"{name}.".startswith(f"{h}.") for h in HEAVY)] == []


def test_it_says_whose_it_is_and_what_for(inspected: dict[str, Any]) -> None:
    assert inspected["dags"]
    for dag in inspected["dags"]:
        assert dag["doc"]
        assert "tidemill" in dag["tags"]
        assert dag["catchup"] is False
        for task in dag["tasks"]:
            assert task["owner"] == "tidemill"
            assert task["doc"], task["task_id"]
            assert task["retries"] > 0


def test_no_dag_file_has_a_name_that_dbt_would_import() -> None:
    assert [file.name for file in DAGS.glob("dbt_*")] == []


RUN_IDS = ["manual__2026-11-22T17:19:18.489456+00:00", "a~b", "a-b", "../../etc", "x" * 300, "~"]
EXPRESSION = f"""{{
    "names": [run_name("2011-12-05", run_id) for run_id in {RUN_IDS!r}],
    "dates": [
        run_date({{"date": "2011-12-05"}}, datetime(2026, 1, 2, tzinfo=UTC)),
        run_date({{"date": None}}, datetime(2026, 1, 2, tzinfo=UTC)),
        run_date({{"date": ""}}, datetime.fromisoformat("2026-01-02T23:00-03:00")),
    ],
}}"""


@pytest.fixture(scope="module")
def daily(home: Path) -> dict[str, Any]:
    return inspect(DAGS / "daily.py", home, EXPRESSION)


def test_daily_runs_its_stages_in_order_and_writes_in_the_writers_pool(daily: dict[str, Any]) -> None:
    (dag,) = daily["dags"]
    tasks = {task["task_id"]: task for task in dag["tasks"]}
    order = ["seal", "check_sources", "dbt", "check_marts", "reconcile", "publish", "docs"]
    assert sorted(tasks) == sorted(order)
    for before, after in itertools.pairwise(order):
        assert before in tasks[after]["upstream"]
    assert {name for name, task in tasks.items() if task["pool"] == "warehouse_writer"} == {"dbt", "publish"}
    assert dag["max_active_runs"] == 1
    assert dag["params"] == {"date": None, "last_date": None, "force": False}


def test_daily_has_a_real_interval_unless_told_to_wait_for_triggers(daily: dict[str, Any], home: Path) -> None:
    assert daily["dags"][0]["timetable"] == "CronDataIntervalTimetable"
    unscheduled = inspect(DAGS / "daily.py", home, TIDEMILL_SCHEDULED="0")
    assert unscheduled["dags"][0]["timetable"] == "NullTimetable"


def test_a_runs_folder_is_named_by_its_date_and_differs_when_its_id_does(daily: dict[str, Any]) -> None:
    names = daily["value"]["names"]
    assert len(set(names)) == len(RUN_IDS)
    for name in names:
        assert check_run_id(name) == name
        assert name.startswith("2011-12-05_")
        assert "/" not in name


def test_the_date_comes_from_the_form_before_the_interval(daily: dict[str, Any]) -> None:
    assert daily["value"]["dates"] == ["2011-12-05", "2026-01-02", "2026-01-03"]
