"""One live view: takes the log's entries in order and keeps its rows up to date."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ingest_service.errors import IngestError
from ingest_service.live.feed import LogLike
from ingest_service.live.plan import MergePlan
from ingest_service.live.session import MergeSession, Row
from ingest_service.live.store import NEVER_US, Checkpoint, Store, WriteTransaction, with_watermark
from ingest_service.live.tables import ViewTables
from ingest_service.log.records import Entry, Rows, Seal

RECENT_ROWS_MAX = 20_000
"""How many changed rows a view remembers for those who watch it; who is further behind reads its table."""


class ViewStopped(IngestError):
    """A view cannot go on: at which offset, and why. Its rows stay as they are below that offset."""


class LiveView:
    """A view's tables as a function of a prefix of its stream's log.

    `checkpoint` is what the store holds: the rows of every entry before it, and nothing of any entry after it.
    `reached` is how far entries have been taken in; between both stand rows that `absorb` has kept back. An error that
    `absorb` or `commit` raises takes `reached` back to the checkpoint. Each call holds `lock`; who calls several that
    belong together holds it around them. Once it is closed it takes nothing more.
    """

    def __init__(
        self,
        plan: MergePlan,
        tables: ViewTables,
        checkpoint: Checkpoint,
        store: Store,
        duck: object,
        log: LogLike,
        *,
        build: str,
    ) -> None:
        self.plan = plan
        self.name = plan.description.view
        self.tables = tables
        self.checkpoint = self.reached = checkpoint
        self.build = build
        self.lock = threading.RLock()
        self.closed = False
        # The last commits that changed rows: the offset that each reached, and its rows. None above _recent_from lacks.
        self._recent: deque[tuple[int, list[Row]]] = deque()
        self._recent_from = checkpoint.offset
        self._recent_rows = 0
        self._recent_lock = threading.Lock()
        self._store = store
        self._event_time = log.spec.event_time
        self._out_of_orderness_s = log.spec.out_of_orderness_s
        self._schema = pa.schema([log.schema.field(name) for name in plan.batch_columns])
        self._session = MergeSession(duck, self._schema, plan)
        self._asked_to_expire: tuple[int, ...] = ()
        self._row_by_row_below = 0  # rows that failed in bulk are taken in again so that the one at fault is found

    @property
    def offset(self) -> int:
        """The view covers everything strictly below it."""
        return self.checkpoint.offset

    @property
    def pending(self) -> int:
        """How many rows of states `absorb` has kept back."""
        return self._session.pending

    def start(self) -> None:
        """Gives a new view the row that it has without any event: an aggregation without groups has one."""
        description = self.plan.description
        if self.offset == 0 and not description.group_columns and not description.is_of_events:
            self._apply_table(self._schema.empty_table(), self.checkpoint)

    def reload(self) -> None:
        """Goes back, or on, to what the store has: after a failure it may have committed or not.

        A view whose tables are gone, or were taken by another one, closes. Raises ViewStopped then; StorageError.
        """
        with self.lock:
            self._take_back()
            with self._store.read() as transaction:
                stored = transaction.load(self.tables.name)
                if stored is None:  # a rebuild may have been swapped in, and the answer lost
                    stored = transaction.load(self.name)
                    if stored is not None and stored.build == self.build:
                        self.tables = ViewTables.of(self.plan.description)
            if stored is None or stored.build != self.build:
                self.close()
                raise ViewStopped(
                    "the store has lost the rows of this view, or has others in their place; `tidemill view apply`, or "
                    "a restart of the service, makes them again"
                )
            with self._recent_lock:
                self._recent.clear()
                self._recent_from, self._recent_rows = stored.checkpoint.offset, 0
                self.checkpoint = self.reached = stored.checkpoint

    def close(self) -> None:
        """Lets go of the view's DuckDB connections."""
        with self.lock:
            self.closed = True
            self._session.close()

    def apply(self, entries: Sequence[Entry]) -> None:
        """Takes entries in log order, and commits each; what the view has taken already is skipped.

        Raises ViewStopped when an entry cannot be taken, StorageError when the store failed (worth another try).
        """
        self._take(entries, bulk=False)

    def absorb(self, entries: Sequence[Entry]) -> None:
        """Takes entries, but keeps what comes of them back until `commit`: for many rows at once.

        Raises as `apply`, and TakeAgain.
        """
        self._take(entries, bulk=True)

    def commit(self) -> None:
        """Commits what was kept back. Raises as `absorb`."""
        with self.lock:
            if self.closed or self.reached == self.checkpoint:
                return
            try:
                self._commit(self._session.take_pending(), self.reached)
            except (duckdb.Error, ViewStopped) as error:
                raise self._take_again() from error
            except BaseException:
                self._take_back()
                raise

    def _take(self, entries: Sequence[Entry], *, bulk: bool) -> None:
        with self.lock:
            for entry in entries:
                if self.closed:
                    return
                if isinstance(entry, Rows):
                    self._take_rows(entry, bulk=bulk)
                else:
                    self._take_seal(entry)

    def _take_rows(self, rows: Rows, *, bulk: bool) -> None:
        at = self.reached.offset
        if rows.base_offset > at:
            raise ViewStopped(f"expected the row at offset {at}, and the log gave {rows.base_offset}")
        if rows.next_offset <= at:
            return
        batch = rows.batch.slice(at - rows.base_offset)
        if batch.schema.names != self._schema.names:
            # Other views need other columns; or the contract has gained some since the view was planned.
            batch = batch.select(self._schema.names)
        if bulk and at >= self._row_by_row_below:
            self._absorb(batch)
            return
        self.commit()
        self._apply_or_halve(batch)

    def _take_seal(self, seal: Seal) -> None:
        """Copies the dates' rows, unless the view is past the seal, and so made its copy before."""
        at = self.reached.offset
        if seal.seal_offset > at:
            raise ViewStopped(f"expected the row at offset {at}, and the log gave the seal at {seal.seal_offset}")
        if seal.seal_offset == at:
            self.commit()
            with self._store.write() as transaction:
                transaction.seal(self.tables, seal.first_date, seal.last_date, seal.seal_offset)

    def _absorb(self, batch: pa.RecordBatch) -> None:
        try:
            self._session.absorb(pa.Table.from_batches([batch]), self._expired_us, self._closed_us)
        except duckdb.Error as error:
            raise self._take_again(self.reached.offset + batch.num_rows) from error
        self.reached = self._after(batch)

    def _take_again(self, below: int = 0) -> TakeAgain:
        """Something in rows that were taken in bulk is at fault: they are to be given again, to find which one."""
        self._row_by_row_below = max(below, self.reached.offset)
        self._take_back()
        return TakeAgain()

    def _take_back(self) -> None:
        self._session.drop_pending()
        self.reached = self.checkpoint

    def _apply_or_halve(self, batch: pa.RecordBatch) -> None:
        """Applies rows; when they fail, the rows below the one at fault are applied and that one is named."""
        try:
            self._apply_table(pa.Table.from_batches([batch]), self._after(batch))
        except (duckdb.Error, ViewStopped) as error:
            if batch.num_rows == 1:
                reason = str(error).splitlines()[0]
                raise ViewStopped(f"stopped at offset {self.offset}: {reason}") from error
            middle = batch.num_rows // 2
            self._apply_or_halve(batch.slice(0, middle))
            self._apply_or_halve(batch.slice(middle))

    def _after(self, batch: pa.RecordBatch) -> Checkpoint:
        at = self.reached
        after = replace(
            at,
            offset=at.offset + batch.num_rows,
            event_time_max_us=_later(at.event_time_max_us, batch.column(self._event_time)),
            append_time_max_us=_later(at.append_time_max_us, batch.column("_append_time")),
        )
        return with_watermark(after, self._out_of_orderness_s)

    @property
    def _expired_us(self) -> int:
        return NEVER_US if self.checkpoint.expired_before_us is None else self.checkpoint.expired_before_us

    @property
    def _closed_us(self) -> int:
        """The watermark that readers know of: a window that ends at or before it had closed for them."""
        return NEVER_US if self.checkpoint.watermark_us is None else self.checkpoint.watermark_us

    def _apply_table(self, rows: pa.Table, after: Checkpoint) -> None:
        self._commit(self._session.partial(rows, self._expired_us, self._closed_us), after)

    def _commit(self, partial: list[Row] | pa.Table, after: Checkpoint) -> None:
        """Merges partial states of rows, or takes in events.

        1 Read the affected groups' states. 2 Merge both in DuckDB. 3 Replace the groups' rows and states. 4 Move the
        checkpoint. All of it is one transaction.
        """
        changed: list[Row] = []
        with self._store.write() as transaction:
            if len(partial) and self.plan.description.is_of_events:
                changed = partial
            elif isinstance(partial, pa.Table):
                stored = transaction.states(self.tables, partial.column("_key").to_pylist())
                changed = self._session.merge_bulk(partial, stored, self._closed_us)
            elif partial:
                changed = self._merge(transaction, partial)
            transaction.replace(self.tables, changed, after.offset)
            self._save(transaction, after)
        self._remember(after, changed)

    def _merge(self, transaction: WriteTransaction, partial: list[Row]) -> list[Row]:
        # Groups, not rows: the store takes them one by one, so Python may.
        stored = transaction.states(self.tables, [row[0] for row in partial])
        known = {row[0] for row in stored}
        for state in self.plan.description.value_sets:
            partial = self._count_new_values(transaction, partial, state, known)
        no_groups = (None,) * len(self.plan.description.group_columns)
        merged = self._session.merge([*partial, *((row[0], *no_groups, *row[1:]) for row in stored)], self._closed_us)
        self._check_limits(merged)
        return merged

    def _count_new_values(
        self, transaction: WriteTransaction, partial: list[Row], state: int, known: set[str]
    ) -> list[Row]:
        """Keeps the batch's distinct values, and puts in place of each group's list how many of them are new."""
        at = 1 + len(self.plan.description.group_columns) + state
        values = [(row[0], value) for row in partial for value in row[at] or ()]
        added = Counter(transaction.add_values(self.tables, state, values, known))
        return [(*row[:at], str(added[row[0]]), *row[at + 1 :]) for row in partial]

    def _check_limits(self, merged: Sequence[Row]) -> None:
        limit = self.plan.options.distinct_values_max
        first = 2 + len(self.plan.description.columns)
        for state in self.plan.description.value_sets:
            for row in merged:
                if int(row[first + state]) > limit:
                    raise ViewStopped(
                        f"the group {row[0]} has more than {limit} different values to count(distinct …); use "
                        "approx_count_distinct, a finer group, or set meta.live.distinct_values_max"
                    )

    def changed_since(self, offset: int) -> tuple[list[Row], int] | None:
        """The rows that commits above an offset changed, each as the last of them left it, and how far they go.

        A row is `_key`, the visible columns as the store has them, `_corrected`. None when the view does not remember
        so far back.
        """
        with self._recent_lock:
            if offset < self._recent_from:
                return None
            rows: dict[str, Row] = {}
            for reached, changed in self._recent:
                if reached > offset:
                    rows.update((row[0], row) for row in changed)
            return list(rows.values()), self.checkpoint.offset

    def _remember(self, after: Checkpoint, changed: list[Row]) -> None:
        """Moves the checkpoint; changed rows are kept for those who watch, too many are left in the table."""
        width = 2 + len(self.plan.description.columns)
        with self._recent_lock:
            if len(changed) > RECENT_ROWS_MAX:
                self._recent.clear()
                self._recent_from, self._recent_rows = after.offset, 0
            elif changed:
                self._recent.append((after.offset, [row[:width] for row in changed]))
                self._recent_rows += len(changed)
            while self._recent_rows > RECENT_ROWS_MAX:
                self._recent_from, rows = self._recent.popleft()
                self._recent_rows -= len(rows)
            self.checkpoint = self.reached = after

    def expire(self) -> bool:
        """Lets windows of dates leave that are old enough and were reconciled; whether any date could leave.

        Whole UTC dates leave, in their order: a date whose windows were not reconciled, or were changed since, keeps
        itself and all later ones, and so does the newest that was reconciled with those behind it.
        """
        description, retain_s = self.plan.description, self.plan.options.retain_s
        with self.lock:
            at = self.checkpoint
            if self.closed or not (retain_s and description.window_column) or at.watermark_us is None:
                return False
            days = (at.watermark_us - retain_s * 1_000_000) // _DAY_US - description.window_days_max
            with self._store.read() as transaction:
                marks = transaction.reconciled(self.name)
                asked = days, len(marks), sum(marks.values())
                if not marks or asked == self._asked_to_expire:
                    return False
                dates = transaction.window_dates(self.tables, before=_date(days))
            self._asked_to_expire = asked
            days = min(days, _days(max(marks)) + 1)
            for date, changed in dates:
                if not self._is_settled(date, changed, marks):
                    days = min(days, _days(date))
                    break
            if self.reached != at or not any(date < _date(days) for date, _ in dates):
                return False
            after = replace(at, expired_before_us=days * _DAY_US)
            with self._store.write() as transaction:
                transaction.expire(self.tables, _date(days))
                self._save(transaction, after)
            self.checkpoint = self.reached = after
            return True

    def _is_settled(self, date: str, changed: int, marks: dict[str, int]) -> bool:
        """Whether a date's windows were found equal to batch, and are as they were then."""
        reach = self.plan.description.window_days_max
        if not reach:
            return date in marks and changed <= marks[date]
        first = dt.date.fromisoformat(date)
        return all((first + dt.timedelta(days)).isoformat() in marks for days in range(reach + 1))

    def close_windows(self, watermark_us: int) -> bool:
        """Moves the watermark of a view that covers all of an idle stream; whether it moved.

        It need not be moved on when every window has closed by it already.
        """
        with self.lock:
            at = self.checkpoint
            last_us, known_us = at.event_time_max_us, at.watermark_us
            if self.closed or self.reached != at or last_us is None or known_us is None or watermark_us <= known_us:
                return False
            if known_us > last_us + (self.plan.description.window_days_max + 1) * _DAY_US:
                return False
            after = replace(at, watermark_us=watermark_us)
            with self._store.write() as transaction:
                self._save(transaction, after)
            self.checkpoint = self.reached = after
            return True

    def _save(self, transaction: WriteTransaction, after: Checkpoint) -> None:
        transaction.save(self.tables.name, after, build=self.build, was=self.checkpoint.offset)


class TakeAgain(IngestError):
    """A view failed on rows that it took in bulk: it wants them again from its checkpoint on."""

    def __init__(self) -> None:
        super().__init__("the rows are wanted again, a few at a time")


_DAY_US = 86_400_000_000
_EPOCH = dt.date(1970, 1, 1)


def _days(date: str) -> int:
    return (dt.date.fromisoformat(date) - _EPOCH).days


def _date(days: int) -> str:
    return (_EPOCH + dt.timedelta(days)).isoformat()


def _later(us: int | None, times: pa.Array) -> int | None:
    last = pc.max(times).cast(pa.int64()).as_py()
    return last if us is None or (last is not None and last > us) else us
