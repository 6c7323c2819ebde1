"""Live views on a machine that fails: a life of log and views together, and whether what is found fits the log."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from ingest_service.clock import SystemClock
from ingest_service.live import LiveViews, SealedRange, ViewQuery, ViewWatch
from ingest_service.live.description import ViewDescription
from ingest_service.live.query import RowReader
from ingest_service.live.status import ViewStatus
from ingest_service.live.store import ReadTransaction, Store, StoredView
from ingest_service.live.tables import REBUILD, ViewTables
from ingest_service.log import Append, Log, LogSettings, LogSpec, Rows, Seal
from support.power import Disk, PowerFiles
from support.sqlite_power import SqliteFiles, watched_sqlite, why_not

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
"""Events lie within minutes around the midnight that follows."""

Models = Mapping[str, str]

SALES = f"""
select time_bucket(interval '1 minute', invoiced_at) as window_start, country, count(*) as lines,
    sum(quantity) as units, sum(quantity * unit_price) as revenue, count(distinct customer_id) as customers
from {SOURCE} where quantity > 0 group by all
"""
SALES_CHANGED = SALES.replace("where quantity > 0", "").replace("as units", "as pieces, max(unit_price) as dearest")
BY_CUSTOMER = f"""
select customer_id, count(*) as lines, arg_max(country, (invoiced_at, _offset)) as last_country, avg(weight) as weight,
    stddev_pop(quantity) as spread
from {SOURCE} group by all
"""
TOTALS = f"select count(*) as lines, sum(quantity) as units, count(distinct country) as countries from {SOURCE}"
RETURNS = f"select _offset, invoiced_at, customer_id, quantity, unit_price from {SOURCE} where quantity < 0"
BY_COUNTRY = f"""
select country, count(*) filter (where quantity < 0) as returned, approx_count_distinct(customer_id) as customers
from {SOURCE} group by all
"""

MODELS: Models = {"sales": SALES, "by_customer": BY_CUSTOMER, "totals": TOTALS, "returns": RETURNS}
CHANGED: Models = {"sales": SALES_CHANGED, "by_customer": BY_CUSTOMER, "returns": RETURNS, "by_country": BY_COUNTRY}
"""One definition changed, one view gone, one view more."""

KEPT: Models = {"sales": SALES, "returns": RETURNS}
KEPT_FOR = {"meta": {"live": {"retain": "1 hours"}}}
"""Views whose old windows leave, and how they are configured so."""


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


def lines(chance: random.Random, count: int, start: dt.datetime = START) -> pa.RecordBatch:
    """Events of few groups, so that every micro-batch changes rows that are there."""
    rows = [
        {
            "quantity": chance.choice([None, -2, 0, 1, 1, 3, 1 << 40]),
            "unit_price": chance.choice([None, Decimal("1.250"), Decimal("-0.001"), Decimal("99.999")]),
            "weight": chance.choice([None, 0.1, 2.5, 1e9]),
            "invoiced_at": start + dt.timedelta(seconds=chance.randrange(300)),
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
    cursor = _cursor(duck)
    try:
        cursor.register("rows_of_the_log", rows)
        return cursor.sql(sql.replace(source, "rows_of_the_log")).to_arrow_table()
    finally:
        cursor.close()


def _cursor(duck: Any) -> Any:
    """A connection that gives rows in the types in which a view's are given."""
    cursor = duck.cursor()
    cursor.execute("SET SESSION arrow_lossless_conversion = false")
    return cursor


def assert_same(live: pa.Table, batch: pa.Table, columns: Collection[Any], what: str) -> int:
    """See that a view's rows are DuckDB's, each column as exactly as it says; gives their number."""
    assert live.schema.names == batch.schema.names, f"{what}: {live.schema.names}, {batch.schema.names}"
    assert live.schema.types == batch.schema.types, f"{what}: {live.schema}, {batch.schema}"
    tolerance = [column.relative_tolerance for column in columns]
    exact = [i for i, each in enumerate(tolerance) if not each]
    if _is_same(live, batch, [live.schema.names[i] for i in exact]):
        return int(batch.num_rows)
    left, right = (sorted(_tuples(table), key=lambda row: [repr(row[i]) for i in exact]) for table in (live, batch))
    assert len(left) == len(right), f"{what}: {len(left)} rows live, {len(right)} in batch"
    for a, b in zip(left, right, strict=True):
        for name, x, y, t in zip(live.schema.names, a, b, tolerance, strict=True):
            near = isinstance(x, float) and isinstance(y, float) and math.isclose(x, y, rel_tol=t, abs_tol=0)
            assert x == y or (t and near), f"{what}, {name}: live {x!r}, batch {y!r}, in the row {b}"
    return len(right)


def _is_same(live: pa.Table, batch: pa.Table, keys: list[str]) -> bool:
    """Whether they are equal to the last bit: what is so most often, and told at once."""
    order = [(name, "ascending") for name in keys]
    return bool(order and live.sort_by(order).equals(batch.sort_by(order)))


def _tuples(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True)) if table.num_columns else []


def assert_prefix(
    store: Store, rows: pa.Table, seals: Collection[Seal], models: Collection[Models], duck: Any
) -> dict[str, int]:
    """See that what a store holds of views is of a prefix of the log: rows, sealed copies, rebuilds; offsets by view.

    store: a copy, as a rebuild is swapped in to be read. rows, seals: all of the log. models: those that were ever in
    force, of which a view's rows may be.
    """
    with store.read() as transaction:
        names = sorted(transaction.names(), key=lambda name: name.endswith(REBUILD))
    offsets = {}
    for table in names:
        name = table.removesuffix(REBUILD)
        if table != name:
            with store.write() as transaction:
                transaction.swap(name)
        with store.read() as transaction:
            stored = transaction.load(name)
            assert stored is not None
            offsets[table] = offset = stored.checkpoint.offset
            assert offset <= rows.num_rows, f"{table} covers {offset}, and the log ends at {rows.num_rows}"
            assert not transaction.missing(ViewTables.of(stored.description)), table
            if not (offset or transaction.count(name)):
                continue  # made, and not begun yet: an aggregation without groups gets its first row after that
            sql = next(each[name] for each in models if each.get(name) == stored.description.sql)
            _assert_rows(transaction, stored, None, sql, rows.slice(0, offset), duck)
            expired = expired_before(stored.checkpoint.expired_before_us)
            if expired > dt.date.min:
                assert f"{DAY}" in transaction.reconciled(name), f"{table}: windows left that were not reconciled"
            for seal in seals:
                if seal.first_date < expired:
                    continue
                copy = SealedRange(seal.first_date, seal.last_date, seal.seal_offset)
                if transaction.is_sealed(name, f"{copy.first_date}", f"{copy.last_date}", copy.seal_offset):
                    _assert_rows(transaction, stored, copy, sql, of_seal(rows, seal, stored.description), duck)
                else:
                    assert seal.seal_offset >= offset, f"{table} covers {offset}, and has no copy made at {seal}"
    return offsets


def _assert_rows(
    transaction: ReadTransaction, stored: StoredView, sealed: SealedRange | None, sql: str, rows: pa.Table, duck: Any
) -> None:
    cursor = _cursor(duck)
    try:
        query = ViewQuery(stored.description.view, sealed=sealed)
        live = RowReader(query, stored.description, cursor).read(transaction)
    finally:
        cursor.close()
    what = f"{stored.description.view} at {stored.checkpoint.offset} {sealed or ''}"
    batch = left(batch_rows(duck, sql, rows), stored.description, stored.checkpoint.expired_before_us)
    assert_same(live, batch, stored.description.columns, what)


def left(rows: pa.Table, view: ViewDescription | ViewStatus, expired_before_us: int | None) -> pa.Table:
    """The rows of a view's batch model without windows that have left."""
    if expired_before_us is None:
        return rows
    first = pa.scalar(expired_before_us, pa.timestamp("us", tz="UTC"))
    return rows.filter(pc.greater_equal(rows[view.window_column], first))


def expired_before(us: int | None) -> dt.date:
    """The first date of which no window has left."""
    return dt.date.min if us is None else dt.datetime.fromtimestamp(us / 1e6, dt.UTC).date()


def of_seal(rows: pa.Table, seal: Seal, view: ViewDescription | ViewStatus) -> pa.Table:
    """The rows that a view's copy made at a seal is of."""
    below = rows.slice(0, seal.seal_offset)
    if not view.window_column:
        return below
    dates = below["event_date"]
    return below.filter(pc.and_(pc.greater_equal(dates, seal.first_date), pc.less_equal(dates, seal.last_date)))


@dataclass
class Replica:
    """What somebody has who watches a view: rows by their group, and from where on to go on."""

    rows: dict[tuple[Any, ...], tuple[Any, ...]] = field(default_factory=dict)
    resume: str = ""
    offset: int = -1

    def follow(self, views: LiveViews, view: str, keys: Collection[str]) -> None:
        """Take in what has changed, as far as the view is told of it."""
        while (change := views.changes(ViewWatch(view, resume=self.resume))) is not None:
            rows = _tuples(change.table)
            groups = _tuples(change.table.select(list(keys))) if keys else [() for _ in rows]
            known = {} if change.reset else self.rows  # not changed in place: moments keep it
            self.rows, self.resume = {**known, **dict(zip(groups, rows, strict=True))}, change.resume
            self.offset = change.offset

    def table(self, schema: pa.Schema) -> pa.Table:
        """The rows as those of a query."""
        columns = list(zip(*self.rows.values(), strict=True)) or [()] * len(schema)
        return pa.table(
            [pa.array(each, type_) for each, type_ in zip(columns, schema.types, strict=True)], schema.names
        )


@dataclass
class Moment:
    """What is there at a step: a machine's disk, and what is known elsewhere.

    acknowledged: so many rows; models: those in force; replicas: what those have who watch views, by view.
    """

    step: int
    disk: Disk
    acknowledged: int
    models: Models
    replicas: dict[str, Replica]


@dataclass
class Machine:
    """One machine with a log and live views, from a start to a power loss, to SIGKILL, or to its end.

    folder: where SQLite's files are at hand, as the disk has them. left_out, sqlite_left_out: syncs that are not made.
    is_kept: asked at each step, with its number and what SQLite does, whether what a power loss would leave is to be
    kept in `moments`; kills: how many of them are of SIGKILL instead, which leaves what is not on disk yet.
    fails: asked at each step of SQLite's, with what it does; an errno fails it.
    """

    disk: Disk
    folder: Path
    chance: random.Random
    left_out: Collection[str] = ()
    sqlite_left_out: Collection[str] = ()
    is_kept: Callable[[int, str], bool] = lambda step, doing: False
    kills: float = 0.0
    fails: Callable[[str], int] = lambda doing: 0
    moments: list[Moment] = field(default_factory=list)
    acknowledged: int = 0
    models: Models = field(default_factory=dict)
    replicas: dict[str, Replica] = field(default_factory=dict)
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
        doing = self.sqlite.doing if self.sqlite else ""
        if doing and (code := self.fails(doing)):
            raise OSError(code, os.strerror(code))
        if self.is_kept(step, doing):
            is_kill = self._losses.random() < self.kills
            after = self.disk.copy() if is_kill else self.disk.after_power_loss(self._losses)
            replicas = {view: replace(each) for view, each in self.replicas.items()}
            self.moments.append(Moment(step, after, self.acknowledged, self.models, replicas))

    @contextmanager
    def on(self) -> Iterator[Machine]:
        """The machine, switched on: its log is open."""
        self.files.make_folder(self.LIVE)
        for name, content in self.disk.files(self.LIVE).items():
            (self.folder / name).write_bytes(content)
        with self._watched() as self.sqlite:
            settings = LogSettings(segment_bytes=20_000, tail_bytes=0)
            self.log = Log.open(self.LOG, SPEC, files=self.files, settings=settings)
            try:
                yield self
            finally:
                self.files.kill()
                self.log.close()

    def _watched(self) -> Any:
        if why_not():
            return nullcontext()
        return watched_sqlite(self.folder, self.files, self.LIVE, left_out=self.sqlite_left_out)

    @contextmanager
    def following(self, models: Models) -> Iterator[LiveViews]:
        """The views of these models, opened; closed at the end as at the service's end."""
        self.models = models
        path = self.folder / "manifest.json"
        path.write_bytes(manifest(models, **self.config(models)))
        self.views = LiveViews.open(path, self.url, {STREAM: self.log}, clock=QuickClock())
        try:
            yield self.views
        finally:
            self.views.close()

    def apply(self, models: Models) -> None:
        """Put other models in force, without closing the views."""
        self.models = models
        self.views.apply(manifest(models, **self.config(models)))

    @staticmethod
    def config(models: Models) -> dict[str, Any]:
        """How the models are configured."""
        return KEPT_FOR if models is KEPT else {}

    def send(self, count: int, start: dt.datetime = START) -> None:
        """Append events, one frame, and wait until it is durable."""
        rows = lines(self.chance, count, start)
        self.log.append(Append(rows, count)).result(60)
        self.acknowledged += count

    def settle(self) -> None:
        """Wait until every view covers all of the log, by the definition that is in force."""
        until(self.views, self.is_settled)
        until(self.views, self._is_watched)

    def is_settled(self) -> bool:
        """Whether every view covers all of the log, and has no error."""
        status = self.views.status()
        assert [each.view for each in status] == sorted(self.models), status
        return all(
            each.offset == self.log.durable_offset and each.rebuild_offset is None and not each.error for each in status
        )

    def _is_watched(self) -> bool:
        for status in self.views.status():
            self.replicas.setdefault(status.view, Replica()).follow(self.views, status.view, status.group_columns)
        return all(self.replicas[view].offset >= self.log.durable_offset for view in self.models)

    def check_whole(self, duck: Any) -> None:
        """See that every view, settled, is of the whole log, and each of its sealed copies of all below its seal.

        So is what those have who watch it.
        """
        rows = rows_of(self.log)
        for status in self.views.status():
            assert (status.offset, status.error) == (rows.num_rows, ""), status
            shown = self._check(duck, status, ViewQuery(status.view), rows)
            # Nobody is told of what has left.
            replica = left(self.replicas[status.view].table(shown.schema), status, status.expired_before_us)
            assert_same(replica, shown, status.columns, f"{status.view}, watched,")
            for seal in self.log.seals():
                if seal.first_date < expired_before(status.expired_before_us):
                    continue
                copy = SealedRange(seal.first_date, seal.last_date, seal.seal_offset)
                self._check(duck, status, ViewQuery(status.view, sealed=copy), of_seal(rows, seal, status))

    def _check(self, duck: Any, view: ViewStatus, query: ViewQuery, rows: pa.Table) -> pa.Table:
        result = self.views.query(query)
        answer = left(batch_rows(duck, self.models[view.view], rows), view, view.expired_before_us)
        assert_same(result.table, answer, result.columns, f"{view.view} {query.sealed or ''}")
        return result.table


class QuickClock(SystemClock):
    """A clock by which whatever is tried again is tried soon."""

    def monotonic_s(self) -> float:
        return 50 * super().monotonic_s()


def until(views: LiveViews, holds: Callable[[], bool], wait_s: float = 60) -> None:
    """Wait until something holds, which may change when a view commits or stops."""
    changed = threading.Event()
    end = views.listen(changed.set)
    deadline_s = time.monotonic() + wait_s
    try:
        while not holds():
            assert time.monotonic() < deadline_s, "\n".join(
                f"{each.view} {each.state} {each.offset} {each.lag} {each.rebuild_offset} {each.error}"
                for each in views.status()
            )
            changed.wait(0.05)  # an error that is over is not told of
            changed.clear()
    finally:
        end()


def play(machine: Machine) -> None:
    """A life of log and views: micro-batches of every size, seals, restarts, rebuilds and their swaps, other models."""
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
            machine.views.rebuild("sales")
            machine.send(4)
            machine.settle()
            machine.apply(CHANGED)
            machine.send(3)
            machine.settle()
            machine.log.seal(DAY, DAY + dt.timedelta(days=1), force=True)
            machine.send(50)
            machine.settle()
        with machine.following(MODELS):  # back to what was
            machine.send(6)
            machine.settle()


def play_long(machine: Machine) -> None:
    """A life in which windows leave: two days, the first sealed and reconciled, late events, a rebuild, a restart."""
    with machine.on():
        with machine.following(KEPT):
            machine.send(30)
            machine.settle()
            seal = machine.log.seal(DAY, DAY, force=True)
            machine.send(10, START + dt.timedelta(hours=6))
            machine.settle()
            for view in KEPT:
                machine.views.confirm_reconciled(view, DAY, DAY, seal.seal_offset)
            until(machine.views, lambda: all(status.expired_before_us for status in machine.views.status()))
            machine.send(20)
            machine.send(5, START + dt.timedelta(hours=6))
            machine.settle()
            machine.views.rebuild("sales")
            machine.send(7)
            machine.settle()
            machine.log.seal(DAY + dt.timedelta(days=1), DAY + dt.timedelta(days=1), force=True)
        with machine.following(KEPT):
            machine.send(9, START + dt.timedelta(hours=7))
            machine.settle()


def recover(machine: Machine, moment: Moment, duck: Any, *, go_on: bool = True) -> dict[str, int]:
    """Switch a machine on with what a moment left, and see that it is of a prefix; then that it goes on to the whole.

    Gives the offsets at which the views were found.
    """
    with machine.on():
        machine.acknowledged = machine.log.durable_offset
        machine.replicas = {view: replace(each) for view, each in moment.replicas.items()}
        assert moment.acknowledged <= machine.acknowledged, "acknowledged rows are gone"
        found = _found(machine, duck)
        if not go_on:
            return found
        with machine.following(_next_models(machine, moment)):
            machine.settle()
            machine.check_whole(duck)
            machine.send(20)
            machine.settle()
            machine.check_whole(duck)
    return found


def _next_models(machine: Machine, moment: Moment) -> Models:
    """Those in force go on to be so, or others come with the start."""
    if moment.models is KEPT:
        return KEPT
    return machine.chance.choice([moment.models or MODELS, CHANGED])


def _found(machine: Machine, duck: Any) -> dict[str, int]:
    """What the store holds before anything is done to it: a copy of it is looked at."""
    folder = machine.folder / "found"
    folder.mkdir()
    for name, content in machine.disk.files(machine.LIVE).items():
        (folder / name).write_bytes(content)
    store = Store(f"sqlite:///{folder}/live.sqlite")
    try:
        return assert_prefix(store, rows_of(machine.log), machine.log.seals(), [MODELS, CHANGED, KEPT], duck)
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
