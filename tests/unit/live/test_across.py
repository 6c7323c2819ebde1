"""A view read across time: published batch for the dates that it has, live for all others; nothing missing or twice."""

from __future__ import annotations

import datetime as dt
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from support.agreement import compare
from support.published import publish

from ingest_service.errors import BadRequest, BatchMissing, StorageError
from ingest_service.live import LiveViews, Operator, ViewFilter, ViewQuery, ViewResult
from ingest_service.live.across import read_across
from ingest_service.live.manifest import LiveOptions
from ingest_service.live.store import Store
from ingest_service.warehouse import PublishedWarehouse

DAY = dt.date(2011, 12, 5)
A_DAY = 24 * 60
SEED = os.environ.get("TIDEMILL_SEED")
HISTORIES = 5
BY_CUSTOMER = "select customer_id, count(*) as lines from {} group by all"
BY_WEEK = "select date_trunc('week', invoiced_at) as window_start, count(*) as lines from {} group by all"
BY_DECADE = "select date_trunc('decade', invoiced_at) as window_start, count(*) as lines from {} group by all"
EVENTS = "select _offset, invoiced_at, country, quantity * unit_price as amount from {} where quantity > 1"


def day(number: int) -> dt.date:
    return DAY + dt.timedelta(number)


class Warehouse(PublishedWarehouse):
    """A published warehouse, and what publishes it; before it is opened, and once it is, something else may happen."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "warehouse.duckdb")
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self.tables: dict[str, pa.Table] = {}
        self.reconciled: dict[tuple[str, dt.date], tuple[int, str]] = {}
        self.seen: list[dict[dt.date, str]] = []

    def attach(self, duck: Any) -> Any:
        self.before()
        publication = super().attach(duck)
        self.after()
        return publication

    def publish(self, *, with_definition: bool = True) -> None:
        """Write a file of what there is, and put it in the published one's place."""
        publish(self.file, self.tables, self.reconciled, with_definition=with_definition)


class World:
    """A view over its log and store, and the day that builds, publishes and confirms its dates."""

    def __init__(self, kit: Any, view: Any, store: Store, sql: str) -> None:
        self.kit, self.view, self.store, self.sql = kit, view, store, sql
        self.warehouse = Warehouse(kit.folder)
        self.batch: dict[dt.date, pa.Table] = {}
        self.seals: dict[dt.date, int] = {}

    def send(self, *lines: Mapping[str, Any]) -> None:
        if lines:
            self.view.apply([self.kit.log.append([dict(line) for line in lines])])

    def seal(self, *dates: dt.date) -> None:
        for date in dates:
            seal = self.kit.log.seal(date)
            self.view.apply([seal])
            self.seals[date] = seal.seal_offset

    def build(self, *dates: dt.date) -> None:
        """Build the dates as dbt does, by day: in place of what batch had of them."""
        for date in dates:
            below = self.kit.log.table(self.seals[date])
            whole = self.kit.batch(self.sql, below)
            column = whole[self.view.plan.description.window_column].cast(pa.date32())
            self.batch[date] = whole.filter(pa.compute.equal(column, pa.scalar(date, pa.date32())))
            by = self.view.plan.description.definition_hash
            self.warehouse.reconciled["sales", date] = self.seals[date], by
        self.warehouse.tables["sales"] = pa.concat_tables(self.batch.values())

    def publish(self, *dates: dt.date, **how: bool) -> None:
        self.build(*dates)
        self.warehouse.publish(**how)

    def confirm(self, *dates: dt.date) -> None:
        for date in dates:
            with self.store.write() as transaction:
                transaction.confirm(self.view.tables, [str(date)], self.seals[date])

    def run(self, *dates: dt.date) -> None:
        """A date's way as a whole."""
        self.seal(*dates)
        self.publish(*dates)
        self.confirm(*dates)

    def read(self, warehouse: PublishedWarehouse | None = None, **query: Any) -> ViewResult:
        with self.store.read() as transaction:
            stored = transaction.load("sales")
            asked = ViewQuery("sales", across_time=True, **query)
            return read_across(asked, stored, transaction, warehouse or self.warehouse)

    def sources(self, **query: Any) -> dict[str, str]:
        """Which source the rows of each date are of."""
        rows = self.read(**query).table.to_pylist()
        found: dict[str, set[str]] = {}
        for row in rows:
            found.setdefault(str(row[self.view.plan.description.window_column].date()), set()).add(row["_source"])
        return {date: "+".join(sorted(which)) for date, which in sorted(found.items())}

    def assert_whole(self, result: ViewResult, batch: Mapping[dt.date, pa.Table], offset: int) -> None:
        """Batch's dates as they were published, all others as DuckDB has them over the log: each row once."""
        description = self.view.plan.description
        everything = self.kit.batch(self.sql, self.kit.log.table(offset))
        dates = everything[description.window_column].cast(pa.date32())
        live = everything.filter(pa.compute.invert(pa.compute.is_in(dates, pa.array(batch, pa.date32()))))
        expected = as_read(pa.concat_tables([live, *batch.values()]))
        compare(result.table.drop_columns(["_source"]), expected, description.columns, description.group_columns)
        dates = result.table[description.window_column].cast(pa.date32()).to_pylist()
        for date, source in zip(dates, result.table["_source"].to_pylist(), strict=True):
            assert source == ("batch" if date in batch else "live"), date


def as_read(table: pa.Table) -> pa.Table:
    """A table of DuckDB's own types in those that readers get."""
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("as_made", table)
        return connection.sql("from as_made").to_arrow_table()


@contextmanager
def world(kit: Any, sql: str = "", *, retain_days: int = 0) -> Iterator[World]:
    sql = sql.format(kit.SOURCE) if sql else kit.SALES
    store = Store(kit.url)
    with kit.view(sql, store=store) as view:
        view.plan = replace(view.plan, options=LiveOptions(retain_s=retain_days * 86_400))
        yield World(kit, view, store, sql)


def lines(kit: Any, days: Iterable[int]) -> list[Any]:
    return [kit.line(number * A_DAY, country=country) for number in days for country in ("France", "Spain")]


def test_published_dates_come_from_batch_and_all_others_from_live(kit: Any) -> None:
    with world(kit) as w:
        w.send(*lines(kit, range(4)))
        w.run(day(0), day(1))
        w.send(kit.line(0))  # late: the warehouse has it once the date is published again
        result = w.read()
        w.assert_whole(result, w.batch, 9)
        assert w.sources() == {
            "2011-12-05": "batch", "2011-12-06": "batch", "2011-12-07": "live", "2011-12-08": "live",
        }  # fmt: skip
        boundary = result.boundary
        assert (boundary.dates, boundary.stale_dates, result.offset) == ((day(0), day(1)), 0, 9)
        assert abs(boundary.published_at_us / 1e6 - dt.datetime.now(dt.UTC).timestamp()) < 3600
        assert [column.name for column in result.columns][-1] == "_source"
        w.run(day(0))
        w.assert_whole(w.read(), w.batch, 9)


def test_windows_that_have_left_the_live_table_are_in_batch(kit: Any) -> None:
    with world(kit, retain_days=2) as w:
        w.send(*lines(kit, range(3)))
        w.run(day(0), day(1), day(2))
        w.send(*lines(kit, [9]))
        assert w.view.expire()
        assert [row["window_start"].day for row in kit.rows().to_pylist()] == [14, 14]
        w.assert_whole(w.read(), w.batch, 8)
        assert w.sources()["2011-12-05"] == "batch"
        assert w.sources()["2011-12-14"] == "live"


def test_without_a_publication_all_is_live(kit: Any) -> None:
    with world(kit) as w:
        w.send(*lines(kit, range(2)))
        for warehouse in (w.warehouse, PublishedWarehouse(kit.folder / "nowhere" / "warehouse.duckdb")):
            result = w.read(warehouse)
            assert set(result.table["_source"].to_pylist()) == {"live"}
            assert (result.boundary.dates, result.boundary.published_at_us) == ((), None)
        # One that was published before any view was reconciled.
        w.warehouse.publish()
        w.assert_whole(w.read(), {}, 4)


def test_filters_order_and_limit_hold_for_both_sides_together(kit: Any) -> None:
    with world(kit) as w:
        for number in range(6):
            w.send(kit.line(number * A_DAY, quantity=10 - number), kit.line(number * A_DAY, country="Spain"))
        w.run(day(0), day(2), day(3))

        def read(**query: Any) -> list[tuple[int, str, str]]:
            rows = w.read(**query).table.to_pylist()
            return [(row["window_start"].day, row["country"], row["_source"]) for row in rows]

        def where(column: str, operator: Operator, value: str | None) -> ViewFilter:
            return ViewFilter(column, operator, value)

        spain = where("country", Operator.EQUAL, "Spain")
        assert read(filters=(spain,), order_by=("-window_start",), limit=3) == [
            (10, "Spain", "live"), (9, "Spain", "live"), (8, "Spain", "batch"),
        ]  # fmt: skip
        assert read(order_by=("-units",), limit=2) == [(5, "France", "batch"), (6, "France", "live")]
        assert read(filters=(where("units", Operator.GREATER, "8"),), order_by=("window_start",)) == [
            (5, "France", "batch"), (6, "France", "live"),
        ]  # fmt: skip
        from_7 = where("window_start", Operator.GREATER_OR_EQUAL, "2011-12-07")
        assert len(read(filters=(from_7, where("_source", Operator.EQUAL, "batch")))) == 4
        assert read(filters=(from_7, spain), order_by=("_source", "window_start"), limit=1) == [(7, "Spain", "batch")]
        assert len(read(limit=5)) == 5
        # What is asked for is a value, whatever it looks like.
        assert read(filters=(where("country", Operator.EQUAL, "x' or 1=1 --"),)) == []
        with pytest.raises(BadRequest, match="no column 'shop'"):
            read(order_by=("shop",))
        with pytest.raises(BadRequest, match="expects a value of type HUGEINT"):
            read(filters=(where("units", Operator.LESS, "many"),))


def test_values_are_of_the_views_types_on_both_sides(kit: Any) -> None:
    with world(kit) as w:
        w.send(*lines(kit, range(2)))
        live = w.read(order_by=("window_start", "country")).table
        w.run(day(0), day(1))
        batch = w.read(order_by=("window_start", "country")).table
        assert batch.schema == live.schema
        assert batch.drop_columns(["_source"]).to_pylist() == live.drop_columns(["_source"]).to_pylist()


def test_the_state_of_batch_windows_is_that_at_the_seal(kit: Any) -> None:
    with world(kit) as w:
        w.send(*lines(kit, [0, 1, 2]))
        w.run(day(0))
        w.send(kit.line(0), kit.line(A_DAY))
        rows = w.read(window_state=True, order_by=("window_start", "country")).table.to_pylist()
        assert [(row["_window_state"], row["_source"]) for row in rows] == [
            ("closed", "batch"), ("closed", "batch"), ("corrected", "live"), ("closed", "live"), ("open", "live"),
            ("open", "live"),
        ]  # fmt: skip
        assert list(rows[0])[-2:] == ["_window_state", "_source"]


def test_a_view_without_windows_is_live_as_a_whole(kit: Any) -> None:
    with world(kit, BY_CUSTOMER) as w:
        w.send(*lines(kit, range(2)))
        w.warehouse.reconciled["sales", day(0)] = 4, w.view.plan.description.definition_hash
        w.warehouse.publish()
        result = w.read()
        assert [(row["lines"], row["_source"]) for row in result.table.to_pylist()] == [(4, "live")]
        assert result.boundary.dates == ()


def test_a_window_that_crosses_days_needs_all_of_its_dates(kit: Any) -> None:
    with world(kit, BY_WEEK, retain_days=1) as w:
        w.send(*lines(kit, range(16)))  # from a Monday on
        dates = [day(number) for number in range(16)]
        w.run(*dates[:6])
        assert w.sources() == {"2011-12-05": "live", "2011-12-12": "live", "2011-12-19": "live"}
        w.run(dates[6])
        assert w.sources() == {"2011-12-05": "batch", "2011-12-12": "live", "2011-12-19": "live"}
        w.send(*lines(kit, [40]))
        assert w.view.expire()
        assert [str(row["window_start"].date()) for row in w.kit.rows().to_pylist()][:1] == ["2011-12-12"]
        w.assert_whole(w.read(), {day(0): w.batch[day(0)]}, 34)


def test_windows_of_unknown_length_come_from_batch_once_they_have_left(kit: Any) -> None:
    with world(kit, BY_DECADE, retain_days=1) as w:
        w.send(*lines(kit, [0]))
        decade = dt.date(2010, 1, 1)
        w.run(decade)
        assert w.view.plan.description.window_width == ""
        assert w.sources() == {"2010-01-01": "live"}
        w.send(*lines(kit, [4_000]))
        assert w.view.expire()
        assert w.sources() == {"2010-01-01": "batch", "2020-01-01": "live"}


def test_events_are_divided_by_the_date_on_which_they_happened(kit: Any) -> None:
    with world(kit, EVENTS, retain_days=1) as w:
        w.send(*(kit.line(number * A_DAY + 7, quantity=number) for number in range(6)))
        w.run(*(day(number) for number in range(4)))
        w.assert_whole(w.read(), w.batch, 6)
        w.send(kit.line(20 * A_DAY, quantity=2))
        assert w.view.expire()
        w.assert_whole(w.read(), w.batch, 7)


def test_a_window_that_leaves_between_the_two_reads_is_there(kit: Any) -> None:
    with world(kit, retain_days=1) as w:
        w.send(*lines(kit, [0, 1, 9]))
        w.run(day(0))

        def publish_and_expire() -> None:
            w.run(day(1))
            assert w.view.expire()

        w.warehouse.before = publish_and_expire
        w.assert_whole(w.read(), w.batch, 6)
        assert set(w.batch) == {day(0), day(1)}
        assert [row["window_start"].day for row in kit.rows().to_pylist()] == [14, 14]


def test_a_publication_after_the_warehouse_was_opened_is_not_seen_in_part(kit: Any) -> None:
    with world(kit, retain_days=1) as w:
        w.send(*lines(kit, [0, 1, 9]))
        w.run(day(0))
        before = dict(w.batch)

        def publish_and_expire() -> None:
            w.send(kit.line(0))
            w.run(day(0), day(1))
            assert w.view.expire()

        w.warehouse.after = publish_and_expire
        result = w.read()
        w.assert_whole(result, before, 6)
        w.warehouse.after = lambda: None
        w.assert_whole(w.read(), w.batch, 7)


def test_what_is_published_is_seen_although_the_old_file_is_still_open(kit: Any) -> None:
    with world(kit) as w:
        w.send(*lines(kit, [0, 1]))
        w.run(day(0))
        with duckdb.connect(str(w.warehouse.file), read_only=True) as held:
            w.assert_whole(w.read(), w.batch, 4)
            w.run(day(1))
            # A connection by the same path shares the process's instance, which still has the old file.
            with duckdb.connect(str(w.warehouse.file), read_only=True) as again:
                assert again.execute("select count(*) from sales").fetchall() == [(2,)]
            assert held.execute("select count(*) from sales").fetchall() == [(2,)]
            result = w.read()
        assert result.boundary.dates == (day(0), day(1))
        w.assert_whole(result, w.batch, 4)


def test_of_an_earlier_definition_live_has_what_it_still_has(kit: Any) -> None:
    with world(kit, retain_days=2) as w:
        w.send(*lines(kit, [0, 1, 2, 9]))
        w.run(day(0), day(1), day(2))
        current = w.view.plan.description.definition_hash
        for date in (day(0), day(2)):
            w.warehouse.reconciled["sales", date] = 8, "earlier"
        w.warehouse.publish()
        result = w.read()
        assert (result.boundary.dates, result.boundary.stale_dates) == ((day(1),), 0)
        w.assert_whole(result, {day(1): w.batch[day(1)]}, 8)
        assert w.view.expire()
        # The same columns: what the warehouse has is what there is, and it is said.
        result = w.read()
        assert (result.boundary.dates, result.boundary.stale_dates) == ((day(0), day(1), day(2)), 2)
        w.assert_whole(result, w.batch, 8)
        # Others: never rows in types that are not the view's.
        w.warehouse.tables["sales"] = with_column(w.batch.values(), "revenue", "decimal(38,2)")
        w.warehouse.publish()
        expected = r"windows of 2011-12-05 to 2011-12-07 have left.*revenue as DECIMAL\(38,2\), not as DECIMAL\(38,3\)"
        with pytest.raises(BatchMissing, match=expected):
            w.read()
        # By the view's own definition they were found equal, so that dbt's type holds the same values.
        for number in range(3):
            w.warehouse.reconciled["sales", day(number)] = 8, current
        w.warehouse.publish()
        w.assert_whole(w.read(), w.batch, 8)


def with_column(tables: Iterable[pa.Table], name: str, duckdb_type: str) -> pa.Table:
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute("set arrow_lossless_conversion = true")
        connection.register("old", pa.concat_tables(tables))
        return connection.sql(f"select * replace (cast({name} as {duckdb_type}) as {name}) from old").to_arrow_table()


def test_where_no_definition_is_said_the_columns_tell(kit: Any) -> None:
    with world(kit) as w:
        w.send(*lines(kit, [0, 1]))
        w.seal(day(0))
        w.publish(day(0), with_definition=False)
        w.assert_whole(w.read(), w.batch, 4)
        whole = w.warehouse.tables["sales"]
        for changed in (
            whole.drop_columns(["customers"]),
            whole.append_column("more", whole["units"]),
            with_column([whole], "lines", "integer"),
        ):
            w.warehouse.tables["sales"] = changed
            w.warehouse.publish(with_definition=False)
            w.assert_whole(w.read(), {}, 4)
        del w.warehouse.tables["sales"]
        w.warehouse.publish(with_definition=False)
        w.assert_whole(w.read(), {}, 4)


def test_what_is_nowhere_is_not_left_out_in_silence(kit: Any) -> None:
    with world(kit, retain_days=1) as w:
        w.send(*lines(kit, [0, 1, 9]))
        w.run(day(0), day(1))
        assert w.view.expire()
        w.warehouse.file.unlink()
        with pytest.raises(BatchMissing, match=r"windows of 2011-12-05 to 2011-12-06 .* there is no published wareh"):
            w.read()
        # One from a backup that is older than the last publication.
        del w.warehouse.reconciled["sales", day(1)]
        w.warehouse.publish()
        with pytest.raises(BatchMissing, match=r"windows of 2011-12-06 to 2011-12-06 .* restore a later one"):
            w.read()
        w.warehouse.file.write_bytes(b"no database")
        with pytest.raises(StorageError, match=r"cannot be opened: .*not a valid DuckDB database file"):
            w.read()


def test_more_gaps_than_one_statement_takes(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with world(kit) as w:
        w.send(*lines(kit, range(12)))
        w.run(*(day(number) for number in (0, 2, 3, 5, 7, 9)))
        monkeypatch.setattr("ingest_service.live.across._SPANS_MAX", 2)
        w.assert_whole(w.read(), w.batch, 24)
        rows = w.read(order_by=("window_start", "country"), limit=5).table.to_pylist()
        assert [row["_source"] for row in rows] == ["batch", "batch", "live", "live", "batch"]


def test_the_views_of_a_service_are_read_across_time(kit: Any) -> None:
    with world(kit) as w:
        w.send(*lines(kit, [0, 1]))
        w.run(day(0))
        warehouse = w.warehouse
    views = LiveViews.open(kit.manifest({"sales": kit.SALES}), kit.url, {"order_lines": kit.log}, warehouse=warehouse)
    try:
        kit.log.append(lines(kit, [1, 2]))
        result = views.query(ViewQuery("sales", after_offset=8, across_time=True))
        assert sorted(result.table["_source"].to_pylist()) == ["batch"] * 2 + ["live"] * 4
        assert "_source" not in views.query(ViewQuery("sales")).table.column_names
        with pytest.raises(BadRequest, match="no column '_source'"):
            views.query(ViewQuery("sales", order_by=("_source",)))
    finally:
        views.close()


def test_no_model_may_have_that_column(kit: Any) -> None:
    sql = f"select country as _source, count(*) as n from {kit.SOURCE} group by all"
    views = LiveViews.open(kit.manifest({"sales": sql}), kit.url, {"order_lines": kit.log})
    try:
        assert "a column _source and Tidemill keeps a column of that name itself" in views.status()[0].error
    finally:
        views.close()


@pytest.mark.parametrize("number", range(HISTORIES))
def test_random_histories_leave_no_gap_and_no_overlap(kit: Any, number: int) -> None:
    seed = int(SEED) if SEED else random.randrange(1 << 32)
    print(f"TIDEMILL_SEED={seed}")
    History(kit, random.Random(seed)).run()


class History:
    """Sends, seals, publications, confirmations, retention and rebuilds of batch, in any order, also within a read."""

    DAYS = 7

    def __init__(self, kit: Any, rng: random.Random) -> None:
        self.kit, self.rng = kit, rng
        self.published: dict[dt.date, pa.Table] = {}
        self.unconfirmed: list[dt.date] = []

    def run(self) -> None:
        with world(self.kit, retain_days=self.rng.choice([1, 2, 4])) as self.w:
            self.send()
            for _ in range(12):
                for _ in range(self.rng.randrange(4)):
                    self.step()
                self.read()

    def step(self) -> None:
        self.rng.choice([self.send, self.send, self.day, self.confirm, self.w.view.expire])()

    def some(self) -> list[dt.date]:
        return [day(number) for number in self.rng.sample(range(self.DAYS), self.rng.randrange(1, 4))]

    def send(self) -> None:
        """Some rows; none of a date that later ones have left behind, but that was never run: the view takes none."""
        last = self.rng.choice([self.DAYS, self.DAYS, 3 * self.DAYS])
        minutes = [self.rng.randrange(last * A_DAY) for _ in range(self.rng.randrange(1, 6))]
        left = self.w.view.checkpoint.expired_before_us or 0
        rows = [self.kit.line(minute, country=self.rng.choice(["France", "Spain", None])) for minute in minutes]
        self.w.send(
            *(
                row
                for row in rows
                if row["invoiced_at"].timestamp() * 1e6 >= left or row["invoiced_at"].date() in self.published
            )
        )

    def day(self) -> None:
        """A run of some dates up to its publication; the service is told of it later, or in a moment."""
        dates = self.some()
        self.w.seal(*dates)
        for _ in range(self.rng.randrange(2)):
            self.send()
        self.w.publish(*dates)
        self.published = dict(self.w.batch)
        self.unconfirmed += dates
        if self.rng.random() < 0.5:
            self.confirm()

    def confirm(self) -> None:
        self.w.confirm(*dict.fromkeys(self.unconfirmed))
        self.unconfirmed.clear()

    def read(self) -> None:
        seen: dict[dt.date, pa.Table] = {}

        def before() -> None:
            self.between()
            seen.update(self.published)

        self.w.warehouse.before, self.w.warehouse.after = before, self.between
        offset = self.w.view.checkpoint.offset
        result = self.w.read()
        self.w.warehouse.before = self.w.warehouse.after = lambda: None
        assert result.offset == offset
        self.w.assert_whole(result, seen, offset)

    def between(self) -> None:
        for _ in range(self.rng.randrange(4)):
            self.step()
