"""One view's work in DuckDB: partial states of arriving rows, and their merge with the groups' states so far."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from ingest_service.live.duck import BATCH, PENDING, STATES, Slot, bulk_duck
from ingest_service.live.plan import MergePlan

BULK_ROWS = 50_000
"""From so many rows on a batch is worth DuckDB's other threads."""
_COMBINE_ROWS = 500_000  # pending rows, beyond which they are made one a group; then it doubles
_CHUNK_ROWS = 122_880  # what DuckDB gives a thread at a time
_bulk_lock = threading.Lock()

Row = tuple[Any, ...]


class MergeSession:
    """The queries of one plan; used by one thread.

    Small batches go through prepared statements and come back as Python rows: for a handful of groups all else costs
    more than the query does. Large ones are aggregated by a DuckDB with all cores and stay there, as Arrow, until
    `take_pending`.
    """

    def __init__(self, duck: Any, schema: pa.Schema, plan: MergePlan) -> None:
        """`schema`: the rows' columns, those that the plan needs."""
        self._plan = plan
        self._connection = duck.cursor()
        self._batch = Slot(schema)
        self._states = Slot(pa.schema([(name, pa.string()) for name in plan.state_columns]))
        self._connection.register(BATCH, self._batch)
        self._connection.register(STATES, self._states)
        self._connection.execute(f"PREPARE partial AS {plan.partial_sql}")
        if plan.final_sql:
            self._connection.execute(f"PREPARE final AS {plan.final_sql}")
        description = plan.description
        self._partial_parameters = 2 if description.is_of_events else int(bool(description.window_column))
        self._final_parameters = int(bool(description.window_width))
        self._bulk: Any = None
        self._pending: list[pa.Table] = []
        self._pending_rows: list[Row] = []
        self._combine_at = _COMBINE_ROWS

    @property
    def pending(self) -> int:
        """How many rows of partial states wait, about the number of groups that they are of."""
        return sum(int(table.num_rows) for table in self._pending) + len(self._pending_rows)

    def partial(self, rows: pa.Table, expired_before_us: int, closed_us: int) -> list[Row]:
        """The rows' partial states as text, one row a group; of a view of events what the store takes."""
        self._batch.table = rows
        arguments = _call(self._partial_parameters, expired_before_us, closed_us)
        return list(self._connection.execute(f"EXECUTE partial{arguments}").fetchall())

    def absorb(self, rows: pa.Table, expired_before_us: int, closed_us: int) -> None:
        """Aggregates rows and keeps the result back."""
        bulk = self._open_bulk()
        batches = [piece for batch in rows.to_batches() for piece in _pieces(batch)]
        bulk.register(BATCH, pa.Table.from_batches(batches, rows.schema))
        parameters = [expired_before_us, closed_us][: self._partial_parameters]
        try:
            if self._plan.typed_sql:
                self._pending.append(bulk.sql(self._plan.typed_sql, params=parameters).to_arrow_table())
            else:
                self._pending_rows += bulk.sql(self._plan.partial_sql, params=parameters).fetchall()
        finally:
            bulk.unregister(BATCH)
        if len(self._pending) > 1 and self.pending > self._combine_at:
            self._pending = [self._of_pending(self._plan.combine_sql).to_arrow_table()]
            self._combine_at = max(_COMBINE_ROWS, 2 * self.pending)

    def take_pending(self) -> list[Row] | pa.Table:
        """What was kept back: as `partial` gives it, or, to be merged by `merge_bulk`, a table with a column `_key`."""
        rows: list[Row] | pa.Table = self._pending_rows
        if self._pending and self._plan.description.value_sets:
            rows = self._of_pending(self._plan.pending_sql).fetchall()
        elif self._pending:
            rows = self._of_pending(self._plan.keyed_sql).to_arrow_table()
        self.drop_pending()
        return rows

    def drop_pending(self) -> None:
        """Forgets what was kept back."""
        self._pending, self._pending_rows, self._combine_at = [], [], _COMBINE_ROWS

    def merge(self, states: Sequence[Sequence[str | None]], closed_us: int) -> list[Row]:
        """One row a group, as the store takes it, of rows of STATES."""
        columns = zip(*states, strict=True)
        arrays = [pa.array(column, pa.string()) for column in columns]
        self._states.table = pa.table(arrays, self._plan.state_columns)
        arguments = _call(self._final_parameters, closed_us)
        return list(self._connection.execute(f"EXECUTE final{arguments}").fetchall())

    def merge_bulk(self, keyed: pa.Table, states: Sequence[Sequence[str | None]], closed_us: int) -> list[Row]:
        """The same of a table that `take_pending` gave and of the groups' states so far: `_key` and states alone."""
        names = ["_key", *(name for name in self._plan.state_columns if name.startswith("_s"))]
        columns = list(zip(*states, strict=True)) or [()] * len(names)
        stored = pa.table([pa.array(column, pa.string()) for column in columns], names)
        self._bulk.register(PENDING, keyed)
        self._bulk.register(STATES, stored)
        parameters = [closed_us][: self._final_parameters]
        return list(self._bulk.sql(self._plan.bulk_final_sql, params=parameters).fetchall())

    def close(self) -> None:
        """Lets go of the view's connections."""
        self.drop_pending()
        self._connection.close()
        if self._bulk is not None:
            self._bulk.close()

    def _of_pending(self, sql: str) -> Any:
        self._bulk.register(PENDING, pa.concat_tables(self._pending))
        return self._bulk.sql(sql)

    def _open_bulk(self) -> Any:
        if self._bulk is None:
            with _bulk_lock:
                duck = bulk_duck()
                for seed in self._plan.seeds:
                    seed.load(duck)
                self._bulk = duck.cursor()
        return self._bulk


def _pieces(batch: pa.RecordBatch) -> list[pa.RecordBatch]:
    return [batch.slice(start, _CHUNK_ROWS) for start in range(0, batch.num_rows, _CHUNK_ROWS)]


def _call(count: int, *values: int) -> str:
    return f"({', '.join(str(value) for value in values[:count])})" if count else ""
