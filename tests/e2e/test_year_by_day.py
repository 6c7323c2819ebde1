"""Soak: a real shop's year through Airflow, one date after another; dates damaged and restored; what a date costs.

It prints the seed of its random dates, and the seconds that a date takes: at the year's begin, in its middle, at its
end, and with a warehouse of 10 GB.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from support.warehouse import content_hash, damage

from tidemill.local.airflow_client import AirflowClient
from tidemill.local.folder import DataFolder
from tidemill.local.stack import Stack

ROOT = Path(__file__).parents[2]
FILE = ROOT.parent / "shared" / "data" / "online_retail.parquet"
COLUMNS = ["--timezone", "Europe/London", "--map", "event_id=r{source_row}", "--map", "invoiced_at=invoice_date"]
DATES_MAX = int(os.environ.get("TIDEMILL_SOAK_DATES", "305"))
"""How many of the year's dates are run, the first ones: for a shorter look."""
DAMAGED = 20
BALLAST_BYTES = 10 * 1_000_000_000
BALLAST_ROW_BYTES = 1_000_000

pytestmark = [
    pytest.mark.soak,
    pytest.mark.airflow,
    pytest.mark.skipif(not FILE.is_file(), reason=f"the real data set is absent: {FILE.name} beside the project"),
]


class Year:
    """The stack with the year in its log, and the dates that were run, each with the seconds it took."""

    def __init__(self, stack: Stack, airflow: AirflowClient) -> None:
        self.stack, self.airflow = stack, airflow
        self.seconds: dict[dt.date, float] = {}

    @property
    def warehouse(self) -> Path:
        return self.stack.folder.warehouse

    def run(self, date: dt.date) -> float:
        """Run one date through Airflow and see it published; how long that took, from its trigger, in seconds."""
        run_id = f"{date}-{time.time_ns()}"
        started = time.perf_counter()
        self.airflow.trigger("daily", {"date": str(date), "force": True}, run_id)
        for _ in self.airflow.follow("daily", run_id, check=self.stack.check):
            pass
        seconds = time.perf_counter() - started
        assert self.airflow.run_state("daily", run_id) == "success", self.airflow.failures("daily", run_id)
        return seconds


@pytest.fixture(scope="module")
def dates() -> list[dt.date]:
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        rows = connection.execute(
            "select distinct cast(timezone('Europe/London', invoice_date) as date) from read_parquet(?) order by 1",
            [str(FILE)],
        ).fetchall()
    assert len(rows) == 305
    return [date for (date,) in rows][:DATES_MAX]


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory, dates: list[dt.date]) -> Iterator[Year]:
    """Every date run, one after another."""
    folder = DataFolder(tmp_path_factory.mktemp("year") / "data")
    with Stack(folder, ROOT, scheduled=False) as stack:
        stack.start_airflow()
        address = stack.start_service()
        command = [sys.executable, "-c", "import sys; from tidemill.cli import main; sys.exit(main())", "send"]
        command += ["order_lines", str(FILE), *COLUMNS, "--address", address, "--json"]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        airflow = stack.wait_airflow()
        airflow.unpause("daily")
        made = Year(stack, airflow)
        for date in dates:
            made.seconds[date] = made.run(date)
        yield made


def test_the_year_holds_the_control_totals(year: Year, dates: list[dt.date]) -> None:
    with duckdb.connect(str(year.warehouse), read_only=True) as connection:
        found = connection.execute(
            "select sum(lines), sum(units), sum(revenue), count(distinct sales_date) from fct_daily_sales"
        ).fetchall()
        published = connection.execute("select count(distinct first_date) from tidemill_published").fetchall()
    assert found == [(541_909, 5_176_450, Decimal("9747747.934"), 305)]
    assert published == [(len(dates),)]


def test_damaged_dates_are_restored_exactly(year: Year, dates: list[dt.date]) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chosen = sorted(random.Random(seed).sample(dates, min(DAMAGED, len(dates))))
    before = content_hash(year.warehouse)
    for date in chosen:
        damage(year.warehouse, date)
        assert content_hash(year.warehouse) != before, date
        year.run(date)
        assert content_hash(year.warehouse) == before, date


def test_what_a_date_costs(year: Year, dates: list[dt.date], capsys: pytest.CaptureFixture[str]) -> None:
    seconds = [year.seconds[date] for date in dates]
    third = max(1, len(seconds) // 15)
    middle = len(seconds) // 2
    parts = {
        "the first": seconds[:third],
        "in the middle": seconds[middle : middle + third],
        "the last": seconds[-third:],
    }
    size_before = year.warehouse.stat().st_size
    with duckdb.connect(str(year.warehouse)) as connection:
        # Random bytes, so that nothing compresses them.
        rows = BALLAST_BYTES // BALLAST_ROW_BYTES
        connection.execute("create table ballast (id bigint, bytes blob)")
        for number in range(rows):
            connection.execute("insert into ballast values (?, ?)", [number, os.urandom(BALLAST_ROW_BYTES)])
    heavy = [year.run(date) for date in dates[-3:]]
    with capsys.disabled():
        print()
        for name, taken in parts.items():
            print(f"{name} {len(taken)} dates: {statistics.median(taken):.1f} s a date (median)")
        print(f"a warehouse of {size_before:,} bytes; with {year.warehouse.stat().st_size:,}: "
              f"{statistics.median(heavy):.1f} s a date")  # fmt: skip
    assert year.warehouse.stat().st_size > BALLAST_BYTES
