"""Writes the DuckDB SQL of a merge plan from the parts of a model's SELECT.

Column names: `_key`; `_g0`… the group columns; `_s0`… the states; `_v0`… the visible columns as the store takes them.
`$1`, `$2` are parameters of the prepared statements, see `MergePlan`.
"""

# ruff: noqa: S608 - SQL is put together here from trees that sqlglot made, never from text of events

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlglot import exp

from ingest_service.live.aggregates import Aggregate, State
from ingest_service.live.column_types import canonical_text, exact_text
from ingest_service.live.duck import PENDING, STATES
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


@dataclass(frozen=True)
class KeptState:
    """A state with its number. merge: its merging aggregate over the columns of states; type: as it is kept.

    A set's type is that of its list of values; what is kept and merged of it is its size.
    """

    number: int
    state: State
    merge: str
    type: str

    @property
    def column(self) -> str:
        """Its column."""
        return f"_s{self.number}"

    @property
    def text(self) -> str:
        """Its text, as the store keeps it."""
        written = self.state.text
        return written.format(s=self.column) if written else exact_text(self.column, self.merged_type)

    @property
    def merged_type(self) -> str:
        """Its type once it is merged with what the store has."""
        return "BIGINT" if self.state.is_count_of_set else self.type


def partial_select(select: exp.Select, groups: Sequence[SelectItem], states: Sequence[exp.Expression]) -> exp.Select:
    """The model's SELECT with states in place of what is seen of them."""
    partial = select.copy()
    columns = [exp.alias_(group.expression.copy(), f"_g{i}") for i, group in enumerate(groups)]
    columns += [exp.alias_(state.copy(), f"_s{i}") for i, state in enumerate(states)]
    partial.set("expressions", columns)
    ordinals = [exp.Literal.number(i + 1) for i in range(len(groups))]
    partial.set("group", exp.Group(expressions=ordinals) if ordinals else None)
    return partial


def typed_sql(select: exp.Select, groups: Sequence[SelectItem], states: Sequence[KeptState], kept: str) -> str:
    """The query over a batch: groups and states, in their types. kept: the condition by which a group is kept."""
    columns = names("_g", groups)
    columns += [
        f"CAST({each.column} AS {each.state.struct}) AS {each.column}" if each.state.struct else each.column
        for each in states
    ]
    where = f" WHERE {kept}" if kept else ""
    listed = ", ".join(columns) or "1 AS _nothing"
    return f"SELECT {listed} FROM ({select.sql('duckdb', comments=False)}) AS partial{where}"


def combine_sql(groups: Sequence[SelectItem], states: Sequence[KeptState]) -> str:
    """The query over PENDING, rows of `typed_sql` of several batches: one row a group."""
    columns = names("_g", groups)
    grouped = f" GROUP BY {', '.join(columns)}" if columns else ""
    for each in states:
        merged = f"list_distinct(flatten(list({each.column})))" if each.state.is_count_of_set else each.merge
        columns.append(f"CAST({merged} AS {each.type}) AS {each.column}")
    return f"SELECT {', '.join(columns) or 'count(*) AS _nothing'} FROM {PENDING}{grouped}"


def text_sql(source: str, groups: Sequence[SelectItem], states: Sequence[KeptState]) -> str:
    """Rows of `typed_sql` as text, with `_key`; a set of distinct values as a list of texts."""
    columns = [_key_sql(groups)]
    columns += [f"{exact_text(f'_g{i}', group.type)} AS _g{i}" for i, group in enumerate(groups)]
    for each in states:
        value = each.text
        if each.state.is_count_of_set:
            value = f"list_transform({each.column}, lambda v: {canonical_text('v', each.type.removesuffix('[]'))})"
        columns.append(f"{value} AS {each.column}")
    return f"SELECT {', '.join(columns)} FROM ({source}) AS typed"


def keyed_sql(source: str, groups: Sequence[SelectItem]) -> str:
    """Rows of `typed_sql` with `_key`."""
    return f"SELECT {_key_sql(groups)}, typed.* FROM ({source}) AS typed"


def _key_sql(groups: Sequence[SelectItem]) -> str:
    parts = [_key_part(f"_g{i}", group.type) for i, group in enumerate(groups)]
    return f"{' || '.join(parts) or repr('')} AS _key"


def _key_part(column: str, duckdb_type: str) -> str:
    """A group value in the key: its length in bytes, a colon, its text; `-` for NULL. So no two groups share a key."""
    text = canonical_text(column, duckdb_type)
    return f"coalesce(strlen({text}) || ':' || ({text}), '-')"


def merge_sql(groups: Sequence[SelectItem], states: Sequence[KeptState], *, pending: bool = False) -> str:
    """The query over STATES, and over PENDING, rows of `keyed_sql`, if `pending`: one row a group.

    Only new rows hold the groups' values.
    """
    typed = ["_key", *names("_g", groups)]
    for each in states:
        parse = "CAST({s} AS {type})" if each.state.is_count_of_set else each.state.parse
        typed.append(
            f"CAST({parse.format(s=each.column, type=each.merged_type)} AS {each.merged_type}) AS {each.column}"
        )
    shown = [f"CAST(any_value(_g{i}) AS {group.type}) AS _g{i}" for i, group in enumerate(groups)]
    shown += [f"CAST({each.merge} AS {each.merged_type}) AS {each.column}" for each in states]
    source = f"SELECT {', '.join(typed)} FROM {STATES}"
    if pending:
        new = ", ".join(["_key", *names("_g", groups), *(each.column for each in states)])
        stored = ["_key", *(f"CAST(NULL AS {group.type})" for group in groups), *typed[1 + len(groups) :]]
        source = f"SELECT {new} FROM {PENDING} UNION ALL SELECT {', '.join(stored)} FROM {STATES}"
    return f"SELECT {', '.join(['_key', *shown])} FROM ({source}) AS typed GROUP BY _key"


def empty_merge_sql(groups: Sequence[SelectItem], states: Sequence[KeptState]) -> str:
    """A query with the columns and types of `merge_sql`, over nothing: to learn types from."""
    columns = [f"CAST(NULL AS {group.type}) AS _g{i}" for i, group in enumerate(groups)]
    columns += [f"CAST(NULL AS {each.merged_type}) AS {each.column}" for each in states]
    return f"SELECT {', '.join(columns) or '1'}"


def visible(item: SelectItem, groups: Sequence[SelectItem]) -> exp.Expression:
    """A column as an expression over groups and states; names of the stream's columns that are left are an error."""
    replacements: dict[str, exp.Expression] = {}
    for i, group in enumerate(groups):
        for written in (group.expression, group.expression.unnest()):
            replacements[normal_sql(written)] = exp.column(f"_g{i}")
    for call, aggregate, numbers in item.calls:
        final = aggregate.final([f"_s{i}" for i in numbers])
        replacements[normal_sql(call)] = exp.paren(exp.Var(this=final))

    def replace(node: exp.Expression) -> exp.Expression:
        found = replacements.get(normal_sql(node))
        return node if found is None else found.copy()

    return item.expression.copy().transform(replace)


def stray_column(expression: exp.Expression, groups: int) -> exp.Column | None:
    """A column in a visible expression that is no group, if there is one; states stand in it as text."""
    known = {f"_g{i}" for i in range(groups)}
    return next((column for column in expression.find_all(exp.Column) if column.name not in known), None)


def names(prefix: str, parts: Iterable[object]) -> list[str]:
    """`_g0`, `_g1`, … as many as there are parts."""
    return [f"{prefix}{i}" for i, _ in enumerate(parts)]
