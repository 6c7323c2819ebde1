"""All views of a manifest, with their threads."""

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from ingest_service.errors import BadRequest, ConfigError, UnknownView, ViewBehind, ViewRefused
from ingest_service.live import LiveViews, Operator, SealedRange, ViewFilter, ViewQuery

S = '"db"."schema"."order_lines"'
BY_COUNTRY = f"select country, count(*) as n, sum(unit_price) as price from {S} group by all"
FRAGILE = f"select country, sum(100 // quantity) as n from {S} group by all"
DAY = dt.date(2011, 12, 5)


@contextmanager
def opened(kit: Any, models: dict[str, str], **options: Any) -> Iterator[LiveViews]:
    views = LiveViews.open(kit.manifest(models), kit.url, {"order_lines": kit.log}, **options)
    try:
        yield views
    finally:
        views.close()


def query(views: LiveViews, view: str, kit: Any, **options: Any) -> Any:
    """A query that waits until the view covers all of the log."""
    return views.query(ViewQuery(view, after_offset=kit.log.durable_offset, **options))


def test_views_follow_the_log_and_go_on_after_a_restart(kit: Any) -> None:
    models = {"sales": kit.SALES, "by_country": BY_COUNTRY}
    kit.log.append([kit.line(0), kit.line(1)])
    with opened(kit, models) as views:
        assert query(views, "sales", kit).offset == 2
        kit.log.append([kit.line(2)])
        assert query(views, "sales", kit).table.num_rows == 3
        assert query(views, "by_country", kit).table.to_pylist() == [{"country": "France", "n": 3, "price": Decimal(3)}]
    kit.log.append([kit.line(3)])
    with opened(kit, models) as views:
        assert query(views, "sales", kit).table.num_rows == 4
        query(views, "by_country", kit)
    assert kit.log.reads_from == [0, 3]
    kit.assert_agrees()
    kit.assert_agrees(BY_COUNTRY, view="by_country")


def test_views_at_different_offsets_share_one_reader(kit: Any) -> None:
    kit.log.append([kit.line(0), kit.line(1)])
    with opened(kit, {"sales": kit.SALES}) as views:
        query(views, "sales", kit)
    kit.log.append([kit.line(2)])
    with opened(kit, {"sales": kit.SALES, "by_country": BY_COUNTRY}) as views:
        query(views, "sales", kit)
        query(views, "by_country", kit)
    assert kit.log.reads_from == [0, 0]
    kit.assert_agrees()
    kit.assert_agrees(BY_COUNTRY, view="by_country")


def test_status_tells_all(kit: Any) -> None:
    kit.log.append([kit.line(0), kit.line(1)])
    with opened(kit, {"sales": kit.SALES}) as views:
        query(views, "sales", kit)
        (status,) = views.status()
    assert (status.view, status.stream, status.offset, status.lag, status.rows) == ("sales", "order_lines", 2, 0, 2)
    assert (status.group_columns, status.window_column, status.error) == (
        ("window_start", "country"),
        "window_start",
        "",
    )
    assert len(status.definition_hash) == 64
    assert status.columns[0].exact


def test_a_refused_model_is_in_the_status_and_stops_nothing(kit: Any) -> None:
    kit.log.append([kit.line(0)])
    with opened(kit, {"ordered": f"{BY_COUNTRY} order by n", "sales": kit.SALES}) as views:
        assert query(views, "sales", kit).table.num_rows == 1
        refused = views.status()[0]
        assert refused.view == "ordered"
        assert "ORDER BY cannot be kept" in refused.error
        with pytest.raises(ViewRefused, match="ORDER BY"):
            views.query(ViewQuery("ordered"))
        with pytest.raises(UnknownView, match="the live views are: ordered, sales"):
            views.query(ViewQuery("sale"))


def test_one_views_error_stops_that_view_only(kit: Any) -> None:
    kit.log.append([kit.line(0)])
    with opened(kit, {"fragile": FRAGILE, "sales": kit.SALES}) as views:
        query(views, "fragile", kit)
        kit.log.append([kit.line(1), kit.line(1, quantity=0), kit.line(2)])
        assert query(views, "sales", kit).offset == 4
        with pytest.raises(ViewBehind, match=r"fragile has not reached offset 4.*stopped at offset 2: .*[Dd]ivision"):
            query(views, "fragile", kit)
        kit.log.append([kit.line(3)])
        assert query(views, "sales", kit).offset == 5
        status = {s.view: s for s in views.status()}
        assert (status["fragile"].offset, status["fragile"].lag) == (2, 3)
        assert "stopped at offset 2" in status["fragile"].error
        assert status["sales"].error == ""
        assert views.query(ViewQuery("fragile")).offset == 2  # what it has stays readable
    kit.assert_agrees(FRAGILE, below=2, view="fragile")


def test_after_a_fix_a_stopped_view_is_rebuilt_by_its_new_definition(kit: Any) -> None:
    kit.log.append([kit.line(0), kit.line(1, quantity=0), kit.line(2)])
    with opened(kit, {"fragile": FRAGILE}) as views, pytest.raises(ViewBehind):
        query(views, "fragile", kit)
    fixed = FRAGILE.replace("// quantity", "// nullif(quantity, 0)")
    with opened(kit, {"fragile": fixed}) as views:
        rebuilt(views, "fragile", kit)
    kit.assert_agrees(fixed, view="fragile")


def rebuilt(views: LiveViews, view: str, kit: Any) -> Any:
    result = query(views, view, kit)
    assert {s.view: s.error for s in views.status()}[view] == ""
    return result


def test_a_changed_definition_is_rebuilt_while_the_old_one_serves(kit: Any) -> None:
    kit.log.append([kit.line(0, quantity=5), kit.line(0, quantity=0)])
    with opened(kit, {"sales": kit.SALES}) as views:
        query(views, "sales", kit)
    changed = kit.SALES.replace("where quantity <> 0", "").replace("as units", "as pieces")
    gate = GatedLog(kit.log)
    views = LiveViews.open(kit.manifest({"sales": changed}), kit.url, {"order_lines": gate})
    try:
        old = views.query(ViewQuery("sales"))
        assert ("units" in old.table.column_names, old.table["lines"].to_pylist()) == (True, [1])
        kit.log.append([kit.line(0)])
        kit.log.seal(DAY)
        gate.open.set()
        swapped(views)
        new = query(views, "sales", kit, sealed=SealedRange(DAY, DAY, 3)).table
        assert ("pieces" in new.column_names, new["lines"].to_pylist()) == (True, [3])
        kit.log.append([kit.line(1)])
        assert query(views, "sales", kit).offset == 4
    finally:
        views.close()
    kit.assert_agrees(changed)
    assert tables(kit) == {*(f"sales{part}" for part in ("", "__state", "__distinct", "__sealed")), *BOOKKEEPING}


def swapped(views: LiveViews) -> None:
    """Waits until no view is being rebuilt: until then the old definition answers."""
    grown = threading.Event()
    end = views.listen(grown.set)
    while any(status.rebuild_offset is not None for status in views.status()):
        assert grown.wait(10)
        grown.clear()
    end()


BOOKKEEPING = {"tidemill_views", "tidemill_seals", "tidemill_reconciled"}


def tables(kit: Any) -> set[str]:
    engine = sa.create_engine(kit.url)
    try:
        return set(sa.inspect(engine).get_table_names())
    finally:
        engine.dispose()


class GatedLog:
    """A log whose readers see nothing until it is opened."""

    def __init__(self, log: Any) -> None:
        import threading

        self._log, self.spec, self.schema, self.open = log, log.spec, log.schema, threading.Event()
        self.watermark_us = log.watermark_us

    @property
    def durable_offset(self) -> int:
        return int(self._log.durable_offset)

    def reader(self, from_offset: int, columns: Any = None) -> Any:
        log, gate = self._log, self.open

        class Reader:
            def read(self, max_rows: int, timeout_s: float) -> Any:
                return inner.read(max_rows, timeout_s) if gate.wait(timeout_s) else []

            def close(self) -> None:
                inner.close()

        inner = log.reader(from_offset)
        return Reader()


def test_an_interrupted_rebuild_goes_on(kit: Any) -> None:
    kit.log.append([kit.line(0)])
    with opened(kit, {"sales": kit.SALES}) as views:
        query(views, "sales", kit)
    changed = kit.SALES.replace("where quantity <> 0", "where quantity > 0")
    gate = GatedLog(kit.log)
    LiveViews.open(kit.manifest({"sales": changed}), kit.url, {"order_lines": gate}).close()
    assert "sales__rebuild" in tables(kit)
    kit.log.append([kit.line(0, quantity=-5)])
    with opened(kit, {"sales": changed}) as views:
        swapped(views)
        assert query(views, "sales", kit).table["lines"].to_pylist() == [1]
    assert "sales__rebuild" not in tables(kit)
    kit.assert_agrees(changed)


def test_a_log_that_fails_for_a_while_is_read_again(kit: Any) -> None:
    class Flaky(GatedLog):
        failures = 2

        def reader(self, from_offset: int, columns: Any = None) -> Any:
            if self.failures:
                self.failures -= 1
                raise OSError("the disk is away")
            return self._log.reader(from_offset)

    kit.log.append([kit.line(0)])
    views = LiveViews.open(kit.manifest({"sales": kit.SALES}), kit.url, {"order_lines": Flaky(kit.log)})
    try:
        assert query(views, "sales", kit).offset == 1
        assert views.status()[0].error == ""
    finally:
        views.close()


@pytest.fixture
def filled(kit: Any) -> Iterator[LiveViews]:
    kit.log.append(
        [
            kit.line(0, unit_price="9.500", country="France"),
            kit.line(0, unit_price="10.250", country="Île-de-France"),
            kit.line(1, unit_price="-3.000", country=None),
            kit.line(2, unit_price="10.000", country="Spain"),
            kit.line(2, unit_price="1.000", country="spain", weight=float("nan")),
        ]
    )
    sql = kit.SALES.replace("count(distinct", "max(weight) as heaviest, max(invoiced_at) as newest, count(distinct")
    with opened(kit, {"sales": sql}) as views:
        query(views, "sales", kit)
        yield views


E_, NE, LT, LE, GT, GE = Operator
FILTERS = [
    (("country", E_, "France"), ["France"]),
    (("country", E_, None), [None]),
    (("country", NE, None), ["France", "Spain", "spain", "Île-de-France"]),
    (("country", NE, "France"), [None, "Spain", "spain", "Île-de-France"]),
    (("country", GT, "a"), ["spain", "Île-de-France"]),
    (("revenue", GT, "9.6"), ["Spain", "Île-de-France"]),  # by value: as text, 10 comes before 9
    (("revenue", E_, "10"), ["Spain"]),
    (("revenue", LE, "-3"), [None]),
    (("window_start", E_, "2011-12-05 08:02:00+00"), ["Spain", "spain"]),
    (("window_start", E_, "2011-12-05 10:02:00+02"), ["Spain", "spain"]),
    (("window_start", LT, "2011-12-05T08:00:00.5Z"), ["France", "Île-de-France"]),
    (("window_start", GE, "2011-12-05 08:01:00Z"), [None, "Spain", "spain"]),
    (("newest", GT, "2011-12-05 08:01:00Z"), ["Spain", "spain"]),
    (("lines", GE, "2"), []),
    (("units", E_, "1"), [None, "France", "Spain", "spain", "Île-de-France"]),
    (("heaviest", E_, "nan"), ["spain"]),
    (("country", E_, "x' or 1=1 --"), []),
]


@pytest.mark.parametrize(("asked", "countries"), FILTERS)
def test_filters_compare_by_value(filled: LiveViews, asked: Any, countries: list[str | None]) -> None:
    result = filled.query(ViewQuery("sales", filters=(ViewFilter(*asked),)))
    assert sorted(result.table["country"].to_pylist(), key=lambda c: c or "") == countries
    limited = filled.query(ViewQuery("sales", filters=(ViewFilter(*asked),), order_by=("lines",), limit=100))
    assert limited.table.num_rows == len(countries)


def test_order_and_limit(filled: LiveViews) -> None:
    def countries(*order_by: str, limit: int = 0) -> list[str | None]:
        table = filled.query(ViewQuery("sales", order_by=order_by, limit=limit)).table
        return list(table["country"].to_pylist())

    assert countries("revenue") == [None, "spain", "France", "Spain", "Île-de-France"]
    assert countries("-revenue", limit=2) == ["Île-de-France", "Spain"]
    assert countries("-country") == ["Île-de-France", "spain", "Spain", "France", None]
    assert countries("-window_start", "revenue", limit=3) == ["spain", "Spain", None]
    assert set(countries("window_start", limit=2)) == {"France", "Île-de-France"}


def test_rows_have_the_models_types(filled: LiveViews) -> None:
    result = filled.query(ViewQuery("sales", limit=1))
    assert result.table.schema.field("window_start").type == pa.timestamp("us", tz="UTC")
    assert result.table.schema.field("revenue").type == pa.decimal128(38, 3)
    assert [c.name for c in result.columns] == result.table.column_names
    assert result.offset == 5
    assert result.watermark_us is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": (ViewFilter("nope", E_, "1"),)}, "no column 'nope'; its columns are: window_start, country"),
        ({"order_by": ("-nope",)}, "no column 'nope'"),
        (
            {"filters": (ViewFilter("revenue", E_, "much"),)},
            r"revenue expects a value of type DECIMAL\(38,3\), got 'much'",
        ),
        ({"filters": (ViewFilter("window_start", GT, "yesterday"),)}, "expects a value of type TIMESTAMP"),
        ({"filters": (ViewFilter("lines", GT, None),)}, "compares with NULL by GREATER; use EQUAL or NOT_EQUAL"),
        ({"limit": -1}, "expected a limit of 0"),
        ({"sealed": SealedRange(DAY, DAY, 3)}, "2011-12-05 was not sealed at offset 3"),
    ],
)
def test_a_wrong_question_is_said_to_be_one(filled: LiveViews, options: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        filled.query(ViewQuery("sales", **options))


def test_waiting_ends_when_the_time_is_up(filled: LiveViews) -> None:
    with pytest.raises(ViewBehind, match=r"sales has not reached offset 6 in 0\.01 s"):
        filled.query(ViewQuery("sales", after_offset=6, wait_s=0.01))
    with pytest.raises(ViewBehind, match="the seal at offset 5"):
        filled.query(ViewQuery("sales", sealed=SealedRange(DAY, DAY, 5), wait_s=0.01))


def test_names_that_would_clash_are_refused(kit: Any) -> None:
    models = {"sales": BY_COUNTRY, "Sales__State": BY_COUNTRY, "tidemill_x": BY_COUNTRY}
    models["own_column"] = f"select country as _key, count(*) from {S} group by all"
    models["twice"] = f"select country as a, count(*) as A from {S} group by all"
    with opened(kit, models) as views:
        errors = {s.view: s.error for s in views.status()}
    assert "would clash with those of the live view Sales__State" in errors["sales"] + errors["Sales__State"]
    assert "may not begin with tidemill_" in errors["tidemill_x"]
    assert "a column _key and Tidemill keeps" in errors["own_column"]
    assert errors["twice"] == "" or "a column a twice" in errors["twice"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "no database URL"),
        ("sqlite://", "must be a file"),
        ("mysql://x/y", "sqlite and postgresql, not in mysql"),
    ],
)
def test_a_store_url_that_cannot_be_used(kit: Any, url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LiveViews.open(kit.manifest({}), url, {})


def test_a_manifest_without_live_models_is_fine(kit: Any) -> None:
    with opened(kit, {}) as views:
        assert views.status() == []


def test_a_missing_manifest_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no dbt manifest"):
        LiveViews.open(tmp_path / "manifest.json", f"sqlite:///{tmp_path}/live.sqlite", {})
    assert list(tmp_path.iterdir()) == []
