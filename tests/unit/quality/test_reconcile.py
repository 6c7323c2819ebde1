import datetime as dt
import math
import random
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest

from quality.reconcile import ROW, Comparison, compare_view, has_expired
from quality.run import Run
from tidemill import ViewColumn, ViewStatus

RUN = Run("r1", "2011-12-05", "2011-12-05", {}, {})
AT = dt.datetime(2011, 12, 5, 8, 26, tzinfo=dt.UTC)
Row = tuple[dt.datetime | None, str | None, int | None, Decimal | None, float | None]


def view(
    window: str = "window_start",
    group: tuple[str, ...] = ("window_start", "country"),
    expired_before: dt.datetime | None = None,
) -> ViewStatus:
    return ViewStatus(
        view="sales", stream="order_lines", offset=9, lag=0, rows=1, group_columns=group, window_column=window,
        error="", definition_hash="", expired_before=expired_before,
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
    assert compare(rows, rows[::-1]) == Comparison("sales", "order_lines", 2, 4, 0, ())


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
        (row(mean=2.5), row(mean=float("inf")), "mean", ("2.5", "inf", "-inf")),
        (row(mean=float("inf")), row(mean=2.5), "mean", ("inf", "2.5", "inf")),
        (
            row(revenue="9" * 35 + ".999"),
            row(revenue="-" + "9" * 35 + ".999"),
            "revenue",
            ("9" * 35 + ".999", "-" + "9" * 35 + ".999", ""),
        ),
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


def test_one_connection_compares_one_view_after_another():
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("batch", table([row(), row("Spain")]))
        for live in ([row(), row("Spain")], [row()], [row(units=9), row("Spain")]):
            found = compare_view(connection, view(), table(live), "batch", RUN.first, RUN.end)
            assert found.difference_count == (live != [row(), row("Spain")])


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


@pytest.mark.parametrize("country", ["France", None])
def test_a_row_that_batch_has_twice_is_a_difference(country: str | None):
    found = compare([row("Spain"), row(country)], [row("Spain"), row(country), row(country)])
    assert [str(each) for each in found.differences] == [
        f"sales 2011-12-05 08:26 UTC, country={country or 'NULL'}: (row) live 1 times, batch 2 times"
    ]
    assert found.rows_compared == 2


def test_windows_that_have_left_the_live_table_are_not_compared():
    rows = [row(at=AT + dt.timedelta(hours=hour)) for hour in range(4)]
    left = view(expired_before=AT + dt.timedelta(hours=2))
    found = compare(rows[2:], rows, left)
    assert (found.windows_compared, found.difference_count, found.compared) == (2, 0, True)
    assert found.expired == "those before 2011-12-05 10:26:00 UTC have left the live table"
    # What is left is compared as ever.
    assert compare(rows[3:], rows, left).difference_count == 1
    assert compare([*rows[2:], row("Spain", at=rows[2][0])], rows, left).difference_count == 1
    # Nothing of the date has left: the view keeps more than that.
    assert compare(rows, rows, view(expired_before=AT - dt.timedelta(days=1))).expired == ""


def test_a_date_has_expired_when_none_of_its_windows_is_left():
    end = dt.datetime.combine(RUN.end, dt.time(), dt.UTC)
    assert has_expired(view(expired_before=end), RUN.end)
    assert not has_expired(view(expired_before=end - dt.timedelta(microseconds=1)), RUN.end)
    assert not has_expired(view(), RUN.end)
    assert not has_expired(view(window="", group=("country",), expired_before=end), RUN.end)


EVENTS = ViewStatus(
    view="large_lines", stream="order_lines", offset=9, lag=0, rows=1, group_columns=("_offset",), window_column="at",
    error="", definition_hash="",
    columns=(
        # Names that the comparison could have for itself.
        ViewColumn("w", "UBIGINT", True, 0), ViewColumn("at", "TIMESTAMP WITH TIME ZONE", True, 0),
        ViewColumn("_offset", "BIGINT", True, 0), ViewColumn("is_there", "VARCHAR", True, 0),
        ViewColumn("c0", "BOOLEAN", False, 1e-9),
    ),
)  # fmt: skip


def compare_events(live: str, batch: str) -> Comparison:
    """Compare views of events; each side is SQL over `events`: 1,000 events, one a minute from 8:00 of the 5th on."""
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(
            "create table events as select (i * 7)::ubigint as w, timestamptz '2011-12-05 08:00:00.5+00' + "
            "to_minutes(i) as at, i::bigint as _offset, 'e' || i as is_there, i % 2 = 0 as c0 from range(1000) t(i)"
        )
        connection.execute(f"create table batch as {batch}")
        table = connection.sql(live).to_arrow_table()
        return compare_view(connection, EVENTS, table, "batch", RUN.first, RUN.end)


def test_views_of_events_are_compared_event_by_event():
    # 16 hours of the date, and then those of the next one.
    assert compare_events("from events", "from events order by _offset desc") == Comparison(
        "large_lines", "order_lines", 960, 960, 0, ()
    )
    assert compare_events("from events", "from events where _offset < 960").difference_count == 0
    found = compare_events(
        "from events where _offset <> 4", "select * replace (is_there || 'x' as is_there) from events"
    )
    assert (found.windows_compared, found.difference_count) == (960, 960)
    there = "w=28, at=2011-12-05 08:04:00.5+00, is_there=e4x, c0=true"
    assert [str(each) for each in found.differences[3:5]] == [
        "large_lines 2011-12-05 08:03:00.500000 UTC, _offset=3: is_there live e3, batch e3x",
        f"large_lines 2011-12-05 08:04:00.500000 UTC, _offset=4: (row) live absent, batch {there}",
    ]


def test_an_event_whose_time_differs_is_found_by_its_offset():
    found = compare_events("from events", 'select * replace ("at" + interval 1 second as "at") from events')
    assert (found.difference_count, found.differences[0].column) == (960, "at")
    assert found.differences[0].window == "2011-12-05 08:00:00.500000"


def test_amounts_that_a_column_cannot_hold_are_still_differences():
    found = compare_events("from events", "select * replace (w + 1 as w) from events where _offset = 2")
    assert [each.difference for each in found.differences if each.column == "w"] == ["-1"]
    # Of two booleans there is no relative distance.
    found = compare_events(
        "from events where _offset = 2", "select * replace (not c0 as c0) from events where _offset = 2"
    )
    assert [(each.column, each.live, each.batch, each.difference) for each in found.differences] == [
        ("c0", "true", "false", "")
    ]


def bounded(kind: str = "DOUBLE") -> ViewStatus:
    return ViewStatus(
        view="bytes_by_host", stream="web_requests", offset=9, lag=0, rows=1, group_columns=("host",), window_column="",
        error="", definition_hash="",
        columns=(
            ViewColumn("host", "VARCHAR", True, 0),
            ViewColumn("p95", kind, False, 0, rank_error=0.02),
            ViewColumn("requests", "BIGINT", True, 0),
        ),
    )  # fmt: skip


def compare_bounded(live: str, bounds: str, status: ViewStatus | None = None, batch: str = "") -> Comparison:
    """live, bounds: rows of VALUES; batch: those of live, unless given."""
    with duckdb.connect(":memory:") as connection:
        table = connection.sql(f"select * from (values {live}) t(host, p95, requests)").to_arrow_table()
        connection.execute(f"create table batch as select * from (values {batch or live}) t(host, p95, requests)")
        query = f"select * from (values {bounds}) t(host, p95__low, p95__high)"
        return compare_view(connection, status or bounded(), table, "batch", RUN.first, RUN.end, query)


def test_an_approximate_quantile_lies_between_its_bounds():
    inside = "('a', 9.0::double, 1), ('b', 10.0, 1), (null, 10.5, 1), ('none', null, 1)"
    bounds = "('a', 9.0::double, 10.0::double), ('b', 9.0, 10.0), (null, 10.0, 11.0), ('none', null, null)"
    other_batch = "('a', 50.0::double, 1), ('b', null, 1), (null, 1e9, 1), ('none', null, 1)"
    assert compare_bounded(inside, bounds) == Comparison("bytes_by_host", "web_requests", 4, 4, 0, ())
    # Batch's own answer is an approximation too: it is shown, and live is judged.
    assert compare_bounded(inside, bounds, batch=other_batch).difference_count == 0


@pytest.mark.parametrize(
    ("live", "bounds", "text"),
    [
        ("12.5", "9.0, 10.0", "p95 live 12.5, expected 9.0 to 10.0 (batch 12.5), difference 2.5"),
        ("8.5", "9.0, 10.0", "p95 live 8.5, expected 9.0 to 10.0 (batch 8.5), difference -0.5"),
        ("null", "9.0, 10.0", "p95 live NULL, expected 9.0 to 10.0 (batch NULL)"),
        ("8.5", "null, null", "p95 live 8.5, expected NULL (batch 8.5)"),
        ("'nan'", "9.0, 10.0", "p95 live nan, expected 9.0 to 10.0 (batch nan), difference nan"),
    ],
)
def test_a_quantile_outside_of_its_bounds_is_named_with_them(live: str, bounds: str, text: str):
    low, high = (f"{bound}::double" for bound in bounds.split(", "))
    found = compare_bounded(f"('a', {live}::double, 1)", f"('a', {low}, {high})")
    assert [str(each) for each in found.differences] == [f"bytes_by_host host=a: {text}"]


def test_a_group_without_bounds_has_no_values():
    found = compare_bounded("('a', 9.0::double, 1), ('b', null, 1)", "('c', 1.0::double, 2.0::double)")
    assert [str(each) for each in found.differences] == [
        "bytes_by_host host=a: p95 live 9.0, expected NULL (batch 9.0)"
    ]


@pytest.mark.parametrize(
    ("kind", "value"), [("DOUBLE", "0.1"), ("BIGINT", "4611686018427387905"), ("DOUBLE", "-1e300")]
)
def test_a_quantile_may_lie_outside_by_what_doubles_round(kind: str, value: str):
    bounds = f"('a', {value}::{kind}, {value}::{kind})"
    for factor, differences in ((1 + 1e-12, 0), (1 - 1e-12, 0), (1 + 1e-6, 1), (1 - 1e-6, 1)):
        rows = f"('a', ({value}::double * {factor!r}::double)::{kind}, 1)"
        assert compare_bounded(rows, bounds, bounded(kind)).difference_count == differences


def test_quantiles_of_times_are_compared_as_times():
    rows = "('a', timestamp '2011-12-05 08:30:00', 1)"
    bounds = "('a', timestamp '2011-12-05 08:00:00', timestamp '2011-12-05 08:{}:00')"
    assert compare_bounded(rows, bounds.format(45), bounded("TIMESTAMP")).difference_count == 0
    (found,) = compare_bounded(rows, bounds.format(15), bounded("TIMESTAMP")).differences
    assert (found.bounds, found.difference) == ("2011-12-05 08:00:00 to 2011-12-05 08:15:00", "")


def test_a_sum_near_zero_is_as_exact_as_its_numbers_are_large():
    """Of 1e6 and -1e6, and what rounding leaves: 1e-10 beside 3e-10 is no difference, 1e-2 is one."""
    for live, magnitude, differences in ((1e-10, 2e6, 0), (1e-10, None, 1), (1e-10, math.nan, 1), (1e-2, 2e6, 1)):
        with duckdb.connect(":memory:") as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.register("batch_rows", table([row(mean=3e-10)]))
            connection.execute("create table batch as select * replace (units::hugeint as units) from batch_rows")
            connection.register("sizes", table([row(mean=magnitude)]))
            found = compare_view(
                connection, view(), table([row(mean=live)]), "batch", RUN.first, RUN.end, magnitudes="sizes"
            )
        assert found.difference_count == differences, (live, magnitude)
