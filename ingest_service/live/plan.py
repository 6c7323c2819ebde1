"""Turns a live model into a merge plan: the DuckDB SQL that keeps its table up to date.

1. `partial_sql` aggregates the arriving rows into one row of partial states a group, with the group's key.
2. The merge, inside `final_sql`, makes one row of those and of the same groups' states so far.
3. `final_sql` makes of each merged row what the store takes: key, visible columns, states as text.

Text is how a state is kept: DuckDB's cast to VARCHAR and back returns every value, NaN, infinities and the negative
zero included. The SQL is built from the tree of the model's SQL; no value of an event becomes part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
from sqlglot import exp

from ingest_service.errors import ViewRefused
from ingest_service.live import merge_sql
from ingest_service.live.aggregates import DOUBLE_TOLERANCE, Aggregate, State
from ingest_service.live.column_types import StoreForm, store_form, to_store
from ingest_service.live.description import ViewColumn, ViewDescription
from ingest_service.live.duck import BATCH, describe
from ingest_service.live.feed import LogLike
from ingest_service.live.functions import Functions, call_name
from ingest_service.live.grammar import Grammar, ModelQuery
from ingest_service.live.manifest import LiveModel
from ingest_service.live.merge_sql import SelectItem
from ingest_service.live.tree import group_expressions, normal_sql, plain_columns, scope_sql
from ingest_service.live.window import Window, window_of
from ingest_service.log.records import LogSpec

FORMAT = 1
"""Counted up when the store's tables or the meaning of a state change: every view is then rebuilt."""


@dataclass(frozen=True)
class MergePlan:
    """How one view is kept up to date (see the module) and what its rows are."""

    description: ViewDescription
    partial_sql: str
    final_sql: str

    @property
    def state_columns(self) -> list[str]:
        """The columns of the rows that are merged: key, groups, states."""
        groups = merge_sql.names("_g", self.description.group_columns)
        return ["_key", *groups, *merge_sql.names("_s", range(self.description.states))]


def plan_view(model: LiveModel, logs: Mapping[str, LogLike], duck: Any) -> MergePlan:
    """The merge plan of a model over one of the streams, whose logs come by stream name.

    `duck` is a connection that nothing else uses meanwhile. Raises ViewRefused when the model cannot be a live view.
    """
    grammar = Grammar(model, Functions.read(duck))
    query = grammar.read()
    if query.stream not in logs:
        listed = ", ".join(sorted(logs)) or "none"
        raise ViewRefused(
            f"{model.path}: it reads the stream {query.stream}, which is unknown; the streams are: {listed}"
        )
    log = logs[query.stream]
    return _Planner(model, grammar, query, log.spec, log.schema, duck).plan()


class _Planner:
    """Plans one model; used once."""

    def __init__(
        self, model: LiveModel, grammar: Grammar, query: ModelQuery, spec: LogSpec, schema: pa.Schema, duck: Any
    ) -> None:
        self._model = model
        self._grammar = grammar
        self._refusal = grammar.refusal
        self._query = query
        self._event_time = spec.event_time
        self._contract_version = spec.contract_version
        self._schema = schema
        self._duck = duck
        self._states: dict[str, State] = {}  # by their text, in the order of their numbers: equal ones are kept once

    def plan(self) -> MergePlan:
        select = self._query.select
        self._duck.register(BATCH, self._schema.empty_table())
        try:
            columns = self._describe(select.sql("duckdb"))
            definition_hash = self._hash(select)
            plain_columns(select, {name.lower() for name, _ in self._describe(scope_sql(select))})
            items = [self._item(item, *column) for item, column in zip(select.expressions, columns, strict=True)]
            groups = [item for item in items if not item.calls]
            self._check_groups(select, groups)
            states = list(self._states.values())
            partial = merge_sql.partial_select(select, groups, states)
            partial_types = [column_type for _, column_type in self._describe(partial.sql("duckdb"))[len(groups) :]]
            types = self._state_types(states, partial_types)
            window_item, window = self._window(groups, select)
            description = ViewDescription(
                view=self._model.name,
                stream=self._query.stream,
                definition_hash=definition_hash,
                columns=tuple(self._column(item, types) for item in items),
                forms=tuple(self._form(item.expression, item.name, item.type) for item in items),
                whole_seconds=(window_item.name,) if window_item and window and window.whole_seconds else (),
                group_columns=tuple(group.name for group in groups),
                window_column=window_item.name if window_item else "",
                states=len(states),
                value_sets=tuple(i for i, state in enumerate(states) if state.is_count_of_set),
            )
            return MergePlan(
                description,
                merge_sql.partial_sql(partial, groups, states, partial_types),
                self._final_sql(items, groups, states, types, description),
            )
        finally:
            self._duck.unregister(BATCH)

    def _describe(self, sql: str) -> list[tuple[str, str]]:
        try:
            return describe(self._duck, sql)
        except duckdb.Error as error:
            raise ViewRefused(f"{self._model.path}: DuckDB refuses its SQL: {str(error).splitlines()[0]}") from error

    def _hash(self, select: exp.Select) -> str:
        """Hash of all that the rows depend on: the SQL apart from its layout, the contract, this package's format."""
        parts = [str(FORMAT), str(self._contract_version), self._event_time, str(self._schema), normal_sql(select)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _item(self, item: exp.Expression, name: str, duckdb_type: str) -> SelectItem:
        calls = []
        for call in self._grammar.aggregates(item):
            aggregate = Aggregate.of(call_name(call) or "", call)
            if isinstance(aggregate, str):
                what = call.sql("duckdb").lower()
                raise self._refusal.at(call, what, aggregate, "compute it in a model that reads this one or the lake")
            numbers = tuple(self._number(state) for state in aggregate.kind.states(aggregate.argument, aggregate.where))
            calls.append((call.parent if isinstance(call.parent, exp.Filter) else call, aggregate, numbers))
        return SelectItem(item.unalias(), name, duckdb_type, tuple(calls))

    def _number(self, state: State) -> int:
        text = f"{state.merge} {normal_sql(state.partial)}"
        self._states.setdefault(text, state)
        return list(self._states).index(text)

    def _check_groups(self, select: exp.Select, groups: Sequence[SelectItem]) -> None:
        """Every group expression must be seen: it tells the rows apart, for readers and for reconciling."""
        listed = {normal_sql(group.expression) for group in groups}
        for expression in group_expressions(select):
            if normal_sql(expression) not in listed:
                what = f"grouping by {expression.sql('duckdb')} without showing it"
                raise self._refusal.at(expression, what, "rows could not be told apart", "put it into the select list")

    def _state_types(self, states: Sequence[State], partial_types: Sequence[str]) -> list[str]:
        """The types that states are merged in; a set's state is its size."""
        for state, duckdb_type in zip(states, partial_types, strict=True):
            if state.is_count_of_set:
                self._form(state.partial, "of count(distinct …)", duckdb_type.removesuffix("[]"))
        return ["BIGINT" if s.is_count_of_set else t for s, t in zip(states, partial_types, strict=True)]

    def _form(self, node: exp.Expression, name: str, duckdb_type: str) -> StoreForm:
        form = store_form(duckdb_type)
        if form is None:
            what = f"a column of type {duckdb_type} ({name})"
            raise self._refusal.at(node, what, "a store's column holds one plain value", "cast it, or take its parts")
        return form

    def _column(self, item: SelectItem, types: Sequence[str]) -> ViewColumn:
        exact = all(call.kind.exact(types[numbers[0]]) for _, call, numbers in item.calls)
        return ViewColumn(item.name, item.type, exact, 0.0 if exact else DOUBLE_TOLERANCE)

    def _window(self, groups: Sequence[SelectItem], select: exp.Select) -> tuple[SelectItem | None, Window | None]:
        """The first group column that is a window, held against what dbt does with the model by day."""
        found: tuple[SelectItem | None, Window | None] = (None, None)
        for group in groups:
            window = window_of(group.expression, select, self._event_time)
            if window is not None:
                found = group, window
                break
        by_day = self._model.materialized == "incremental"
        if by_day and not (found[1] and found[1].inside_a_day):
            raise self._refusal.at(
                found[0].expression if found[0] else None,
                "an incremental model whose windows do not all lie inside one UTC day",
                f"dbt builds it by day, and {'windows across midnight' if found[0] else 'groups'} would lose rows",
                f"set materialized='table', or group by a window over {self._event_time} whose width divides a day",
            )
        return found

    def _final_sql(
        self,
        items: Sequence[SelectItem],
        groups: Sequence[SelectItem],
        states: Sequence[State],
        types: Sequence[str],
        description: ViewDescription,
    ) -> str:
        expressions = [merge_sql.visible(item, groups) for item in items]
        for item, expression in zip(items, expressions, strict=True):
            stray = merge_sql.stray_column(expression, len(groups), len(states))
            if stray is not None:
                what = f"{stray.sql('duckdb')} beside aggregates in column {item.name}"
                raise self._refusal.at(item.expression, what, "it is not grouped by", "group by it, or aggregate it")
        texts = [expression.sql("duckdb", comments=False) for expression in expressions]
        nothing = merge_sql.empty_merge_sql(groups, types) if groups or types else "SELECT 1"
        merged_types = self._describe(f"SELECT {', '.join(texts)} FROM ({nothing}) AS merged")  # noqa: S608 - from trees
        for item, (_, merged_type) in zip(items, merged_types, strict=True):
            if merged_type != item.type:
                why = f"it is {item.type} in the model and {merged_type} when merged"
                raise self._refusal.at(item.expression, f"column {item.name}", why, f"cast it to {item.type}")
        stored = [
            f"{to_store(f'({text})', form, item.name in description.whole_seconds)} AS _v{i}"
            for i, (item, text, form) in enumerate(zip(items, texts, description.forms, strict=True))
        ]
        kept = [f"CAST({state} AS VARCHAR) AS {state}" for state in merge_sql.names("_s", types)]
        merged = merge_sql.merge_sql(groups, states, types)
        return f"SELECT {', '.join(['_key', *stored, *kept])} FROM ({merged}) AS merged"  # noqa: S608 - from trees
