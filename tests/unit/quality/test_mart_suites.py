"""Suites on a run's marts: by row, by date, against history, across models, and what cannot be made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import duckdb
import pytest

from quality.config import DayConfig
from quality.errors import CheckFailed, ConfigWrong
from quality.gate import check_warehouse
from quality.report_page import write_report
from quality.run import Run

pytestmark = [
    # GX calls names that its libraries have renamed since; its release is pinned, and not ours to change.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:duckdb-engine doesn't yet support reflection on indices"),
]
SUITE = """
from quality.suite import STOP, WARN, MartSuite, by_date, holds, refers_to, row_count, unique, usual, usual_rows

orders = MartSuite(
    "orders",
    unique(STOP, "id"),
    holds(STOP, "twice = 2 * amount"),
    refers_to(STOP, "customer", "customers", "id"),
    row_count(WARN, at_least=1),
    by_date(WARN, "sum(amount)", at_most=100, says="a date's amount is at most 100"),
    usual(WARN, "sum(amount)", within=0.5, name="usual_amount"),
    usual_rows(WARN, within=0.5),
    date="ordered_at",
    columns={"twice": "amount + amount"},
    key=["id"],
)
totals = MartSuite("totals", holds(STOP, "a = b"), query="select (select count(*) from orders) a, 64 as b")
"""
MORE = """
from great_expectations.expectations import ExpectColumnMaxToBeBetween
from quality.suite import WARN, MartSuite, holds

more = MartSuite(
    "customers",
    holds(WARN, "no_such_column > 1"),
    holds(WARN, "cast(name as integer) > 1", name="is_a_number"),
    ExpectColumnMaxToBeBetween(column="id", max_value=8, severity="warning"),
    holds(WARN, "id < 9"),
)
"""

Check = Callable[..., dict]


@pytest.fixture
def check(config: DayConfig, run: Run) -> Check:
    """Checks 8 weeks of Mondays with 8 orders of 10 each, for the last of them, 2011-12-05, after a change."""

    def run_check(change: str = "set TimeZone = 'UTC'", suite: str = SUITE) -> dict:
        config.suites.mkdir(exist_ok=True)
        (config.suites / "marts.py").write_text(suite, encoding="utf-8")
        work = config.work_copy(run.run_id)
        work.parent.mkdir(parents=True, exist_ok=True)
        work.unlink(missing_ok=True)
        with duckdb.connect(str(work)) as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.execute("create table customers as select i as id, 'c' || i as name from range(1, 10) t(i)")
            connection.execute(
                "create table orders as select i as id, 1 + i % 9 as customer, 10.000::decimal(12,3) as amount, "
                "timestamptz '2011-12-05 23:30:00+00' - (i // 8) * interval 7 day as ordered_at from range(64) t(i)"
            )
            connection.execute(change)
        return check_warehouse(config, dataclasses.replace(run))

    return run_check


def test_what_holds_passes_and_its_values_are_told(check: Check):
    result = check()
    assert (result["verdict"], result["checks"]) == ("passed", 8)
    told = {each["name"]: (each["rows"], each["observed"]) for each in result["results"]}
    # Rows of the run's date alone.
    assert told["marts_orders.no_id_twice"] == (8, "")
    assert told["marts_orders.rows"] == (1, "8")
    assert told["marts_orders.usual_amount"] == (1, "80, usually 80")
    assert told["marts_totals.a_b"] == (1, "")


def test_each_mistake_is_found(check: Check, config: DayConfig):
    with pytest.raises(CheckFailed) as caught:
        check("update orders set customer = 77 where id = 1; update orders set id = 2 where id = 3")
    assert caught.value.checks == ["marts_orders.no_id_twice", "marts_orders.customer_is_in_customers_id"]
    twice, dangling = caught.value.findings
    assert (twice.rows, dangling.rows, dangling.sample) == (2, 1, ("id=1, customer=77",))
    assert duckdb.sql(f"select customer, amount from read_parquet('{dangling.file}')").fetchall()[0][0] == 77
    page = (config.data_docs / "runs" / "r1.html").read_text(encoding="utf-8")
    assert "customer is in customers.id" in page
    assert "orders.customer" in page


def test_no_value_refers_to_nothing(check: Check):
    check("delete from customers; update orders set customer = null")
    with pytest.raises(CheckFailed, match="not so in 8 of 8 rows"):
        check("delete from customers")


def test_a_value_out_of_the_ordinary_is_told_with_what_is_usual(check: Check, config: DayConfig):
    warned = check("update orders set amount = 15.125 where ordered_at > '2011-12-05'")["warnings"]
    assert [(each["name"], each["observed"]) for each in warned] == [
        ("marts_orders.sum_amount", "121"),
        ("marts_orders.usual_amount", "121, usually 80"),
    ]
    assert warned[1]["sample"][0]["usual_amount_usual"] == 80
    # Nothing on the date: 0 rows, and no amount.
    warned = check("update orders set ordered_at = ordered_at - interval 7 day")["warnings"]
    assert [each["name"] for each in warned] == ["marts_orders.rows", "marts_orders.usual_rows"]
    # With too little history nothing is expected of it.
    few = "delete from orders where ordered_at < '2011-11-25' or (id > 0 and ordered_at > '2011-12-05')"
    results = {each["name"]: each for each in check(few, SUITE.replace("64 as b", "9 as b"))["results"]}
    assert (results["marts_orders.usual_rows"]["success"], results["marts_orders.usual_rows"]["observed"]) == (
        True,
        "1",
    )
    index = write_report(config, "r1").read_text(encoding="utf-8")
    assert "marts_orders" in index


def test_an_expectation_that_cannot_be_made_stops_the_day_and_the_others_are_made(check: Check):
    with pytest.raises(CheckFailed) as caught:
        check(suite=MORE)
    assert caught.value.checks == ["marts_customers.no_such_column_above_1", "marts_customers.is_a_number"]
    assert "no_such_column" in str(caught.value)
    assert "Could not convert string 'c1' to INT32" in str(caught.value)
    others = {each["name"]: each for each in caught.value.results if each["severity"] == "WARN"}
    maximum = others["marts_customers.id.column_max_to_be_between"]
    assert (maximum["success"], maximum["observed"]) == (False, "9")
    assert others["marts_customers.id_below_9"]["unexpected_rows"] == 1


def test_a_suite_on_a_model_that_is_not_there_is_named(check: Check):
    with pytest.raises(ConfigWrong, match=r"suite marts_orders: its rows cannot be had: .*orders"):
        check("drop table orders")
