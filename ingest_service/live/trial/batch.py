"""The batch side of a trial: the compiled SQL as it stands, run by DuckDB over tables of the names that it reads."""

# ruff: noqa: S608 - SQL is put together here: names are quoted.

from __future__ import annotations

import datetime as dt
from types import TracebackType
from typing import Any, Self

import duckdb

from ingest_service.live.column_types import quote
from ingest_service.live.description import ViewDescription
from ingest_service.live.manifest import LiveModel, Relation
from ingest_service.live.seeds import PREFIX
from ingest_service.live.trial.log import TrialLog

BATCH_SIDE, BOUNDS_SIDE = "batch_side", "bounds_side"
"""The tables of the model's rows, and of the bounds of its approximate quantiles."""
_EVENTS = "trial_events"
_BOUNDS_BATCH = "tidemill_batch"


class BatchSide:
    """A DuckDB of its own in which one model is built over a prefix of a log; closed as a context manager."""

    def __init__(self, model: LiveModel, description: ViewDescription, log: TrialLog) -> None:
        self.duck: Any = duckdb.connect(config={"autoinstall_known_extensions": False})
        self._model = model
        self._description = description
        self.duck.execute("SET TimeZone = 'UTC'")
        self.duck.register(_EVENTS, log.rows)
        self._attached = {
            row[0].lower() for row in self.duck.execute("SELECT database_name FROM duckdb_databases()").fetchall()
        }
        for relation, seed in model.seeds.items():
            seed.load(self.duck)
            self._replace(relation, f"SELECT * FROM {quote(seed.table)}")
            self._replace((f"{PREFIX}{seed.name}",), f"SELECT * FROM {quote(seed.table)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.duck.close()

    def build(self, below: int) -> None:
        """Make BATCH_SIDE, and BOUNDS_SIDE where there are bounds, over the rows below an offset.

        Raises duckdb.Error where the model's SQL fails.
        """
        events = f"SELECT * FROM {_EVENTS} WHERE _offset < {int(below)}"
        for relation, stream in self._model.streams.items():
            if stream == self._description.stream:
                self._replace(relation, events)
        self._replace((BATCH_SIDE,), self._model.sql)
        if self._description.bounds_sql:
            self._replace((_BOUNDS_BATCH,), events)
            self._replace((BOUNDS_SIDE,), self._description.bounds_sql)

    def keep_windows_of(self, date: dt.date) -> None:
        """Leave in BATCH_SIDE only the windows that begin on a date; a view without windows keeps all rows."""
        window = self._description.window_column
        if window:
            begin, end = (f"TIMESTAMPTZ '{day} 00:00:00+00'" for day in (date, date + dt.timedelta(days=1)))
            inside = f"{quote(window)} >= {begin} AND {quote(window)} < {end}"
            self.duck.execute(f"DELETE FROM {BATCH_SIDE} WHERE ({inside}) IS NOT TRUE")

    def _replace(self, relation: Relation, sql: str) -> None:
        """Make a table of what a query gives, under a name that may have a schema and a database before it."""
        if len(relation) == 3 and relation[0].lower() not in self._attached:
            self.duck.execute(f"ATTACH ':memory:' AS {quote(relation[0])}")
            self._attached.add(relation[0].lower())
        if len(relation) > 1:
            self.duck.execute(f"CREATE SCHEMA IF NOT EXISTS {'.'.join(map(quote, relation[:-1]))}")
        # The SQL may end in a comment.
        self.duck.execute(f"CREATE OR REPLACE TABLE {'.'.join(map(quote, relation))} AS (\n{sql}\n)")
