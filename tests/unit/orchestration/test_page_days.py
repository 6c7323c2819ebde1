"""The list of days: what is told of a date, gaps, pages of years of dates, and what cannot be known."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import duckdb
import pytest

from orchestration.pages.days import PAGE_DAYS, Counted, Day, Gap, Show, count_log, list_days, take_page
from orchestration.pages.published import Publication, Published, Warehouse
from orchestration.pages.records import Records, Summary
from quality.config import DayConfig
from quality.run import Pin, Run, save_run

FIRST = dt.date(2010, 1, 1)
TODAY = dt.date(2012, 1, 1)


def day(number: int) -> dt.date:
    return FIRST + dt.timedelta(days=number)


def at(date: dt.date, hour: int = 1) -> dt.datetime:
    return dt.datetime.combine(date + dt.timedelta(days=1), dt.time(hour), dt.UTC)


def record(date: dt.date, *, failed: bool = False, hour: int = 2, warnings: int = 0) -> Summary:
    when = at(date, hour).isoformat()
    stages = {} if failed else {"publish": {"result": {}, "started_at": when, "ended_at": when}}
    checked = {"checks": 3, "warnings": [{}] * warnings}
    stages["check_sources"] = {"result": checked, "started_at": when, "ended_at": when}
    failure = {"stage": "reconcile", "at": when, "error": "no", "names": ["sales_by_minute"], "rows": 1, "sample": [],
               "file": ""}  # fmt: skip
    return Summary.of(
        Run(f"{date}_{hour}", str(date), str(date), stages=stages, failures=(failure,) if failed else (), began_at=when)
    )


def published(*dates: dt.date, rows: int = 10) -> Published:
    made = tuple(Publication(f"{date}_2", date, date, at(date, 3)) for date in sorted(dates, reverse=True))
    return Published(made, {date: {"order_lines": rows} for date in dates})


def test_a_published_date_has_its_run_and_what_came_late():
    counted = Counted({day(0): {"order_lines": 13}})
    (only,) = list_days(published(day(0)), [record(day(0), warnings=2)], counted, TODAY)
    assert only.publication
    assert only.run is not None
    assert (only.run.warnings, only.attempt, only.late, only.total) == (2, None, 3, 10)
    assert [show for show in Show if only.is_shown(show)] == [Show.ALL, Show.PUBLISHED, Show.WARNED, Show.LATE]


def test_a_date_that_was_published_without_a_stream_is_not_done():
    counted = Counted({day(0): {"order_lines": 10, "web_requests": 4, "readings": 0}})
    (only,) = list_days(published(day(0)), [], counted, TODAY)
    assert (only.late, only.left_out) == (0, {"web_requests": 4})
    assert [show for show in Show if only.is_shown(show)] == [Show.ALL, Show.PUBLISHED, Show.OPEN]


def test_a_run_that_failed_after_the_publication_is_told_and_one_before_it_is_not():
    later, earlier = record(day(0), failed=True, hour=5), record(day(0), failed=True, hour=1)
    for runs, told in (([later], later), ([earlier], None), ([later, earlier], later)):
        (only,) = list_days(published(day(0)), [record(day(0)), *runs], Counted(), TODAY)
        assert only.attempt == told
        assert only.failed is (told is not None)


def test_a_date_with_events_that_was_never_run_and_one_that_is_not_over():
    counted = Counted({day(0): {"order_lines": 5}, TODAY: {"order_lines": 1}})
    today, first = list_days(Published(), [], counted, TODAY)
    assert (first.over, first.total, first.publication, first.late) == (True, 5, None, 0)
    assert not today.over


def test_a_publication_of_many_dates_covers_each():
    many = Published((Publication("r", day(0), day(399), at(day(399))),), {})
    assert len(list_days(many, [], Counted(), TODAY)) == 400


def test_dates_of_which_nothing_is_known_are_one_entry():
    days = list_days(published(day(0), day(2), day(700)), [], Counted(), TODAY)
    entries = take_page(days, Show.ALL, 1, None).entries
    assert [entry.date if isinstance(entry, Day) else (entry.first, entry.last, entry.days) for entry in entries] == [
        day(700), (day(3), day(699), 697), day(2), (day(1), day(1), 1), day(0),
    ]  # fmt: skip
    assert not any(isinstance(entry, Gap) for entry in take_page(days, Show.PUBLISHED, 1, None).entries)


def test_years_of_dates_come_in_pages_and_a_date_has_its_own():
    days = list_days(published(*(day(number) for number in range(700))), [], Counted(), TODAY)
    first = take_page(days, Show.ALL, 1, None)
    assert (len(first.entries), first.pages, first.counts[Show.ALL]) == (PAGE_DAYS, -(-700 // PAGE_DAYS), 700)
    seen = [entry for page in range(1, first.pages + 1) for entry in take_page(days, Show.ALL, page, None).entries]
    assert seen == days
    for wanted in (day(0), day(350), day(699)):
        entries = take_page(days, Show.ALL, 1, wanted).entries
        assert wanted in [entry.date for entry in entries if isinstance(entry, Day)]
    assert take_page(days, Show.ALL, 10_000, None).page == first.pages
    assert take_page(days, Show.ALL, -1, None).page == 1
    assert take_page(days, Show.ALL, 1, dt.date(1970, 1, 1)).page == first.pages


def test_no_days_are_one_empty_page():
    listed = take_page([], Show.FAILED, 3, TODAY)
    assert (listed.entries, listed.page, listed.pages, listed.last_published) == ([], 1, 1, None)


@pytest.fixture
def config(tmp_path: Path) -> DayConfig:
    project = tmp_path / "project"
    project.mkdir()
    (project / "dbt_project.yml").write_text("name: own\n")
    return DayConfig(data=tmp_path / "data", project=project, address="127.0.0.1:1")


def test_before_the_first_publication_nothing_is_published(config: DayConfig):
    assert Warehouse().read(config) == Published()


def test_a_file_that_is_no_warehouse_is_a_problem_and_not_an_error(config: DayConfig):
    config.warehouse.parent.mkdir(parents=True)
    config.warehouse.write_text("no database")
    assert str(config.warehouse) in Warehouse().read(config).problem


def put_warehouse(config: DayConfig, *runs: str) -> None:
    new = config.warehouse.with_name("new.duckdb")
    new.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(new)) as connection:
        connection.execute("create table tidemill_published (run_id varchar, first_date date, last_date date, "
                           "streams json, built_at timestamptz, published_at timestamptz)")  # fmt: skip
        for run in runs:
            values = "(?, '2010-01-01', '2010-01-02', '{}', now(), now())"
            connection.execute(f"insert into tidemill_published values {values}", [run])
    new.replace(config.warehouse)


def test_the_next_publication_is_seen_and_the_file_is_held_by_nobody(config: DayConfig):
    warehouse = Warehouse()
    put_warehouse(config, "first")
    assert [each.run_id for each in warehouse.read(config).publications] == ["first"]
    assert warehouse.read(config) is warehouse.read(config)
    # A reader that kept it open would keep a writer out.
    with duckdb.connect(str(config.warehouse)) as connection:
        connection.execute("create table written as select 1")
    put_warehouse(config, "first", "second")
    assert {each.run_id for each in warehouse.read(config).publications} == {"first", "second"}


def test_a_service_that_is_away_leaves_the_counts_unknown(config: DayConfig):
    counted = count_log(config)
    assert not counted.rows
    assert "127.0.0.1:1" in counted.problem


def test_records_are_read_again_once_they_change_and_what_is_none_is_passed_over(config: DayConfig):
    records = Records()
    assert records.all(config) == []
    run = Run("a", "2010-01-01", "2010-01-01", streams={"s": Pin(1)}, began_at="2010-01-02T00:00:00+00:00")
    save_run(config, run)
    for name, text in (("broken", "{"), ("other", "[]"), ("empty", "")):
        (config.runs / name).mkdir()
        (config.runs / name / "run.json").write_text(text)
    assert [each.state for each in records.all(config)] == ["running"]
    save_run(
        config, Run("a", "2010-01-01", "2010-01-01", failures=({"stage": "seal", "at": "2010-01-02T00:00:01+00:00"},))
    )
    assert [(each.state, each.failed_stage) for each in records.all(config)] == [("failed", "seal")]
