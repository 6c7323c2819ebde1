"""A log that is a list, models without dbt, and the comparison of a view with DuckDB over all rows."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.agreement import compare

from ingest_service.live.duck import open_duck
from ingest_service.live.lifecycle import set_up
from ingest_service.live.manifest import DISTINCT_VALUES_MAX, LiveModel, LiveOptions
from ingest_service.live.plan import plan_view
from ingest_service.live.query import RowReader, ViewQuery
from ingest_service.live.seeds import Seed
from ingest_service.live.store import Store
from ingest_service.live.view import LiveView
from ingest_service.log.records import Entry, LogSpec, Rows, Seal, with_system_columns

SOURCE = '"db"."schema"."order_lines"'
SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("quantity", pa.int64()),
        pa.field("unit_price", pa.decimal128(12, 3)),
        pa.field("weight", pa.float64()),
        pa.field("invoiced_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("customer_id", pa.int64()),
        pa.field("country", pa.string()),
    ]
)
SALES = f"""select
    time_bucket(interval '1 minute', invoiced_at) as window_start,
    country,
    count(*) as lines,
    sum(quantity) as units,
    sum(quantity * unit_price) as revenue,
    count(distinct customer_id) as customers
from {SOURCE}
where quantity <> 0
group by all
"""
# A country twice, one without a region, one that no event has, and a row without a country.
REGIONS = Seed(
    "regions",
    "seeds/regions.csv",
    "country,region,rank\nFrance,Europe,1\nSpain,Europe,2\nSpain,Iberia,3\nMars,,\n,Nowhere,4\n",
    (("country", "varchar"), ("region", "varchar"), ("rank", "integer")),
    ",",
)
START = dt.datetime(2011, 12, 5, 8, 0, tzinfo=dt.UTC)


class ListLog:
    """A log in memory: every append is durable at once."""

    def __init__(self, schema: pa.Schema = SCHEMA, *, version: int = 1) -> None:
        self.spec = LogSpec("order_lines", schema, version, "invoiced_at", None, 3600)
        self.schema = with_system_columns(schema)
        self.entries: list[Entry] = []
        self.reads_from: list[int] = []
        self.watermark_us: int | None = None
        self._grown = threading.Condition()

    @property
    def durable_offset(self) -> int:
        return next((e.next_offset for e in reversed(self.entries) if isinstance(e, Rows)), 0)

    def append(self, rows: list[dict[str, Any]]) -> Rows:
        base = self.durable_offset
        times = [row["invoiced_at"] for row in rows]
        system = {
            "_partition": pa.array([0] * len(rows), pa.int32()),
            "_offset": pa.array(range(base, base + len(rows)), pa.int64()),
            "_append_time": pa.array(times, pa.timestamp("us", tz="UTC")),
            "event_date": pa.array([time.date() for time in times], pa.date32()),
        }
        own = {field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in self.spec.schema}
        batch = pa.RecordBatch.from_arrays(list((own | system).values()), schema=self.schema)
        return self._add(Rows(batch, base, base + len(rows)))

    def seal(self, first: dt.date, last: dt.date | None = None) -> Seal:
        return self._add(Seal(first, last or first, self.durable_offset, 0))

    def _add(self, entry: Any) -> Any:
        with self._grown:
            self.entries.append(entry)
            self._grown.notify_all()
        return entry

    def reader(self, from_offset: int, columns: Any = None) -> ListReader:
        self.reads_from.append(from_offset)
        return ListReader(self, from_offset)

    def table(self, below: int | None = None) -> pa.Table:
        batches = [entry.batch for entry in self.entries if isinstance(entry, Rows)]
        return pa.Table.from_batches(batches, self.schema).slice(0, below)

    def wait(self, position: int, timeout_s: float) -> list[Entry]:
        with self._grown:
            self._grown.wait_for(lambda: len(self.entries) > position, timeout_s)
            return self.entries[position:]


class ListReader:
    def __init__(self, log: ListLog, from_offset: int) -> None:
        self._log, self._from_offset, self._position = log, from_offset, 0

    def read(self, max_rows: int, timeout_s: float) -> list[Entry]:
        del max_rows
        entries = self._log.wait(self._position, timeout_s)
        self._position += len(entries)
        return [entry for entry in entries if self._is_wanted(entry)]

    def _is_wanted(self, entry: Entry) -> bool:
        if isinstance(entry, Rows):
            return entry.next_offset > self._from_offset
        return entry.seal_offset >= self._from_offset

    def close(self) -> None:
        pass


class Kit:
    """What a test of one view needs: its log, its store, and the view itself, to be opened again at will."""

    START, SALES, SOURCE, SCHEMA, ListLog = START, SALES, SOURCE, SCHEMA, ListLog

    def __init__(self, folder: Path, duck: Any) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/live.sqlite"
        self.duck = duck
        self.log = ListLog()
        self.seeds = {("db", "schema", "regions"): REGIONS}
        self._plans: dict[Any, Any] = {}

    def model(
        self, sql: str, *, name: str = "sales", materialized: str = "table", path: str | None = None
    ) -> LiveModel:
        path = path or f"models/live/{name}.sql"
        streams = {("db", "schema", "order_lines"): "order_lines"}
        return LiveModel(name, path, sql, sql, materialized, "microbatch", streams, self.seeds)

    def plan(self, sql: str, **options: str) -> Any:
        key = (sql, *sorted(options.items()), self.log.spec.contract_version)
        if key not in self._plans:
            self._plans[key] = self._plan(sql, **options)
        return self._plans[key]

    def _plan(self, sql: str, **options: str) -> Any:
        return plan_view(self.model(sql, **options), {"order_lines": self.log}, self.duck)

    @contextmanager
    def view(
        self, sql: str = SALES, *, store: Store | None = None, distinct_values_max: int = DISTINCT_VALUES_MAX
    ) -> Iterator[LiveView]:
        """The view as the service opens it, without a thread."""
        store = store or Store(self.url)
        try:
            plan = replace(self.plan(sql), options=LiveOptions(distinct_values_max=distinct_values_max))
            view = set_up(plan, store, self.log, self.duck)
            yield view
            view.close()
        finally:
            store.close()

    def rows(self, view: str = "sales", sealed: Any = None) -> pa.Table:
        """A view's rows as a reader sees them, in the model's types."""
        store = Store(self.url)
        duck = self.duck.cursor()
        try:
            with store.read() as transaction:
                stored = transaction.load(view)
                return RowReader(ViewQuery(view, sealed=sealed), stored.description, duck).read(transaction)
        finally:
            duck.close()
            store.close()

    def batch(self, sql: str = SALES, rows: pa.Table | None = None) -> pa.Table:
        """DuckDB's own answer over all rows of the log."""
        duck = self.duck.cursor()
        try:
            duck.register("all_rows", self.log.table() if rows is None else rows)
            return duck.sql(sql.replace(SOURCE, "all_rows as order_lines")).to_arrow_table()
        finally:
            duck.close()

    def assert_agrees(
        self, sql: str = SALES, *, below: int | None = None, view: str = "sales", sealed: Any = None
    ) -> int:
        """Compares a view with DuckDB over the log's rows below an offset; gives the number of rows compared."""
        live, batch = self.rows(view, sealed), self.batch(sql, self.log.table(below))
        description = self.plan(sql).description
        return compare(live, batch, description.columns, description.group_columns)

    def manifest(self, models: dict[str, str], *, materialized: str = "table") -> Path:
        """A dbt manifest with these models, by name."""
        nodes = {
            f"model.p.{name}": {
                "resource_type": "model",
                "name": name,
                "tags": ["live"],
                "original_file_path": f"models/live/{name}.sql",
                "raw_code": sql,
                "compiled_code": sql,
                "config": {"materialized": materialized, "incremental_strategy": "microbatch"},
            }
            for name, sql in models.items()
        }
        source = {"name": "order_lines", "relation_name": SOURCE, "meta": {}, "config": {}}
        path = self.folder / "manifest.json"
        path.write_text(json.dumps({"nodes": nodes, "sources": {"source.p.events.order_lines": source}}))
        return path

    def line(self, minute: int = 0, **values: Any) -> dict[str, Any]:
        """An event with everything that a test does not care for filled in."""
        row = {"event_id": "e", "quantity": 1, "unit_price": 1, "weight": 1.0, "customer_id": 1, "country": "France"}
        row |= {"invoiced_at": START + dt.timedelta(minutes=minute)} | values
        return row | {"unit_price": Decimal(row["unit_price"])}


@pytest.fixture(scope="session")
def duck() -> Iterator[Any]:
    connection = open_duck()
    yield connection
    connection.close()


@pytest.fixture
def kit(tmp_path: Path, duck: Any) -> Kit:
    return Kit(tmp_path, duck)
