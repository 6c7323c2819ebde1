"""A live view beside its dbt table, compared without the code that the daily run compares them by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

import tidemill


@dataclass(frozen=True)
class LiveRows:
    """All rows of a view as they were at one offset, and what the service says of the view."""

    status: tidemill.ViewStatus
    rows: pa.Table


@dataclass(frozen=True)
class Compared:
    """What came of it. windows: different windows, or rows of a view of something else; wrong: column → rows."""

    windows: int
    rows: int
    wrong: Mapping[str, int]


def live_rows(client: tidemill.Client, view: str, after: int, wait_s: float) -> LiveRows:
    """The view's rows once it covers an offset."""
    rows = client.view(view).query(after=after, wait_s=wait_s).to_arrow()
    status = client.view(view).status()
    assert status.error == ""
    return LiveRows(status, rows)


def compare(warehouse: Path, live: LiveRows) -> Compared:
    """Compare every row and column; approximate quantiles only by whether there is a value."""
    view = live.status
    groups = [f'"{name}"' for name in view.group_columns]
    # From SQLite a column comes in the Arrow type nearest to its own.
    typed = ", ".join(f'cast("{each.name}" as {each.type}) as "{each.name}"' for each in view.columns)
    wrong = {"(row)": "l.there is null or b.there is null"}
    for column in view.columns:
        left, right = f'l."{column.name}"', f'b."{column.name}"'
        differ = f"{left} is distinct from {right}"
        if column.rank_error:
            differ = f"({left} is null) <> ({right} is null)"
        elif not column.exact:
            differ += f" and (abs({left} - {right}) <= {column.relative_tolerance!r} * abs({right})) is not true"
        wrong[column.name] = f"l.there and b.there and ({differ})"
    counts = ", ".join(f'count(*) filter (where {condition}) as "{name}"' for name, condition in wrong.items())
    window = f'coalesce(l."{view.window_column}", b."{view.window_column}")'
    if view.window_column not in view.group_columns:
        window = f"row({', '.join(f'l.{name}' for name in groups)})"
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("live", live.rows)
        joined = " and ".join(f"l.{name} is not distinct from b.{name}" for name in groups)
        rows, windows, *found = connection.execute(
            f"with l as (select {typed}, true as there from live), b as (select *, true as there from {view.view}) "
            f"select count(*), count(distinct {window}), {counts} "
            f"from l full join b on {joined}"
        ).fetchall()[0]
        ours = {column.name: column.type for column in view.columns}
        theirs = connection.execute(f"select column_name, column_type from (describe {view.view})").fetchall()
    assert list(ours.items()) == [(name, kind) for name, kind in theirs], "the columns differ, or their types"
    return Compared(windows, rows, {name: count for name, count in zip(wrong, found, strict=True) if count})
