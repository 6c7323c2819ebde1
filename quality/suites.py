"""The expectations, as code: one suite on each source, one on each mart.

Severity is either STOP (a promise that was broken: nothing is published) or WARN (a fact worth knowing: reported, and
the day goes on). What the README of the retail set lists as dirty is WARN: those rows are real, and the contract lets
them in.
"""

# ruff: noqa: S608 - SQL is put together here: dates and numbers, no texts.

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quality.run import Run

if TYPE_CHECKING:
    import great_expectations as gx

STOP = "critical"
WARN = "warning"


@dataclass(frozen=True)
class Suite:
    """Expectations on one table. query: its rows, by DuckDB; key: columns that identify a row in a sample."""

    name: str
    query: str
    key: tuple[str, ...]
    expectations: tuple[gx.expectations.Expectation, ...]


def source_suites(run: Run) -> list[Suite]:
    """Give the suites on the run's dates in the lake: a view for each stream, of the rows below its seal offset.

    A stream that never had an event has none: there is nothing to promise, and nothing to report each day.
    """
    suites = {"order_lines": _order_lines, "web_requests": _web_requests, "readings": _readings}
    return [suites[name](run) for name, pin in run.streams.items() if pin.seal_offset and name in suites]


def _rows(run: Run, stream: str, derived: str) -> str:
    """Give the query of a stream's rows of the run's dates, with derived columns after its own."""
    dates = f"event_date between date '{run.date}' and date '{run.last_date}'"
    return f"select *, {derived} from {stream} where {dates} and _offset < {run.streams[stream].seal_offset}"


def _order_lines(run: Run) -> Suite:
    import great_expectations.expectations as e

    # What takes a regular expression is a column of its own: GX has none for DuckDB. No question mark in it either:
    # GX takes it for a parameter.
    query = _rows(
        run,
        "order_lines",
        r"regexp_full_match(invoice_no, '[A-Z]{0,1}[0-9]{6}') as invoice_no_has_its_form, "
        r"regexp_full_match(stock_code, '[0-9]{5}[A-Za-z]*') as stock_code_is_a_product, "
        "description = trim(description) as description_is_trimmed",
    )
    stop = (
        e.ExpectColumnValuesToNotBeNull(column="event_id", severity=STOP),
        e.ExpectColumnValuesToBeUnique(column="event_id", severity=STOP),
        e.ExpectColumnValuesToBeUnique(column="_offset", severity=STOP),
        e.ExpectColumnValuesToNotBeNull(column="invoice_no", severity=STOP),
        e.ExpectColumnValuesToBeInSet(column="invoice_no_has_its_form", value_set=[True], severity=STOP),
        e.ExpectColumnValueLengthsToBeBetween(column="stock_code", min_value=1, max_value=32, severity=STOP),
        e.ExpectColumnValuesToBeBetween(column="quantity", min_value=-1_000_000, max_value=1_000_000, severity=STOP),
        e.ExpectColumnValuesToNotBeInSet(column="quantity", value_set=[0], severity=STOP),
        e.ExpectColumnValuesToNotBeNull(column="unit_price", severity=STOP),
        e.ExpectColumnValuesToNotBeNull(column="invoiced_at", severity=STOP),
        e.ExpectColumnValuesToNotBeNull(column="country", severity=STOP),
    )
    warn = (
        e.ExpectTableRowCountToBeBetween(min_value=1, severity=WARN),
        e.ExpectColumnValuesToNotBeNull(column="customer_id", severity=WARN),
        e.ExpectColumnValuesToNotBeNull(column="description", severity=WARN),
        e.ExpectColumnValuesToBeInSet(column="description_is_trimmed", value_set=[True], severity=WARN),
        e.ExpectColumnValuesToNotBeInSet(column="country", value_set=["Unspecified"], severity=WARN),
        e.ExpectColumnValuesToBeBetween(column="unit_price", min_value=0, strict_min=True, severity=WARN),
        e.ExpectColumnValuesToBeBetween(column="quantity", min_value=1, severity=WARN),
        e.ExpectCompoundColumnsToBeUnique(column_list=["invoice_no", "stock_code"], severity=WARN),
        e.ExpectColumnValuesToBeInSet(column="stock_code_is_a_product", value_set=[True], severity=WARN),
    )
    return Suite("source_order_lines", query, ("_offset", "event_id"), stop + warn)


def _web_requests(run: Run) -> Suite:
    import great_expectations.expectations as e

    # The host is checked by a column of its own: what a check does not accept is shown, and it tells who asked.
    query = _rows(
        run,
        "web_requests",
        r"regexp_full_match(method, '[A-Z]{1,20}') as method_has_its_form, "
        "length(host) between 1 and 253 as host_has_its_length, starts_with(url, '/') as url_is_a_path",
    )
    stop = (
        e.ExpectColumnValuesToNotBeNull(column="event_id", severity=STOP),
        e.ExpectColumnValuesToBeUnique(column="event_id", severity=STOP),
        e.ExpectColumnValuesToBeUnique(column="_offset", severity=STOP),
        e.ExpectColumnValuesToNotBeNull(column="requested_at", severity=STOP),
        e.ExpectColumnValuesToNotBeNull(column="host_has_its_length", severity=STOP),
        e.ExpectColumnValuesToBeInSet(column="host_has_its_length", value_set=[True], severity=STOP),
        e.ExpectColumnValuesToBeInSet(column="method_has_its_form", value_set=[True], severity=STOP),
        e.ExpectColumnValuesToNotBeNull(column="url", severity=STOP),
        e.ExpectColumnValuesToBeBetween(column="status", min_value=100, max_value=599, severity=STOP),
        e.ExpectColumnValuesToBeBetween(column="bytes", min_value=0, severity=STOP),
    )
    warn = (
        e.ExpectTableRowCountToBeBetween(min_value=1, severity=WARN),
        e.ExpectColumnValuesToBeBetween(column="status", max_value=499, severity=WARN),
        e.ExpectColumnValuesToBeInSet(column="url_is_a_path", value_set=[True], severity=WARN),
    )
    return Suite("source_web_requests", query, ("_offset", "event_id"), stop + warn)


def _readings(run: Run) -> Suite:
    import great_expectations.expectations as e

    query = _rows(
        run,
        "readings",
        "isfinite(value) as value_is_finite, "
        "unit <> 'percent' or value between 0 and 100 as percentage_is_between_0_and_100, "
        "metric <> 'used_percent' or unit = 'percent' as metric_has_its_unit",
    )
    stop = (
        e.ExpectColumnValuesToNotBeNull(column="event_id", severity=STOP),
        e.ExpectColumnValuesToBeUnique(column="event_id", severity=STOP),
        e.ExpectColumnValuesToBeUnique(column="_offset", severity=STOP),
        e.ExpectColumnValuesToNotBeNull(column="measured_at", severity=STOP),
        e.ExpectColumnValuesToNotBeNull(column="host", severity=STOP),
        e.ExpectColumnValuesToNotBeNull(column="sensor", severity=STOP),
        e.ExpectColumnValuesToNotBeNull(column="metric", severity=STOP),
        e.ExpectColumnValuesToNotBeNull(column="unit", severity=STOP),
        e.ExpectColumnValuesToBeInSet(column="value_is_finite", value_set=[True], severity=STOP),
    )
    warn = (
        e.ExpectTableRowCountToBeBetween(min_value=1, severity=WARN),
        e.ExpectColumnValuesToBeInSet(column="percentage_is_between_0_and_100", value_set=[True], severity=WARN),
        e.ExpectColumnValuesToBeInSet(column="metric_has_its_unit", value_set=[True], severity=WARN),
    )
    return Suite("source_readings", query, ("_offset", "event_id"), stop + warn)


def mart_suites(run: Run) -> list[Suite]:
    """Give the suites on the marts of the run's work copy; those by date on the run's dates alone."""
    import great_expectations.expectations as e

    dates = f"between date '{run.date}' and date '{run.last_date}'"
    orders = Suite(
        "marts_fct_orders",
        f"select * from fct_orders where order_date {dates}",
        ("invoice_no",),
        (
            e.ExpectColumnValuesToBeUnique(column="invoice_no", severity=STOP),
            e.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A="last_line_at", column_B="ordered_at", or_equal=True, severity=STOP
            ),
            e.ExpectColumnValuesToBeBetween(column="lines", min_value=1, severity=STOP),
            e.ExpectTableRowCountToBeBetween(min_value=1, severity=WARN),
            e.ExpectColumnValuesToNotBeNull(column="customer_id", severity=WARN),
            e.ExpectColumnValuesToBeBetween(column="revenue", min_value=-10_000, max_value=50_000, severity=WARN),
            e.ExpectColumnPairValuesToBeEqual(column_A="ordered_at", column_B="last_line_at", severity=WARN),
        ),
    )
    daily = Suite(
        "marts_fct_daily_sales",
        f"select *, gross_revenue + returned_revenue as both_revenues from fct_daily_sales where sales_date {dates}",
        ("sales_date", "country"),
        (
            e.ExpectCompoundColumnsToBeUnique(column_list=["sales_date", "country"], severity=STOP),
            e.ExpectColumnValuesToBeBetween(column="gross_revenue", min_value=0, severity=STOP),
            e.ExpectColumnValuesToBeBetween(column="returned_revenue", max_value=0, severity=STOP),
            e.ExpectColumnPairValuesToBeEqual(column_A="revenue", column_B="both_revenues", severity=STOP),
            e.ExpectColumnValuesToBeBetween(column="revenue", min_value=0, severity=WARN),
        ),
    )
    customers = Suite(
        "marts_dim_customers",
        "select * from dim_customers",
        ("customer_id",),
        (
            e.ExpectColumnValuesToBeUnique(column="customer_id", severity=STOP),
            e.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A="last_order_at",
                column_B="first_order_at",
                or_equal=True,
                ignore_row_if="either_value_is_missing",
                severity=STOP,
            ),
            e.ExpectColumnValuesToBeInSet(column="countries", value_set=[1], severity=WARN),
            e.ExpectColumnValuesToBeBetween(column="orders", min_value=1, severity=WARN),
        ),
    )
    # What must hold across marts: every mart counts the same lines and the same money.
    totals = Suite(
        "marts_totals",
        "select s.lines, s.revenue, o.lines as order_lines, o.revenue as order_revenue, d.lines as daily_lines, "
        "d.revenue as daily_revenue from (select count(*) as lines, coalesce(sum(line_amount), 0) as revenue from "
        "stg_order_lines) s, (select coalesce(sum(lines), 0)::bigint as lines, coalesce(sum(revenue), 0) as revenue "
        "from fct_orders) o, (select coalesce(sum(lines), 0)::bigint as lines, coalesce(sum(revenue), 0) as revenue "
        "from fct_daily_sales) d",
        (),
        tuple(
            e.ExpectColumnPairValuesToBeEqual(column_A=one, column_B=other, severity=STOP)
            for one, other in (
                ("lines", "order_lines"),
                ("lines", "daily_lines"),
                ("revenue", "order_revenue"),
                ("revenue", "daily_revenue"),
            )
        ),
    )
    return [orders, daily, customers, totals]
