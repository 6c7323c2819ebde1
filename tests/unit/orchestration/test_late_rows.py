"""When late rows start a reprocessing: bundled, and never for the same rows again."""

from __future__ import annotations

import random
from pathlib import Path

import duckdb
import pytest

pytest.importorskip("airflow")

from orchestration import triggers
from orchestration.triggers import Bundle, LateRowsTrigger, TurnTrigger, WatermarkTrigger
from quality import late, turn

ONE = {"a": {"2011-12-05": 1}}
TWO = {"a": {"2011-12-05": 2}}


def test_it_fires_once_nothing_more_has_come_for_a_while() -> None:
    bundle = Bundle(quiet_s=30, bundle_s=600)
    assert not bundle.is_due(ONE, 0)
    assert not bundle.is_due(TWO, 29)
    assert not bundle.is_due(TWO, 58)
    assert bundle.is_due(TWO, 59)
    assert bundle.fired == TWO


def test_a_trickle_is_cut() -> None:
    bundle = Bundle(quiet_s=30, bundle_s=100)
    due = [now for now in range(0, 200, 10) if bundle.is_due({"a": {"2011-12-05": 1 + now}}, now)]
    assert due == [100]


def test_it_fires_again_only_for_more() -> None:
    bundle = Bundle(quiet_s=0, bundle_s=0)
    assert bundle.is_due(ONE, 0)
    assert not bundle.is_due(ONE, 1000)  # the reprocessing failed: a person looks at it
    assert bundle.is_due(TWO, 1001)
    assert bundle.is_due({**TWO, "b": {"2011-12-05": 1}}, 1002)
    assert not bundle.is_due({"b": {"2011-12-05": 1}}, 1003)  # published in part


def test_what_was_published_may_be_late_again() -> None:
    bundle = Bundle(quiet_s=0, bundle_s=0)
    assert bundle.is_due(ONE, 0)
    assert not bundle.is_due({}, 1)
    assert bundle.fired == {}
    assert bundle.is_due(ONE, 2)


def test_it_goes_on_from_what_was_kept() -> None:
    first = Bundle(quiet_s=0, bundle_s=0)
    assert first.is_due(ONE, 0)
    assert first.changed
    second = Bundle(quiet_s=0, bundle_s=0, fired=first.fired)
    assert not second.is_due(ONE, 0)
    assert not second.changed


def test_every_late_row_is_fired_for_in_the_end() -> None:
    """Whatever comes when: once it is quiet, what is pending has been fired for, or was published."""
    for seed in range(200):
        chance = random.Random(seed)
        bundle, pending, now = Bundle(quiet_s=5, bundle_s=20), {}, 0.0
        for _ in range(40):
            now += chance.choice([1, 3, 6])
            match chance.randrange(4):
                case 0:
                    pending = {}
                case 1:
                    dates = pending.get("a", {})
                    date = chance.choice(["2011-12-05", "2011-12-06"])
                    pending = {"a": {**dates, date: dates.get(date, 0) + 1}}
            bundle.is_due(pending, now)
        for _ in range(3):
            now += 6
            bundle.is_due(pending, now)
        assert bundle.fired == pending, f"seed {seed}"


@pytest.mark.parametrize(
    "trigger",
    [
        LateRowsTrigger(quiet_s=1, bundle_s=2, poll_s=3),
        TurnTrigger(ticket={"ticket_id": "a"}, poll_s=1.0),
        WatermarkTrigger(last_date="2011-12-05", streams=["a"], until="2011-12-06T00:00:00+00:00", poll_s=1.0),
    ],
    ids=lambda trigger: type(trigger).__name__,
)
def test_a_trigger_is_made_again_from_what_it_gives(trigger: object) -> None:
    import importlib

    path, arguments = trigger.serialize()  # type: ignore[attr-defined]
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**arguments)
    assert again.serialize() == (path, arguments)


@pytest.mark.parametrize("error", [duckdb.IOException("Could not set lock on file"), OSError("gone")])
def test_what_cannot_be_looked_at_now_is_looked_at_again(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dbt_project.yml").write_text("name: small\n")
    monkeypatch.setenv("TIDEMILL_PROJECT", str(tmp_path))
    monkeypatch.setenv("TIDEMILL_DATA", str(tmp_path / "data"))

    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(late, "pending", refuse)
    assert triggers._pending() is None


def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dbt_project.yml").write_text("name: small\n")
    monkeypatch.setenv("TIDEMILL_PROJECT", str(tmp_path))
    monkeypatch.setenv("TIDEMILL_DATA", str(tmp_path / "data"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(turn, "write_atomically", full)
    holder = {"kind": "airflow", "dag_id": "daily", "run_id": "a"}
    ticket = {"ticket_id": "a", "run_id": "a", "date": "2011-12-05", "holder": holder}
    assert triggers.ask_turn(ticket) == {"turn": "wait", "holder": None}
