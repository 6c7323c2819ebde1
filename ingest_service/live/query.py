"""Reads a view: the question, the answer, and the way from the store's form back to the model's types.

What the store compares as DuckDB does (integers, times, equality of text) it filters and sorts itself. DuckDB then
does all of it again over the rows that are left, by value: decimals are compared as numbers, not as text.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import duckdb
import pyarrow as pa
import sqlalchemy as sa

from ingest_service.errors import BadRequest, StorageError
from ingest_service.live.boundary import Boundary
from ingest_service.live.column_types import StoreForm, quote, to_store
from ingest_service.live.description import ViewColumn, ViewDescription
from ingest_service.live.store import ReadTransaction
from ingest_service.live.tables import ViewTables


class Operator(IntEnum):
    """How a filter compares; numbers as in tidemill/v1/views.proto."""

    EQUAL = 1
    NOT_EQUAL = 2
    LESS = 3
    LESS_OR_EQUAL = 4
    GREATER = 5
    GREATER_OR_EQUAL = 6


_SQL = {
    Operator.EQUAL: "IS NOT DISTINCT FROM",
    Operator.NOT_EQUAL: "IS DISTINCT FROM",
    Operator.LESS: "<",
    Operator.LESS_OR_EQUAL: "<=",
    Operator.GREATER: ">",
    Operator.GREATER_OR_EQUAL: ">=",
}
_STORE_SQL: dict[Operator, Any] = {
    Operator.EQUAL: lambda column, value: column == value,
    Operator.LESS: lambda column, value: column < value,
    Operator.LESS_OR_EQUAL: lambda column, value: column <= value,
    Operator.GREATER: lambda column, value: column > value,
    Operator.GREATER_OR_EQUAL: lambda column, value: column >= value,
}


@dataclass(frozen=True, slots=True)
class ViewFilter:
    """A condition on one column. value: text as DuckDB would cast it to the column's type, or None for NULL.

    EQUAL and NOT_EQUAL treat NULL as a value: `country NOT_EQUAL 'France'` holds for rows without a country.
    """

    column: str
    operator: Operator
    value: str | None


@dataclass(frozen=True, slots=True)
class SealedRange:
    """Which seal's copy to read: its dates (both included) and its offset."""

    first_date: dt.date
    last_date: dt.date
    seal_offset: int


@dataclass(frozen=True, slots=True)
class ViewQuery:
    """What to read of a view.

    filters: all must hold. order_by: column names, `-` in front for descending; NULLs last. limit: 0 for all.
    after_offset: wait until the view covers everything below it (with `sealed`: until that copy is there too), for at
    most wait_s seconds. window_state: add WINDOW_STATE as the last column; filters and order may name it, too.
    across_time: published batch for the dates that it has, live for all others, with SOURCE as the very last column.
    """

    view: str
    filters: tuple[ViewFilter, ...] = ()
    order_by: tuple[str, ...] = ()
    limit: int = 0
    after_offset: int = 0
    wait_s: float = 10.0
    sealed: SealedRange | None = None
    window_state: bool = False
    across_time: bool = False


WINDOW_STATE = ViewColumn("_window_state", "VARCHAR", exact=True, relative_tolerance=0.0)
"""Of a row's window: open; closed, once the watermark has passed its end; corrected, when it was changed after that.

NULL in a view without windows, or with windows of which the length is not known.
"""
SOURCE = ViewColumn("_source", "VARCHAR", exact=True, relative_tolerance=0.0)
"""Of a row of a view that is read across time: batch or live."""


@dataclass(frozen=True, slots=True)
class ViewResult:
    """A view's rows, with the model's columns and types, and the prefix of the log that they are of.

    For sealed rows `offset` is the seal's, and there is no watermark. boundary: where batch ends and live begins, when
    the view was read across time.
    """

    columns: tuple[ViewColumn, ...]
    table: pa.Table
    offset: int
    watermark_us: int | None
    boundary: Boundary | None = None


@dataclass(frozen=True, slots=True)
class _Condition:
    """A filter whose value has been cast: as DuckDB takes it, and as the store has it (None when it cannot compare)."""

    column: str
    operator: Operator
    value: str | None
    stored: Any


class RowReader:
    """Answers one query over one description; `duck` is a connection of its own."""

    def __init__(self, query: ViewQuery, description: ViewDescription, duck: Any) -> None:
        self._query = query
        self._description = description
        self._duck = duck
        self._types = {column.name: column.type for column in description.columns}
        self._forms = dict(zip(self._types, description.forms, strict=True))
        self.columns = description.columns
        """The answer's columns."""
        if query.window_state:
            if query.sealed:
                raise BadRequest("a sealed copy keeps no state of its windows; ask for the rows as they are")
            self.columns = (*self.columns, WINDOW_STATE)
        if query.across_time:
            if query.sealed:
                raise BadRequest("a sealed copy is of live alone; ask for it, or for the view across time")
            self.columns = (*self.columns, SOURCE)
        known = {column.name: column.type for column in self.columns}
        self._order = [(name.removeprefix("-"), name.startswith("-")) for name in query.order_by]
        for name in [*(f.column for f in query.filters), *(name for name, _ in self._order)]:
            if name not in known:
                listed = ", ".join(known)
                raise BadRequest(f"the view {description.view} has no column {name!r}; its columns are: {listed}")
        if query.limit < 0:
            raise BadRequest(f"expected a limit of 0 (all rows) or more, got {query.limit}")
        self._all_types = known
        self._conditions = [self._condition(f) for f in query.filters]

    def read(
        self, transaction: ReadTransaction, *, changed_above: int | None = None, watermark_us: int | None = None
    ) -> pa.Table:
        """The rows, in the model's types; changed_above: only those that commits above this offset changed.

        watermark_us: by which windows are closed, when their state is asked for.
        """
        tables = ViewTables.of(self._description)
        table = tables.sealed if self._query.sealed else tables.visible
        statement = self._store_query(table)
        if changed_above is not None:
            statement = statement.where(table.c["_changed"] > changed_above)
        return self.typed(transaction.connection.execute(statement).all(), watermark_us)

    def _condition(self, asked: ViewFilter) -> _Condition:
        """Casts a filter's value once, so that a wrong one is refused before anything is read."""
        equality = asked.operator in {Operator.EQUAL, Operator.NOT_EQUAL}
        if asked.value is None:
            if not equality:
                raise BadRequest(
                    f"the filter on {asked.column} compares with NULL by {asked.operator.name}; use EQUAL or NOT_EQUAL"
                )
            return _Condition(asked.column, asked.operator, None, None)
        duckdb_type = self._all_types[asked.column]
        try:
            stored = self._duck.execute(
                f"SELECT v, {self._comparable(asked.column)} FROM (SELECT CAST($1 AS {duckdb_type}) AS v)",  # noqa: S608
                [asked.value],
            ).fetchall()[0][1]
        except duckdb.Error as error:
            raise BadRequest(
                f"the filter on {asked.column} expects a value of type {duckdb_type}, got {asked.value!r}"
            ) from error
        return _Condition(asked.column, asked.operator, asked.value, stored)

    def _comparable(self, column: str) -> str:
        """SQL that makes of `v` what the store can compare with a column; NULL where it cannot."""
        if column not in self._forms:
            return "NULL"
        form = self._forms[column]
        whole_seconds = column in self._description.whole_seconds
        if form is not StoreForm.STRING and not form.sorts_in_store:
            return "NULL"
        text = to_store("v", form, whole_seconds)
        if whole_seconds and form is not StoreForm.DATE:  # the column's texts have no fraction to compare with
            return f"CASE WHEN date_trunc('second', v) = v THEN {text} END"
        return text

    def _in_store(self, condition: _Condition) -> bool:
        equality = condition.operator is Operator.EQUAL
        if condition.stored is None or condition.operator not in _STORE_SQL:
            return False
        return equality or self._forms[condition.column].sorts_in_store

    def _store_query(self, table: sa.Table) -> sa.Select[Any]:
        """What the store can leave out, it does; everything else is left to DuckDB."""
        left_out, is_all = self._left_out(table)
        statement = sa.select(*(table.c[name] for name in self._stored)).where(*left_out)
        sealed = self._query.sealed
        if sealed:
            statement = statement.where(
                table.c["_first_date"] == sealed.first_date.isoformat(),
                table.c["_last_date"] == sealed.last_date.isoformat(),
                table.c["_seal_offset"] == sealed.seal_offset,
            )
        here = [condition for condition in self._conditions if self._in_store(condition)]
        for condition in here:
            column = table.c[condition.column]
            statement = statement.where(_STORE_SQL[condition.operator](column, condition.stored))
        sorts = all(name in self._forms and self._forms[name].sorts_in_store for name, _ in self._order)
        if self._query.limit and sorts and is_all and len(here) == len(self._conditions):
            for name, descending in self._order:
                column = table.c[name]
                statement = statement.order_by((column.desc() if descending else column.asc()).nulls_last())
            statement = statement.limit(self._query.limit)
        return statement

    def _left_out(self, table: sa.Table) -> tuple[list[sa.ColumnElement[bool]], bool]:
        """Conditions for what the store can leave out that no filter is about, and whether they say all of it."""
        del table
        return [], True

    @property
    def _stored(self) -> list[str]:
        """The columns that are asked of the store."""
        return [*self._types, "_corrected"] if self._query.window_state else list(self._types)

    def typed(self, rows: Sequence[Any], watermark_us: int | None = None) -> pa.Table:
        """Rows of the store in the model's types, filtered and sorted by value."""
        names = self._stored
        columns: list[Any] = list(zip(*rows, strict=True)) or [()] * len(names)
        kinds = [_ARROW.get(form, pa.string()) for form in self._forms.values()]
        if self._query.window_state:  # SQLite says 0 and 1
            columns[-1] = [bool(value) for value in columns[-1]]
            kinds.append(pa.bool_())
        arrow = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
        self._duck.register("stored_rows", pa.table(arrow, names))
        sql = f"SELECT * FROM ({self._relation(watermark_us)}) AS typed"  # noqa: S608 - quoted names; values are parameters
        parameters: list[str | None] = []
        for condition in self._conditions:
            parameters.append(condition.value)
            value = f"CAST(${len(parameters)} AS {self._all_types[condition.column]})"
            joiner = "WHERE" if len(parameters) == 1 else "AND"
            sql += f" {joiner} {quote(condition.column)} {_SQL[condition.operator]} {value}"
        if self._order:
            order = (f"{quote(name)} {'DESC' if descending else 'ASC'} NULLS LAST" for name, descending in self._order)
            sql += f" ORDER BY {', '.join(order)}"
        if self._query.limit:
            sql += f" LIMIT {int(self._query.limit)}"
        try:
            return self._duck.sql(sql, params=parameters).to_arrow_table()
        except duckdb.Error as error:
            raise StorageError(self._unreadable(error)) from error

    def _unreadable(self, error: duckdb.Error) -> str:
        """What an error of DuckDB's says of the rows."""
        return (
            f"the table of the live view {self._description.view} holds a value that its column's type does not have "
            f"({str(error).splitlines()[0]}); somebody wrote into it by hand: drop the table, and it is rebuilt"
        )

    def _relation(self, watermark_us: int | None) -> str:
        """SQL that yields the rows of `stored_rows` in the answer's columns and types."""
        return f"SELECT {self._shown(self._window_state(watermark_us))} FROM stored_rows"  # noqa: S608 - quoted names

    def _shown(self, window_state: str) -> str:
        """The answer's columns, as SQL over rows that have the view's."""
        shown = [f"CAST({quote(name)} AS {duckdb_type}) AS {quote(name)}" for name, duckdb_type in self._types.items()]
        if self._query.window_state:
            shown.append(f"{window_state} AS {quote(WINDOW_STATE.name)}")
        return ", ".join(shown)

    def _window_state(self, watermark_us: int | None, *, corrected: str = "_corrected") -> str:
        description = self._description
        if not (description.window_column and description.window_width):
            return "CAST(NULL AS VARCHAR)"
        begin = f"CAST({quote(description.window_column)} AS {self._types[description.window_column]})"
        end = f"epoch_us(CAST({begin} AS TIMESTAMPTZ) + {description.window_width})"
        closed = f"WHEN {end} <= {watermark_us} THEN 'closed' " if watermark_us is not None else ""
        known = f"WHEN {begin} IS NOT NULL THEN"
        return f"CASE WHEN {corrected} THEN 'corrected' {closed}{known} 'open' END"


_ARROW = {StoreForm.INTEGER: pa.int64(), StoreForm.DOUBLE: pa.float64(), StoreForm.BOOLEAN: pa.bool_()}
