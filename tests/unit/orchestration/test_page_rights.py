"""Who is logged in sees what their rights in Airflow let them see, whatever an address names."""

from __future__ import annotations

import datetime as dt
import warnings
from pathlib import Path

import pytest

pytest.importorskip("airflow")

# What Airflow's API server imports warns of what it imports; what we do is not under suspicion yet.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from airflow.api_fastapi.core_api.security import get_user
    from starlette.testclient import TestClient

    from orchestration.pages import app, login

from orchestration.pages.days import Counted
from quality.config import DayConfig
from quality.run import Options, Run, save_run


class Rights:
    """An auth manager that lets users read the runs of some DAGs."""

    def __init__(self, *dags: str) -> None:
        self.dags = dags

    def is_authorized_dag(self, *, details, **_: object) -> bool:
        return details.id in self.dags


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DayConfig:
    (tmp_path / "dbt_project.yml").write_text("name: small\n")
    monkeypatch.setenv("TIDEMILL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TIDEMILL_PROJECT", str(tmp_path))
    monkeypatch.setenv("TIDEMILL_ADDRESS", "127.0.0.1:1")
    config = DayConfig.from_environment()
    at = dt.datetime(2011, 12, 6, tzinfo=dt.UTC).isoformat()
    failure = {"stage": "reconcile", "at": at, "error": "no", "names": ["a_secret_view"], "rows": 1, "sample": [],
               "file": ""}  # fmt: skip
    run = Run("2011-12-05_a", "2011-12-05", "2011-12-05", options=Options(dag_id="daily", dag_run_id="a"),
              failures=(failure,), began_at=at)  # fmt: skip
    save_run(config, run)
    for file in (config.dbt_docs, config.data_docs / "index.html"):
        file.parent.mkdir(parents=True)
        file.write_text("rows of events")
    return config


def ask(monkeypatch: pytest.MonkeyPatch, path: str, *dags: str) -> tuple[int, str]:
    monkeypatch.setattr(login, "get_auth_manager", lambda: Rights(*dags))
    monkeypatch.setattr(app, "count_log", lambda _: Counted())
    made = app.make_app()
    made.dependency_overrides[get_user] = lambda: "somebody"
    answer = TestClient(made).get(path)
    return answer.status_code, answer.text


@pytest.mark.parametrize("path", ["/docs/dbt/", "/docs/data/"])
def test_docs_are_for_who_may_read_the_day(config: DayConfig, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    assert ask(monkeypatch, path, "daily") == (200, "rows of events")
    status, text = ask(monkeypatch, path, "import_files")
    assert (status, "rows of events" in text) == (403, False)


def test_another_dags_page_tells_nothing_of_runs_that_may_not_be_read(
    config: DayConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "a_secret_view" in ask(monkeypatch, "/days?dag=daily", "daily")[1]
    assert ask(monkeypatch, "/days?dag=daily", "import_files")[0] == 403
    status, text = ask(monkeypatch, "/days?dag=import_files", "import_files")
    assert (status, "a_secret_view" in text, "2011-12-05_a" in text) == (200, False, False)
    assert ask(monkeypatch, "/records/2011-12-05_a", "import_files")[0] == 403
