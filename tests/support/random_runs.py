"""Plays a random life of a live view (batches, restarts, repeats, seals) and compares it with DuckDB on the way."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ingest_service.live import SealedRange, ViewQuery
from ingest_service.live.duck import open_duck
from ingest_service.live.lifecycle import begin_rebuild, set_up, swap_in
from ingest_service.live.manifest import LiveModel
from ingest_service.live.plan import BOUNDS_BATCH, MergePlan, plan_view
from ingest_service.live.query import RowReader
from ingest_service.live.seeds import PREFIX, Seed
from ingest_service.live.store import Store
from ingest_service.live.view import LiveView, TakeAgain, ViewStopped
from ingest_service.log.records import Entry, Rows, with_system_columns
from support.agreement import Disagreement, Row, Yardstick, compare, is_between, rows_by_key
from support.random_events import SCHEMA, SEEDS
from support.random_expressions import quoted
from support.random_models import Model, RandomModels
from support.random_relations import SOURCE
from support.random_steps import Append, Event, Rebuild, Restart, SealDates, Step
from support.shrink import shrink

STREAM = "order_lines"
VIEW = "v"


def seed_of(name: str) -> Seed:
    """A seed as the manifest has it."""
    types, content = SEEDS[name]
    return Seed(name, f"seeds/{name}.csv", content, tuple(types.items()), ",")


def live_model(model: Model) -> LiveModel:
    """A random model as dbt's manifest tells of it."""
    seeds = {("db", "schema", name): seed_of(name) for name in model.seeds}
    path = f"models/live/{VIEW}.sql"
    streams = {("db", "schema", STREAM): STREAM}
    return LiveModel(VIEW, path, model.sql, model.sql, model.materialized, "microbatch", streams, seeds)


class Warehouse:
    """DuckDB with the stream and the seeds as tables, where dbt would build the model."""

    def __init__(self) -> None:
        self._duck = open_duck()
        self._duck.execute("ATTACH ':memory:' AS db; CREATE SCHEMA db.schema")
        for name in SEEDS:
            seed = seed_of(name)
            seed.load(self._duck)
            self._duck.execute(f'CREATE TABLE db.schema."{name}" AS FROM "{seed.table}"')
            self._duck.execute(f'CREATE VIEW "{PREFIX}{name}" AS FROM "{seed.table}"')
        self.fill(with_system_columns(SCHEMA).empty_table())

    def fill(self, rows: pa.Table) -> None:
        """Puts rows in place of the stream's."""
        self._duck.register("arriving", rows)
        self._duck.execute(f"CREATE OR REPLACE TABLE {SOURCE} AS FROM arriving")
        self._duck.execute(f"CREATE OR REPLACE VIEW {BOUNDS_BATCH} AS FROM {SOURCE}")
        self._duck.unregister("arriving")

    def query(self, sql: str) -> pa.Table:
        """What DuckDB answers."""
        return self._duck.sql(sql).to_arrow_table()

    def yardsticks(self, model: Model, group_columns: Sequence[str]) -> dict[Row, dict[str, Yardstick]]:
        """How exactly a model's inexact columns are known, over the rows that are there now."""
        scales, width = model.scales, len(model.items)
        if not scales:
            return {}
        judging = self.answer(model.judging_sql)
        keys = rows_by_key(judging.select(range(width)), group_columns, "batch")
        rows = zip(*(column.to_pylist() for column in judging.columns[width:]), strict=True)
        names = judging.schema.names
        return {
            key: {
                names[i]: Yardstick(scale.of, value, scale.quantile)
                for (i, scale), value in zip(scales.items(), values, strict=True)
            }
            for key, values in zip(keys, rows, strict=True)
        }

    def refusal(self, sql: str) -> str:
        """Why DuckDB would not run a query, or nothing."""
        try:
            self._duck.execute(f"DESCRIBE {sql}").fetchall()
        except duckdb.Error as error:
            return str(error).splitlines()[0]
        return ""

    def answer(self, sql: str) -> pa.Table:
        """What DuckDB answers; where its optimizer fails, as it does on some constants, without it."""
        try:
            return self.query(sql)
        except duckdb.Error:
            return self._unoptimized(sql)

    def fails(self, sql: str) -> bool:
        """Whether a query fails over the rows that are there, if all of it is computed.

        The optimizer leaves out what it can foresee, such as an aggregate of which only a constant is shown.
        """
        try:
            self._unoptimized(sql)
        except duckdb.Error:
            return True
        return False

    def _unoptimized(self, sql: str) -> pa.Table:
        duck = self._duck.cursor()
        try:
            duck.execute("PRAGMA disable_optimizer")
            return duck.sql(sql).to_arrow_table()
        finally:
            duck.close()

    def close(self) -> None:
        """Lets go of it."""
        self._duck.close()


def random_model(rng: random.Random, warehouse: Warehouse, *, off: frozenset[str] = frozenset()) -> tuple[Model, int]:
    """A model that DuckDB takes, and how many it refused before."""
    models = RandomModels(rng, off=off)
    for refused in range(100):
        model = models.model()
        if not warehouse.refusal(model.judging_sql):
            return model, refused
    raise AssertionError("DuckDB refused 100 models: the generator makes nonsense")


class _NoAnswerError(Exception):
    """DuckDB fails over all rows, and not over each alone: there is nothing to compare with."""


_SINGLE_ROWS_MAX = 300


class Play:
    """One life of a view of one model, over a log of its own."""

    def __init__(
        self,
        model: Model,
        url: str,
        log: Any,
        warehouse: Warehouse,
        duck: Any,
        plans: dict[tuple[str, str], MergePlan] | None = None,
    ) -> None:
        """`url`: of an empty store; `log`: empty, with random_events' columns; `plans`: made before."""
        self.model = model
        self._log = log
        self._warehouse = warehouse
        self._duck = duck
        self._url = url
        plans = {} if plans is None else plans
        key = (model.sql, model.materialized)
        if key not in plans:
            plans[key] = plan_view(live_model(model), {STREAM: log}, duck)
        self.plan = plans[key]
        self.compared = 0
        self.stopped = ""
        self.unanswered = ""  # why batch, and only batch, failed in the end
        self._seals: list[SealedRange] = []
        self._before: tuple[int, dict[Row, Row]] | None = None

    def run(self, steps: Sequence[Step]) -> None:
        """Plays the steps; raises Disagreement."""
        lives: list[list[Step]] = [[]]
        for step in steps:
            lives.append([]) if isinstance(step, Restart) else lives[-1].append(step)
        for life in lives:
            try:
                with closing(Store(self._url)) as store:
                    self._live(store, life)
            except _NoAnswerError:
                return
            if self.stopped:
                return

    def _live(self, store: Store, steps: Sequence[Step]) -> None:
        """From one start of the service to its end."""
        try:
            view = set_up(self.plan, store, self._log, self._duck)
        except duckdb.Error as error:  # of the row that an aggregation without groups has without events
            self.stopped = str(error)
            self._check_fault(-1)
            return
        try:
            for step in steps:
                if isinstance(step, Rebuild):
                    view = self._rebuild(view, store, step)
                elif isinstance(step, SealDates):
                    self._seal(view, step)
                elif isinstance(step, Append):
                    self._append(view, step)
                if self.stopped:
                    return
            self._compare(view)
        finally:
            view.close()

    def _append(self, view: LiveView, step: Append) -> None:
        entries = [self._log.append(list(batch)) for batch in step.batches]
        try:
            self._deliver(view, self._again(entries, step.again), bulk=step.bulk)
        except ViewStopped as error:
            self.stopped = str(error)
            self._compare(view)
            self._check_fault(view.offset)

    def _seal(self, view: LiveView, step: SealDates) -> None:
        entry = self._log.seal(step.first, step.last)
        view.apply([entry])
        self._seals.append(SealedRange(step.first, step.last, entry.seal_offset))
        self._compare_sealed(view, self._seals[-1])

    def _rebuild(self, view: LiveView, store: Store, step: Rebuild) -> LiveView:
        """The view made again, in place of the old one; its sealed copies are made again, too."""
        rebuilt = begin_rebuild(self.plan, store, self._log, self._duck)
        try:
            self._deliver(rebuilt, self._log.entries, bulk=step.bulk)
        except ViewStopped as error:
            self.stopped = str(error)
            self._check_fault(rebuilt.offset)
            rebuilt.close()
            return view
        view.close()
        swap_in(rebuilt, store)
        self._before = None
        for sealed in self._seals:
            self._compare_sealed(rebuilt, sealed)
        self._compare(rebuilt)
        return rebuilt

    @staticmethod
    def _deliver(view: LiveView, entries: Sequence[Entry], *, bulk: bool) -> None:
        if not bulk:
            view.apply(entries)
            return
        try:
            view.absorb(entries)
            view.commit()
        except TakeAgain:
            view.apply(entries)

    def _again(self, entries: list[Rows], count: int) -> list[Entry]:
        """The entries, the first of which also has earlier rows, as a reader gives those that began before it."""
        first = entries[0]
        rows = self._log.table().slice(max(0, first.base_offset - count)).combine_chunks()
        batches = rows.slice(0, first.next_offset - max(0, first.base_offset - count)).to_batches()
        if not count or not batches:
            return list(entries)
        return [Rows(batches[0], first.next_offset - batches[0].num_rows, first.next_offset), *entries[1:]]

    def _compare(self, view: LiveView) -> None:
        """The view's rows, DuckDB's over the same prefix, and what a watcher would have made of the changes."""
        description = self.plan.description
        batch, yardsticks = self._batch(view.offset)
        live = self._rows(view, ViewQuery(VIEW))
        self.compared += compare(live, batch, description.columns, description.group_columns, yardsticks)
        self._check_bounds(live)
        rows = rows_by_key(live, description.group_columns, "live")
        if self._before is not None:
            offset, watched = self._before
            changed = self._rows(view, ViewQuery(VIEW), changed_above=offset)
            watched |= rows_by_key(changed, description.group_columns, "changes")
            if repr(watched) != repr({key: rows.get(key) for key in watched}) or watched.keys() != rows.keys():
                raise Disagreement(f"live differs from what those know who watch it since offset {offset}: {watched}")
        self._before = view.offset, rows

    def _compare_sealed(self, view: LiveView, sealed: SealedRange) -> None:
        description = self.plan.description
        batch, yardsticks = self._batch(sealed.seal_offset)
        if description.window_column:
            batch = self._dated(batch, f"cast({quoted(description.window_column)} as date)", sealed)
        live = self._rows(view, ViewQuery(VIEW, sealed=sealed))
        self.compared += compare(live, batch, description.columns, description.group_columns, yardsticks)

    def _dated(self, batch: pa.Table, window: str, sealed: SealedRange) -> pa.Table:
        duck = self._duck.cursor()
        try:
            duck.register("batch", batch)
            return duck.sql(
                f"from batch where {window} between date '{sealed.first_date}' and date '{sealed.last_date}'"
            ).to_arrow_table()
        finally:
            duck.close()

    def _batch(self, below: int) -> tuple[pa.Table, dict[Row, dict[str, Yardstick]]]:
        """DuckDB's answer over the rows below an offset, and how exactly each row is known."""
        self._warehouse.fill(self._log.table(below))
        try:
            batch = self._warehouse.answer(self.model.sql)
        except duckdb.Error as error:
            self._check_survived(below, error)
            raise _NoAnswerError from error
        return batch, self._warehouse.yardsticks(self.model, self.plan.description.group_columns)

    def _check_survived(self, below: int, error: Exception) -> None:
        """Live may go on where batch fails only if it is not one row's fault.

        Which operations DuckDB computes at all depends on what stands beside a row: where all of a vector is NULL, it
        leaves out the rest of the expression, and with it the error.
        """
        rows = self._log.table(below)
        for offset in range(max(0, below - _SINGLE_ROWS_MAX), below):
            self._warehouse.fill(rows.slice(offset, 1))
            if self._warehouse.fails(self.model.sql):
                raise Disagreement(f"batch fails with the row at {offset} alone, and live did not: {error}")
        self.unanswered = str(error)

    def _rows(self, view: LiveView, query: ViewQuery, **options: Any) -> pa.Table:
        """The view's rows as a reader sees them, from another connection."""
        store, duck = Store(self._url), self._duck.cursor()
        try:
            with store.read() as transaction:
                stored = transaction.load(VIEW)
                assert stored is not None
                if stored.checkpoint.offset != view.offset:
                    raise Disagreement(f"live: the view is at {view.offset}, its rows at {stored.checkpoint.offset}")
                return RowReader(query, stored.description, duck).read(transaction, **options)
        finally:
            duck.close()
            store.close()

    def _check_bounds(self, live: pa.Table) -> None:
        """Approximate quantiles lie between the bounds by which they are reconciled."""
        description = self.plan.description
        if not description.bounds_sql:
            return
        bounds = self._warehouse.answer(description.bounds_sql)
        names = bounds.schema.names
        there = rows_by_key(bounds, description.group_columns, "bounds")
        here = rows_by_key(live, description.group_columns, "live")
        if there.keys() != here.keys():
            raise Disagreement(f"the bounds are of other groups than live: {there.keys() ^ here.keys()}")
        for key, row in here.items():
            for column, value in zip(description.columns, row, strict=True):
                if not column.rank_error:
                    continue
                low, high = (there[key][names.index(f"{column.name}__{end}")] for end in ("low", "high"))
                if not is_between(value, low, high):
                    raise Disagreement(f"{column.name}: live {value!r} is not between {low!r} and {high!r}, in {row}")

    def _check_fault(self, offset: int) -> None:
        """Live stands still at a row with which batch fails, too."""
        self._warehouse.fill(self._log.table(offset + 1))
        # An average is kept as a sum, which overflows at the limits of DECIMAL(38), a little before DuckDB's own does.
        as_sums = self.model.sql.replace("avg(", "sum(").replace("mean(", "sum(")
        if not self._warehouse.fails(self.model.sql) and not self._warehouse.fails(as_sums):
            raise Disagreement(f"live stopped ({self.stopped}), and batch does not fail with the row at {offset}")


def new_files(folder: Path) -> Callable[[], str]:
    """SQLite files in a folder, each under a new name."""
    numbers = count()
    return lambda: f"sqlite:///{folder}/{next(numbers)}.sqlite"


class Stage:
    """Where lives are played: a warehouse, a DuckDB for views, and a new store for each life."""

    def __init__(
        self,
        warehouse: Warehouse,
        duck: Any,
        new_log: Callable[[pa.Schema], Any],
        new_store: Callable[[], str],
    ) -> None:
        """`new_store` gives the URL of an empty store."""
        self._warehouse = warehouse
        self._duck = duck
        self._new_log = new_log
        self._new_store = new_store
        self._plans: dict[tuple[str, str], MergePlan] = {}

    def play(self, model: Model, steps: Sequence[Step]) -> Play:
        """Plays a life from its beginning; raises Disagreement, and ViewRefused."""
        play = Play(model, self._new_store(), self._new_log(SCHEMA), self._warehouse, self._duck, self._plans)
        play.run(steps)
        return play

    def check(self, seed: object, model: Model, steps: Sequence[Step]) -> Play:
        """Plays a life; when it fails, raises with the smallest that still fails in that way."""
        try:
            return self.play(model, steps)
        except Exception as error:
            kind = type(error)
            small, few, message = shrink(model, steps, lambda *life: self.failure(kind, *life))
            raise Disagreement(f"seed {seed}: {kind.__name__}: {message or error}\n{told(small, few)}") from error

    def failure(self, kind: type[Exception], model: Model, steps: Sequence[Step]) -> str:
        """How a life fails in that way, or nothing. A model that DuckDB refuses is none."""
        if self._warehouse.refusal(model.judging_sql):
            return ""
        try:
            self.play(model, steps)
        except Exception as error:
            return str(error) if type(error) is kind else ""
        return ""


def told(model: Model, steps: Sequence[Step]) -> str:
    """A model and a life, to be read by a developer."""
    lines = [model.sql, f"materialized={model.materialized!r}, seeds={model.seeds}"]
    for step in steps:
        if isinstance(step, Append):
            lines.append(f"Append(again={step.again}, bulk={step.bulk}):")
            lines += [f"  batch of {len(batch)}: {[_usual(event) for event in batch][:20]}" for batch in step.batches]
        else:
            lines.append(repr(step))
    return "\n".join(lines)


def _usual(event: Event) -> Event:
    return {name: str(value) if isinstance(value, dt.datetime) else value for name, value in event.items()}
