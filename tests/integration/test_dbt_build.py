"""dbt as its user runs it: by hand, in the project's folder; on nothing, on a little, and on a real year."""

import contextlib
import socket
import subprocess
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from deltalake import write_deltalake
from support.dbt_by_hand import PROGRAM, ROOT, dbt, environment, project, warehouse
from support.lakes import order_lines

RETAIL = ROOT.parent / "shared" / "data" / "online_retail.parquet"
TOTALS = (541_909, 5_176_450, "9747747.934")
"""Lines, units and revenue of the real set: control totals of shared/data/README.md."""


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(warehouse(folder)), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        yield connection


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project that was built on an empty warehouse, with no lake."""
    folder = tmp_path_factory.mktemp("by_hand")
    said = dbt(folder, "build")
    # Some days of the view by minute, not all since the first event.
    assert "Batch 8 of 8" in said
    assert "ERROR=0" in said
    return folder


def test_a_build_by_hand_on_an_empty_warehouse_ends_and_then_reads_the_latest_lake(by_hand: Path):
    with opened(by_hand) as connection:
        filtered = connection.execute("select stream, lake_rows, filtered_rows from staging_filtered order by stream")
        assert filtered.fetchall() == [("order_lines", 0, 0), ("readings", 0, 0), ("web_requests", 0, 0)]

    lake = by_hand / ".tidemill" / "lake" / "order_lines"
    write_deltalake(str(lake), order_lines(100, [5, 6]), partition_by=["event_date"])
    said = dbt(by_hand, "run", "--event-time-start", "2011-12-05", "--event-time-end", "2011-12-07")
    assert "ERROR=0" in said
    with opened(by_hand) as connection:
        assert connection.execute("select count(*) from stg_order_lines").fetchall() == [(100,)]
        assert connection.execute("select count(distinct window_start::date) from sales_by_minute").fetchall() == [(2,)]


def test_freshness_is_told_and_fails_nothing(by_hand: Path):
    said = dbt(by_hand, "source", "freshness")
    assert "freshness of events.order_lines" in said
    assert "ERROR" not in said


def test_the_docs_are_served(by_hand: Path):
    dbt(by_hand, "docs", "generate")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        [*PROGRAM, "docs", "serve", "--no-browser", "--port", str(port)],
        cwd=project(by_hand), env=environment(PYTHONUNBUFFERED="1"), stdout=subprocess.PIPE, text=True,
    ) as serving:  # fmt: skip
        try:
            assert serving.stdout is not None
            assert any("Serving docs at" in line for line in serving.stdout)
            for page in ("index.html", "manifest.json", "catalog.json"):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=30) as answer:
                    assert answer.status == 200
        finally:
            serving.terminate()


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse of the whole real set, every test in it passed; the lines themselves stand beside it as `sent`."""
    if not RETAIL.exists():
        pytest.skip(f"{RETAIL.name} is not there")
    folder = tmp_path_factory.mktemp("year")
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        lines = connection.sql(
            "select source_row::varchar as event_id, invoice_no, stock_code, description, "
            "quantity::bigint as quantity, "
            "unit_price::decimal(12, 3) as unit_price, timezone('UTC', invoice_date) as invoiced_at, "
            "customer_id::bigint as customer_id, country, 0::int as _partition, source_row::bigint - 1 as _offset, "
            f"now() as _append_time, invoice_date::date as event_date from '{RETAIL}' order by source_row"
        ).to_arrow_table()
    write_deltalake(str(folder / ".tidemill" / "lake" / "order_lines"), lines, partition_by=["event_date"])
    span = ["--event-time-start", "2010-12-01", "--event-time-end", "2011-12-10"]
    assert "ERROR=0" in dbt(folder, "build", *span, "--vars", "{batch_size: month}")
    with opened(folder) as connection:
        connection.register("sent", lines)
        yield connection


def test_the_real_set_keeps_its_control_totals(year: duckdb.DuckDBPyConnection):
    totals = year.execute(
        "select count(*), sum(quantity), sum(line_amount)::varchar, count(distinct invoice_no), "
        "count(distinct stock_code), count(distinct customer_id), count(distinct country), "
        "count(distinct event_date) from stg_order_lines"
    ).fetchall()
    assert totals == [(*TOTALS, 25_900, 4_070, 4_372, 38, 305)]
    for table in ("fct_orders", "fct_daily_sales", "dim_countries"):
        assert year.execute(f"select sum(lines), sum(units), sum(revenue)::varchar from {table}").fetchall() == [TOTALS]
    assert year.execute("select sum(lines), sum(revenue)::varchar from dim_products").fetchall() == [
        (TOTALS[0], TOTALS[2])
    ]
    counts = {"fct_orders": 25_900, "dim_customers": 4_372, "dim_countries": 38, "fct_cancellations": 9_288}
    # 112 of the 4,070 codes differ from another one by case alone.
    counts["dim_products"] = 4_070 - 112
    for table, rows in counts.items():
        assert year.execute(f"select count(*) from {table}").fetchall() == [(rows,)]


def test_the_view_by_minute_is_what_the_lines_give(year: duckdb.DuckDBPyConnection):
    direct = (
        "select time_bucket(interval '1 minute', invoiced_at) as w, country, count(*), sum(quantity), "
        "sum(quantity * unit_price), count(distinct customer_id) from sent where quantity > 0 group by all"
    )
    assert year.execute(f"select count(*) from (({direct}) except (from sales_by_minute))").fetchall() == [(0,)]
    assert year.execute(f"select count(*) from ((from sales_by_minute) except ({direct}))").fetchall() == [(0,)]


def test_every_customer_has_a_segment_and_a_cohort_or_never_ordered(year: duckdb.DuckDBPyConnection):
    ((customers, revenue),) = year.execute("select count(*), sum(revenue) from dim_customers").fetchall()
    assert (customers, revenue) == year.execute(
        "select count(distinct customer_id), sum(quantity * unit_price) from sent where customer_id is not null"
    ).fetchall()[0]
    ((in_cohorts,),) = year.execute(
        "select sum(cohort_customers) from fct_customer_cohorts where months_since_first = 0"
    ).fetchall()
    never = "select count(*) from dim_customers where segment = 'never ordered'"
    assert in_cohorts + year.execute(never).fetchall()[0][0] == customers
    # Thirteen months, and each cohort has a row for every month from its own on.
    assert year.execute("select count(*), min(retention), max(retention) from fct_customer_cohorts").fetchall()[0][
        0
    ] == sum(range(1, 14))
    # Fifths, but for equals: nobody is in two, and no fifth is empty.
    for score in ("recency", "frequency", "monetary"):
        found = f"select distinct {score}_score from dim_customers where orders > 0 order by 1"
        assert year.execute(found).fetchall() == [(each,) for each in range(1, 6)]


def test_every_line_of_a_customer_is_in_one_session(year: duckdb.DuckDBPyConnection):
    lines = "select count(*), sum(quantity * unit_price) from sent where customer_id is not null"
    assert (
        year.execute("select sum(lines), sum(revenue) from fct_sessions").fetchall() == year.execute(lines).fetchall()
    )
    # Two sessions of a customer are an hour apart, at the least.
    closest = (
        "select min(started_at - ended_before) from (select started_at, lag(ended_at) over "
        "(partition by customer_id order by session_no) as ended_before from fct_sessions)"
    )
    assert year.execute(f"select ({closest}) >= interval '1 hour'").fetchall() == [(True,)]


def test_cancellations_find_the_sale_that_a_till_would_find(year: duckdb.DuckDBPyConnection):
    """Against the rule written down as a loop over the lines, in the order of time."""
    lines = year.execute(
        "select _offset, customer_id, upper(stock_code), quantity, starts_with(invoice_no, 'C') from sent "
        "where customer_id is not null and not starts_with(invoice_no, 'A') "
        "and upper(stock_code) not in (select stock_code from service_codes) order by invoiced_at, _offset"
    ).fetchall()
    sales: dict[tuple[int, str], list[list[int]]] = defaultdict(list)
    expected = []
    for offset, customer, product, quantity, is_cancellation in lines:
        sold = sales[customer, product]
        if not is_cancellation:
            sold.append([offset, quantity])
            continue
        latest = next((sale for sale in reversed(sold) if sale[1] >= -quantity), None)
        if latest:
            latest[1] += quantity
            expected.append((offset, *latest))
    found = year.execute(
        "select _offset, sale_offset, sale_units_left from fct_cancellations where status = 'matched' order by _offset"
    ).fetchall()
    assert found == sorted(expected)
    statuses = dict(year.execute("select status, count(*) from fct_cancellations group by status").fetchall())
    assert statuses == {"matched": 7_387, "no sale found": 1_152, "no product": 366, "no customer": 383}
