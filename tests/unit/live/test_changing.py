"""Views that are added, changed, removed, rebuilt and watched while others go on."""

import datetime as dt
import threading
from typing import Any

import pytest

from ingest_service.errors import BadRequest, ConfigError, UnknownView, ViewRefused
from ingest_service.live import Change, LiveViews, Operator, ViewFilter, ViewQuery, ViewState, ViewWatch

S = '"db"."schema"."order_lines"'
BY_COUNTRY = f"select country, count(*) as n from {S} group by all"
FRAGILE = f"select country, sum(100 // quantity) as n from {S} group by all"


@pytest.fixture
def views(kit: Any) -> Any:
    opened = LiveViews.open(kit.manifest({"sales": kit.SALES}), kit.url, {"order_lines": kit.log})
    yield opened
    opened.close()


def apply(kit: Any, views: LiveViews, models: dict[str, str]) -> dict[str, Change]:
    manifest = kit.manifest(models).read_bytes()
    checked = views.check(manifest)
    applied = views.apply(manifest)
    assert checked == applied
    return {each.view: each.change for each in applied}


def settle(views: LiveViews, view: str) -> Any:
    """Waits until no rebuild of the view is under way; gives its status."""
    while True:
        commits = views._commits
        status = {each.view: each for each in views.status()}[view]
        if status.state is not ViewState.REBUILDING:
            return status
        views._wait(commits, 5.0)


def test_views_come_change_and_go_without_a_restart(kit: Any, views: LiveViews) -> None:
    kit.log.append([kit.line(0), kit.line(1, quantity=0)])
    views.query(ViewQuery("sales", after_offset=2))
    assert apply(kit, views, {"sales": kit.SALES, "by_country": BY_COUNTRY}) == {
        "by_country": Change.ADDED, "sales": Change.SAME
    }  # fmt: skip
    assert views.query(ViewQuery("by_country", after_offset=2)).table["n"].to_pylist() == [2]
    changed = kit.SALES.replace("where quantity <> 0", "")
    assert apply(kit, views, {"sales": changed})["by_country"] is Change.REMOVED
    settle(views, "sales")
    assert views.query(ViewQuery("sales", after_offset=2)).table.num_rows == 2
    with pytest.raises(UnknownView):
        views.query(ViewQuery("by_country"))
    kit.log.append([kit.line(2)])
    assert views.query(ViewQuery("sales", after_offset=3)).table.num_rows == 3
    views.close()
    kit.assert_agrees(changed)
    assert kit.log.durable_offset == 3


def test_a_model_that_is_refused_leaves_what_served(kit: Any, views: LiveViews) -> None:
    kit.log.append([kit.line(0)])
    views.query(ViewQuery("sales", after_offset=1))
    found = views.apply(kit.manifest({"sales": kit.SALES + " order by 1", "new": "select 1"}).read_bytes())
    assert {each.view: each.change for each in found} == {"sales": Change.REFUSED, "new": Change.REFUSED}
    assert all("cannot be kept up to date" in each.problem for each in found)
    kit.log.append([kit.line(0)])
    assert views.query(ViewQuery("sales", after_offset=2)).table["lines"].to_pylist() == [2]
    status = {each.view: each for each in views.status()}
    assert (status["sales"].state, status["new"].state) == (ViewState.FOLLOWING, ViewState.REFUSED)
    assert "ORDER BY" in status["sales"].error
    with pytest.raises(ViewRefused):
        views.query(ViewQuery("new"))
    assert apply(kit, views, {"sales": kit.SALES}) == {"sales": Change.SAME, "new": Change.REMOVED}
    assert views.status()[0].error == ""


def test_what_is_no_manifest_changes_nothing(kit: Any, views: LiveViews) -> None:
    for content in (b"", b"[]", b'{"nodes": 1}'):
        with pytest.raises(ConfigError, match="manifest"):
            views.apply(content)
    assert [status.view for status in views.status()] == ["sales"]


def test_a_changed_option_lets_a_stopped_view_go_on_from_its_checkpoint(kit: Any) -> None:
    manifest = kit.manifest({"sales": kit.SALES}).read_text()
    few = manifest.replace('"config": {', '"config": {"meta": {"live": {"distinct_values_max": 2}}, ', 1)
    (kit.folder / "few.json").write_text(few)
    views = LiveViews.open(kit.folder / "few.json", kit.url, {"order_lines": kit.log})
    try:
        kit.log.append([kit.line(0)])
        views.query(ViewQuery("sales", after_offset=1))
        kit.log.append([kit.line(0, customer_id=number) for number in range(5)])
        wait_stopped(views)
        assert "meta.live.distinct_values_max" in views.status()[0].error
        reads = len(kit.log.reads_from)
        views.apply(manifest.encode())
        assert views.query(ViewQuery("sales", after_offset=6)).table["customers"].to_pylist() == [5]
        assert min(kit.log.reads_from[reads:]) >= 2, "it went on where it stood"
    finally:
        views.close()


def wait_stopped(views: LiveViews) -> None:
    while True:
        commits = views._commits
        if views.status()[0].state is ViewState.STOPPED:
            return
        views._wait(commits, 5.0)


def test_a_rebuild_makes_the_same_rows_again(kit: Any, views: LiveViews) -> None:
    kit.log.append([kit.line(minute) for minute in range(50)])
    views.query(ViewQuery("sales", after_offset=50))
    before = views.place("sales")
    views.rebuild("sales")
    settle(views, "sales")
    assert views.place("sales") != before
    kit.log.append([kit.line(3)])
    assert views.query(ViewQuery("sales", after_offset=51)).table.num_rows == 50
    views.close()
    kit.assert_agrees()
    with pytest.raises(UnknownView):
        views.rebuild("nothing")


def test_a_rebuild_that_fails_leaves_the_old_rows_which_go_on(kit: Any, views: LiveViews) -> None:
    kit.log.append([kit.line(0), kit.line(1, quantity=0, country="Spain")])
    views.query(ViewQuery("sales", after_offset=2))
    fragile = kit.SALES.replace("sum(quantity) as units", "sum(100 // quantity) as units")
    fragile = fragile.replace("where quantity <> 0\n", "")
    assert apply(kit, views, {"sales": fragile}) == {"sales": Change.CHANGED}
    while "the rebuild: stopped at offset 1" not in views.status()[0].error:
        views._wait(views._commits, 5.0)
    status = views.status()[0]
    assert (status.state, status.rebuild_offset) == (ViewState.REBUILDING, 1)
    kit.log.append([kit.line(0)])
    assert views.query(ViewQuery("sales", after_offset=3)).table["lines"].to_pylist() == [2]
    # Back to what it was: there is nothing left to rebuild.
    assert apply(kit, views, {"sales": kit.SALES}) == {"sales": Change.CHANGED}
    assert views.status()[0].state is ViewState.FOLLOWING
    assert views.status()[0].error == ""


def test_the_old_rows_go_on_after_a_restart_while_new_ones_are_made(kit: Any, views: LiveViews) -> None:
    kit.log.append([kit.line(0, quantity=0), kit.line(1)])
    views.query(ViewQuery("sales", after_offset=2))
    views.close()
    fragile = kit.SALES.replace("sum(quantity) as units", "sum(100 // quantity) as units").replace(
        "where", "where 1=1 or"
    )
    again = LiveViews.open(kit.manifest({"sales": fragile}), kit.url, {"order_lines": kit.log})
    try:
        kit.log.append([kit.line(1)])
        assert again.query(ViewQuery("sales", after_offset=3)).table["lines"].to_pylist() == [2]
        assert "units" in again.query(ViewQuery("sales")).table.column_names
    finally:
        again.close()


def test_lag_is_told_in_rows_and_time(kit: Any, views: LiveViews) -> None:
    kit.log.append([kit.line(0)])
    views.query(ViewQuery("sales", after_offset=1))
    assert (views.status()[0].lag, views.status()[0].lag_ms) == (0, 0)


def test_a_bulk_of_rows_with_one_at_fault_is_taken_up_to_it(kit: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("ingest_service.live.follower.BULK_ROWS", 10)
    kit.log.append([kit.line(n, quantity=n + 1) for n in range(40)])
    kit.log.append([kit.line(n, quantity=n - 7) for n in range(40)])
    models = {"fragile": FRAGILE, "sales": kit.SALES}
    views = LiveViews.open(kit.manifest(models), kit.url, {"order_lines": kit.log})
    try:
        assert views.query(ViewQuery("sales", after_offset=80)).offset == 80
        while views.positions()["fragile"].error == "":
            views._wait(views._commits, 5.0)
        assert "stopped at offset 47" in views.positions()["fragile"].error
    finally:
        views.close()
    kit.assert_agrees(FRAGILE, below=47, view="fragile")
    kit.assert_agrees()


def test_rows_taken_in_bulk_agree_whatever_the_view(kit: Any) -> None:
    models = {
        "sales": kit.SALES,
        "events": f"select _offset, invoiced_at, quantity * unit_price as amount from {S} where quantity > 5",
        "all_of_it": f"select count(*) as n, sum(quantity) as q, approx_count_distinct(customer_id) as c from {S}",
        "countries": f"select country, stddev(weight) as d, last(quantity order by _offset) as l from {S} group by all",
    }
    for name, sql in models.items():
        with kit.view(sql) as view:
            for part in range(6):
                lines = [
                    kit.line(part + n, quantity=n, customer_id=n * part, weight=n / 7, country="FSI"[n % 3])
                    for n in range(30)
                ]
                view.absorb([kit.log.append(lines)])
                if part in {2, 5}:
                    view.commit()
        kit.assert_agrees(sql)
        assert view.offset == 180, name
        kit.log.entries.clear()
        (kit.folder / "live.sqlite").unlink()


# Watching.


def told(views: LiveViews, watch: ViewWatch) -> tuple[list[dict[str, Any]], str, bool]:
    """The next changes, waited for."""
    grown = threading.Event()
    end = views.listen(grown.set)
    try:
        while True:
            found = views.changes(watch)
            if found is not None:
                return found.table.to_pylist(), found.resume, found.reset
            assert grown.wait(10)
            grown.clear()
    finally:
        end()


def test_changes_come_as_they_are_committed(kit: Any, views: LiveViews) -> None:
    kit.log.append([kit.line(0), kit.line(1)])
    views.query(ViewQuery("sales", after_offset=2))
    rows, resume, reset = told(views, ViewWatch("sales"))
    assert (len(rows), reset) == (2, True)
    assert views.changes(ViewWatch("sales", resume=resume)) is None
    kit.log.append([kit.line(1), kit.line(2)])
    views.query(ViewQuery("sales", after_offset=4))
    rows, resume, reset = told(views, ViewWatch("sales", resume=resume))
    assert ([row["lines"] for row in rows], reset) == ([2, 1], False)


def test_only_new_changes_of_what_a_filter_lets_through(kit: Any, views: LiveViews) -> None:
    spain = (ViewFilter("country", Operator.EQUAL, "Spain"),)
    kit.log.append([kit.line(0, country="Spain")])
    views.query(ViewQuery("sales", after_offset=1))
    rows, resume, reset = told(views, ViewWatch("sales", spain, only_new=True))
    assert (rows, reset) == ([], False)
    kit.log.append([kit.line(0), kit.line(0, country="Spain"), kit.line(0, country="Spain")])
    views.query(ViewQuery("sales", after_offset=4))
    rows, resume, _ = told(views, ViewWatch("sales", spain, resume))
    assert [(row["country"], row["lines"]) for row in rows] == [("Spain", 3)]
    with pytest.raises(BadRequest, match="no column 'land'"):
        views.changes(ViewWatch("sales", (ViewFilter("land", Operator.EQUAL, "x"),)))
    for wrong in ("x", "a.b", "1.-2", "€.1"):
        with pytest.raises(BadRequest, match="resume: expected what an earlier answer gave"):
            views.changes(ViewWatch("sales", resume=wrong))


def test_watching_goes_on_after_a_restart_and_begins_anew_after_a_rebuild(kit: Any, views: LiveViews) -> None:
    kit.log.append([kit.line(0), kit.line(1)])
    views.query(ViewQuery("sales", after_offset=2))
    _, resume, _ = told(views, ViewWatch("sales"))
    views.close()
    kit.log.append([kit.line(1)])
    again = LiveViews.open(kit.manifest({"sales": kit.SALES}), kit.url, {"order_lines": kit.log})
    try:
        again.query(ViewQuery("sales", after_offset=3))
        rows, resume, reset = told(again, ViewWatch("sales", resume=resume))
        assert ([row["lines"] for row in rows], reset) == ([2], False)
        again.rebuild("sales")
        settle(again, "sales")
        rows, resume, reset = told(again, ViewWatch("sales", resume=resume))
        assert (sorted(row["lines"] for row in rows), reset) == ([1, 2], True)
    finally:
        again.close()


def test_who_is_far_behind_gets_what_changed_from_the_table(kit: Any, views: LiveViews, monkeypatch: Any) -> None:
    monkeypatch.setattr("ingest_service.live.view.RECENT_ROWS_MAX", 3)
    kit.log.append([kit.line(0)])
    views.query(ViewQuery("sales", after_offset=1))
    _, resume, _ = told(views, ViewWatch("sales"))
    for minute in range(1, 9):
        kit.log.append([kit.line(minute), kit.line(1)])
        views.query(ViewQuery("sales", after_offset=2 * minute + 1))
    rows, resume, reset = told(views, ViewWatch("sales", resume=resume))
    assert reset is False
    assert {row["window_start"] - kit.START: row["lines"] for row in rows} == {
        dt.timedelta(minutes=minute): 9 if minute == 1 else 1 for minute in range(1, 9)
    }
