"""Turns a live model into a plan: the DuckDB SQL that keeps its table up to date.

1. `partial_sql` aggregates arriving rows into one row of partial states a group, with the group's key, as text. Where
   there are many rows, `typed_sql` does so for each batch, and `keyed_sql` makes one row a group of several.
2. The merge, inside `final_sql`, makes one row of those and of the same groups' states so far.
3. `final_sql` makes of each merged row what the store takes: key, visible columns, states as text. `bulk_final_sql`
   does the same for what `keyed_sql` gave; where the store keeps sets of values, `pending_sql` gives text instead.

Text is how a state is kept: it returns every value, NaN, infinities and the negative zero included. A view of events
keeps no state: its `partial_sql` gives what the store takes. The SQL is built from the tree of the model's SQL; no
value of an event becomes part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pyarrow as pa
from sqlglot import exp

from ingest_service.errors import ViewRefused
from ingest_service.live import merge_sql
from ingest_service.live.aggregates import Aggregate
from ingest_service.live.column_types import StoreForm, quote, store_form, to_store
from ingest_service.live.description import ViewColumn, ViewDescription
from ingest_service.live.duck import BATCH, Slot, describe, used_columns
from ingest_service.live.feed import LogLike
from ingest_service.live.functions import Functions, call_name
from ingest_service.live.grammar import Grammar, ModelQuery
from ingest_service.live.manifest import LiveModel, LiveOptions
from ingest_service.live.merge_sql import KeptState, SelectItem
from ingest_service.live.seeds import PREFIX, Seed
from ingest_service.live.tree import group_expressions, normal_sql, plain_columns, relation_queries, scope_sql
from ingest_service.live.window import Window, is_source_column, window_of
from ingest_service.log.records import LogSpec

FORMAT = 2
"""Counted up when the store's tables or the meaning of a state change: every view is then rebuilt."""
EVENT_KEY = "_offset"
"""The column that tells the rows of a view of events apart."""
BOUNDS_BATCH = "tidemill_batch"


@dataclass(frozen=True)
class MergePlan:
    """How one view is kept up to date (see the module) and what its rows are.

    batch_columns: what the view needs of the arriving rows, in the stream's order. partial_sql and typed_sql have the
    parameter $1, the µs since 1970 UTC before which windows have left the view; final_sql, and partial_sql of a view
    of events as $2, the view's watermark before these rows, in the same form.
    """

    model: LiveModel
    description: ViewDescription
    options: LiveOptions
    seeds: tuple[Seed, ...]
    batch_columns: tuple[str, ...]
    partial_sql: str
    typed_sql: str = ""
    combine_sql: str = ""
    pending_sql: str = ""
    keyed_sql: str = ""
    final_sql: str = ""
    bulk_final_sql: str = ""

    @property
    def state_columns(self) -> list[str]:
        """The columns of the rows that are merged: key, groups, states."""
        groups = merge_sql.names("_g", self.description.group_columns)
        return ["_key", *groups, *merge_sql.names("_s", range(self.description.states))]


def plan_view(model: LiveModel, logs: Mapping[str, LogLike], duck: Any) -> MergePlan:
    """The plan of a model over one of the streams, whose logs come by stream name.

    `duck` is a connection that nothing else uses meanwhile. Raises ViewRefused when the model cannot be a live view.
    """
    if model.options.problem:
        raise ViewRefused(f"{model.path}: {model.options.problem}")
    grammar = Grammar(model, Functions.read(duck))
    query = grammar.read()
    if query.stream not in logs:
        listed = ", ".join(sorted(logs)) or "none"
        raise ViewRefused(
            f"{model.path}: it reads the stream {query.stream}, which is unknown; the streams are: {listed}"
        )
    log = logs[query.stream]
    for seed in query.seeds:
        seed.load(duck)
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
        self._select = query.select
        self._event_time = spec.event_time
        self._contract_version = spec.contract_version
        self._schema = schema
        self._duck = duck
        self._states: dict[
            str, KeptState
        ] = {}  # by their text, in the order of their numbers: equal ones are kept once

    def plan(self) -> MergePlan:
        select = self._select
        self._duck.register(BATCH, Slot(self._schema))
        try:
            columns = self._describe(select.sql("duckdb"))
            definition_hash = self._hash()
            self._check_stars()
            self._make_plain()
            if self._query.is_of_events:
                return self._plan_events(columns, definition_hash)
            return self._plan_aggregates(columns, definition_hash)
        finally:
            self._duck.unregister(BATCH)

    def _make_plain(self) -> None:
        scope = {name.lower() for name, _ in self._describe(scope_sql(self._select))}
        counted: dict[str, int] = {}
        for query in relation_queries(self._select).values():
            for name, _ in self._describe(query):
                counted[name.lower()] = counted.get(name.lower(), 0) + 1
        plain_columns(self._select, scope, {name for name, count in counted.items() if count > 1})

    def _plan_events(self, columns: Sequence[tuple[str, str]], definition_hash: str) -> MergePlan:
        items = [
            SelectItem(item.unalias(), *column, ())
            for item, column in zip(self._select.expressions, columns, strict=True)
        ]
        self._check_one_row_each("a view of events", self._select)
        window_item = self._shown(items, self._event_time)
        key_item = self._shown(items, EVENT_KEY)
        for item, wanted in ((key_item, EVENT_KEY), (window_item, self._event_time)):
            if item is None:
                what, why = f"a view of events without {wanted}", "its rows could not be told apart, or put to a date"
                raise self._refusal.at(self._select, what, why, f"select {EVENT_KEY} and {self._event_time} as columns")
        assert window_item is not None
        assert key_item is not None
        forms = tuple(self._form(item.expression, item.name, item.type) for item in items)
        description = self._description(
            definition_hash, items, forms, (), (key_item.name,), window_item, Window(True, False, "INTERVAL '0 days'")
        )
        names = [quote(item.name) for item in items]
        at = f"epoch_us({quote(window_item.name)})"
        # With as many digits each, so that the store's order is that of arrival, and new rows are put at the end.
        shown = [f"lpad(CAST({quote(key_item.name)} AS VARCHAR), 19, '0') AS _key"]
        shown += [f"{to_store(name, form)} AS _v{i}" for i, (name, form) in enumerate(zip(names, forms, strict=True))]
        source = self._select.sql("duckdb", comments=False)
        sql = f"SELECT {', '.join(shown)}, {at} <= $2 AS _corrected FROM ({source}) AS events WHERE {at} >= $1"  # noqa: S608
        return MergePlan(
            self._model, description, self._model.options, self._query.seeds, self._batch_columns(source), sql
        )

    def _plan_aggregates(self, columns: Sequence[tuple[str, str]], definition_hash: str) -> MergePlan:
        select = self._select
        items = [self._item(item, *column) for item, column in zip(select.expressions, columns, strict=True)]
        groups = [item for item in items if not item.calls]
        self._check_groups(select, groups)
        states = self._typed_states(groups)
        partial = merge_sql.partial_select(select, groups, [each.state.partial for each in states])
        window_item, window = self._window(groups, select)
        forms = tuple(self._form(item.expression, item.name, item.type) for item in items)
        group_names = tuple(group.name for group in groups)
        description = self._description(definition_hash, items, forms, states, group_names, window_item, window)
        kept = self._kept(groups, window_item)
        typed = merge_sql.typed_sql(partial, groups, states, kept)
        combine = merge_sql.combine_sql(groups, states)
        return MergePlan(
            self._model,
            description,
            self._model.options,
            self._query.seeds,
            self._batch_columns(partial.sql("duckdb", comments=False)),
            partial_sql=merge_sql.text_sql(typed, groups, states),
            typed_sql=typed,
            combine_sql=combine,
            pending_sql=merge_sql.text_sql(combine, groups, states),
            keyed_sql=merge_sql.keyed_sql(combine, groups),
            final_sql=self._final_sql(items, groups, states, description),
            bulk_final_sql=self._final_sql(items, groups, states, description, pending=True),
        )

    def _description(
        self,
        definition_hash: str,
        items: Sequence[SelectItem],
        forms: tuple[StoreForm, ...],
        states: Sequence[KeptState],
        group_columns: tuple[str, ...],
        window_item: SelectItem | None,
        window: Window | None,
    ) -> ViewDescription:
        return ViewDescription(
            view=self._model.name,
            stream=self._query.stream,
            definition_hash=definition_hash,
            columns=tuple(self._column(item) for item in items),
            forms=forms,
            whole_seconds=(window_item.name,) if window_item and window and window.whole_seconds else (),
            group_columns=group_columns,
            window_column=window_item.name if window_item else "",
            states=len(states),
            value_sets=tuple(each.number for each in states if each.state.is_count_of_set),
            window_width=window.width if window else "",
            window_days_max=window.days_max if window else 0,
            is_of_events=self._query.is_of_events,
            sql=self._model.sql,
            bounds_sql=self._bounds_sql(items),
            format=FORMAT,
        )

    def _describe(self, sql: str) -> list[tuple[str, str]]:
        try:
            return describe(self._duck, sql)
        except duckdb.Error as error:
            raise ViewRefused(f"{self._model.path}: DuckDB refuses its SQL: {str(error).splitlines()[0]}") from error

    def _hash(self) -> str:
        """Hash of all that the rows depend on: SQL apart from its layout, seeds, contract, this package's format."""
        # A seed's rows are in the name of its table.
        parts = [
            str(FORMAT),
            str(self._contract_version),
            self._event_time,
            str(self._schema),
            normal_sql(self._select),
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _batch_columns(self, sql: str) -> tuple[str, ...]:
        """What the query takes of the rows, and what every view needs; all columns when it names one it leaves out."""
        used = {*used_columns(self._duck, sql), self._event_time, "_offset", "_append_time"}
        columns = tuple(name for name in self._schema.names if name in used)
        wanted = self._describe(sql)
        self._duck.register(BATCH, Slot(pa.schema([self._schema.field(name) for name in columns])))
        try:
            if describe(self._duck, sql) == wanted:
                return columns
        except duckdb.Error:  # such as `* exclude (…)` of a column that is not there any more
            pass
        finally:
            self._duck.register(BATCH, Slot(self._schema))
        return tuple(self._schema.names)

    def _check_stars(self) -> None:
        for item in self._select.expressions:
            inner = item.unalias()
            if isinstance(inner, exp.Star | exp.Columns) or (
                isinstance(inner, exp.Column) and isinstance(inner.this, exp.Star)
            ):
                what, why = "`*` in the select list", "a view's columns are declared"
                raise self._refusal.at(inner, what, why, "name the columns")

    def _shown(self, items: Sequence[SelectItem], column: str) -> SelectItem | None:
        """The item that is a column of the source, unchanged."""
        for item in items:
            if isinstance(item.expression, exp.Column) and is_source_column(item.expression, self._select, column):
                return item
        return None

    def _item(self, item: exp.Expression, name: str, duckdb_type: str) -> SelectItem:
        calls = []
        for call in self._grammar.aggregates(item):
            whole = call.parent if isinstance(call.parent, exp.Filter) else call
            aggregate = Aggregate.of(call_name(call) or "", call, duckdb_type, self._is_offset)
            what = call.sql("duckdb").lower()
            if isinstance(aggregate, str):
                why, _, instead = aggregate.rpartition("; ")
                raise self._refusal.at(call, what, why, instead)
            if aggregate.bounds is not None and item.unalias() is not whole:
                why = "its error is known as a rank among the values, and of an expression over it no bound follows"
                raise self._refusal.at(call, f"an expression over {what}", why, "show it in a column of its own")
            if aggregate.needs_total_order:
                self._check_one_row_each(what, call)
            calls.append((whole, aggregate, self._numbers(aggregate)))
        return SelectItem(item.unalias(), name, duckdb_type, tuple(calls))

    def _check_one_row_each(self, what: str, node: exp.Expression) -> None:
        """An event must not become several rows, of which `_offset` would not tell one from the other."""
        for join in self._select.find_all(exp.Join):
            if str(join.args.get("kind") or "").upper() not in {"SEMI", "ANTI"} and not self._finds_one_row(join):
                why = f"an event may find several rows of {join.this.alias_or_name}, and they could come in any order"
                instead = "join by all columns that make a row of the seed unique, with `using` or as equalities"
                raise self._refusal.at(node, f"{what} behind this join", why, instead)

    def _finds_one_row(self, join: exp.Join) -> bool:
        """Whether the columns by which a seed is joined are unique in it."""
        table, on = join.this, join.args.get("on")
        if not isinstance(table, exp.Table) or not table.name.startswith(PREFIX):
            return False
        alias = table.alias_or_name.lower()
        keys = [name.name for name in join.args.get("using") or ()]
        for part in on.flatten() if isinstance(on, exp.And) else filter(None, [on]):
            sides = [part.this, part.expression] if isinstance(part, exp.EQ) else []
            keys += [side.name for side in sides if isinstance(side, exp.Column) and side.table.lower() == alias]
        if not keys:
            return False
        columns = ", ".join(quote(key) for key in keys)
        present = " AND ".join(f"{quote(key)} IS NOT NULL" for key in keys)
        sql = f"SELECT 1 FROM {quote(table.name)} WHERE {present} GROUP BY {columns} HAVING count(*) > 1"  # noqa: S608
        return not self._duck.execute(sql).fetchall()

    def _is_offset(self, node: exp.Expression) -> bool:
        return isinstance(node, exp.Column) and is_source_column(node, self._select, EVENT_KEY)

    def _numbers(self, aggregate: Aggregate) -> tuple[int, ...]:
        """The numbers of an aggregate's states; states of the same text share one."""
        kept = []
        for state in aggregate.states:
            text = f"{state.merge} {normal_sql(state.partial)}"
            kept.append(self._states.setdefault(text, KeptState(len(self._states), state, "", "")))
        columns = [each.column for each in kept]
        for text, each in list(self._states.items()):
            if not each.merge:
                self._states[text] = replace(each, merge=each.state.merge.format(*columns, s=each.column))
        return tuple(each.number for each in kept)

    def _typed_states(self, groups: Sequence[SelectItem]) -> list[KeptState]:
        """The states with their types; a set's values must be plain."""
        states = list(self._states.values())
        partial = merge_sql.partial_select(self._select, groups, [each.state.partial for each in states])
        types = [duckdb_type for _, duckdb_type in self._describe(partial.sql("duckdb"))[len(groups) :]]
        typed = []
        for each, duckdb_type in zip(states, types, strict=True):
            if each.state.is_count_of_set:
                self._form(each.state.partial, "of count(distinct …)", duckdb_type.removesuffix("[]"))
            typed.append(replace(each, type=each.state.struct or duckdb_type))
        self._states = dict(zip(self._states, typed, strict=True))
        return typed

    def _check_groups(self, select: exp.Select, groups: Sequence[SelectItem]) -> None:
        """Every group expression must be seen: it tells the rows apart, for readers and for reconciling."""
        listed = {normal_sql(group.expression.unnest()) for group in groups}
        for expression in group_expressions(select):
            if normal_sql(expression) not in listed:
                what = f"grouping by {expression.sql('duckdb')} without showing it"
                raise self._refusal.at(expression, what, "rows could not be told apart", "put it into the select list")

    def _form(self, node: exp.Expression, name: str, duckdb_type: str) -> StoreForm:
        form = store_form(duckdb_type)
        if form is None:
            what = f"a column of type {duckdb_type} ({name})"
            raise self._refusal.at(node, what, "a store's column holds one plain value", "cast it, or take its parts")
        return form

    def _column(self, item: SelectItem) -> ViewColumn:
        states = list(self._states.values())
        tolerance = max((a.tolerance(states[n[0]].type) for _, a, n in item.calls), default=0.0)
        rank_error = max((a.bounds.rank_error for _, a, _ in item.calls if a.bounds), default=0.0)
        return ViewColumn(item.name, item.type, not tolerance and not rank_error, tolerance, rank_error)

    def _window(self, groups: Sequence[SelectItem], select: exp.Select) -> tuple[SelectItem | None, Window | None]:
        """The first group column that is a window, held against what dbt does with the model by day."""
        found: tuple[SelectItem | None, Window | None] = (None, None)
        for group in groups:
            window = window_of(group.expression.unnest(), select, self._event_time)
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

    def _kept(self, groups: Sequence[SelectItem], window_item: SelectItem | None) -> str:
        """The condition by which a group has not left the view: its window has not."""
        if window_item is None:
            return ""
        column = f"_g{list(groups).index(window_item)}"
        return f"{column} IS NULL OR epoch_us(CAST({column} AS TIMESTAMPTZ)) >= $1"

    def _final_sql(
        self,
        items: Sequence[SelectItem],
        groups: Sequence[SelectItem],
        states: Sequence[KeptState],
        description: ViewDescription,
        *,
        pending: bool = False,
    ) -> str:
        expressions = [merge_sql.visible(item, groups) for item in items]
        for item, expression in zip(items, expressions, strict=True):
            stray = merge_sql.stray_column(expression, len(groups))
            if stray is not None:
                what = f"{stray.sql('duckdb')} beside aggregates in column {item.name}"
                raise self._refusal.at(item.expression, what, "it is not grouped by", "group by it, or aggregate it")
        texts = [expression.sql("duckdb", comments=False) for expression in expressions]
        nothing = merge_sql.empty_merge_sql(groups, states)
        merged_types = self._describe(f"SELECT {', '.join(texts)} FROM ({nothing}) AS merged")  # noqa: S608 - from trees
        for item, (_, merged_type) in zip(items, merged_types, strict=True):
            if merged_type != item.type:
                why = f"it is {item.type} in the model and {merged_type} when merged"
                raise self._refusal.at(item.expression, f"column {item.name}", why, f"cast it to {item.type}")
        stored = [
            f"{to_store(f'({text})', form, item.name in description.whole_seconds)} AS _v{i}"
            for i, (item, text, form) in enumerate(zip(items, texts, description.forms, strict=True))
        ]
        corrected = "false"
        if description.window_width:
            column = f"_g{description.group_columns.index(description.window_column)}"
            end = f"CAST({column} AS TIMESTAMPTZ) + {description.window_width}"
            corrected = f"coalesce(epoch_us({end}) <= $1, false)"
        kept = [f"{each.text} AS {each.column}" for each in states]
        merged = merge_sql.merge_sql(groups, states, pending=pending)
        columns = ", ".join(["_key", *stored, f"{corrected} AS _corrected", *kept])
        # In the order of the store's own tables: it takes a million rows ten times as fast.
        return f"SELECT {columns} FROM ({merged}) AS merged ORDER BY _key"  # noqa: S608 - from trees

    def _bounds_sql(self, items: Sequence[SelectItem]) -> str:
        """See `ViewDescription.bounds_sql`."""
        judged = [(item, each.bounds) for item in items for _, each, _ in item.calls if each.bounds]
        if not judged:
            return ""
        bounds = self._select.copy()
        columns: list[exp.Expression] = [
            exp.alias_(item.expression.copy(), item.name, quoted=True) for item in items if not item.calls
        ]
        ordinals = [exp.Literal.number(i + 1) for i in range(len(columns))]
        for item, each in judged:
            columns.append(exp.alias_(exp.Var(this=each.low), f"{item.name}__low", quoted=True))
            columns.append(exp.alias_(exp.Var(this=each.high), f"{item.name}__high", quoted=True))
        bounds.set("expressions", columns)
        bounds.set("group", exp.Group(expressions=ordinals) if ordinals else None)
        names = {seed.table: PREFIX + seed.name for seed in self._query.seeds} | {BATCH: BOUNDS_BATCH}
        for table in bounds.find_all(exp.Table):
            if table.name in names and not table.db:
                table.set("this", exp.to_identifier(names[table.name], quoted=True))
        return str(bounds.sql("duckdb", comments=False))
