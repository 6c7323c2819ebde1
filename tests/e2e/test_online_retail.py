"""A year of a real shop's events, from one command to the warehouse: every count to the row, every sum to the penny."""

import datetime as dt
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

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
def run(year):
    """All stages over the whole year as one range."""
    stack, _ = year
    config = DayConfig(stack.folder.root, ROOT, stack.address)
    results = {"seal": day.seal(config, "year", "2010-12-01", "2011-12-09", force=True)}
    for stage in ("check_sources", "build", "check_marts", "reconcile", "publish"):
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

    pin = run["seal"]["streams"]["order_lines"]
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


def test_live_equals_batch_in_every_window(run):
    view = run["reconcile"]["views"]["sales_by_minute"]
    assert view["differences"] == 0
    assert view["windows"] > 19_000


def test_the_live_view_holds_the_control_totals(year):
    stack, _ = year
    with tidemill.connect(stack.address) as tm:
        table = tm.view("sales_by_minute").query(after=541_909, wait_s=60).to_arrow()
    with duckdb.connect() as connection:
        connection.register("view", table)
        live = connection.execute("select sum(lines), sum(units), sum(revenue) from view").fetchall()
        connection.register("source", duckdb.read_parquet(str(FILE), connection=connection))
        expected = connection.execute(
            "select count(*), sum(quantity), sum(quantity * unit_price) from source where quantity > 0"
        ).fetchall()
    assert live == expected


@pytest.mark.airflow
def test_the_busiest_date_runs_through_airflow(run, year):
    from tidemill.cli.day_report import headline, read_day

    stack, _ = year
    stack.start_airflow()
    client = stack.wait_airflow()
    client.unpause("daily")
    date = dt.date(2011, 12, 5)
    client.trigger("daily", {"date": str(date), "force": True}, "busiest")
    for _ in client.follow("daily", "busiest", check=stack.check):
        pass
    account = read_day(client, "daily", "busiest", date, date)
    assert account.state == "success", account.failures
    figures = headline(stack.folder.warehouse, date, date)
    with duckdb.connect(str(stack.folder.warehouse), read_only=True) as connection:
        lines, invoices = connection.execute(
            "select count(*), count(distinct invoice_no) from stg_order_lines where event_date = ?", [date]
        ).fetchall()[0]
    assert (lines, figures["revenue"], invoices) == (5_331, Decimal("57751.320"), 151)
    assert account.results["reconcile"]["views"]["sales_by_minute"]["differences"] == 0
