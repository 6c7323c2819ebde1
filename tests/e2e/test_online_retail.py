"""A year of a real shop's events, from one command to the warehouse: every count to the row, every sum to the penny.

And the same year through the eight live views of it, each against its dbt table, window by window.
"""

import datetime as dt
import json
import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from support.both_sides import LiveRows, compare, live_rows
from support.warehouse import content_hash, damage

import tidemill
from quality import day
from quality.config import DayConfig
from tidemill.local.folder import DataFolder
from tidemill.local.stack import Stack

ROOT = Path(__file__).parents[2]
FILE = ROOT.parent / "shared" / "data" / "online_retail.parquet"
COLUMNS = ["--timezone", "Europe/London", "--map", "event_id=r{source_row}", "--map", "invoiced_at=invoice_date"]
TOTALS = {
    "rows": 541_909, "units": 5_176_450, "revenue": Decimal("9747747.934"), "invoices": 25_900, "codes": 4_070,
    "customers": 4_372, "countries": 38,
}  # fmt: skip
"""The control totals of shared/data/README.md."""

VIEWS = {
    "sales_by_minute": 19_052,
    "sales_by_hour": 2_907,
    "lines_by_hour": 2_938,
    "returns_by_day": 303,
    "small_payment_bursts": 13_129,
    "sales_by_customer": 4_372,
    "sales_by_product": 3_804,
    "large_lines": 1_416,
}
"""The live views of the stream, and how many windows of each are compared (of customers, products, events: rows)."""

MEASURES = """
    count(*) as "rows", sum(quantity) as units, sum(quantity * unit_price) as revenue,
    count(distinct invoice_no) as invoices, count(distinct stock_code) as codes,
    count(distinct customer_id) as customers, count(distinct country) as countries
"""

pytestmark = [
    pytest.mark.skipif(not FILE.is_file(), reason=f"the real data set is absent: {FILE.name} beside the project"),
    pytest.mark.filterwarnings("default"),  # dbt's and Great Expectations' own, in this process
]


@pytest.fixture(scope="module")
def year(tmp_path_factory):
    """The whole year sent by one command; the stack with its service."""
    folder = DataFolder(tmp_path_factory.mktemp("year") / "data")
    with Stack(folder, ROOT, scheduled=False) as stack:
        address = stack.start_service()
        command = [sys.executable, "-c", "import sys; from tidemill.cli import main; sys.exit(main())", "send"]
        sent = subprocess.run(
            [*command, "order_lines", str(FILE), *COLUMNS, "--address", address, "--json"],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert sent.returncode == 0, sent.stderr
        yield stack, json.loads(sent.stdout)


@pytest.fixture(scope="module")
def live(year) -> dict[str, LiveRows]:
    """Every view's rows once it covers the year; taken before windows may leave, which reconciled ones do."""
    stack, _ = year
    with tidemill.connect(stack.address, timeout_s=60) as tm:
        return {name: live_rows(tm, name, TOTALS["rows"], wait_s=240) for name in VIEWS}


@pytest.fixture(scope="module")
def run(year, live):
    """All stages over the whole year as one range."""
    stack, _ = year
    config = DayConfig(stack.folder.root, ROOT, stack.address)
    results = {"seal": day.seal(config, "year", "2010-12-01", "2011-12-09", force=True)}
    for stage in ("export", "check_sources", "balance", "build", "check_marts", "reconcile", "publish"):
        results[stage] = getattr(day, stage)(config, "year")
    return results


def measures(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, object]:
    result = connection.execute(f"select {MEASURES} from {relation}")
    names = [column[0] for column in result.description]
    return dict(zip(names, result.fetchall()[0], strict=True))


def test_every_row_is_acknowledged_and_none_is_taken_for_a_duplicate(year):
    stack, sent = year
    summary = sent["summary"]
    assert (summary["sent"], summary["appended"], summary["duplicate"], summary["quarantined"]) == (
        541_909,
        541_909,
        0,
        0,
    )
    with tidemill.connect(stack.address) as tm:
        status = tm.stream_status("order_lines")
    assert status.durable_offset == status.counts.appended == status.counts.sent == 541_909
    assert len(status.counts.appended_by_date) == 305


def test_the_lake_holds_the_control_totals(run, year):
    from deltalake import DeltaTable

    pin = run["export"]["streams"]["order_lines"]
    files = DeltaTable(pin["lake_uri"], version=pin["lake_version"]).file_uris()
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        lake = connection.read_parquet(files)
        connection.register("lake", lake)
        assert measures(connection, "lake") == TOTALS
        assert connection.execute(
            "select count(distinct _offset), min(_offset), max(_offset) from lake"
        ).fetchall() == [(541_909, 0, 541_908)]


def test_the_warehouse_holds_the_control_totals(run, year):
    stack, _ = year
    with duckdb.connect(str(stack.folder.warehouse), read_only=True) as connection:
        assert measures(connection, "stg_order_lines") == TOTALS
        rows = connection.execute(
            "select sum(lines), sum(units), sum(revenue), count(distinct sales_date) from fct_daily_sales"
        ).fetchall()
    assert rows == [(541_909, 5_176_450, TOTALS["revenue"], 305)]


def test_the_stream_has_eight_views_and_none_stands_still(year, live):
    stack, _ = year
    with tidemill.connect(stack.address) as tm:
        views = tm.views()
    assert {view.view for view in views if view.stream == "order_lines"} == VIEWS.keys()
    assert {view.view: view.error for view in views if view.error} == {}


@pytest.mark.parametrize("name", VIEWS)
def test_live_equals_batch_in_every_window(run, name, capsys):
    view = run["reconcile"]["views"][name]
    with capsys.disabled():
        print(f"\n{name}: {view['windows']:,} windows, {view['rows']:,} rows compared by the daily run, "
              f"{view['differences']:,} differences", end=" ")  # fmt: skip
    assert view["differences"] == 0
    assert view["windows"] == VIEWS[name]


@pytest.mark.parametrize("name", VIEWS)
def test_live_equals_batch_by_a_comparison_of_another_make(run, live, year, name):
    stack, _ = year
    compared = compare(stack.folder.warehouse, live[name])
    assert compared.wrong == {}
    assert compared.windows == VIEWS[name]


def test_the_live_views_hold_the_control_totals(live):
    """From the file itself: no part of ours stands between the question and the answer."""
    questions = {
        "sales_by_minute": ("sum(lines), sum(units), sum(revenue)", "quantity > 0"),
        "sales_by_hour": ("sum(lines), sum(units), sum(revenue)", "quantity > 0"),
        "returns_by_day": ("sum(lines), -sum(units), -sum(refunded)", "quantity < 0"),
        "sales_by_customer": ("sum(lines), sum(units), sum(revenue)", "customer_id is not null"),
        "large_lines": (
            "count(*), sum(quantity), sum(amount)", "abs(quantity) >= 1000 or abs(quantity * unit_price) >= 500"
        ),
        "small_payment_bursts": (
            "sum(payments), null, sum(paid)", "quantity > 0 and unit_price > 0 and customer_id is not null"
        ),
    }  # fmt: skip
    with duckdb.connect() as connection:
        connection.register("source", duckdb.read_parquet(str(FILE), connection=connection))
        for name, (asked, condition) in questions.items():
            connection.register("view", live[name].rows)
            expected = connection.execute(
                "select count(*), sum(quantity), sum(quantity * unit_price) from source where " + condition
            ).fetchall()[0]
            found = connection.execute(f"select {asked} from view").fetchall()[0]
            pairs = [(one, other) for one, other in zip(found, expected, strict=True) if one is not None]
            assert all(one == other for one, other in pairs), (name, found, expected)
        connection.register("view", live["lines_by_hour"].rows)
        assert connection.execute("select sum(lines) from view").fetchall() == [(TOTALS["rows"],)]


def test_bursts_of_small_payments_are_found(live):
    with duckdb.connect() as connection:
        connection.register("source", duckdb.read_parquet(str(FILE), connection=connection))
        connection.register("view", live["small_payment_bursts"].rows)
        found = connection.execute(
            "select customer_id, small_payments from view where is_burst order by all"
        ).fetchall()
        expected = connection.execute(
            "select customer_id, count(*) as small from source where quantity > 0 and unit_price > 0 and "
            "quantity * unit_price < 1 and customer_id is not null "
            "group by customer_id, time_bucket(interval '5 minutes', timezone('Europe/London', invoice_date)) "
            "having small >= 20 order by all"
        ).fetchall()
    assert found == expected
    assert len(found) > 50


@pytest.mark.airflow
def test_damaged_dates_are_restored_exactly_through_airflow(run, year):
    """The busiest date and four in a row, damaged in the published file, all run at once: they take turns."""
    from tidemill.cli.day_report import headline, read_day

    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    busiest = dt.date(2011, 12, 5)
    stack, _ = year
    with duckdb.connect(str(stack.folder.warehouse), read_only=True) as connection:
        rows = connection.execute("select distinct sales_date from fct_daily_sales order by 1").fetchall()
    traded = [date for (date,) in rows if date != busiest]
    first = random.Random(seed).randrange(len(traded) - 3)
    dates = [busiest, *traded[first : first + 4]]
    before = content_hash(stack.folder.warehouse)
    for date in dates:
        damage(stack.folder.warehouse, date)
    damaged = content_hash(stack.folder.warehouse)
    assert {name for name in before if damaged[name] != before[name]} == {
        "fct_daily_sales", "fct_orders", "sales_by_hour", "sales_by_minute",
    }  # fmt: skip
    stack.start_airflow()
    client = stack.wait_airflow()
    client.unpause("daily")
    for date in dates:
        client.trigger("daily", {"date": str(date), "force": True}, f"again-{date}")
    for date in dates:
        for _ in client.follow("daily", f"again-{date}", check=stack.check):
            pass
        assert client.run_state("daily", f"again-{date}") == "success", client.failures("daily", f"again-{date}")
    assert content_hash(stack.folder.warehouse) == before
    account = read_day(client, "daily", f"again-{busiest}", busiest, busiest)
    figures = headline(stack.folder.warehouse, busiest, busiest)
    with duckdb.connect(str(stack.folder.warehouse), read_only=True) as connection:
        lines, invoices = connection.execute(
            "select count(*), count(distinct invoice_no) from stg_order_lines where event_date = ?", [busiest]
        ).fetchall()[0]
    assert (lines, figures["revenue"], invoices) == (5_331, Decimal("57751.320"), 151)
    if account.results["reconcile"] is not None:  # else a run of a neighbouring date took it along
        assert account.results["reconcile"]["views"]["sales_by_minute"]["differences"] == 0
