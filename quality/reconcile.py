"""Compares a live view's sealed copy with its dbt model, window by window and column by column, in DuckDB.

Both are functions of the same rows: those below the seal offset. Exact columns must be equal, the others may differ by
their stated relative tolerance; an approximate quantile is held to the exact ones around it. A row that only one side
has, or that one side has twice, is a difference too.
"""

# ruff: noqa: S608 - SQL is put together here: names and texts are quoted, dates are dates.

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tidemill.lake import identifier, literal

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill import ViewColumn, ViewStatus

ROW = "(row)"
"""Stands for the column where only one side has the row, or one has it more than once."""
COLUMNS = "(columns)"
"""Stands for the column where the sides do not have the same ones."""
DIFFERENCES_MAX = 1_000
"""How many differences of a view are listed; all are counted."""
BOUND_SLACK = 1e-9
"""How far, relative to a bound, a quantile may lie outside of it: digests reckon in doubles, whatever the type."""
_INTEGER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER", re.IGNORECASE)
_FRACTION = re.compile(r"DECIMAL(\(.*\))?|DOUBLE|FLOAT", re.IGNORECASE)


@dataclass(frozen=True)
class Difference:
    """Live and batch differ in one column of one row. `difference` is live - batch, as text; empty where no number.

    window: start of the window, or time of the event (UTC, such as "2011-12-05 08:26"); empty for a view without.
    group: the other columns that identify the row, such as "country=France".
    bounds: of an approximate quantile, between which two values live had to lie; `difference` is by how much it does
    not, and batch, an approximation of its own, is shown only.
    cause: why they differ, where that has been proved (`quality.causes`); empty where it has not.
    """

    view: str
    window: str
    group: str
    column: str
    live: str
    batch: str
    difference: str
    bounds: str = ""
    cause: str = ""

    def __str__(self) -> str:
        where = ", ".join(part for part in (f"{self.window} UTC" if self.window else "", self.group) if part)
        text = f"{self.view} {where}: {self.column} live {self.live}, "
        text += f"expected {self.bounds} (batch {self.batch})" if self.bounds else f"batch {self.batch}"
        return f"{text}, difference {self.difference}" if self.difference else text


@dataclass(frozen=True)
class Comparison:
    """What came of comparing one view: windows (or, without windows, rows) and rows compared, and what differs.

    `differences` lists the first DIFFERENCES_MAX, by window; `difference_count` counts all.
    expired: which windows of the dates were not compared, as they have left the live table; "": none.
    compared: False: all of them have. explained: how many of the differences have a cause; causes: by cause.
    """

    view: str
    stream: str
    windows_compared: int
    rows_compared: int
    difference_count: int
    differences: tuple[Difference, ...]
    expired: str = ""
    compared: bool = True
    explained: int = 0
    causes: Mapping[str, int] = field(default_factory=dict)
    note: str = ""

    @property
    def unexplained(self) -> int:
        """The differences without a cause."""
        return self.difference_count - self.explained


def compare_view(
    connection: Any,
    view: ViewStatus,
    live: pa.Table,
    batch: str,
    first: dt.date,
    end: dt.date,
    bounds: str = "",
    magnitudes: str = "",
) -> Comparison:
    """Compare a sealed copy with a table of this DuckDB connection.

    live: the sealed copy's rows; batch: the model's table, quoted; first, end: the run's dates, end excluded. A view
    without windows is compared whole; of one whose old windows have left the live table, what is left is compared.
    bounds: a query that gives the bounds of approximate quantiles, in columns `<name>__low` and `<name>__high`, by
    group: needed where the view has such columns. magnitudes: a table that has, under the names of columns with a
    tolerance, what their sums would be of absolute values: a sum near zero is as exact as the numbers that it is of.
    """
    condition = _condition(view, first, end)
    # From SQLite a column comes in the Arrow type nearest to its own; the view says which DuckDB type it has.
    typed = ", ".join(f"cast({identifier(c.name)} as {c.type}) as {identifier(c.name)}" for c in view.columns)
    connection.register("sealed_copy", live)
    try:
        _make(connection, "live_side", view, f"(select {typed} from sealed_copy)", condition)
    finally:
        connection.unregister("sealed_copy")
    _make(connection, "batch_side", view, batch, condition)
    if _bounded(view):
        _make_bounds(connection, view, bounds, condition)
    connection.execute(f"create or replace temp table magnitude_side as {_magnitudes(view, magnitudes, condition)}")
    connection.execute(f"create or replace temp table differing as {_differing(view)}")
    windows, rows = connection.execute(_counts_sql(view)).fetchall()[0]
    found = " union all ".join(_differences_sql(view))
    total = connection.execute(f"select count(*) from ({found})").fetchall()[0][0]
    listing = f'select * from ({found}) order by "window", "group", "place" limit {DIFFERENCES_MAX}'
    first_found = connection.execute(listing).fetchall() if total else []
    differences = tuple(Difference(view.view, *row[:-1]) for row in first_found)
    expired = expiry(view, first, end)
    return Comparison(view.view, view.stream, int(windows), int(rows), int(total), differences, expired)


def expiry(view: ViewStatus, first: dt.date, end: dt.date) -> str:
    """Say which of the dates' windows have left the view's live table by its retention; "": none."""
    before = view.expired_before
    if not view.window_column or before is None or before <= _midnight(first):
        return ""
    if has_expired(view, end):
        return f"all have left the live table: it keeps those from {_utc(before)} on"
    return f"those before {_utc(before)} have left the live table"


def has_expired(view: ViewStatus, end: dt.date) -> bool:
    """Tell whether no window of dates before `end` is left in the view's live table."""
    before = view.expired_before
    return bool(view.window_column) and before is not None and before >= _midnight(end)


def _condition(view: ViewStatus, first: dt.date, end: dt.date) -> str:
    if not view.window_column:
        return "true"
    start = _midnight(first)
    if view.expired_before is not None:
        start = max(start, view.expired_before)
    window = identifier(view.window_column)
    span = f"{window} >= timestamptz {literal(start.isoformat())}"
    span += f" and {window} < timestamptz {literal(_midnight(end).isoformat())}"
    # A row without a window belongs to every date: live and batch must then agree on it too.
    return f"(({span}) or {window} is null)"


def _make(connection: Any, table: str, view: ViewStatus, source: str, condition: str) -> None:
    """Make one side: columns c0, c1 … in the view's order, so that no name of the model's can clash with ours; and w.

    w is the window, NULL in a view without.
    """
    chosen = ", ".join(f"{identifier(column.name)} as c{place}" for place, column in enumerate(view.columns))
    window = identifier(view.window_column) if view.window_column else "null"
    connection.execute(
        f"create or replace temp table {table} as "
        f"select {chosen}, cast({window} as timestamptz) as w, true as is_there from {source} where {condition}"
    )


def _make_bounds(connection: Any, view: ViewStatus, query: str, condition: str) -> None:
    chosen = [f"{identifier(view.columns[place].name)} as c{place}" for place in _group_places(view)]
    for place, column in _bounded(view):
        chosen += [f"{identifier(f'{column.name}__{side}')} as {side}{place}" for side in ("low", "high")]
    connection.execute(
        f"create or replace temp table bounds_side as select {', '.join(chosen)} from ({query}) where {condition}"
    )


def _magnitudes(view: ViewStatus, table: str, condition: str) -> str:
    """Give the query of the magnitudes m0, m1 … by group; of no row where there are none."""
    groups = [f"{identifier(view.columns[place].name)} as c{place}" for place in _group_places(view)]
    values = [f"cast({identifier(column.name)} as double) as m{place}" for place, column in tolerant(view)]
    chosen = ", ".join([*groups, *values]) or "1 as none"
    return f"select {chosen} from {table} where {condition}" if table else _no_magnitudes(view)


def _no_magnitudes(view: ViewStatus) -> str:
    groups = [f"c{place}" for place in _group_places(view)]
    values = [f"cast(null as double) as m{place}" for place, _ in tolerant(view)]
    return f"select {', '.join([*groups, *values]) or '1 as none'} from batch_side where false"


def tolerant(view: ViewStatus) -> list[tuple[int, ViewColumn]]:
    """Give the columns, with their places, that may differ by a relative tolerance."""
    return [
        (place, column)
        for place, column in _values(view)
        if not column.exact and not column.rank_error and _is_number(column.type)
    ]


def _differing(view: ViewStatus) -> str:
    """Join the sides on the group, NULL equal to NULL, and keep the rows in which something differs.

    g0 … and w: the group's columns, and the window, from the side that has the row (coalesce would do, but for NULLs).
    l0 …, b0 …: the values of live and batch. low0 …, high0 …: the bounds.
    """
    groups = _group_places(view)

    def same_group(other: str) -> str:
        return " and ".join(f"l.c{place} is not distinct from {other}.c{place}" for place in groups) or "true"

    chosen = [f"case when l.is_there then l.c{place} else b.c{place} end as g{place}" for place in groups]
    chosen += ["case when l.is_there then l.w else b.w end as w", "l.is_there as in_live", "b.is_there as in_batch"]
    chosen += [f"l.c{place} as l{place}, b.c{place} as b{place}" for place, _ in _values(view)]
    chosen += [f"a.low{place}, a.high{place}" for place, _ in _bounded(view)]
    chosen += [f"case when isfinite(m.m{place}) then m.m{place} else 0 end as m{place}" for place, _ in tolerant(view)]
    joined = f"select {', '.join(chosen)} from live_side l full outer join batch_side b on {same_group('b')}"
    if _bounded(view):
        joined += f" left join bounds_side a on {same_group('a')}"
    if tolerant(view):
        joined += f" left join magnitude_side m on {same_group('m')}"
    differs = ["in_live is null", "in_batch is null", *(_differs(column, place) for place, column in _values(view))]
    return f"select * from ({joined}) where {' or '.join(f'({each})' for each in differs)}"


def _counts_sql(view: ViewStatus) -> str:
    """Count the windows, and the rows, that either side has; without windows, and of single events, rows are both."""
    by_event = list(view.group_columns) == ["_offset"]
    in_groups = ", ".join(f"c{place}" for place in _group_places(view)) or "1"
    window = "w" if view.window_column and not by_event else in_groups
    windows = f"select {window} from live_side union select {window} from batch_side"
    rows = "(select count(*) from live_side) + (select count(*) from differing where in_live is null)"
    return f"select (select count(*) from ({windows})), {rows}"


def _differences_sql(view: ViewStatus) -> list[str]:
    """Give a query for rows that one side lacks, one for rows that stand twice, and one for each column's values."""
    values = _values(view)
    live_row = _text_of([(column.name, f"l{place}") for place, column in values])
    batch_row = _text_of([(column.name, f"b{place}") for place, column in values])
    where = _where_sql(view)
    queries = [
        f"""
        select {where}, '{ROW}', case when in_live then {live_row} else 'absent' end,
            case when in_batch then {batch_row} else 'absent' end, '', '', -1 as place
        from differing where in_live is null or in_batch is null
        """,
        # The join gives each copy of a doubled row the other side's row, and finds them equal.
        f"""
        select {where}, '{ROW}', live_rows || ' times', batch_rows || ' times', '', '', -1 as place
        from ({_doubled_sql(view)}) where least(live_rows, batch_rows) > 0
        """,
    ]
    return queries + [
        f"select {where}, {literal(column.name)}, {_text(f'l{place}')}, {_text(f'b{place}')}, "
        f"{_amount(column, place)}, {_bounds(column, place)}, {place} as place "
        f"from differing where in_live and in_batch and ({_differs(column, place)})"
        for place, column in values
    ]


def _doubled_sql(view: ViewStatus) -> str:
    groups = ", ".join(f"c{place} as g{place}" for place in _group_places(view)) or "1 as g"
    sides = " union all ".join(
        f"select {groups}, w, {is_live} as is_live from {side}"
        for side, is_live in (("live_side", "true"), ("batch_side", "false"))
    )
    counts = "count(*) filter (is_live) as live_rows, count(*) filter (not is_live) as batch_rows"
    by = ", ".join(f"g{place}" for place in _group_places(view)) or "g"
    return f"select {by}, min(w) as w, {counts} from ({sides}) group by {by} having greatest(live_rows, batch_rows) > 1"


def _where_sql(view: ViewStatus) -> str:
    """Give the columns that say where a difference is."""
    # Seconds are shown for windows that begin within a minute, fractions for events that have one.
    window = "regexp_replace(strftime(w, '%Y-%m-%d %H:%M:%S.%f'), '(:00)?[.]000000$', '')"
    named = [(view.columns[place].name, f"g{place}") for place in _group_places(view)]
    group = _text_of([(name, sql) for name, sql in named if name != view.window_column])
    window = f"coalesce({window}, 'NULL')" if view.window_column else "''"
    return f'{window} as "window", {group} as "group"'


def _differs(column: ViewColumn, place: int) -> str:
    """Give the condition that live and batch differ by more than they may."""
    live, batch = f"l{place}", f"b{place}"
    if column.rank_error:
        low, high = f"low{place}", f"high{place}"
        inside = [f"{live} between {low} and {high}"]
        if _is_number(column.type):
            slack = max(column.relative_tolerance, BOUND_SLACK)
            inside += [_is_close(live, bound, slack) for bound in (low, high)]
        # NULL where the group has no value: then it must be so on both sides.
        return f"({' or '.join(inside)}) is not true and not ({live} is null and {low} is null and {high} is null)"
    differs = f"{live} is distinct from {batch}"
    if column.exact or not _is_number(column.type):
        return differs
    # NULL, NaN or infinity on one side only is a difference: `is not true` holds for NULL too.
    return f"{differs} and ({_is_close(live, batch, column.relative_tolerance, f'm{place}')}) is not true"


def _is_close(value: str, other: str, tolerance: float, magnitude: str = "0") -> str:
    value, other = (f"cast({side} as double)" for side in (value, other))
    scale = f"greatest(abs({other}), {magnitude})"
    return f"isfinite({other}) and try(abs({value} - {other})) <= {tolerance!r} * {scale}"


def _amount(column: ViewColumn, place: int) -> str:
    """Give by how much live differs, as text; empty where it is no number, or one that its type cannot hold."""
    live, other = f"l{place}", f"b{place}"
    if not _is_number(column.type):
        return "''"
    if column.rank_error:
        other = f"case when {live} < low{place} then low{place} else high{place} end"
    if _INTEGER.fullmatch(column.type):
        live, other = (f"try_cast({side} as hugeint)" for side in (live, other))
    return f"coalesce(cast(try({live} - {other}) as varchar), '')"


def _bounds(column: ViewColumn, place: int) -> str:
    if not column.rank_error:
        return "''"
    low, high = f"low{place}", f"high{place}"
    return f"case when {low} is null then 'NULL' else cast({low} as varchar) || ' to ' || cast({high} as varchar) end"


def _group_places(view: ViewStatus) -> list[int]:
    return [place for place, column in enumerate(view.columns) if column.name in view.group_columns]


def _values(view: ViewStatus) -> list[tuple[int, ViewColumn]]:
    return [(place, column) for place, column in enumerate(view.columns) if column.name not in view.group_columns]


def _bounded(view: ViewStatus) -> list[tuple[int, ViewColumn]]:
    return [(place, column) for place, column in _values(view) if column.rank_error]


def _text(sql: str) -> str:
    return f"coalesce(cast({sql} as varchar), 'NULL')"


def _text_of(named: list[tuple[str, str]]) -> str:
    return " || ', ' || ".join(f"{literal(name + '=')} || {_text(sql)}" for name, sql in named) or "''"


def _is_number(kind: str) -> bool:
    return bool(_INTEGER.fullmatch(kind) or _FRACTION.fullmatch(kind))


def _midnight(date: dt.date) -> dt.datetime:
    return dt.datetime.combine(date, dt.time(), dt.UTC)


def _utc(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
