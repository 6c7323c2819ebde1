"""A real Airflow for the session: the repository's `daily` beside small DAGs made for the tests, under one stack."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import processes_of

from tidemill.local.airflow_client import AirflowClient
from tidemill.local.folder import DataFolder, find_project
from tidemill.local.stack import Stack

PROJECT = find_project(start=Path(__file__).parent, environment={})
DATE = dt.date(2011, 12, 5)

SMALL_DAGS = """
from datetime import timedelta

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowFailException


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


small()
failing()
"""


@pytest.fixture(scope="package")
def dags_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "dags"
    shutil.copytree(PROJECT / "dags", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "small.py").write_text(SMALL_DAGS)
    return folder


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory, dags_folder: Path) -> Iterator[Stack]:
    """Service and Airflow; afterwards none of their processes is left."""
    folder = DataFolder(tmp_path_factory.mktemp("tidemill") / "data")
    with Stack(folder, PROJECT, scheduled=False, dags=dags_folder) as running:
        running.start_airflow()
        running.start_service()
        running.wait_airflow()
        yield running
    assert processes_of(folder.root) == [], "processes outlived their stack"


@pytest.fixture(scope="package")
def client(stack: Stack) -> AirflowClient:
    made = AirflowClient(stack.airflow_url, stack.login)
    for dag_id in ("daily", "small", "failing"):
        made.wait_dag(dag_id, check=stack.check)
        made.unpause(dag_id)
    return made
