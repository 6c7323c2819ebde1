"""The statements that every micro-batch runs; built once a view, since building one costs more than running it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from ingest_service.live.tables import ViewTables


class ManyRows:
    """An INSERT that is run for many rows at once, each a tuple in the order of the table's columns.

    SQLAlchemy makes a dict of each row and walks over it again, which costs three times what SQLite then does. Where
    the driver takes parameters by position, as SQLite's does, the rows go to it as they are; elsewhere by SQLAlchemy.
    """

    def __init__(self, statement: Any, columns: Sequence[sa.Column[Any]], dialect: sa.Dialect) -> None:
        self._statement = statement
        self._names = [column.name for column in columns]
        compiled = statement.compile(dialect=dialect, column_keys=self._names)
        self._sql = str(compiled) if compiled.positiontup == self._names else None
        self._processors: list[tuple[int, Callable[[Any], Any]]] = []
        for i, column in enumerate(columns):
            processor = column.type.dialect_impl(dialect).bind_processor(dialect)
            if processor is not None:
                self._processors.append((i, processor))

    def run(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Runs the statement; no rows, no statement."""
        if not rows:
            return
        if self._sql is None:
            connection.execute(self._statement, [dict(zip(self._names, row, strict=True)) for row in rows])
            return
        connection.exec_driver_sql(self._sql, [self._processed(row) for row in rows] if self._processors else rows)

    def _processed(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        values = list(row)
        for i, processor in self._processors:
            values[i] = processor(values[i])
        return tuple(values)


class Statements:
    """One view's statements. `insert` is the dialect's own INSERT, which knows ON CONFLICT."""

    def __init__(self, tables: ViewTables, insert: Any, dialect: sa.Dialect) -> None:
        key = tables.state.c["_key"]
        self.states = sa.select(tables.state).where(key.in_(sa.bindparam("keys", expanding=True)))
        self.new_values = ManyRows(sa.insert(tables.distinct), list(tables.distinct.columns), dialect)
        self.values = insert(tables.distinct).on_conflict_do_nothing().returning(tables.distinct.c["_key"])
        self.replace_visible = ManyRows(_upsert(tables.visible, insert), list(tables.visible.columns), dialect)
        self.replace_states = ManyRows(_upsert(tables.state, insert), list(tables.state.columns), dialect)


def _upsert(table: sa.Table, insert: Any) -> Any:
    statement = insert(table)
    changed = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
    if "_corrected" in changed:  # once corrected, a window stays so
        changed["_corrected"] = sa.or_(table.c["_corrected"], changed["_corrected"])
    if not changed:
        return statement.on_conflict_do_nothing()
    return statement.on_conflict_do_update(index_elements=["_key"], set_=changed)
