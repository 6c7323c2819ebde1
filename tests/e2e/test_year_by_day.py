"""Soak: a real shop's year through Airflow; dates damaged and restored; what a date costs as the year grows.

The events come in three lots, as they would over the year: five dates, then up to the 150th, then all 305. After each
the last five dates are run one by one, each with a publication of its own, and before that all others by a backfill.
It prints the seed of its random dates, and the seconds that a date takes with 5, 150 and 305 dates there and by
backfill. Another warehouse, of five dates, is made to have 10 GB: what a date costs in it, beside what it cost before.
"""

from __future__ import annotations

import contextlib
import datetime as dt
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
TIDEMILL = [sys.executable, "-m", "tidemill"]
ZONE = "Europe/London"
DATES = 305
LOTS = (5, 150, DATES)
"""How many dates are there after each lot of events."""
SINGLE = 5
"""Of each lot, so many dates are run one by one: the last ones."""
DAMAGED = 20
HEAVY = 3
"""So many dates are timed in the large warehouse."""
BALLAST_BYTES = 10 * 1_000_000_000
BALLAST_ROW_BYTES = 4 * 16
SECONDS_MAX = 3 * 3600

pytestmark = [
    pytest.mark.soak,
    pytest.mark.airflow,
    pytest.mark.skipif(not FILE.is_file(), reason=f"the real data set is absent: {FILE.name} beside the project"),
]


class Year:
    """The stack with the year in its log and its warehouse, and what that took.

    single: dates there → the seconds of each date that was run by itself; backfilled: dates there → how many dates
    the backfill before that had, its seconds, and its publications.
    """

    def __init__(self, stack: Stack, airflow: AirflowClient) -> None:
        self.stack, self.airflow = stack, airflow
        self.single: dict[int, list[float]] = {}
        self.backfilled: dict[int, tuple[int, float, int]] = {}

    @property
    def warehouse(self) -> Path:
        return self.stack.folder.warehouse

    def send(self, file: Path, lot: int) -> None:
        options = ["--timezone", ZONE, "--map", f"event_id={lot}-{{source_row}}", "--map", "invoiced_at=invoice_date"]
        self._tidemill("send", "order_lines", str(file), *options, "--address", self.stack.address, "--json")

    def backfill(self, first: dt.date, last: dt.date) -> None:
        """Run every date of a range, those without trade too, as a user does."""
        where = ["--data", str(self.stack.folder.root), "--project", str(self.stack.project)]
        where += ["--address", self.stack.address]
        self._tidemill("day", "backfill", f"--from={first}", f"--to={last}", "--force", "--json", *where)

    def publications(self) -> int:
        if not self.warehouse.exists():
            return 0
        with duckdb.connect(str(self.warehouse), read_only=True) as connection:
            return int(connection.execute("select count(*) from tidemill_published").fetchall()[0][0])

    def run(self, dates: list[dt.date]) -> float:
        """Trigger dates at once and see them published; how long that took, from the trigger, in seconds."""
        started = time.perf_counter()
        runs = {date: f"{date}-{time.time_ns()}" for date in dates}
        for date, run_id in runs.items():
            self.airflow.trigger("daily", {"date": str(date), "force": True}, run_id)
        for run_id in runs.values():
            for _ in self.airflow.follow("daily", run_id, timeout_s=SECONDS_MAX, check=self.stack.check):
                pass
            assert self.airflow.run_state("daily", run_id) == "success", self.airflow.failures("daily", run_id)
        return time.perf_counter() - started

    def _tidemill(self, *arguments: str) -> None:
        done = subprocess.run([*TIDEMILL, *arguments], capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr


@pytest.fixture(scope="module")
def dates() -> list[dt.date]:
    """The year's trading dates, UTC."""
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        rows = connection.execute(
            f"select distinct cast(timezone('{ZONE}', invoice_date) as date) from read_parquet(?) order by 1",
            [str(FILE)],
        ).fetchall()
    assert len(rows) == DATES
    return [date for (date,) in rows]


@contextlib.contextmanager
def running(root: Path) -> Iterator[Year]:
    """A service and an Airflow, with nothing in them yet."""
    with Stack(DataFolder(root / "data"), ROOT, scheduled=False) as stack:
        stack.start_airflow()
        stack.start_service()
        airflow = stack.wait_airflow()
        airflow.unpause("daily")
        yield Year(stack, airflow)


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory, dates: list[dt.date]) -> Iterator[Year]:
    """Every date run."""
    root = tmp_path_factory.mktemp("year")
    with running(root) as made:
        begin = 0
        for lot, end in enumerate(LOTS):
            made.send(part_of_file(root / f"{lot}.parquet", dates[begin], dates[end - 1]), lot)
            single = dates[end - SINGLE : end]
            if end - begin > SINGLE:
                started, before = time.perf_counter(), made.publications()
                made.backfill(dates[begin], single[0] - dt.timedelta(days=1))
                taken = time.perf_counter() - started
                made.backfilled[end] = (end - begin - SINGLE, taken, made.publications() - before)
            made.single[end] = [made.run([date]) for date in single]
            begin = end
        yield made


def part_of_file(part: Path, first: dt.date, last: dt.date) -> Path:
    """Write those rows of the real file that lie on dates of this range, UTC."""
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.execute(
            f"copy (select * from read_parquet('{FILE}') where cast(timezone('{ZONE}', invoice_date) as date) "
            f"between '{first}' and '{last}') to '{part}'"
        )
    return part


def test_the_year_holds_the_control_totals(year: Year, dates: list[dt.date]) -> None:
    with duckdb.connect(str(year.warehouse), read_only=True) as connection:
        found = connection.execute(
            "select sum(lines), sum(units), sum(revenue), count(distinct sales_date) from fct_daily_sales"
        ).fetchall()
        published = connection.execute(
            "select count(*) from (select unnest($dates) as date) asked where exists "
            "(select 1 from tidemill_published where date between first_date and last_date)",
            {"dates": dates},
        ).fetchall()
    assert found == [(541_909, 5_176_450, Decimal("9747747.934"), DATES)]
    assert published == [(DATES,)]


def test_damaged_dates_are_restored_exactly(year: Year, dates: list[dt.date]) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chosen = sorted(random.Random(seed).sample(dates, DAMAGED))
    before = content_hash(year.warehouse)
    for date in chosen:
        damage(year.warehouse, date)
    # Some one by one, the others at once: they take turns, and neighbours share one.
    for dates_at_once in (*([date] for date in chosen[:3]), chosen[3:]):
        assert content_hash(year.warehouse) != before, dates_at_once
        year.run(dates_at_once)
    assert content_hash(year.warehouse) == before


def test_what_a_date_costs(year: Year, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print()
        for there, taken in year.single.items():
            print(f"{there} dates there: {statistics.median(taken):.1f} s for one date (median of {len(taken)})")
        for there, (count, seconds, publications) in year.backfilled.items():
            print(f"backfill up to {there} dates: {count} in {seconds:.0f} s, {seconds / count:.1f} s a date, "
                  f"{publications} publications")  # fmt: skip
    assert set(year.single) == set(LOTS)
    assert all(len(taken) == SINGLE for taken in year.single.values())


def test_what_a_date_costs_in_a_warehouse_of_10_gb(
    tmp_path: Path, dates: list[dt.date], capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path) as made:
        made.send(part_of_file(tmp_path / "few.parquet", dates[0], dates[SINGLE - 1]), 0)
        made.run(dates[:SINGLE])
        small = [made.run([date]) for date in dates[:HEAVY]]
        size_before = made.warehouse.stat().st_size
        with duckdb.connect(str(made.warehouse)) as connection:
            # Random, so that nothing compresses it.
            connection.execute(
                "create table ballast as select uuid() as a, uuid() as b, uuid() as c, uuid() as d "
                f"from range({BALLAST_BYTES // BALLAST_ROW_BYTES})"
            )
        before = content_hash(made.warehouse)
        heavy = [made.run([date]) for date in dates[:HEAVY]]
        size = made.warehouse.stat().st_size
        with capsys.disabled():
            print(f"\none date in a warehouse of {size_before:,} bytes: {statistics.median(small):.1f} s; of {size:,}: "
                  f"{statistics.median(heavy):.1f} s (medians of {HEAVY})")  # fmt: skip
        assert size > BALLAST_BYTES
        assert content_hash(made.warehouse) == before
