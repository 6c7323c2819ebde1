"""Live views on a machine that fails: a life of log and views together, and whether what is found fits the log."""

from __future__ import annotations

import datetime as dt
import json
import math
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from ingest_service.live import LiveViews, SealedRange, ViewQuery
from ingest_service.live.query import RowReader
from ingest_service.live.store import Store
from ingest_service.live.tables import ViewTables, checkpoints
from ingest_service.log import Append, Log, LogSettings, LogSpec, Rows
from support.power import Disk, PowerFiles
from support.sqlite_power import SqliteFiles, watched_sqlite

STREAM = "order_lines"
SOURCE = '"db"."schema"."order_lines"'
SCHEMA = pa.schema(
    [
        pa.field("quantity", pa.int64()),
        pa.field("unit_price", pa.decimal128(12, 3)),
        pa.field("weight", pa.float64()),
        pa.field("invoiced_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("customer_id", pa.int64()),
        pa.field("country", pa.string()),
    ]
)
SPEC = LogSpec(STREAM, SCHEMA, 1, "invoiced_at", None, 3600)
DAY = dt.date(2011, 12, 5)
START = dt.datetime(2011, 12, 5, 23, 57, tzinfo=dt.UTC)
"""Events lie within minutes around the midnight behind it."""

Models = Mapping[str, str]

SALES = f"""
select time_bucket(interval '1 minute', invoiced_at) as window_start, country, count(*) as lines,
    sum(quantity) as units, sum(quantity * unit_price) as revenue, count(distinct customer_id) as customers
from {SOURCE} where quantity > 0 group by all
"""
SALES_CHANGED = SALES.replace("where quantity > 0", "").replace("as units", "as pieces, max(unit_price) as dearest")
BY_CUSTOMER = f"""
select customer_id, count(*) as lines, min(invoiced_at) as first_at, max(country) as last_country, avg(weight) as weight
from {SOURCE} group by all
"""
TOTALS = f"select count(*) as lines, sum(quantity) as units, count(distinct country) as countries from {SOURCE}"
BY_COUNTRY = f"""
select country, count(*) filter (where quantity < 0) as returned, count(distinct customer_id) as customers
from {SOURCE} group by all
"""

MODELS: Models = {"sales": SALES, "by_customer": BY_CUSTOMER, "totals": TOTALS}
CHANGED: Models = {"sales": SALES_CHANGED, "by_customer": BY_CUSTOMER, "totals": TOTALS, "by_country": BY_COUNTRY}
"""One definition changed, one view more."""


def manifest(models: Models, **config: Any) -> bytes:
    """A dbt manifest of live models, by name."""
    nodes = {
        f"model.p.{name}": {
            "resource_type": "model", "name": name, "tags": ["live"], "original_file_path": f"models/live/{name}.sql",
            "raw_code": sql, "compiled_code": sql, "config": {"materialized": "table", **config},
        }
        for name, sql in models.items()
    }  # fmt: skip
    source = {"name": STREAM, "relation_name": SOURCE, "meta": {}, "config": {}}
    return json.dumps({"nodes": nodes, "sources": {f"source.p.events.{STREAM}": source}}).encode()


def lines(chance: random.Random, count: int) -> pa.RecordBatch:
    """Events of few groups, so that every micro-batch changes rows that are there."""
    rows = [
        {
            "quantity": chance.choice([None, -2, 0, 1, 1, 3, 1 << 40]),
            "unit_price": chance.choice([None, Decimal("1.250"), Decimal("-0.001"), Decimal("99.999")]),
            "weight": chance.choice([None, 0.1, 2.5, 1e9]),
            "invoiced_at": START + dt.timedelta(seconds=chance.randrange(300)),
            "customer_id": chance.choice([None, *range(12)]),
            "country": chance.choice([None, "", "France", "Spain", "Île\n"]),
        }
        for _ in range(count)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def rows_of(log: Log) -> pa.Table:
    """All rows of a log, with the system columns."""
    reader = log.reader(0)
    batches: list[pa.RecordBatch] = []
    try:
        while entries := reader.read(1 << 20, 0):
            batches += [entry.batch for entry in entries if isinstance(entry, Rows)]
    finally:
        reader.close()
    table = pa.Table.from_batches(batches, log.schema)
    assert table.num_rows == log.durable_offset
    return table


# What the rows must be.


def batch_rows(duck: Any, sql: str, rows: pa.Table, source: str = SOURCE) -> pa.Table:
    """DuckDB's own answer over rows of the log."""
    cursor = duck.cursor()
    try:
        cursor.register("rows_of_the_log", rows)
        return cursor.sql(sql.replace(source, "rows_of_the_log")).to_arrow_table()
    finally:
        cursor.close()


def assert_same(live: pa.Table, batch: pa.Table, columns: Collection[Any], what: str) -> int:
    """See that a view's rows are DuckDB's, each column as exactly as it says; gives their number."""
    assert live.schema.names == batch.schema.names, what
    assert live.schema.types == batch.schema.types, what
    tolerance = [column.relative_tolerance for column in columns]
    exact = [i for i, each in enumerate(tolerance) if not each]
    left, right = (sorted(_tuples(table), key=lambda row: [repr(row[i]) for i in exact]) for table in (live, batch))
    assert len(left) == len(right), f"{what}: {len(left)} rows live, {len(right)} in batch"
    for a, b in zip(left, right, strict=True):
        for name, x, y, t in zip(live.schema.names, a, b, tolerance, strict=True):
            near = isinstance(x, float) and isinstance(y, float) and math.isclose(x, y, rel_tol=t, abs_tol=0)
            assert x == y or (t and near), f"{what}, {name}: live {x!r}, batch {y!r}, in the row {b}"
    return len(right)


def _tuples(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True)) if table.num_columns else []


def assert_prefix(store: Store, log: Log, models: Collection[Models], duck: Any) -> dict[str, int]:
    """See that all that a store holds of views is of a prefix of the log: rows and sealed copies; offsets by view.

    models: those that were ever in force, of which a view's rows may be. A view that is being rebuilt counts as well.
    """
    rows = rows_of(log)
    offsets = {}
    with store.read() as transaction:
        for table in transaction.connection.execute(sa.select(checkpoints.c.view)).scalars().all():
            stored = transaction.load(table)
            assert stored is not None
            name, offset = stored.description.view, stored.checkpoint.offset
            assert offset <= rows.num_rows, f"{table} covers {offset}, and the log ends at {rows.num_rows}"
            assert not transaction.missing(ViewTables.of(stored.description, rebuild=table != name)), table
            answers = [batch_rows(duck, each[name], rows.slice(0, offset)) for each in models if name in each]
            if not (offset or transaction.count(table)):
                continue  # made, and not begun yet: an aggregation without groups gets its first row after that
            shown = [column.name for column in stored.description.columns]
            answer = next(each for each in answers if each.schema.names == shown)
            if table == name:
                live = RowReader(ViewQuery(name), stored.description, duck.cursor()).read(transaction)
                assert_same(live, answer, stored.description.columns, f"{table} at {offset}")
            else:
                assert transaction.count(table) == answer.num_rows, f"{table} at {offset}"
            offsets[table] = offset
    return offsets


@dataclass
class Moment:
    """What a machine is left with at a step: its disk, what was acknowledged, and which models were in force."""

    step: int
    disk: Disk
    acknowledged: int
    models: Models


@dataclass
class Machine:
    """One machine with a log and live views, from a start to a power loss, to SIGKILL, or to its end.

    folder: where SQLite's files are at hand, as the disk has them. left_out, sqlite_left_out: syncs that are not made.
    is_kept: asked at each step, with its number and what SQLite does, whether what a power loss would leave is to be
    kept in `moments`; kills: how many of them are of SIGKILL instead, which leaves what is not on disk yet.
    """

    disk: Disk
    folder: Path
    chance: random.Random
    left_out: Collection[str] = ()
    sqlite_left_out: Collection[str] = ()
    is_kept: Callable[[int, str], bool] = lambda step, doing: False
    kills: float = 0.0
    moments: list[Moment] = field(default_factory=list)
    acknowledged: int = 0
    models: Models = field(default_factory=dict)
    log: Log = None  # type: ignore[assignment]
    sqlite: SqliteFiles = None  # type: ignore[assignment]
    views: LiveViews = None  # type: ignore[assignment]

    LOG = Path("/data/log/order_lines/0")
    LIVE = Path("/data/live")

    def __post_init__(self) -> None:
        self._losses = random.Random(self.chance.random())  # what is lost says nothing of what happens
        self.files = PowerFiles(self.disk, self.chance, left_out=self.left_out, on_step=self._at_step)
        self.url = f"sqlite:///{self.folder}/live.sqlite"

    @property
    def steps(self) -> int:
        """How many steps there were."""
        return self.files.steps

    def _at_step(self, step: int) -> None:
        if self.is_kept(step, self.sqlite.doing if self.sqlite else ""):
            is_kill = self._losses.random() < self.kills
            after = self.disk.copy() if is_kill else self.disk.after_power_loss(self._losses)
            self.moments.append(Moment(step, after, self.acknowledged, self.models))

    @contextmanager
    def on(self) -> Iterator[Machine]:
        """The machine, switched on: its log is open."""
        self.files.make_folder(self.LIVE)
        for name, content in self.disk.files(self.LIVE).items():
            (self.folder / name).write_bytes(content)
        with watched_sqlite(self.folder, self.files, self.LIVE, left_out=self.sqlite_left_out) as self.sqlite:
            settings = LogSettings(segment_bytes=20_000, tail_bytes=0)
            self.log = Log.open(self.LOG, SPEC, files=self.files, settings=settings)
            try:
                yield self
            finally:
                self.files.kill()
                self.log.close()

    @contextmanager
    def following(self, models: Models) -> Iterator[LiveViews]:
        """The views of these models, opened; closed at the end as at the service's end."""
        self.models = models
        path = self.folder / "manifest.json"
        path.write_bytes(manifest(models))
        self.views = LiveViews.open(path, self.url, {STREAM: self.log})
        try:
            yield self.views
        finally:
            self.views.close()

    def send(self, count: int) -> None:
        """Append events, one frame, and wait until it is durable."""
        rows = lines(self.chance, count)
        self.log.append(Append(rows, count)).result(60)
        self.acknowledged += count

    def settle(self, wait_s: float = 60) -> None:
        """Wait until every view covers all of the log, by the definition that is in force."""
        for name in self.models:
            query = ViewQuery(name, after_offset=self.log.durable_offset, wait_s=wait_s, limit=1)
            until(self.views, lambda query=query: self._is_in_force(query), wait_s)

    def _is_in_force(self, query: ViewQuery) -> bool:
        sql = self.models[query.view]
        return all(column.name in sql for column in self.views.query(query).columns)

    def check_whole(self, duck: Any) -> None:
        """See that every view, settled, is of the whole log, and each of its sealed copies of all below its seal."""
        rows = rows_of(self.log)
        for status in self.views.status():
            assert (status.offset, status.error) == (rows.num_rows, ""), status
            self._check(duck, status.view, ViewQuery(status.view), rows)
            for seal in self.log.seals():
                copy = SealedRange(seal.first_date, seal.last_date, seal.seal_offset)
                of_dates = rows.slice(0, seal.seal_offset)
                if status.window_column:
                    dates = pa.compute.and_(
                        pa.compute.greater_equal(of_dates["event_date"], seal.first_date),
                        pa.compute.less_equal(of_dates["event_date"], seal.last_date),
                    )
                    of_dates = of_dates.filter(dates)
                self._check(duck, status.view, ViewQuery(status.view, sealed=copy), of_dates)

    def _check(self, duck: Any, view: str, query: ViewQuery, rows: pa.Table) -> None:
        result = self.views.query(query)
        answer = batch_rows(duck, self.models[view], rows)
        assert_same(result.table, answer, result.columns, f"{view} {query.sealed or ''}")


def until(views: LiveViews, holds: Callable[[], bool], wait_s: float = 60) -> None:
    """Wait until something holds, which may change with a commit."""
    deadline_s = time.monotonic() + wait_s
    while not holds():
        assert time.monotonic() < deadline_s, views.status()
        time.sleep(0.002)


def play(machine: Machine) -> None:
    """A life of log and views: micro-batches, seals, restarts, another definition, its rebuild and its swap."""
    with machine.on():
        with machine.following(MODELS):
            machine.send(5)
            for count in (1, 40, 7):
                machine.send(count)
                machine.settle()
            machine.log.seal(DAY, DAY, force=True)
            machine.send(12)
            machine.settle()
        with machine.following(MODELS):
            machine.send(9)
            machine.settle()
        with machine.following(CHANGED):
            machine.send(3)
            machine.settle()
            machine.log.seal(DAY, DAY + dt.timedelta(days=1), force=True)
            machine.send(8)
            machine.settle()


def recover(machine: Machine, moment: Moment, duck: Any, *, go_on: bool = True) -> dict[str, int]:
    """Switch a machine on with what a moment left, and see that it is of a prefix; then that it goes on to the whole.

    Gives the offsets at which the views were found.
    """
    with machine.on():
        machine.acknowledged = machine.log.durable_offset
        assert moment.acknowledged <= machine.acknowledged, "acknowledged rows are gone"
        found = _found(machine, duck)
        if not go_on:
            return found
        with machine.following(machine.chance.choice([moment.models or MODELS, CHANGED])):
            machine.settle()
            machine.check_whole(duck)
            machine.send(20)
            machine.settle()
            machine.check_whole(duck)
    return found


def _found(machine: Machine, duck: Any) -> dict[str, int]:
    """What the store holds before anything is done to it: a copy of it is looked at."""
    folder = machine.folder / "found"
    folder.mkdir()
    for name, content in machine.disk.files(machine.LIVE).items():
        (folder / name).write_bytes(content)
    store = Store(f"sqlite:///{folder}/live.sqlite")
    try:
        return assert_prefix(store, machine.log, [MODELS, CHANGED], duck)
    finally:
        store.close()


@contextmanager
def pragmas(*settings: str) -> Iterator[None]:
    """What every connection to SQLite is set to, beyond what the store sets itself."""

    def set_all(connection: Any, *_: Any) -> None:
        for setting in settings:
            connection.execute(f"PRAGMA {setting}").close()

    sa.event.listen(sa.Pool, "checkout", set_all)
    try:
        yield
    finally:
        sa.event.remove(sa.Pool, "checkout", set_all)
