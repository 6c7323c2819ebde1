"""Writes the DuckDB SQL of a merge plan from the parts of a model's SELECT.

Column names: `_key`; `_g0`… the group columns; `_s0`… the states; `_v0`… the visible columns as the store takes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlglot import exp

from ingest_service.live.aggregates import Aggregate, State
from ingest_service.live.column_types import canonical_text
from ingest_service.live.duck import STATES
from ingest_service.live.tree import normal_sql


@dataclass(frozen=True)
class SelectItem:
    """A column of a model's select list: a group column when it has no aggregates, else an expression over them.

    calls: each aggregate call in it (with its FILTER), what it is, and the numbers of its states.
    """

    expression: exp.Expression
    name: str
    type: str
    calls: tuple[tuple[exp.Expression, Aggregate, tuple[int, ...]], ...]


def partial_select(select: exp.Select, groups: Sequence[SelectItem], states: Sequence[State]) -> exp.Select:
    """The model's SELECT with states in place of what is seen of them."""
    partial = select.copy()
    columns = [exp.alias_(group.expression.copy(), f"_g{i}") for i, group in enumerate(groups)]
    columns += [exp.alias_(state.partial.copy(), f"_s{i}") for i, state in enumerate(states)]
    partial.set("expressions", columns)
    ordinals = [exp.Literal.number(i + 1) for i in range(len(groups))]
    partial.set("group", exp.Group(expressions=ordinals) if ordinals else None)
    return partial


def partial_sql(select: exp.Select, groups: Sequence[SelectItem], states: Sequence[State], types: Sequence[str]) -> str:
    """The query over a batch: `_key`, groups and states as text; a set of distinct values as a list of texts."""
    parts = [_key_part(f"_g{i}", group.type) for i, group in enumerate(groups)]
    columns = [f"{' || '.join(parts) or repr('')} AS _key"]
    columns += [f"CAST({column} AS VARCHAR) AS {column}" for column in names("_g", groups)]
    for i, (state, duckdb_type) in enumerate(zip(states, types, strict=True)):
        text = canonical_text("v", duckdb_type.removesuffix("[]"))
        value = f"list_transform(_s{i}, lambda v: {text})" if state.is_count_of_set else f"CAST(_s{i} AS VARCHAR)"
        columns.append(f"{value} AS _s{i}")
    return f"SELECT {', '.join(columns)} FROM ({select.sql('duckdb', comments=False)}) AS partial"  # noqa: S608 - from trees


def _key_part(column: str, duckdb_type: str) -> str:
    """A group value in the key: its length in bytes, a colon, its text; `-` for NULL. So no two groups share a key."""
    text = canonical_text(column, duckdb_type)
    return f"coalesce(strlen({text}) || ':' || ({text}), '-')"


def merge_sql(groups: Sequence[SelectItem], states: Sequence[State], types: Sequence[str]) -> str:
    """The query over rows of states: one row a group. Only the batch's rows hold the groups' values."""
    shown = [f"CAST(any_value(_g{i}) AS {group.type}) AS _g{i}" for i, group in enumerate(groups)]
    for i, (state, duckdb_type) in enumerate(zip(states, types, strict=True)):
        shown.append(f"CAST({state.merge}(CAST(_s{i} AS {duckdb_type})) AS {duckdb_type}) AS _s{i}")
    return f"SELECT {', '.join(['_key', *shown])} FROM {STATES} GROUP BY _key"  # noqa: S608 - from trees


def empty_merge_sql(groups: Sequence[SelectItem], types: Sequence[str]) -> str:
    """A query with the columns and types of `merge_sql`, over nothing: to learn types from."""
    columns = [f"CAST(NULL AS {group.type}) AS _g{i}" for i, group in enumerate(groups)]
    columns += [f"CAST(NULL AS {duckdb_type}) AS _s{i}" for i, duckdb_type in enumerate(types)]
    return f"SELECT {', '.join(columns)}"


def visible(item: SelectItem, groups: Sequence[SelectItem]) -> exp.Expression:
    """A column as an expression over groups and states; names of the stream's columns that are left are an error."""
    replacements: dict[str, exp.Expression] = {}
    for i, group in enumerate(groups):
        replacements[normal_sql(group.expression)] = exp.column(f"_g{i}")
    for call, aggregate, indices in item.calls:
        replacements[normal_sql(call)] = exp.paren(aggregate.kind.final([exp.column(f"_s{i}") for i in indices]))

    def replace(node: exp.Expression) -> exp.Expression:
        found = replacements.get(normal_sql(node))
        return node if found is None else found.copy()

    return item.expression.copy().transform(replace)


def stray_column(expression: exp.Expression, groups: int, states: int) -> exp.Column | None:
    """A column in a visible expression that is neither group nor state, if there is one."""
    known = {*(f"_g{i}" for i in range(groups)), *(f"_s{i}" for i in range(states))}
    return next((column for column in expression.find_all(exp.Column) if column.name not in known), None)


def names(prefix: str, parts: Iterable[object]) -> list[str]:
    """`_g0`, `_g1`, … as many as there are parts."""
    return [f"{prefix}{i}" for i, _ in enumerate(parts)]
