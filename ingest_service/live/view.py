"""One live view: takes the log's entries in order and keeps its rows up to date."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ingest_service.errors import IngestError
from ingest_service.live.duck import MergeSession
from ingest_service.live.feed import LogLike
from ingest_service.live.plan import MergePlan
from ingest_service.live.store import Checkpoint, Store, WriteTransaction, with_watermark
from ingest_service.live.tables import ViewTables
from ingest_service.log.records import Entry, Rows, Seal

DISTINCT_VALUES_MAX = 100_000
"""How many values count(distinct …) keeps for one group, by default."""


class ViewStopped(IngestError):
    """A view cannot go on: at which offset, and why. Its rows stay as they are below that offset."""


class LiveView:
    """A view's tables as a function of a prefix of its stream's log.

    Used by one thread. After `apply` returned or raised, `checkpoint` is what the store holds: the rows of every entry
    before it, and nothing of any entry after it.
    """

    def __init__(
        self,
        plan: MergePlan,
        tables: ViewTables,
        checkpoint: Checkpoint,
        store: Store,
        duck: Any,
        log: LogLike,
        *,
        distinct_values_max: int = DISTINCT_VALUES_MAX,
    ) -> None:
        self.plan = plan
        self.name = plan.description.view
        self.tables = tables
        self.checkpoint = checkpoint
        self._store = store
        self._schema = log.schema
        self._event_time = log.spec.event_time
        self._out_of_orderness_s = log.spec.out_of_orderness_s
        self._distinct_values_max = distinct_values_max
        self._session = MergeSession(duck, log.schema, plan.partial_sql, plan.final_sql, plan.state_columns)

    @property
    def offset(self) -> int:
        """The view covers everything strictly below it."""
        return self.checkpoint.offset

    def start(self) -> None:
        """Gives a new view the row that it has without any event: an aggregation without groups has one."""
        if self.offset == 0 and not self.plan.description.group_columns:
            self._apply_table(self._schema.empty_table(), self.checkpoint)

    def close(self) -> None:
        """Lets go of the view's DuckDB connection."""
        self._session.close()

    def apply(self, entries: Sequence[Entry]) -> None:
        """Takes entries in log order; what the view covers already is skipped.

        Raises ViewStopped when an entry cannot be taken, StorageError when the store failed (worth another try).
        """
        for entry in entries:
            if isinstance(entry, Rows):
                self._take_rows(entry)
            else:
                self._take_seal(entry)

    def _take_rows(self, rows: Rows) -> None:
        if rows.base_offset > self.offset:
            raise ViewStopped(f"expected the row at offset {self.offset}, and the log gave {rows.base_offset}")
        if rows.next_offset > self.offset:
            batch = rows.batch.slice(self.offset - rows.base_offset)
            if batch.schema.names != self._schema.names:
                # The contract has gained columns since the view was planned: it does not know them.
                batch = batch.select(self._schema.names)
            self._apply_or_halve(batch)

    def _take_seal(self, seal: Seal) -> None:
        """Copies the dates' rows, unless the view is past the seal, and so made its copy before."""
        if seal.seal_offset > self.offset:
            raise ViewStopped(
                f"expected the row at offset {self.offset}, and the log gave the seal at {seal.seal_offset}"
            )
        if seal.seal_offset == self.offset:
            with self._store.write() as transaction:
                transaction.seal(self.tables, seal.first_date, seal.last_date, seal.seal_offset)

    def _apply_or_halve(self, batch: pa.RecordBatch) -> None:
        """Applies rows; when they fail, the rows below the one at fault are applied and that one is named."""
        try:
            self._apply_table(pa.Table.from_batches([batch]), self._checkpoint_after(batch))
        except (duckdb.Error, ViewStopped) as error:
            if batch.num_rows == 1:
                reason = str(error).splitlines()[0]
                raise ViewStopped(f"stopped at offset {self.offset}: {reason}") from error
            middle = batch.num_rows // 2
            self._apply_or_halve(batch.slice(0, middle))
            self._apply_or_halve(batch.slice(middle))

    def _checkpoint_after(self, batch: pa.RecordBatch) -> Checkpoint:
        at = self.checkpoint
        after = replace(
            at,
            offset=at.offset + batch.num_rows,
            event_time_max_us=_later(at.event_time_max_us, batch.column(self._event_time)),
            append_time_max_us=_later(at.append_time_max_us, batch.column("_append_time")),
        )
        return with_watermark(after, self._out_of_orderness_s)

    def _apply_table(self, rows: pa.Table, after: Checkpoint) -> None:
        """Merges a micro-batch.

        1 Aggregate the rows by themselves. 2 Read the affected groups' states. 3 Merge both in DuckDB. 4 Replace the
        groups' rows and states. 5 Move the checkpoint. Steps 2 to 5 are one transaction.
        """
        partial = self._session.partial(rows)
        with self._store.write() as transaction:
            if partial:
                self._merge(transaction, partial)
            transaction.save(self.tables.name, after)
        self.checkpoint = after

    def _merge(self, transaction: WriteTransaction, partial: list[tuple[Any, ...]]) -> None:
        # Groups, not rows: the store takes them one by one, so Python may.
        stored = transaction.states(self.tables, [row[0] for row in partial])
        known = {row[0] for row in stored}
        for state in self.plan.description.value_sets:
            partial = self._count_new_values(transaction, partial, state, known)
        no_groups = (None,) * len(self.plan.description.group_columns)
        merged = self._session.merge([*partial, *((row[0], *no_groups, *row[1:]) for row in stored)])
        self._check_limits(merged)
        transaction.replace(self.tables, merged)

    def _count_new_values(
        self, transaction: WriteTransaction, partial: list[tuple[Any, ...]], state: int, known: set[str]
    ) -> list[tuple[Any, ...]]:
        """Keeps the batch's distinct values, and puts in place of each group's list how many of them are new."""
        at = 1 + len(self.plan.description.group_columns) + state
        values = [(row[0], value) for row in partial for value in row[at] or ()]
        added = Counter(transaction.add_values(self.tables, state, values, known))
        return [(*row[:at], str(added[row[0]]), *row[at + 1 :]) for row in partial]

    def _check_limits(self, merged: Sequence[Any]) -> None:
        first = 1 + len(self.plan.description.columns)
        for state in self.plan.description.value_sets:
            for row in merged:
                if int(row[first + state]) > self._distinct_values_max:
                    raise ViewStopped(
                        f"the group {row[0]} has more than {self._distinct_values_max} different values to "
                        "count(distinct …); use approx_count_distinct, or a finer group"
                    )


def _later(us: int | None, times: pa.Array) -> int | None:
    last = pc.max(times).cast(pa.int64()).as_py()
    return last if us is None or (last is not None and last > us) else us
