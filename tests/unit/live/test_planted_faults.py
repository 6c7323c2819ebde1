"""Faults planted into the live views: the property test's models and lives must find each of them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.agreement import Disagreement
from support.random_models import Model, RandomModels
from support.random_runs import Stage, Warehouse, new_files
from support.random_steps import Restart, random_steps

from ingest_service.live import aggregates, merge_sql, tables
from ingest_service.live.lifecycle import set_up
from ingest_service.live.session import MergeSession
from ingest_service.live.store import WriteTransaction
from ingest_service.live.view import LiveView
from ingest_service.log.records import Rows

SEEDS_MAX = 40
"""So many lives are played at the most until a fault is found; one in three finds most of them."""


@dataclass(frozen=True)
class Fault:
    """plant: puts it in place. wanted: which models may show it. always_restart: only restarts show it."""

    name: str
    plant: Callable[[pytest.MonkeyPatch], None]
    wanted: Callable[[Model], bool] = lambda _: True
    always_restart: bool = False


def shows(*functions: str) -> Callable[[Model], bool]:
    """Whether a column is nothing but a call of one of these."""
    return lambda model: any(item.call is not None and item.call.sql.startswith(functions) for item in model.items)


def groups_by(*columns: str) -> Callable[[Model], bool]:
    name = re.compile(rf'(\w+\.)?"?({"|".join(columns)})"?', re.IGNORECASE)
    return lambda model: any(item.is_group and name.fullmatch(item.sql) for item in model.items)


def instead_of(owner: Any, name: str, fault: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Calls `fault` with the original first, and then what was given."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = getattr(owner, name)
        patch.setattr(owner, name, lambda *given, **named: fault(original, *given, **named))

    return plant


def in_second_batch(change: Callable[[pa.Table], pa.Table]) -> Callable[[pytest.MonkeyPatch], None]:
    """Changes the rows of each view's second micro-batch."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        taken: dict[MergeSession, int] = {}
        for name in ("partial", "absorb"):
            original = getattr(MergeSession, name)

            def take(self: MergeSession, rows: pa.Table, *more: Any, original: Any = original) -> Any:
                taken[self] = taken.get(self, 0) + (rows.num_rows > 0)
                return original(self, change(rows) if taken[self] == 2 else rows, *more)

            patch.setattr(MergeSession, name, take)

    return plant


def merged_by(merge: str, *kinds: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Merges the states of some aggregates in a wrong way."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        for kind in kinds:
            count, make = aggregates._KINDS[kind]

            def wrong(call: Any, make: Any = make) -> Any:
                made = make(call)
                if isinstance(made, str):
                    return made
                return replace(made, states=tuple(replace(state, merge=merge) for state in made.states))

            patch.setitem(aggregates._KINDS, kind, (count, wrong))

    return plant


def wrong_set(patch: pytest.MonkeyPatch) -> None:
    original = aggregates._count_distinct

    def wrong(*given: Any) -> Any:
        made = original(*given)
        return made if isinstance(made, str) else replace(made, states=(replace(made.states[0], merge="max({s})"),))

    patch.setattr(aggregates, "_count_distinct", wrong)


def swapped(original: Any, self: Any, *given: Any) -> Any:
    return [(row[0], row[2], row[1], *row[3:]) if len(row) > 2 else tuple(row) for row in original(self, *given)]


def lost_value(original: Any, self: Any, view: Any, state: int, values: Any, known: Any) -> Any:
    return original(self, view, state, values[:-1], known)


def old_value_counted(original: Any, self: Any, view: Any, state: int, values: Any, known: Any) -> Any:
    original(self, view, state, values, known)
    return [key for key, _ in values]


def lost_sealed_row(original: Any, self: Any, view: Any, *given: Any) -> None:
    original(self, view, *given)
    sealed = view.sealed.name
    self.connection.exec_driver_sql(f'DELETE FROM "{sealed}" WHERE _key = (SELECT min(_key) FROM "{sealed}")')


def first_rows_again(original: Any, self: LiveView, rows: Rows, **named: Any) -> None:
    at = self.reached.offset
    if rows.base_offset < at < rows.next_offset:
        rows = Rows(rows.batch.slice(0, rows.next_offset - at), at, rows.next_offset)
    original(self, rows, **named)


def stale_states(patch: pytest.MonkeyPatch) -> None:
    """Each start finds the states that the start before it found."""
    before: dict[str, list[Any]] = {}

    def start(plan: Any, store: Any, *given: Any) -> LiveView:
        view = set_up(plan, store, *given)
        with store.engine.begin() as connection:
            table = view.tables.state
            rows = [row._asdict() for row in connection.execute(table.select())]
            found = before.get(str(store.engine.url))
            before[str(store.engine.url)] = rows
            if found:
                connection.execute(table.delete())
                connection.execute(table.insert(), found)
        return view

    patch.setattr("support.random_runs.set_up", start)


COUNTS = ("count", "count_star", "count_if", "countif")
SPREADS = ("var_samp", "var_pop", "variance", "stddev_samp", "stddev_pop", "stddev")
EXTREMES = ("arg_min", "arg_max", "min_by", "max_by")
COUNTS_DISTINCT = shows("count(distinct")
NO_MERGE = "any_value({s})"
FAULTS = [
    Fault("a batch is dropped", in_second_batch(lambda rows: rows.slice(0, 0))),
    Fault("a batch is doubled", in_second_batch(lambda rows: pa.concat_tables([rows, rows]))),
    Fault("a row is dropped", in_second_batch(lambda rows: rows.slice(1))),
    Fault("rows that come again are taken", instead_of(LiveView, "_take_rows", first_rows_again)),
    Fault("counts are not added", merged_by("max({s})", *COUNTS), shows(*COUNTS)),
    Fault("sums are not added", merged_by(NO_MERGE, "sum"), shows("sum")),
    Fault("sums pass through doubles", merged_by("sum(CAST({s} AS DOUBLE))", "sum"), shows("sum")),
    Fault("averages forget", merged_by(NO_MERGE, "avg", "mean"), shows("avg", "mean")),
    Fault("min is merged as max", merged_by("max({s})", "min"), shows("min")),
    Fault("max is merged as min", merged_by("min({s})", "max"), shows("max")),
    Fault("bool_and is merged as bool_or", merged_by("bool_or({s})", "bool_and"), shows("bool_and")),
    Fault("spreads forget", merged_by(NO_MERGE, *SPREADS), shows(*SPREADS)),
    Fault("registers forget", merged_by(NO_MERGE, "approx_count_distinct"), shows("approx_count_distinct")),
    Fault("digests forget", merged_by(NO_MERGE, "approx_quantile"), shows("approx_quantile")),
    Fault("first and last forget", merged_by(NO_MERGE, "first", "last"), shows("first", "last")),
    Fault("arg_min and arg_max forget", merged_by(NO_MERGE, *EXTREMES), shows(*EXTREMES)),
    Fault("sets are not added", wrong_set, COUNTS_DISTINCT),
    Fault("a distinct value is lost", instead_of(WriteTransaction, "add_values", lost_value), COUNTS_DISTINCT),
    Fault("an old value counts again", instead_of(WriteTransaction, "add_values", old_value_counted), COUNTS_DISTINCT),
    Fault("state columns are swapped", instead_of(WriteTransaction, "states", swapped)),
    Fault("states are stale after a restart", stale_states, lambda model: not model.is_per_event, always_restart=True),
    Fault(
        "NULL and the empty string are one group",
        lambda patch: patch.setattr(
            merge_sql, "_key_part", lambda column, _: f"coalesce(CAST({column} AS VARCHAR), '')"
        ),
        groups_by("country", "note"),
    ),
    Fault(
        "0 and -0 are two groups",
        lambda patch: patch.setattr(merge_sql, "canonical_text", lambda column, _: f"CAST({column} AS VARCHAR)"),
        groups_by("weight", "ratio"),
    ),
    Fault(
        "NaN becomes NULL",
        lambda patch: patch.setattr(tables.StoredDouble, "bind_processor", lambda *_: None),
        groups_by("weight", "ratio"),
    ),
    Fault("a sealed row is lost", instead_of(WriteTransaction, "seal", lost_sealed_row)),
    Fault(
        "changes are not told",
        instead_of(WriteTransaction, "replace", lambda original, self, view, rows, _: original(self, view, rows, 0)),
        always_restart=True,
    ),
]


@pytest.fixture(scope="module")
def warehouse() -> Iterator[Warehouse]:
    made = Warehouse()
    yield made
    made.close()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(
    fault: Fault, tmp_path: Path, warehouse: Warehouse, duck: Any, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault.plant(monkeypatch)
    stage = Stage(warehouse, duck, kit.ListLog, new_files(tmp_path))
    for seed in range(SEEDS_MAX):
        rng = random.Random(seed)
        models = RandomModels(rng, off=frozenset({"may fail"}))
        model = next(model for model in iter(models.model, None) if fault.wanted(model))
        steps = random_steps(rng)
        if fault.always_restart:
            steps = [each for step in steps for each in (step, Restart())]
        try:
            stage.play(model, steps)
        except Disagreement as found:
            print(f"found with seed {seed}: {found}")
            return
    pytest.fail(f"{SEEDS_MAX} lives were played, and none showed that {fault.name}")
