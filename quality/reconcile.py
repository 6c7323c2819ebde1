"""Compares a live view's sealed copy with its dbt model, window by window and column by column, in DuckDB.

Both are functions of the same rows: those below the seal offset. Exact columns must be equal, the others may differ by
their stated relative tolerance. A row that only one side has is a difference too.
"""

# ruff: noqa: S608 - SQL is put together here: names and texts are quoted, dates are dates.

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidemill.lake import identifier, literal

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill import ViewStatus

ROW = "(row)"
"""Stands for the column where only one side has the row."""
DIFFERENCES_MAX = 1_000
"""How many differences of a view are listed; all are counted."""
_NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|DECIMAL(\(.*\))?|DOUBLE|FLOAT", re.IGNORECASE)


@dataclass(frozen=True)
class Difference:
    """Live and batch differ in one column of one row. `difference` is live - batch, as text; empty where no number.

    window: start of the window (UTC, such as "2011-12-05 08:26"), empty for a view without windows.
    group: the other columns that identify the row, such as "country=France".
    """

    view: str
    window: str
    group: str
    column: str
    live: str
    batch: str
    difference: str

    def __str__(self) -> str:
        where = ", ".join(part for part in (f"{self.window} UTC" if self.window else "", self.group) if part)
        text = f"{self.view} {where}: {self.column} live {self.live}, batch {self.batch}"
        return f"{text}, difference {self.difference}" if self.difference else text


@dataclass(frozen=True)
class Comparison:
    """What came of comparing one view: windows (or, without windows, rows) and rows compared, and what differs.

    `differences` lists the first DIFFERENCES_MAX, by window; `difference_count` counts all.
    """

    view: str
    windows_compared: int
    rows_compared: int
    difference_count: int
    differences: tuple[Difference, ...]


def compare_view(
    connection: Any, view: ViewStatus, live: pa.Table, batch: str, first: dt.date, end: dt.date
) -> Comparison:
    """Compare a sealed copy with a table of this DuckDB connection.

    live: the sealed copy's rows; batch: the model's table, quoted; first, end: the run's dates, end excluded. A view
    without windows is compared whole.
    """
    window = identifier(view.window_column) if view.window_column else None
    condition = "true"
    if window:
        span = f"timestamptz '{first} 00:00:00+00' and {window} < timestamptz '{end} 00:00:00+00'"
        # A row without a window belongs to every date: live and batch must then agree on it too.
        condition = f"(({window} >= {span}) or {window} is null)"
    connection.register("sealed_copy", live)
    try:
        columns = [*view.group_columns, *(c.name for c in view.columns if c.name not in view.group_columns)]
        listed = ", ".join(identifier(name) for name in columns)
        # From SQLite a column comes in the Arrow type nearest to its own; the view says which DuckDB type it has.
        typed = ", ".join(f"cast({identifier(c.name)} as {c.type}) as {identifier(c.name)}" for c in view.columns)
        connection.execute(
            "create or replace temp table live_side as "
            f"select {listed}, true as is_there from (select {typed} from sealed_copy) where {condition}"
        )
        connection.execute(
            "create or replace temp table batch_side as "
            f"select {listed}, true as is_there from {batch} where {condition}"
        )
    finally:
        connection.unregister("sealed_copy")
    connection.execute(f"create or replace temp table joined as {_joined(view)}")
    grain = [view.window_column] if view.window_column else list(view.group_columns)
    per_window = ", ".join(identifier(name) for name in grain) or "1"
    windows, rows = connection.execute(f"select count(distinct row({per_window})), count(*) from joined").fetchall()[0]
    found = " union all ".join(_differences_sql(view))
    total = connection.execute(f"select count(*) from ({found})").fetchall()[0][0]
    first_found = connection.execute(
        f'select * from ({found}) order by "window", "group", "place" limit {DIFFERENCES_MAX}'
    ).fetchall()
    differences = tuple(Difference(view.view, *row[:-1]) for row in first_found)
    return Comparison(view.view, int(windows), int(rows), int(total), differences)


def _joined(view: ViewStatus) -> str:
    """Join both sides on the group, NULL equal to NULL; columns live_0 … and batch_0 … hold the values."""
    groups = [identifier(name) for name in view.group_columns]
    on = " and ".join(f"l.{name} is not distinct from b.{name}" for name in groups) or "true"
    # With the group's columns taken from the side that has the row: coalesce would do, but for a NULL in the group.
    grouped = [f"case when l.is_there then l.{name} else b.{name} end as {name}" for name in groups]
    values = [
        f"l.{identifier(name)} as live_{place}, b.{identifier(name)} as batch_{place}"
        for place, name in enumerate(_value_names(view))
    ]
    chosen = ", ".join([*grouped, *values, "l.is_there as in_live", "b.is_there as in_batch"])
    return f"select {chosen} from live_side l full outer join batch_side b on {on}"


def _differences_sql(view: ViewStatus) -> list[str]:
    """Give one query for rows that one side lacks, and one for each column's differing values."""
    names = _value_names(view)
    # Seconds are shown for windows that begin within a minute.
    start = f"strftime({identifier(view.window_column)}, '%Y-%m-%d %H:%M:%S')"
    window = f"regexp_replace({start}, ':00$', '')" if view.window_column else "''"
    others = [name for name in view.group_columns if name != view.window_column]
    group = _text_of([(name, identifier(name)) for name in others])
    live_row = _text_of([(name, f"live_{place}") for place, name in enumerate(names)])
    batch_row = _text_of([(name, f"batch_{place}") for place, name in enumerate(names)])
    where = f'coalesce({window}, \'NULL\') as "window", {group} as "group"'
    queries = [
        f"""
        select {where}, {literal(ROW)}, case when in_live then {live_row} else 'absent' end,
            case when in_batch then {batch_row} else 'absent' end, '', -1 as place
        from joined where in_live is null or in_batch is null
        """
    ]
    exact = {column.name: column for column in view.columns}
    for place, name in enumerate(names):
        live, batch = f"live_{place}", f"batch_{place}"
        column = exact[name]
        differs = f"{live} is distinct from {batch}"
        if not column.exact:
            # Written so that NULL or NaN on one side only is a difference: `is not true` holds for NULL too.
            close = f"abs({live} - {batch}) <= {column.relative_tolerance!r} * abs({batch})"
            differs = f"{differs} and ({close}) is not true"
        amount = f"coalesce(cast({live} - {batch} as varchar), '')" if _is_number(column.type) else "''"
        shown = [f"coalesce(cast({side} as varchar), 'NULL')" for side in (live, batch)]
        queries.append(
            f"select {where}, {literal(name)}, {shown[0]}, {shown[1]}, {amount}, {place} as place "
            f"from joined where in_live and in_batch and {differs}"
        )
    return queries


def _value_names(view: ViewStatus) -> list[str]:
    return [column.name for column in view.columns if column.name not in view.group_columns]


def _text_of(named: list[tuple[str, str]]) -> str:
    parts = [f"{literal(name + '=')} || coalesce(cast({sql} as varchar), 'NULL')" for name, sql in named]
    return " || ', ' || ".join(parts) or "''"


def _is_number(kind: str) -> bool:
    return _NUMBER.fullmatch(kind) is not None
