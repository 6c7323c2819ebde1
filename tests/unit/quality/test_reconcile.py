import datetime as dt
import random
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest

from quality.errors import ReconciliationFailed
from quality.reconcile import ROW, Comparison, compare_view
from quality.reconcile_views import judge
from quality.run import Run
from tidemill import ViewColumn, ViewStatus

RUN = Run("r1", "2011-12-05", "2011-12-05", {}, {})
AT = dt.datetime(2011, 12, 5, 8, 26, tzinfo=dt.UTC)
Row = tuple[dt.datetime | None, str | None, int | None, Decimal | None, float | None]


def view(window: str = "window_start", group: tuple[str, ...] = ("window_start", "country")) -> ViewStatus:
    return ViewStatus(
        view="sales", stream="order_lines", offset=9, lag=0, rows=1, group_columns=group, window_column=window,
        error="", definition_hash="",
        columns=(
            ViewColumn("window_start", "TIMESTAMP WITH TIME ZONE", True, 0),
            ViewColumn("country", "VARCHAR", True, 0),
            ViewColumn("units", "HUGEINT", True, 0),
            ViewColumn("revenue", "DECIMAL(38,3)", True, 0),
            ViewColumn("mean", "DOUBLE", False, 1e-9),
        ),
    )  # fmt: skip


def row(country: str | None = "France", units: int | None = 3, revenue: str | None = "11.500", mean: float | None = 2.5,
        at: dt.datetime | None = AT) -> Row:  # fmt: skip
    return at, country, units, None if revenue is None else Decimal(revenue), mean


def table(rows: list[Row]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [[], [], [], [], []]
    # HUGEINT travels as the decimal that holds it.
    types = (pa.timestamp("us", tz="UTC"), pa.string(), pa.decimal128(38, 0), pa.decimal128(38, 3), pa.float64())
    names = ("window_start", "country", "units", "revenue", "mean")
    return pa.table({name: pa.array(values, kind) for name, values, kind in zip(names, columns, types, strict=True)})


def compare(live: list[Row], batch: list[Row], status: ViewStatus | None = None) -> Comparison:
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("batch_rows", table(batch))
        connection.execute('create table "batch" as select * replace (units::hugeint as units) from batch_rows')
        return compare_view(connection, status or view(), table(live), '"batch"', RUN.first, RUN.end)


def test_equal_sides_agree_and_windows_are_counted():
    rows = [row(), row("Spain"), row(None), row(at=AT + dt.timedelta(minutes=1))]
    assert compare(rows, rows[::-1]) == Comparison("sales", 2, 4, 0, ())


def test_a_changed_value_is_named_with_view_window_group_column_and_amount():
    found = compare([row(revenue="12.500"), row("Spain")], [row(), row("Spain")])
    assert [str(each) for each in found.differences] == [
        "sales 2011-12-05 08:26 UTC, country=France: revenue live 12.500, batch 11.500, difference 1.000"
    ]


@pytest.mark.parametrize(
    ("live", "batch", "column", "texts"),
    [
        (row(units=4), row(), "units", ("4", "3", "1")),
        (row(units=None), row(), "units", ("NULL", "3", "")),
        (row(), row(revenue=None), "revenue", ("11.500", "NULL", "")),
        (row(None, revenue="11.501"), row(None), "revenue", ("11.501", "11.500", "0.001")),
        (row(mean=2.5 * (1 + 1e-8)), row(), "mean", ("2.500000025", "2.5", None)),
        (row(mean=float("nan")), row(), "mean", ("nan", "2.5", "nan")),
        (row(mean=None), row(), "mean", ("NULL", "2.5", "")),
        (row(mean=0.1), row(mean=0.0), "mean", ("0.1", "0.0", "0.1")),
    ],
)
def test_each_kind_of_changed_value_is_found(live: Row, batch: Row, column: str, texts: tuple[str, str, str | None]):
    found = compare([live], [batch])
    (difference,) = found.differences
    assert (found.difference_count, difference.column) == (1, column)
    assert (difference.live, difference.batch) == texts[:2]
    assert texts[2] is None or difference.difference == texts[2]


def test_an_inexact_column_may_differ_by_its_tolerance():
    assert compare([row(mean=2.5 * (1 + 1e-12))], [row()]).difference_count == 0
    assert compare([row(mean=float("nan"))], [row(mean=float("nan"))]).difference_count == 0


@pytest.mark.parametrize("country", ["France", None])
def test_a_row_that_one_side_lacks_is_a_difference(country: str | None):
    both = row("Spain")
    missing, extra = compare([both], [both, row(country)]), compare([both, row(country)], [both])
    assert [(d.column, d.live, d.batch) for d in missing.differences] == [
        (ROW, "absent", "units=3, revenue=11.500, mean=2.5")
    ]
    assert [(d.column, d.live, d.batch) for d in extra.differences] == [
        (ROW, "units=3, revenue=11.500, mean=2.5", "absent")
    ]
    assert missing.differences[0].group == f"country={country or 'NULL'}"


def test_only_windows_of_the_dates_are_compared_but_for_rows_without_one():
    before, after = AT - dt.timedelta(days=1), dt.datetime(2011, 12, 6, tzinfo=dt.UTC)
    found = compare([row(at=before), row(), row(at=None)], [row(at=after), row(), row(at=None, units=4)])
    assert [(d.window, d.column) for d in found.differences] == [("NULL", "units")]
    assert found.rows_compared == 2


def test_a_view_without_windows_is_compared_whole():
    rows = [row("Spain", at=AT - dt.timedelta(days=400)), row("France")]
    found = compare(rows, rows[:1], view(window="", group=("country",)))
    assert (found.windows_compared, [str(each).split(":")[0] for each in found.differences]) == (
        2,
        ["sales country=France"],
    )


def test_a_value_in_the_group_may_hold_what_sql_would_take_for_more():
    name = 'it\'s "x"; drop table batch; --'
    found = compare([row(name, units=1)], [row(name, units=2)])
    assert found.differences[0].group == f"country={name}"


def test_random_changes_are_all_found_and_nothing_else():
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    batch = [
        row(chance.choice(["a", "b", None]), chance.randrange(9), at=AT + dt.timedelta(minutes=i)) for i in range(300)
    ]
    live, changed = list(batch), set()
    for place in chance.sample(range(300), 40):
        at, country, units, revenue, mean = batch[place]
        live[place] = (at, country, units + 1, revenue, mean)
        changed.add(f"{at:%Y-%m-%d %H:%M}")
    found = compare(live, batch)
    assert {each.window for each in found.differences} == changed, f"seed {seed}"
    assert found.difference_count == 40, f"seed {seed}"


def test_differences_beyond_those_listed_are_counted():
    rows = [row(at=AT + dt.timedelta(seconds=i)) for i in range(1500)]
    found = compare([row(units=1, at=each[0]) for each in rows], rows)
    assert (found.difference_count, len(found.differences)) == (1500, 1000)
    assert found.differences[1].window == "2011-12-05 08:26:01"
    with pytest.raises(ReconciliationFailed, match=r"UNEXPLAINED: sales .*and 1,495 more in sales"):
        judge(RUN, [found], [])


def test_the_judgement():
    good = compare([row()], [row()])
    assert judge(RUN, [good], []) == {"views": {"sales": {"windows": 1, "rows": 1, "differences": 0}}}
    with pytest.raises(ReconciliationFailed, match="no window of 2011-12-05 was compared"):
        judge(RUN, [compare([], [])], [])
    with pytest.raises(ReconciliationFailed, match="nothing was compared"):
        judge(RUN, [], [])
    with pytest.raises(ReconciliationFailed, match="sales stands still"):
        judge(RUN, [good], ["sales stands still: disk full"])
    with pytest.raises(ReconciliationFailed) as caught:
        judge(RUN, [good, compare([row(units=1)], [row()])], [])
    assert caught.value.views == ["sales"]
