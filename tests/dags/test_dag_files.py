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

from tidemill.local.folder import find_project

pytest.importorskip("airflow")
DAGS = find_project(start=Path(__file__).parent, environment={}) / "dags"
HEAVY = ["dbt", "duckdb", "great_expectations", "pandas", "pyarrow", "deltalake", "grpc", "sqlglot", "yaml", "quality"]
# Airflow's own imports are not the file's: they are there before it, as they are in Airflow.
INSPECT = """
import importlib.util, json, sys, time
from airflow.sdk import DAG, dag, task
from airflow.sdk.definitions._internal.contextmanager import DagContext
before = set(sys.modules)
started = time.process_time()
DagContext.current_autoregister_module_name = "inspected"
spec = importlib.util.spec_from_file_location("inspected", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["inspected"] = module
spec.loader.exec_module(module)
print("RESULT" + json.dumps({
    "seconds": time.process_time() - started,
    "value": eval(sys.argv[2], vars(module)),
    "imported": sorted(set(sys.modules) - before),
    "dags": [
        {
            "dag_id": d.dag_id, "doc": d.doc_md, "tags": sorted(d.tags), "catchup": d.catchup,
            "max_active_runs": d.max_active_runs, "params": d.params.dump(), "timetable": type(d.timetable).__name__,
            "deadlines": [a.interval.total_seconds() for a in d.deadline or ()],
            "streams": d.params.get_param("streams").schema["examples"] if "streams" in d.params else None,
            "tasks": [
                {"task_id": t.task_id, "owner": t.owner, "retries": t.retries, "doc": t.doc_md, "pool": t.pool,
                 "setup": t.is_setup, "teardown": t.is_teardown, "upstream": sorted(t.upstream_task_ids),
                 "alerts": [c.__name__ for c in t.on_failure_callback or ()]}
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


def test_it_is_read_within_a_second(inspected: dict[str, Any]) -> None:
    # Of the processor's time, some thirty times what it takes: other processes don't count.
    assert inspected["seconds"] < 1


def test_it_says_whose_it_is_and_what_for(inspected: dict[str, Any]) -> None:
    assert inspected["dags"]
    for dag in inspected["dags"]:
        assert dag["doc"]
        assert "tidemill" in dag["tags"]
        assert dag["catchup"] is False
        for task in dag["tasks"]:
            assert task["owner"] == "tidemill"
            assert task["doc"], task["task_id"]
            assert task["alerts"] == ["task_failed"]
            # The wait asks again by itself, for as long as it has patience.
            assert task["retries"] == 0 if task["task_id"] == "wait" else task["retries"] > 0


def test_no_dag_file_has_a_name_that_dbt_would_import() -> None:
    assert [file.name for file in DAGS.glob("dbt_*")] == []


def test_airflow_takes_each_file_for_one_of_dags() -> None:
    for file in DAGS.glob("*.py"):
        text = file.read_text().lower()
        assert "dag" in text, file
        assert "airflow" in text, file


ORDER = ["wait", "take_turn", "seal", "export", "check_sources", "balance", "dbt.staging", "dbt.intermediate",
         "dbt.marts", "dbt.live", "check_marts", "reconcile", "publish"]  # fmt: skip
DAILY_PARAMS = {"date": None, "last_date": None, "streams": [], "full_refresh": False, "force": False, "as_of": None}


@pytest.fixture(scope="module")
def daily(home: Path) -> dict[str, Any]:
    return dict(inspect(DAGS / "daily.py", home, TIDEMILL_PROJECT=str(DAGS.parent))["dags"][0])


def test_daily_runs_its_stages_in_order_inside_the_turn(daily: dict[str, Any]) -> None:
    tasks = {task["task_id"]: task for task in daily["tasks"]}
    assert sorted(tasks) == sorted([*ORDER, "give_turn", "docs"])
    for before, after in [*itertools.pairwise(ORDER), ("publish", "give_turn"), ("publish", "docs")]:
        assert before in tasks[after]["upstream"]
    assert [name for name, task in tasks.items() if task["setup"]] == ["take_turn"]
    assert [name for name, task in tasks.items() if task["teardown"]] == ["give_turn"]
    assert "give_turn" not in tasks["docs"]["upstream"]
    assert {task["pool"] for task in tasks.values()} == {"default_pool"}


def test_daily_asks_for_dates_and_the_projects_streams(daily: dict[str, Any]) -> None:
    assert daily["params"] == DAILY_PARAMS
    assert daily["streams"] == ["order_lines", "readings", "web_requests"]
    assert daily["max_active_runs"] == 32


@pytest.mark.parametrize("name", ["daily", "maintain", "late_events"])
def test_schedules_may_be_left_off(home: Path, name: str) -> None:
    timetables = [
        inspect(DAGS / f"{name}.py", home, TIDEMILL_SCHEDULED=scheduled)["dags"][0]["timetable"] for scheduled in "10"
    ]
    scheduled = {"daily": "CronDataIntervalTimetable", "maintain": "CronTriggerTimetable"}
    assert timetables == [scheduled.get(name, "AssetTriggeredTimetable"), "NullTimetable"]


def test_files_are_looked_for_once_there_is_a_place_for_them(home: Path) -> None:
    file = DAGS / "import_files.py"
    assert inspect(file, home, TIDEMILL_LANDING="")["dags"][0]["timetable"] == "NullTimetable"
    assert inspect(file, home, TIDEMILL_LANDING="/landing")["dags"][0]["timetable"] == "CronTriggerTimetable"


def test_the_deadline_is_an_hour_of_the_next_day(home: Path) -> None:
    file = DAGS / "daily.py"
    assert inspect(file, home, TIDEMILL_DEADLINE="")["dags"][0]["deadlines"] == []
    assert inspect(file, home, TIDEMILL_DEADLINE="06:30")["dags"][0]["deadlines"] == [30.5 * 3600]
    with pytest.raises(AssertionError, match="expected an hour of the day"):
        inspect(file, home, TIDEMILL_DEADLINE="6 am")
