"""Compares the two sides of a trial, group by group and column by column, as exactly as the view's columns say."""

# ruff: noqa: S608 - SQL is put together here: names and texts are quoted.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ingest_service.live.column_types import quote
from ingest_service.live.description import ViewColumn, ViewDescription
from ingest_service.live.trial.batch import BATCH_SIDE, BOUNDS_SIDE

DIFFERENCES_MAX = 20
"""How many differences of one comparison are told; all are counted."""
_LIVE_SIDE = "live_side"
_ABSENT = "(no such row)"
_THERE = "(a row)"
ROW = "(row)"
"""Stands for the column where one side lacks the row, or has it several times."""
TYPE = "(type)"


@dataclass(frozen=True, slots=True)
class Difference:
    """Where live and batch differ. group: the columns that tell the row apart, and their values, as text.

    column: or ROW. live, batch: the values as text; of an approximate quantile, batch is the span that live has to be
    in.
    """

    group: dict[str, str]
    column: str
    live: str
    batch: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of comparing: rows that either side has, how many differences, and the first of them."""

    rows: int
    difference_count: int
    differences: tuple[Difference, ...]


def compare(duck: Any, description: ViewDescription, live: pa.Table) -> Comparison:
    """Compare a view's rows with BATCH_SIDE in this DuckDB connection."""
    described = duck.execute(f"DESCRIBE {BATCH_SIDE}").fetchall()
    types = tuple(
        Difference({}, f"{column.name} {TYPE}", f"{column.name} {column.type}", f"{name} {kind}")
        for column, (name, kind, *_) in zip(description.columns, described, strict=False)
        if (column.name, column.type) != (name, kind)
    )
    if types or len(described) != len(description.columns):
        return Comparison(0, max(1, len(types)), types)
    duck.register("live_rows", live)
    typed = ", ".join(f"CAST({quote(c.name)} AS {c.type}) AS {quote(c.name)}" for c in description.columns)
    duck.execute(f"CREATE OR REPLACE TABLE {_LIVE_SIDE} AS SELECT {typed} FROM live_rows")
    duck.unregister("live_rows")
    duck.execute(f"CREATE OR REPLACE TABLE joined AS {_joined(description)}")
    found = " UNION ALL ".join(_differences(description))
    rows = duck.execute("SELECT count(*) FROM joined").fetchall()[0][0]
    count = duck.execute(f"SELECT count(*) FROM ({found})").fetchall()[0][0]
    order = ", ".join(str(number + 1) for number in range(len(description.group_columns) + 1))
    first = duck.execute(f"SELECT * FROM ({found}) ORDER BY {order} LIMIT {DIFFERENCES_MAX}").fetchall()
    return Comparison(rows, count, tuple(_difference(description, row) for row in first))


def _difference(description: ViewDescription, row: tuple[Any, ...]) -> Difference:
    *group, _, column, live, batch = row
    return Difference(dict(zip(description.group_columns, group, strict=True)), column, live, batch)


def _joined(description: ViewDescription) -> str:
    """Both sides by their groups, NULL equal to NULL: `live_<column>`, `batch_<column>`, and how often each has it."""
    groups = [quote(name) for name in description.group_columns]
    sides = []
    for side, table in (("live", _LIVE_SIDE), ("batch", BATCH_SIDE)):
        values = [f"any_value({quote(c.name)}) AS {quote(f'{side}_{c.name}')}" for c in _values(description)]
        by = f"GROUP BY {', '.join(groups)}" if groups else ""
        sides.append(f"(SELECT {', '.join([*groups, *values, f'count(*) AS {side}_count'])} FROM {table} {by})")
    on = " AND ".join(f"l.{name} IS NOT DISTINCT FROM b.{name}" for name in groups) or "true"
    shown = [f"CASE WHEN l.live_count > 0 THEN l.{name} ELSE b.{name} END AS {name}" for name in groups]
    columns = [f"{side}.* EXCLUDE ({', '.join(groups)})" if groups else f"{side}.*" for side in ("l", "b")]
    joined = f"{sides[0]} AS l FULL JOIN {sides[1]} AS b ON {on}"
    if not description.bounds_sql:
        return f"SELECT {', '.join([*shown, *columns])} FROM {joined}"
    bounded = [quote(f"{c.name}{end}") for c in _values(description) if c.rank_error for end in ("__low", "__high")]
    near = " AND ".join(f"b.{name} IS NOT DISTINCT FROM r.{name}" for name in groups) or "true"
    bounds = ", ".join(f"r.{name}" for name in bounded)
    return f"SELECT {', '.join([*shown, *columns, bounds])} FROM {joined} LEFT JOIN {BOUNDS_SIDE} AS r ON {near}"


def _differences(description: ViewDescription) -> list[str]:
    """One query for rows that one side lacks, and one for each column: group, place, column, live, batch."""
    groups = [_shown(quote(name)) for name in description.group_columns]

    def query(place: int, column: str, live: str, batch: str, condition: str) -> str:
        shown = ", ".join([*groups, str(place), _text(column), live, batch])
        return f"SELECT {shown} FROM joined WHERE {condition}"

    def there(side: str) -> str:
        count = f"coalesce({side}_count, 0)"
        return f"CASE {count} WHEN 0 THEN {_text(_ABSENT)} WHEN 1 THEN {_text(_THERE)} ELSE {count} || ' rows' END"

    one_each = "coalesce(live_count, 0) = 1 AND coalesce(batch_count, 0) = 1"
    queries = [query(0, ROW, there("live"), there("batch"), f"NOT ({one_each})")]
    for place, column in enumerate(_values(description), 1):
        live, batch = quote(f"live_{column.name}"), quote(f"batch_{column.name}")
        shown = _shown(batch)
        if column.rank_error:
            low, high = (
                f"coalesce(CAST({quote(column.name + end)} AS VARCHAR), 'NULL')" for end in ("__low", "__high")
            )
            shown = f"{low} || ' to ' || {high}"
        seen = f"coalesce(CAST({live} AS VARCHAR), 'NULL')"
        queries.append(query(place, column.name, seen, shown, f"{one_each} AND {_differs(column, live, batch)}"))
    return queries


def _differs(column: ViewColumn, live: str, batch: str) -> str:
    if column.rank_error:
        low, high = quote(f"{column.name}__low"), quote(f"{column.name}__high")
        within = f"CASE WHEN {low} IS NULL THEN {live} IS NULL ELSE {live} >= {low} AND {live} <= {high} END"
        return f"({within}) IS NOT TRUE"
    unequal = f"{live} IS DISTINCT FROM {batch}"
    if column.exact:
        return unequal
    # Written so that NULL or NaN on one side only is a difference.
    return f"{unequal} AND (abs({live} - {batch}) <= {column.relative_tolerance!r} * abs({batch})) IS NOT TRUE"


def _values(description: ViewDescription) -> list[ViewColumn]:
    return [column for column in description.columns if column.name not in description.group_columns]


def _shown(column: str) -> str:
    return f"coalesce(CAST({column} AS VARCHAR), 'NULL')"


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
