"""What a run is asked to do, from its form, its interval and its project."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from quality.run import check_run_id

pytest.importorskip("airflow")

from airflow.sdk.exceptions import AirflowFailException

from orchestration.asked import run_asked, run_date, run_name, streams_of_project
from orchestration.late_events import asked_dates, groups_of

RUN_IDS = ["manual__2026-11-22T17:19:18.489456+00:00", "a~b", "a-b", "../../etc", "x" * 300, "~"]
NONE: dict[str, Any] = {"date": None, "last_date": None, "streams": []}


def test_a_runs_folder_is_named_by_its_date_and_differs_when_its_id_does() -> None:
    names = [run_name("2011-12-05", run_id) for run_id in RUN_IDS]
    assert len(set(names)) == len(RUN_IDS)
    for name in names:
        assert check_run_id(name) == name
        assert name.startswith("2011-12-05_")
        assert "/" not in name


def test_the_date_comes_from_the_form_before_the_interval() -> None:
    start = datetime(2026, 1, 2, tzinfo=UTC)
    assert run_date({"date": "2011-12-05"}, start) == "2011-12-05"
    assert run_date({"date": None}, start) == "2026-01-02"
    assert run_date({"date": ""}, datetime.fromisoformat("2026-01-02T23:00-03:00")) == "2026-01-03"


def test_what_is_asked_is_the_form_and_who_asks() -> None:
    params = {"date": "2011-12-05", "last_date": "2011-12-07", "streams": ["b", "a"], "force": True, "as_of": ""}
    asked = run_asked("daily", "manual__1", params, None)
    assert asked == {
        "run_id": run_name("2011-12-05", "manual__1"), "date": "2011-12-05", "last_date": "2011-12-07",
        "streams": ["a", "b"], "full_refresh": False, "force": True, "as_of": None,
        "holder": {"kind": "airflow", "dag_id": "daily", "run_id": "manual__1"},
    }  # fmt: skip
    assert run_asked("daily", "scheduled__1", NONE, datetime(2026, 1, 2, tzinfo=UTC))["streams"] is None


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (NONE, "neither a date nor a data interval"),
        ({**NONE, "last_date": "2011-12-05"}, "expected a date with the last date 2011-12-05"),
        ({**NONE, "date": "2011-12-05", "last_date": "2011-12-04"}, "at or after the first"),
    ],
)
def test_what_cannot_be_meant_is_refused(params: dict[str, Any], says: str) -> None:
    with pytest.raises(AirflowFailException, match=says):
        run_asked("daily", "manual__1", params, None)


def test_the_streams_are_those_of_the_dbt_sources(tmp_path: Path) -> None:
    folder = tmp_path / "dbt_project" / "models" / "sources"
    assert streams_of_project(tmp_path) == []
    folder.mkdir(parents=True)
    (folder / "two.yml").write_text(
        "sources:\n  - tables:\n    - meta:\n        stream: b_stream\n    - meta:\n        stream: 'a'\n"
    )
    (folder / "operations.yml").write_text("sources:\n  - description: stream of things\n    meta: {plugin: lake}\n")
    assert streams_of_project(tmp_path) == ["a", "b_stream"]


def test_late_dates_go_together_with_their_neighbours() -> None:
    pending = {"a": {"2011-12-31": 1, "2012-01-01": 2, "2012-01-03": 1}, "b": {"2012-01-02": 5, "2012-02-01": 1}}
    assert groups_of(pending) == [
        {"date": "2011-12-31", "last_date": "2012-01-03", "streams": ["a", "b"]},
        {"date": "2012-02-01", "last_date": "2012-02-01", "streams": ["b"]},
    ]
    assert groups_of({}) == []


def test_dates_by_hand_are_of_all_streams_unless_some_are_named() -> None:
    form = {"date": "2011-12-30", "last_date": "2012-01-01", "streams": []}
    assert groups_of(asked_dates(form)) == [{"date": "2011-12-30", "last_date": "2012-01-01", "streams": None}]
    named = {**form, "last_date": None, "streams": ["b", "a"]}
    assert groups_of(asked_dates(named)) == [{"date": "2011-12-30", "last_date": "2011-12-30", "streams": ["a", "b"]}]
    with pytest.raises(AirflowFailException, match="at or after the first"):
        asked_dates({**form, "last_date": "2011-12-01"})
    assert asked_dates({"date": None, "last_date": None, "streams": []}) == {}
    for given in ({"last_date": "2011-12-01"}, {"streams": ["a"]}):
        with pytest.raises(AirflowFailException, match="expected a date with"):
            asked_dates({"date": None, "last_date": None, "streams": [], **given})
