"""The teardown that gives the turn back: who was taken along is served by what was published in that turn alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow")

from orchestration.turn import give_turn
from quality.config import DayConfig
from quality.run import Run, finish_stage, save_run
from quality.turn import Ticket, give, take


def _ticket(name: str, date: str) -> Ticket:
    return Ticket.of({"ticket_id": name, "run_id": name, "date": date, "holder": {"kind": "airflow", "run_id": name}})


def _publish(config: DayConfig, run_id: str, date: str, last_date: str) -> None:
    run = Run(run_id, date, last_date)
    save_run(config, run)
    finish_stage(config, run, "publish", {})


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DayConfig:
    (tmp_path / "dbt_project.yml").write_text("name: small\n")
    monkeypatch.setenv("TIDEMILL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TIDEMILL_PROJECT", str(tmp_path))
    return DayConfig.from_environment()


def _take_along(config: DayConfig) -> dict[str, Any]:
    """Let run "a" have the turn, with "b" taken along."""
    take(config, _ticket("before", "2011-11-01"))
    for name, date in (("a", "2011-12-01"), ("b", "2011-12-02")):
        assert take(config, _ticket(name, date))["turn"] == "wait"
    give(config, "before", failed=True)
    held = take(config, _ticket("a", "2011-12-01"))
    assert held["companions"] == ["b"]
    return held


def test_what_an_earlier_attempt_published_serves_nobody(config: DayConfig) -> None:
    _publish(config, "a", "2011-12-01", "2011-12-02")
    # Cleared, with a companion this time, and killed before it could seal.
    give_turn.function(_take_along(config))
    assert take(config, _ticket("b", "2011-12-02"))["turn"] == "held"


def test_what_was_published_in_the_turn_serves_those_taken_along(config: DayConfig) -> None:
    held = _take_along(config)
    _publish(config, "a", held["date"], held["last_date"])
    give_turn.function(held)
    assert take(config, _ticket("b", "2011-12-02"))["turn"] == "shared"
