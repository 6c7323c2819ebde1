"""The simulated shop: the same for a seed, and in about the proportions of a real one."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tidemill.simulate import LiveShop, SimulatedDay, simulate_day

DATE = dt.date(2025, 3, 4)

# Of ../shared/data/README.md: 541,909 lines in all.
MEASURED = {
    "no customer": 135_080 / 541_909,
    "no description": 1_454 / 541_909,
    "negative": 10_624 / 541_909,
    "cancelled": 9_288 / 541_909,
    "free": 2_515 / 541_909,
    "repeated": 5_268 / 541_909,
    "spaces around": 113_452 / 541_909,
    "no product": 2_995 / 541_909,
    "lines an invoice": 541_909 / 25_900,
}
# The shares are drawn, and broken rows change a few: a fifth more or less is "about" the same.
TOLERANCE = 0.2


@pytest.fixture(scope="module")
def big() -> SimulatedDay:
    return simulate_day(DATE, seed=7, lines=100_000)


def test_a_seed_makes_one_day() -> None:
    day = simulate_day(DATE, seed=3, lines=2_000)
    assert day.table.equals(simulate_day(DATE, seed=3, lines=2_000).table)
    assert not day.table.equals(simulate_day(DATE, seed=4, lines=2_000).table)


def test_proportions_are_about_those_measured(big: SimulatedDay) -> None:
    measured = (
        duckdb.from_arrow(big.table)
        .query(
            "lines",
            """
        select avg((customer_id is null)::int) as "no customer", avg((description is null)::int) as "no description",
               avg((quantity < 0)::int) as negative, avg((invoice_no like 'C%')::int) as cancelled,
               avg((unit_price = 0)::int) as free,
               avg((description <> trim(description))::int) as "spaces around",
               avg((not regexp_matches(stock_code, '^[0-9]{5}') and stock_code <> '')::int) as "no product",
               count(*) / count(distinct invoice_no) as "lines an invoice",
               1 - count(distinct (invoice_no, stock_code, description, quantity, unit_price, invoiced_at)) / count(*)
                   as repeated
        from lines
        """,
        )
        .to_arrow_table()
    )
    shares = measured.to_pylist()[0]
    for name, expected in MEASURED.items():
        assert shares[name] == pytest.approx(expected, rel=TOLERANCE), name


def test_the_truth_is_what_is_in_the_day(big: SimulatedDay) -> None:
    truth, table = big.truth, big.table
    assert table.num_rows == truth.sent == truth.good + truth.broken + truth.resent
    assert truth.broken == 100
    assert truth.resent == 50
    assert sum(truth.broken_fields.values()) == truth.broken
    ids = table["event_id"].filter(pc.not_equal(table["event_id"], ""))
    assert len(ids) - pc.count_distinct(ids).as_py() == truth.resent


def test_two_percent_come_up_to_an_hour_late(big: SimulatedDay) -> None:
    times = big.table["invoiced_at"].cast(pa.int64()).to_numpy()
    newest, late, most = 0, 0, 0
    for time in times.tolist():
        late += time < newest
        most = max(most, newest - time)
        newest = max(newest, time)
    assert late == big.truth.out_of_order
    assert late / len(times) == pytest.approx(0.02, rel=TOLERANCE)
    assert 0 < most <= 3_600_000_000


def test_the_shop_is_open_from_six_to_eight(big: SimulatedDay) -> None:
    hours = pc.hour(big.table["invoiced_at"])
    assert pc.min(hours).as_py() >= 6
    assert pc.max(hours).as_py() < 20
    assert set(pc.unique(big.table["invoiced_at"].cast(pa.date32())).to_pylist()) == {DATE}


@pytest.mark.parametrize("lines", [1, 2, 7, 499, 500, 5_000])
def test_any_size_has_exactly_its_lines(lines: int) -> None:
    seed = random.randrange(1 << 30)
    truth = simulate_day(DATE, seed=seed, lines=lines).truth
    assert truth.good + truth.broken == lines, f"seed {seed}"


def test_days_share_neither_ids_nor_invoices() -> None:
    first, second = (simulate_day(DATE + dt.timedelta(days=day)).table for day in (0, 1))
    for column in ("event_id", "invoice_no"):
        shared = set(first[column].to_pylist()) & set(second[column].to_pylist())
        # What breaks the contract looks the same on any day.
        assert shared <= {"", "no number"}


def test_a_day_without_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        simulate_day(DATE, lines=0)


def test_the_live_shop_sells_now() -> None:
    opened = dt.datetime(2025, 3, 4, 3, 0, tzinfo=dt.UTC)
    shop = LiveShop(1, opened)
    tables = [shop.take(2_000, opened + dt.timedelta(seconds=second)) for second in range(3)]
    newest = [pc.max(table["invoiced_at"]).as_py() for table in tables]
    assert newest == [opened + dt.timedelta(seconds=second) for second in range(3)]
    assert pc.min(tables[0]["invoiced_at"]).as_py() >= opened - dt.timedelta(hours=1)
    ids = [value for table in tables for value in table["event_id"].to_pylist() if value]
    assert len(set(ids)) == len(ids)


def test_the_proportions_are_those_of_the_real_file() -> None:
    file = Path(__file__).parents[4] / "shared" / "data" / "online_retail.parquet"
    if not file.exists():
        pytest.skip("../shared/data/online_retail.parquet is not here: its measured proportions are taken as given")
    row = duckdb.sql(
        f"""select avg((customer_id is null)::int), avg((quantity < 0)::int), avg((unit_price = 0)::int)
        from '{file}'"""
    ).fetchall()[0]
    assert row == pytest.approx([MEASURED["no customer"], MEASURED["negative"], MEASURED["free"]])
