"""A real Airflow for the session: the repository's DAGs beside small ones made for the tests, under one stack."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hook import Hook
from support.processes import processes_of

from tidemill.local.airflow_client import AirflowClient
from tidemill.local.folder import DataFolder, find_project
from tidemill.local.stack import Stack

PROJECT = find_project(start=Path(__file__).parent, environment={})
DATE = dt.date(2011, 12, 5)
DAGS = ("daily", "small", "failing", "late_events", "import_files", "maintain", "calendar", "almanac")

SMALL_DAGS = """
from datetime import UTC, datetime, timedelta

from airflow.sdk import CronDataIntervalTimetable, Param, dag, task
from airflow.sdk.exceptions import AirflowFailException

from orchestration import daily_dag, late_events_dag
from orchestration.alerts import task_failed
from orchestration.deadline import publication_deadline


@dag(schedule=None, params={"wait_for": Param(None, type=["null", "string"]), "size": Param(1, enum=[1, 2])})
def small():
    @task
    def first():
        return {"answer": 42}

    @task
    def second(given):
        return given["answer"] + 1

    second(first())


@dag(schedule=None, default_args={"retries": 3, "retry_delay": timedelta(seconds=1)})
def failing():
    @task
    def refuse():
        try:
            raise ValueError("the cause")
        except ValueError as error:
            raise AirflowFailException("view sales_by_minute differs by 12.50") from error

    @task
    def after(nothing):
        pass

    after(refuse())


# Of the newest date alone, and late already when it begins.
@dag(
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=datetime(2011, 1, 1, tzinfo=UTC),
    catchup=False,
    deadline=publication_deadline("00:00"),
)
def overdue():
    @task
    def nothing():
        pass

    nothing()


small()
failing()
overdue()
# With a schedule, as a backfill wants one, that is over. Two, because each has one backfill at a time.
calendar, almanac = daily_dag("calendar", scheduled=True), daily_dag("almanac", scheduled=True)
calendar.end_date = almanac.end_date = datetime(2011, 12, 31, tzinfo=UTC)
late_by_itself = late_events_dag("late_by_itself", scheduled=True, quiet_s=1.0)
"""


@pytest.fixture(scope="package")
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.close()


@pytest.fixture(scope="package")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, for tests to break."""
    root = tmp_path_factory.mktemp("project")
    ignored = shutil.ignore_patterns("__pycache__", "target", "logs", ".user.yml")
    for name in ("proto", "dbt_project", "suites", "dags"):
        shutil.copytree(PROJECT / name, root / name, ignore=ignored)
    (root / "dags" / "small.py").write_text(SMALL_DAGS)
    return root


@pytest.fixture(scope="package")
def dags_folder(project: Path) -> Path:
    return project / "dags"


@pytest.fixture(scope="package")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that files are imported from."""
    return tmp_path_factory.mktemp("landing")


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory, project: Path, hook: Hook, landing: Path) -> Iterator[Stack]:
    """Service and Airflow; afterwards none of their processes is left."""
    folder = DataFolder(tmp_path_factory.mktemp("tidemill") / "data")
    settings = {"TIDEMILL_ALERT_WEBHOOK": hook.url, "TIDEMILL_LANDING": str(landing)}
    with Stack(folder, project, scheduled=False, settings=settings) as running:
        running.start_airflow()
        running.start_service()
        running.wait_airflow()
        yield running
    assert processes_of(folder.root) == [], "processes outlived their stack"


@pytest.fixture(scope="package")
def client(stack: Stack) -> AirflowClient:
    made = AirflowClient(stack.airflow_url, stack.login)
    for dag_id in DAGS:
        made.wait_dag(dag_id, check=stack.check)
        made.unpause(dag_id)
    return made
