"""Windows: open, closed, corrected; and how old ones leave."""

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from ingest_service.clock import SystemClock
from ingest_service.errors import BadRequest
from ingest_service.live import LiveViews, Operator, SealedRange, ViewFilter, ViewQuery
from ingest_service.live.manifest import LiveOptions
from ingest_service.live.store import Store

DAY = dt.date(2011, 12, 5)
NEXT = DAY + dt.timedelta(1)
HOUR = 60
A_DAY = 24 * HOUR


def states(kit: Any, views: LiveViews, **options: Any) -> dict[int, str]:
    """The state of each window, by the minute after START at which it begins."""
    rows = views.query(
        ViewQuery("sales", after_offset=kit.log.durable_offset, window_state=True, **options)
    ).table.to_pylist()
    return {round((row["window_start"] - kit.START).total_seconds() / 60): row["_window_state"] for row in rows}


def open_views(kit: Any, **options: Any) -> LiveViews:
    return LiveViews.open(kit.manifest({"sales": kit.SALES}, **options), kit.url, {"order_lines": kit.log})


def test_a_window_closes_with_the_watermark_and_says_so_when_it_changes_after_that(kit: Any) -> None:
    views = open_views(kit)
    try:
        kit.log.append([kit.line(0), kit.line(1), kit.line(30)])
        assert states(kit, views) == {0: "open", 1: "open", 30: "open"}
        kit.log.append([kit.line(61)])  # the watermark is an hour behind: the first window has just closed
        assert states(kit, views) == {0: "closed", 1: "open", 30: "open", 61: "open"}
        kit.log.append([kit.line(0), kit.line(1), kit.line(-5)])
        assert states(kit, views) == {-5: "corrected", 0: "corrected", 1: "open", 30: "open", 61: "open"}
        kit.log.append([kit.line(200)])
        assert states(kit, views)[0] == "corrected"
        closed = (ViewFilter("_window_state", Operator.EQUAL, "closed"),)
        assert states(kit, views, filters=closed, order_by=("-_window_state",)) == {
            1: "closed", 30: "closed", 61: "closed"
        }  # fmt: skip
        assert "_window_state" not in views.query(ViewQuery("sales")).table.column_names
    finally:
        views.close()


def test_the_state_of_windows_survives_a_restart(kit: Any) -> None:
    for minutes, expected in (([0, 61], "closed"), ([0], "corrected"), ([300], "corrected")):
        views = open_views(kit)
        try:
            kit.log.append([kit.line(minute) for minute in minutes])
            assert states(kit, views)[0] == expected
        finally:
            views.close()


def test_an_idle_streams_windows_close_by_the_wall_clock(kit: Any) -> None:
    views = open_views(kit)
    try:
        kit.log.append([kit.line(0)])
        assert states(kit, views) == {0: "open"}
        after = views.query(ViewQuery("sales")).watermark_us
        kit.log.watermark_us = after + 2 * 3600 * 1_000_000  # the log's own, once the stream is idle
        while states(kit, views) == {0: "open"}:
            commits = views._commits
            views._wait(commits, 5.0)
        assert states(kit, views) == {0: "closed"}
    finally:
        views.close()


def test_a_view_without_windows_has_no_states(kit: Any) -> None:
    sql = f"select country, count(*) as n from {kit.SOURCE} group by all"
    kit.log.append([kit.line(0)])
    views = LiveViews.open(kit.manifest({"sales": sql}), kit.url, {"order_lines": kit.log})
    try:
        rows = views.query(ViewQuery("sales", after_offset=1, window_state=True)).table
        assert rows["_window_state"].to_pylist() == [None]
        with pytest.raises(BadRequest, match="no column '_window_state'"):
            views.query(ViewQuery("sales", order_by=("_window_state",)))
    finally:
        views.close()


def kept(kit: Any) -> list[str]:
    return sorted({str(row["window_start"].date()) for row in kit.rows().to_pylist()})


def test_old_windows_leave_once_their_date_was_reconciled(kit: Any) -> None:
    store = Store(kit.url)
    with kit.view(store=store) as view:
        view.plan = replace(view.plan, options=LiveOptions(retain_s=2 * 86_400))
        view.apply([kit.log.append([kit.line(0), kit.line(1), kit.line(A_DAY)]), kit.log.seal(DAY)])
        view.apply([kit.log.append([kit.line(4 * A_DAY)])])  # both dates are older than two days now
        assert not view.expire()
        confirm(store, view, DAY, 3)
        assert view.expire()
        assert kept(kit) == [str(NEXT), "2011-12-09"]
        assert view.checkpoint.expired_before_us == at_us(NEXT)
        # What comes for a window that has left is not taken for all of it.
        view.apply([kit.log.append([kit.line(0), kit.line(A_DAY)])])
        assert kept(kit) == [str(NEXT), "2011-12-09"]
        with store.read() as transaction:
            assert not transaction.is_sealed("sales", str(DAY), str(DAY), 3)
            for table in (view.tables.state, view.tables.distinct):
                assert transaction.count(table.name) >= 1
                keys = [row[0] for row in transaction.connection.exec_driver_sql(f'select _key from "{table.name}"')]
                assert not any("2011-12-05" in key for key in keys)
    store.close()


def test_windows_that_changed_since_they_were_reconciled_stay(kit: Any) -> None:
    store = Store(kit.url)
    with kit.view(store=store) as view:
        view.plan = replace(view.plan, options=LiveOptions(retain_s=86_400))
        view.apply([kit.log.append([kit.line(0)]), kit.log.seal(DAY), kit.log.append([kit.line(0)])])
        view.apply([kit.log.append([kit.line(9 * A_DAY)])])
        confirm(store, view, DAY, 1)
        assert not view.expire()
        view.apply([kit.log.seal(DAY)])  # the backfill that the late row asked for
        confirm(store, view, DAY, 3)
        assert view.expire()
        assert kept(kit) == ["2011-12-14"]
    store.close()


def test_a_rebuild_does_not_bring_back_what_has_left(kit: Any) -> None:
    kit.log.append([kit.line(0)])
    kit.log.seal(DAY)
    kit.log.append([kit.line(9 * A_DAY)])
    store = Store(kit.url)
    with kit.view(store=store) as view:
        view.plan = replace(view.plan, options=LiveOptions(retain_s=86_400))
        view.apply(kit.log.entries)
        confirm(store, view, DAY, 1)
        assert view.expire()
    store.close()
    views = open_views(kit)
    try:
        build = views.place("sales")
        views.rebuild("sales")
        while views.place("sales") == build:
            views._wait(views._commits, 5.0)
        rows = views.query(ViewQuery("sales", after_offset=2)).table.to_pylist()
        assert [str(row["window_start"].date()) for row in rows] == ["2011-12-14"]
        assert views.status()[0].expired_before_us == at_us(NEXT)
    finally:
        views.close()


def test_what_is_confirmed_must_have_been_sealed(kit: Any) -> None:
    kit.log.append([kit.line(0)])
    kit.log.seal(DAY)
    views = open_views(kit)
    try:
        views.query(ViewQuery("sales", sealed=SealedRange(DAY, DAY, 1)))
        views.confirm_reconciled("sales", DAY, DAY, 1)
        views.confirm_reconciled("sales", DAY, DAY, 1)
        with pytest.raises(BadRequest, match="no copy of 2011-12-06 to 2011-12-06 at offset 1"):
            views.confirm_reconciled("sales", NEXT, NEXT, 1)
    finally:
        views.close()


def confirm(store: Store, view: Any, date: dt.date, seal_offset: int) -> None:
    with store.write() as transaction:
        transaction.confirm(view.tables, [str(date)], seal_offset)


def at_us(date: dt.date) -> int:
    return (date - dt.date(1970, 1, 1)).days * 86_400_000_000


def test_options_that_are_wrong_are_refused(kit: Any) -> None:
    from ingest_service.live.manifest import parse_manifest

    for live, message in (
        ("'90 days'", "expected options such as"),
        ('{"retain": "soon"}', "retain: expected such as '90 days', came 'soon'"),
        ('{"distinct_values_max": 0}', "a number from 1 on, came 0"),
        ('{"retention": 1}', "no option retention"),
    ):
        text = kit.manifest({"sales": kit.SALES}).read_text()
        config = f'"config": {{"meta": {{"live": {live.replace(chr(39), chr(34))}}}, '
        model = parse_manifest(text.replace('"config": {"materialized"', config + '"materialized"', 1).encode())[0]
        assert message in model.options.problem
        views = LiveViews(Store(kit.url), {"order_lines": kit.log}, SystemClock())
        views._roster.put([model])
        assert message in views.status()[0].error
        views.close()
