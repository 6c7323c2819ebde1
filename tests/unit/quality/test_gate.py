import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from quality.config import DayConfig
from quality.data_docs import write_data_docs
from quality.errors import CheckFailed
from quality.gate import Suite, _shares, run_suites
from quality.publish import publish, take_copy
from quality.report_page import GX_SEVERITY
from quality.run import Options, Run, save_run

pytestmark = [
    # GX calls names that its libraries have renamed since; its release is pinned, and not ours to change.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:duckdb-engine doesn't yet support reflection on indices"),
]

STOP, WARN = GX_SEVERITY["STOP"], GX_SEVERITY["WARN"]
Check = Callable[..., dict]


@pytest.fixture
def check(config: DayConfig, run: Run, tmp_path: Path) -> Check:
    """Runs expectations on 1,000 rows: `n` counts up, every tenth `name` is NULL, `moment` is late in the day."""
    database = tmp_path / "rows.duckdb"
    with duckdb.connect(str(database)) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(
            "create table rows as select i as n, i % 2 as parity, case when i % 10 <> 0 then 'x' || i end as name, "
            "timestamptz '2011-12-05 23:59:00+00' as moment from range(1000) t(i)"
        )

    def run_check(
        *expectations: object, query: str = "select *, strftime(moment, '%Y-%m-%d') as day from rows"
    ) -> dict:
        return run_suites(config, run, database, [Suite("rows", query, ("n",), tuple(expectations))])

    return run_check


def test_checks_pass_warn_and_stop(check: Check, config: DayConfig):
    import great_expectations.expectations as e

    unique = e.ExpectColumnValuesToBeUnique(column="n", severity=STOP)
    named = e.ExpectColumnValuesToNotBeNull(column="name", severity=WARN)
    # A session in another zone than UTC would see another day.
    day = e.ExpectColumnValuesToBeInSet(column="day", value_set=["2011-12-05"], severity=STOP)

    passed = check(unique, day)
    assert (passed["verdict"], passed["checks"], passed["warnings"]) == ("passed", 2, [])
    assert passed["results"][0] == {
        "name": "rows.n.column_values_to_be_unique", "suite": "rows", "subject": "n", "expectation": "no value twice",
        "severity": "STOP", "success": True, "rows": 1000, "unexpected_rows": 0, "observed": "", "sample": [],
        "file": "",
        "text": "rows.n.column_values_to_be_unique: expected no value twice: so in 1,000 of 1,000 rows",
    }  # fmt: skip

    result = check(unique, named)
    assert (result["verdict"], result["checks"]) == ("passed with 1 warning", 2)
    (warning,) = result["warnings"]
    assert (warning["name"], warning["rows"], warning["unexpected_rows"]) == (
        "rows.name.column_values_to_not_be_null", 1000, 100
    )  # fmt: skip
    assert len(warning["sample"]) == 5
    json.dumps(result)

    empty = check(e.ExpectTableRowCountToBeBetween(min_value=1, severity=WARN), query="select * from rows where false")
    assert (empty["warnings"][0]["rows"], empty["warnings"][0]["observed"]) == (0, "0")

    with pytest.raises(CheckFailed) as caught:
        check(named, e.ExpectColumnValuesToBeBetween(column="n", max_value=989, severity=STOP))
    file = config.run_folder("r1") / "failed" / "rows.n.column_values_to_be_between.parquet"
    assert caught.value.checks == ["rows.n.column_values_to_be_between"]
    assert (
        "1 of 2 checks stop the day: rows.n.column_values_to_be_between: expected is at most 989; not so in 10 of "
        "1,000 rows, such as n=99"
    ) in str(caught.value)
    (finding,) = caught.value.findings
    assert (finding.rows, len(finding.sample), finding.file) == (10, 5, str(file))
    assert [each["success"] for each in caught.value.results] == [False, False]
    assert str(file) in str(caught.value)
    # All of them, not the 20 that GX lists.
    assert duckdb.sql(f"select count(*), min(n) from read_parquet('{file}')").fetchall() == [(10, 990)]


def test_a_check_that_cannot_be_made_stops_the_day(check: Check):
    import great_expectations.expectations as e

    with pytest.raises(CheckFailed, match="no_such_column"):
        check(e.ExpectColumnValuesToNotBeNull(column="no_such_column", severity=WARN))


def test_without_any_suite_nothing_is_checked_and_the_day_goes_on(config: DayConfig, run: Run, tmp_path: Path):
    # As on a project none of whose streams has had an event.
    with duckdb.connect(str(tmp_path / "nothing.duckdb")):
        pass
    assert run_suites(config, run, tmp_path / "nothing.duckdb", []) == {
        "verdict": "passed", "checks": 0, "warnings": [], "results": [],
    }  # fmt: skip


def test_the_database_is_let_go_and_the_results_are_kept(check: Check, config: DayConfig, tmp_path: Path):
    import great_expectations.expectations as e

    for _ in range(2):
        check(e.ExpectColumnValuesToBeUnique(column="n", severity=STOP))
    # Opened for writing: refused while anyone has the file open otherwise.
    with duckdb.connect(str(tmp_path / "rows.duckdb")) as connection:
        connection.execute("create table more as select 1 as x")
    index = write_data_docs(config, "r1")
    assert index == config.data_docs / "index.html"
    gx = config.data_docs / "gx"
    pages = list(gx.glob("validations/rows/r1/*/*.html"))
    assert len(pages) == 2
    text = (gx / "index.html").read_text(encoding="utf-8")
    assert all(page.relative_to(gx).as_posix() in text for page in pages)


def test_shares_are_of_what_came_since_the_stream_was_last_sealed_and_published(config: DayConfig, run: Run):
    def counted(run_id: str, received: int, quarantined: int, **changes: object) -> Run:
        late = {"late": quarantined, "appended": received - quarantined}
        counts = {**run.streams["payments"].counts, "received": received, "quarantined": quarantined, **late}
        pin = dataclasses.replace(run.streams["payments"], counts=counts)
        made = dataclasses.replace(run, run_id=run_id, streams={"payments": pin}, **changes)
        save_run(config, made)
        return made

    def published(made: Run) -> Run:
        save_run(config, made)
        take_copy(config, made.run_id)
        publish(config, made)
        return made

    published(counted("before", 100, 10))
    # One of other streams alone: of this one it has the pin, and no counts.
    pin = dataclasses.replace(run.streams["payments"], counts={}, fresh=False)
    published(dataclasses.replace(run, run_id="others", streams={"payments": pin}))
    now = counted("now", 200, 12)
    assert _shares(config, now, "payments") == {"quarantined": (2, 100), "late": (2, 98)}
    published(now)
    # As of an earlier run, what was counted after it is none of its.
    as_of = counted("as_of", 150, 11, options=Options(as_of="middle"))
    assert _shares(config, as_of, "payments") == {"quarantined": (1, 50), "late": (1, 49)}
    published(counted("later", 160, 11))
    assert _shares(config, counted("now", 200, 12), "payments") == {"quarantined": (1, 40), "late": (1, 39)}
