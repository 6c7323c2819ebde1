"""One view over its store: states, seals, crashes, limits."""

import datetime as dt
import sqlite3
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from ingest_service.errors import ViewRefused
from ingest_service.live.query import SealedRange
from ingest_service.live.store import Store
from ingest_service.live.view import ViewStopped

DAY = dt.date(2011, 12, 5)
NEXT = dt.date(2011, 12, 6)


def sealed(offset: int, first: dt.date = DAY, last: dt.date = DAY) -> SealedRange:
    return SealedRange(first, last, offset)


def test_the_table_is_readable_by_any_sqlite_client(kit: Any) -> None:
    with kit.view() as view:
        view.apply(
            [kit.log.append([kit.line(quantity=3, unit_price="1.250"), kit.line(customer_id=None, country=None)])]
        )
    connection = sqlite3.connect(kit.folder / "live.sqlite")
    try:
        rows = connection.execute('select * from sales order by country nulls first, "_key"').fetchall()
    finally:
        connection.close()
    assert rows == [
        ("2011-12-05T08:00:00Z", None, 1, "1", "1.000", 0, "22:2011-12-05 08:00:00+00-", 2, 0),
        ("2011-12-05T08:00:00Z", "France", 1, "3", "3.750", 1, "22:2011-12-05 08:00:00+006:France", 2, 0),
    ]


def test_a_seal_copies_the_windows_of_its_dates_as_they_were(kit: Any) -> None:
    day = 24 * 60
    with kit.view() as view:
        view.apply([kit.log.append([kit.line(0), kit.line(day), kit.line(-day), kit.line(day - 8 * 60 - 1)])])
        first = kit.log.seal(DAY)
        late = kit.log.append([kit.line(0), kit.line(1)])
        second, both = kit.log.seal(DAY), kit.log.seal(DAY, NEXT)
        view.apply([first, late, second, both])
    of_day = kit.SALES.replace("where", f"where event_date = date '{DAY}' and")
    assert kit.assert_agrees(of_day, below=4, sealed=sealed(4)) == 2
    assert kit.assert_agrees(of_day, below=6, sealed=sealed(6)) == 3
    assert kit.rows(sealed=sealed(6, DAY, NEXT)).num_rows == 4
    kit.assert_agrees()


def test_a_view_without_windows_is_copied_whole(kit: Any) -> None:
    sql = f"select country, count(*) as n from {kit.SOURCE} group by all"
    with kit.view(sql) as view:
        view.apply([kit.log.append([kit.line(0), kit.line(24 * 60, country="Spain")]), kit.log.seal(DAY)])
    assert kit.rows(sealed=sealed(2)).num_rows == 2


def test_the_same_seal_seen_again_after_a_restart_changes_nothing(kit: Any) -> None:
    seal_at = 1
    with kit.view() as view:
        view.apply([kit.log.append([kit.line(0)]), kit.log.seal(DAY)])
    with kit.view() as view:
        assert view.offset == seal_at
        view.apply([entry for entry in kit.log.entries if getattr(entry, "seal_offset", -1) >= view.offset])
        view.apply([kit.log.append([kit.line(0)])])
        view.apply(kit.log.entries)  # an older seal, behind the view, is not its business any more
    assert kit.rows(sealed=sealed(seal_at))["lines"].to_pylist() == [1]
    assert kit.rows()["lines"].to_pylist() == [2]


def test_sealed_rows_are_what_the_table_holds_also_when_somebody_changed_it(kit: Any) -> None:
    """Reconciling must find a row of a live table that was changed by hand: the seal copies what readers saw."""
    with kit.view() as view:
        view.apply([kit.log.append([kit.line(0, unit_price="1.250")])])
        connection = sqlite3.connect(kit.folder / "live.sqlite")
        with connection:
            connection.execute("update sales set revenue = revenue + 1, lines = lines + 1")
        connection.close()
        view.apply([kit.log.seal(DAY)])
    assert [str(v) for v in kit.rows(sealed=sealed(1))["revenue"].to_pylist()] == ["2.250"]


class Broken(Exception):
    pass


@pytest.mark.parametrize("fails_at", range(12))
def test_a_crash_between_any_two_writes_leaves_a_prefix(kit: Any, fails_at: int) -> None:
    """Rows, states, values and checkpoint move together; what is applied again after the crash is applied once."""
    first = kit.log.append([kit.line(0), kit.line(1, customer_id=2)])
    more = [kit.log.append([kit.line(0, customer_id=3), kit.line(2)]), kit.log.seal(DAY), kit.log.append([kit.line(1)])]
    store = Store(kit.url)
    statements = 0

    def crash(*_: Any) -> None:
        nonlocal statements
        statements += 1
        if statements > fails_at:
            raise Broken

    with kit.view(store=store) as view:
        view.apply([first])
        sa.event.listen(store.engine, "before_cursor_execute", crash)
        with pytest.raises(Broken):
            view.apply(more)
        sa.event.remove(store.engine, "before_cursor_execute", crash)
        assert kit.assert_agrees(below=view.offset) >= 2
    with kit.view() as view:
        kit.assert_agrees(below=view.offset)
        view.apply(kit.log.entries if view.offset == 0 else [e for e in kit.log.entries if _from(e, view.offset)])
        assert view.offset == 5
    kit.assert_agrees()
    kit.assert_agrees(below=4, sealed=sealed(4))


def _from(entry: Any, offset: int) -> bool:
    return bool(
        getattr(entry, "seal_offset", 0) >= offset if hasattr(entry, "seal_offset") else entry.next_offset > offset
    )


def test_a_row_at_fault_stops_the_view_right_before_it(kit: Any) -> None:
    sql = f"select country, sum(100 // quantity) as n, count(*) as lines from {kit.SOURCE} group by all"
    lines = [kit.line(quantity=1) for _ in range(10)]
    lines[7] = kit.line(quantity=0)
    kit.log.append(lines)
    with kit.view(sql) as view:
        with pytest.raises(ViewStopped, match=r"stopped at offset 7: .*[Dd]ivision by zero"):
            view.apply(kit.log.entries)
        assert view.offset == 7
    kit.assert_agrees(sql, below=7)


def test_a_group_with_too_many_distinct_values_stops_the_view(kit: Any) -> None:
    kit.log.append([kit.line(customer_id=i) for i in range(5)])
    kit.log.append([kit.line(customer_id=i) for i in range(8)])
    with kit.view(distinct_values_max=5) as view:
        view.apply(kit.log.entries[:1])
        with pytest.raises(ViewStopped, match=r"offset 10: the group .*France has more than 5 .*approx_count_distinct"):
            view.apply(kit.log.entries[1:])
        assert view.offset == 10
    kit.assert_agrees(below=10)


def test_an_aggregation_without_groups_has_its_row_from_the_start(kit: Any) -> None:
    aggregates = "count(*) as n, sum(quantity) as q, count(distinct customer_id) as c"
    sql = f"select {aggregates} from {kit.SOURCE} where quantity > 0"
    with kit.view(sql) as view:
        assert kit.assert_agrees(sql) == 1
        view.apply([kit.log.append([kit.line(quantity=-1)])])
        assert kit.assert_agrees(sql) == 1
        view.apply([kit.log.append([kit.line(quantity=5)])])
        assert kit.assert_agrees(sql) == 1


def test_the_watermark_follows_event_time_and_never_goes_back(kit: Any) -> None:
    with kit.view() as view:
        assert view.checkpoint.watermark_us is None
        view.apply([kit.log.append([kit.line(90)])])
        expected = int((kit.START + dt.timedelta(minutes=30)).timestamp()) * 1_000_000
        assert view.checkpoint.watermark_us == expected
        view.apply([kit.log.append([kit.line(0)])])
        assert view.checkpoint.watermark_us == expected
    with kit.view() as view:
        assert view.checkpoint.watermark_us == expected


def test_a_table_that_is_no_views_is_left_alone(kit: Any) -> None:
    connection = sqlite3.connect(kit.folder / "live.sqlite")
    with connection:
        connection.execute("create table sales__state (x)")
    connection.close()
    with pytest.raises(ViewRefused, match="has a table sales__state already"), kit.view():
        pass


def test_a_view_whose_tables_are_gone_starts_again(kit: Any) -> None:
    kit.log.append([kit.line(0)])
    with kit.view() as view:
        view.apply(kit.log.entries)
    connection = sqlite3.connect(kit.folder / "live.sqlite")
    with connection:
        connection.execute("drop table sales__distinct")
    connection.close()
    with kit.view() as view:
        assert view.offset == 0
        view.apply(kit.log.entries)
    kit.assert_agrees()


def test_rows_may_have_columns_that_the_view_does_not_know(kit: Any) -> None:
    """The contract gained one while the view follows: it goes on by the columns that it was planned with."""
    with kit.view() as view:
        view.apply([kit.log.append([kit.line(0)])])
        rows = kit.log.append([kit.line(0), kit.line(1)])
        wider = rows.batch.add_column(2, pa.field("shop", pa.string()), pa.array(["Leeds", "York"]))
        view.apply([replace(rows, batch=wider)])
    assert kit.assert_agrees() == 2


@pytest.mark.parametrize("weight", [2.0**81, -(2.0**91), 2.0**807, 0.1, -0.0, 5e-324, float("nan"), float("inf")])
def test_doubles_come_back_from_the_store_as_they_went_in(kit: Any, weight: float) -> None:
    """DuckDB 2.0 writes some powers of two wrong as text, which is how states and groups are kept."""
    sql = (
        "select weight, min(weight) as low, sum(weight) as total, count(distinct weight) as different, "
        f"max(weight) filter (where quantity > 0) as high from {kit.SOURCE} group by all"
    )
    with kit.view(sql) as view:
        for _ in range(2):
            view.apply([kit.log.append([kit.line(weight=weight), kit.line(weight=weight * 2), kit.line(weight=None)])])
    assert kit.assert_agrees(sql) >= 2


def test_a_spread_comes_back_from_the_store_as_it_went_in(kit: Any) -> None:
    sql = f"select country, stddev_pop(weight) as d, var_samp(quantity) as v from {kit.SOURCE} group by all"
    with kit.view(sql) as view:
        for power in range(78, 94):
            view.apply([kit.log.append([kit.line(weight=0.0), kit.line(weight=2.0 ** (power / 2), quantity=power)])])
            kit.assert_agrees(sql, below=view.offset)
