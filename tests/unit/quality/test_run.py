import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest

from quality import day
from quality.config import DayConfig
from quality.errors import BalanceFailed, ConfigWrong, Finding, ModelFailed, RunWrong, disk_full
from quality.run import (
    Options,
    Run,
    check_dates,
    check_run_id,
    fail_stage,
    finish_stage,
    forget_from,
    load_run,
    run_file,
    save_run,
)


@pytest.mark.parametrize("run_id", ["r1", "2011-12-05_manual-1_ab", "manual__2026-11-22T17:05:00+00:00", "a" * 200])
def test_a_run_id_is_a_name_inside_the_runs_folder(config: DayConfig, run_id: str):
    assert check_run_id(run_id) == run_id
    assert run_file(config, run_id).parent.parent == config.runs


@pytest.mark.parametrize(
    "run_id", ["", ".", "..", "../x", "a/b", "/etc", "a\\b", "a..b", ".hidden", "a\nb", "a\0", "a" * 201]
)
def test_a_run_id_that_is_no_name_is_refused(config: DayConfig, run_id: str):
    with pytest.raises(RunWrong, match="run id"):
        run_file(config, run_id)


def test_a_record_is_read_as_it_was_written_and_nothing_else_is_left(config: DayConfig, run: Run):
    assert load_run(config, "r1") == run
    assert os.listdir(config.run_folder("r1")) == ["run.json"]
    assert json.loads(run_file(config, "r1").read_text())["streams"]["payments"]["seal_offset"] == 4


def test_a_record_that_is_missing_or_damaged_is_named(config: DayConfig, run: Run):
    with pytest.raises(RunWrong, match="Seal a date first"):
        load_run(config, "other")
    run_file(config, "r1").write_text('{"run_id": "r1"')
    with pytest.raises(RunWrong, match="is no run record"):
        load_run(config, "r1")
    run_file(config, "r1").write_text('{"run_id": "r1", "streams": {"payments": {"unknown": 1}}}')
    with pytest.raises(RunWrong, match="is no run record"):
        load_run(config, "r1")


def test_a_failed_write_leaves_the_old_record(config: DayConfig, run: Run):
    broken = dataclasses.replace(run, stages={"seal": {"cannot": object()}})
    with pytest.raises(TypeError):
        save_run(config, broken)
    assert load_run(config, "r1") == run


def test_a_stage_run_again_makes_later_results_void(config: DayConfig, run: Run):
    for stage in ("check_sources", "dbt.staging", "check_marts"):
        finish_stage(config, load_run(config, "r1"), stage, {"stage": stage})
    forget_from(config, load_run(config, "r1"), "dbt.staging")
    assert list(load_run(config, "r1").stages) == ["seal", "check_sources"]


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        ("export", "seal"),
        ("check_sources", "export"),
        ("balance", "export"),
        ("build", "check_sources"),
        ("check_marts", "dbt.staging"),
        ("publish", "check_sources"),
        ("document", "publish"),
    ],
)
def test_a_stage_needs_those_before_it(config: DayConfig, run: Run, stage: str, missing: str):
    save_run(config, dataclasses.replace(run, stages={} if missing == "seal" else run.stages))
    with pytest.raises(RunWrong, match=missing):
        getattr(day, stage)(config, "r1")


@pytest.mark.parametrize(
    ("date", "last", "expected"),
    [("2011-12-05", None, "2011-12-05"), ("2011-12-05", "", "2011-12-05"), ("2011-12-05", "2011-12-09", "2011-12-09")],
)
def test_dates_are_one_or_a_range(date: str, last: str | None, expected: str):
    assert check_dates(date, last) == ("2011-12-05", expected)


@pytest.mark.parametrize(("date", "last"), [("5.12.2011", None), ("2011-02-30", None), ("2011-12-05", "2011-12-04")])
def test_dates_that_are_none_or_the_wrong_way_round_are_refused(date: str, last: str | None):
    with pytest.raises(RunWrong, match="expected"):
        check_dates(date, last)


def test_the_project_is_its_folder_or_the_folder_around_it(config: DayConfig, tmp_path: Path):
    around = tmp_path / "around"
    around.mkdir()
    config.project.rename(around / "dbt_project")
    assert DayConfig(tmp_path, around, "a:1").project == around / "dbt_project"
    assert DayConfig(tmp_path, around / "dbt_project", "a:1").project == around / "dbt_project"
    with pytest.raises(ConfigWrong, match="TIDEMILL_PROJECT"):
        DayConfig(tmp_path, tmp_path / "nowhere", "a:1")


def test_the_environment_names_all_three(config: DayConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TIDEMILL_DATA", str(config.data))
    monkeypatch.setenv("TIDEMILL_PROJECT", str(config.project))
    monkeypatch.setenv("TIDEMILL_ADDRESS", "localhost:1")
    assert DayConfig.from_environment() == config


def test_a_record_that_an_older_release_wrote_is_read(config: DayConfig, run: Run):
    pin = {"seal_offset": 4, "lake_uri": "/lake/payments", "lake_version": 1, "lake_offset": 6, "counts": {}}
    old = {"run_id": "old", "date": "2011-12-05", "last_date": "2011-12-05", "streams": {"payments": pin},
           "stages": {"seal": {"run_id": "old"}, "build": {"models": {}}}}  # fmt: skip
    run_file(config, "old").parent.mkdir(parents=True)
    run_file(config, "old").write_text(json.dumps(old))
    read = load_run(config, "old")
    assert (read.result("seal"), read.options, read.failures) == ({"run_id": "old"}, Options(), ())
    assert read.fresh["payments"].exported
    save_run(config, read)
    assert load_run(config, "old") == read


def test_what_a_stage_failed_by_is_kept_until_it_is_run_again(config: DayConfig, run: Run):
    findings = [
        Finding("no_orders", "Got 3", 3, ("a=1", "a=2"), "/failed/no_orders.parquet"),
        Finding("fct_orders", "Binder Error"),
    ]
    fail_stage(config, "r1", "dbt.marts", ModelFailed("two failed", ["no_orders", "fct_orders"], "/log", findings))
    first, second = load_run(config, "r1").failures
    assert (first["stage"], first["error"], first["names"], first["rows"]) == (
        "dbt.marts", "two failed", ["no_orders"], 3,
    )  # fmt: skip
    assert (first["sample"], first["file"]) == (["a=1", "a=2"], "/failed/no_orders.parquet")
    assert (second["names"], second["rows"], second["file"]) == (["fct_orders"], None, "")
    fail_stage(config, "r1", "balance", BalanceFailed("uneven", ["a 1 ≠ b 2"]))
    assert [each["stage"] for each in load_run(config, "r1").failures] == ["dbt.marts", "dbt.marts", "balance"]
    assert load_run(config, "r1").state == "failed"
    assert [f["stage"] for f in forget_from(config, load_run(config, "r1"), "dbt.staging").failures] == ["balance"]
    # Where nothing is recorded, the error is all there is.
    fail_stage(config, "nowhere", "seal", ValueError("x"))
    assert not config.run_folder("nowhere").exists()


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EIO, "x"), False),
        (ValueError("No space left on device"), True),
    ],
)
def test_a_full_disk_is_known_by_whatever_told_of_it(error: Exception, full: bool):
    found = disk_full(error)
    assert (found is not None) == full
    assert found is None or found.retryable
