"""All live views of a service: opens them, and answers questions about them."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ingest_service.clock import Clock, SystemClock
from ingest_service.errors import BadRequest, UnknownView, ViewBehind
from ingest_service.live.across import read_across
from ingest_service.live.duck import open_duck
from ingest_service.live.feed import LogLike
from ingest_service.live.manifest import parse_manifest, read_manifest
from ingest_service.live.query import RowReader, ViewQuery, ViewResult
from ingest_service.live.roster import Handle, Roster
from ingest_service.live.status import ViewChange, ViewPosition, ViewState, ViewStatus
from ingest_service.live.store import ReadTransaction, Store
from ingest_service.live.tables import ViewTables
from ingest_service.live.view import LiveView
from ingest_service.live.watch import ViewChanges, ViewWatch, changes
from ingest_service.warehouse import PublishedWarehouse


class LiveViews:
    """The live views of a manifest; thread-safe. `open` starts them, `close` ends them."""

    def __init__(
        self, store: Store, logs: Mapping[str, LogLike], clock: Clock, warehouse: PublishedWarehouse | None = None
    ) -> None:
        self._store = store
        self._logs = logs
        self._clock = clock
        self._warehouse = warehouse
        self._duck = open_duck()
        self._duck_lock = threading.Lock()  # a connection makes its cursors one at a time
        self._progress = threading.Condition()
        self._commits = 0  # counted up with every commit, so that a waiting query looks again
        self._listeners: list[Callable[[], None]] = []
        self._roster = Roster(store, logs, self._duck.cursor(), clock, self._notify)
        self._closed = False

    @classmethod
    def open(
        cls,
        manifest: Path | None,
        store_url: str,
        logs: Mapping[str, LogLike],
        *,
        clock: Clock | None = None,
        warehouse: PublishedWarehouse | None = None,
    ) -> LiveViews:
        """Opens the views of a dbt manifest (None: no views) over streams' logs, by stream name, and lets them follow.

        A model that cannot be a live view is in `status` with the reason; it stops nothing else. warehouse: batch's
        part of views that are read across time; None: there is none.

        Raises:
            ConfigError: no manifest, no compiled SQL in it, or a store URL that cannot be used.
            StorageError: the store does not open.
        """
        models = read_manifest(manifest) if manifest is not None else []
        views = cls(Store(store_url), logs, clock or SystemClock(), warehouse)
        try:
            views._roster.put(models)
            # Without any model it is more likely that something went wrong when they were compiled.
            views._roster.drop_unknown(keep_all=not models)
        except BaseException:
            views.close()
            raise
        return views

    def check(self, manifest: bytes) -> list[ViewChange]:
        """What `apply` would do; raises ConfigError for what is no manifest."""
        return self._roster.check(parse_manifest(manifest))

    def apply(self, manifest: bytes) -> list[ViewChange]:
        """Puts another manifest in force: views are added, rebuilt and removed while the others go on.

        Raises ConfigError for what is no manifest; StorageError when the store failed: what was done by then holds,
        and applying it again does the rest.
        """
        return self._roster.apply(parse_manifest(manifest))

    def rebuild(self, view: str) -> None:
        """Makes a view's rows again from the first event on; they take the old ones' place when they have caught up.

        A rebuild that is under way begins again. Raises UnknownView, ViewRefused.
        """
        self._roster.rebuild(view)

    def confirm_reconciled(self, view: str, first: dt.date, last: dt.date, seal_offset: int) -> None:
        """Notes that the copy made at a seal was found equal to batch; its windows may leave by retention from now on.

        Raises UnknownView, ViewRefused; BadRequest when there is no such copy.
        """
        self._roster.handle(view)
        with self._store.write() as transaction:
            stored = transaction.load(view)
            if stored is None or not transaction.is_sealed(view, str(first), str(last), seal_offset):
                raise BadRequest(f"{view} has no copy of {first} to {last} at offset {seal_offset}")
            dates = [str(first + dt.timedelta(days)) for days in range((last - first).days + 1)]
            transaction.confirm(ViewTables.of(stored.description), dates, seal_offset)

    def _notify(self) -> None:
        with self._progress:
            self._commits += 1
            self._progress.notify_all()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back after commits, from any thread; the callback must not block. Gives what ends it."""
        with self._progress:
            self._listeners.append(callback)

        def end() -> None:
            with self._progress:
                if callback in self._listeners:
                    self._listeners.remove(callback)

        return end

    # What there is to know.

    def status(self) -> list[ViewStatus]:
        """Every live model of the manifest, by name; those that were refused with their reason."""
        # Before the store is asked: a view may be swapped in meanwhile, and not be told as the old one that stays.
        handles = [(name, handle, handle.state, handle.rebuilding) for name, handle in self._roster.handles.items()]
        with self._store.read() as transaction:
            return [self._status(*each, transaction) for each in handles]

    def _status(
        self, name: str, handle: Handle, state: ViewState, rebuilding: LiveView | None, transaction: ReadTransaction
    ) -> ViewStatus:
        stored = transaction.load(name) if handle.plan else None
        if stored is None or handle.plan is None:
            return ViewStatus(name, ViewState.REFUSED, error=handle.error)
        description, at = stored.description, stored.checkpoint
        lag = max(0, self._logs[description.stream].durable_offset - at.offset)
        behind_ms = handle.follower.behind_ms(handle.serving) if handle.follower and handle.serving else 0
        return ViewStatus(
            view=name,
            state=state,
            stream=description.stream,
            offset=at.offset,
            lag=lag,
            lag_ms=behind_ms if lag else 0,
            rows=transaction.count(name),
            group_columns=description.group_columns,
            window_column=description.window_column,
            watermark_us=at.watermark_us,
            retain_s=handle.plan.options.retain_s,
            expired_before_us=at.expired_before_us,
            error=handle.error,
            rebuild_offset=rebuilding.offset if rebuilding else None,
            definition_hash=description.definition_hash,
            columns=description.columns,
            sql=description.sql,
            bounds_sql=description.bounds_sql,
        )

    def streams(self) -> dict[str, str]:
        """The stream of every live model, by the model's name; "" for one that was refused."""
        handles = self._roster.handles
        return {name: each.plan.description.stream if each.plan else "" for name, each in handles.items()}

    def positions(self) -> dict[str, ViewPosition]:
        """Where every view with a plan is, by name; asks no store."""
        found = {}
        for name, handle in self._roster.handles.items():
            view = handle.serving or handle.rebuilding
            if view is not None:
                found[name] = ViewPosition(view.plan.description.stream, view.offset, handle.error)
        return found

    def place(self, view: str) -> tuple[str, int] | None:
        """Which of a view's rows readers see: their build, and the offset that they cover. Asks no store."""
        handle = self._roster.handles.get(view)
        serving = None if handle is None else handle.serving
        return None if serving is None else (serving.build, serving.offset)

    def query(self, query: ViewQuery) -> ViewResult:
        """Reads a view's rows: as they are, as they were at a seal, or across time.

        Raises:
            UnknownView, ViewRefused: there is no such view, or its model cannot be one.
            BadRequest: a column, value or seal that does not exist.
            BatchMissing: across time, batch does not have what has left the live table.
            ViewBehind: the view did not reach `after_offset`, or the seal, within `wait_s`.
        """
        deadline_s = self._clock.monotonic_s() + query.wait_s
        while True:
            commits = self._commits
            result = self.look(query)
            if result is not None:
                return result
            remaining_s = deadline_s - self._clock.monotonic_s()
            if remaining_s <= 0:
                raise self.behind(query)
            self._wait(commits, remaining_s)

    def look(self, query: ViewQuery) -> ViewResult | None:
        """What `query` gives, or None while the view has not come far enough; never waits.

        Raises as `query`; ViewBehind when waiting cannot help.
        """
        handle = self._roster.handle(query.view)
        stopped = handle.has_stopped or self._closed
        result = self._read(query)
        if result is None and stopped:
            raise self.behind(query)
        return result

    def behind(self, query: ViewQuery) -> ViewBehind:
        """The error that says how far a view has not come."""
        wanted = f"offset {query.after_offset}"
        if query.sealed:
            wanted = f"the seal at offset {query.sealed.seal_offset}"
        error = self._roster.handle(query.view).error
        reason = f": {error}" if error else ""
        return ViewBehind(f"the view {query.view} has not reached {wanted} in {query.wait_s:g} s{reason}")

    def changes(self, watch: ViewWatch) -> ViewChanges | None:
        """What has changed in a view since `watch.resume`, or None; never waits, see `listen`.

        Raises UnknownView, ViewRefused; BadRequest for a column, value or `resume` that does not exist.
        """
        handle = self._roster.handle(watch.view)
        duck = self._cursor()
        try:
            return changes(watch, handle.serving, self._store, duck)
        finally:
            duck.close()

    def _cursor(self) -> Any:
        with self._duck_lock:
            cursor = self._duck.cursor()
        # What readers get is in types that Arrow has: HUGEINT as a decimal, not as DuckDB's own bytes.
        cursor.execute("SET SESSION arrow_lossless_conversion = false")
        return cursor

    def _read(self, query: ViewQuery) -> ViewResult | None:
        """The answer, or None when the view is not there yet. Rows and checkpoint are read in one transaction."""
        with self._store.read() as transaction:
            stored = transaction.load(query.view)
            if stored is None:  # it was removed since it was asked for
                raise UnknownView(query.view, list(self._roster.handles))
            offset, sealed = stored.checkpoint.offset, query.sealed
            if offset < query.after_offset:
                return None
            if sealed:
                dates = sealed.first_date.isoformat(), sealed.last_date.isoformat()
                if not transaction.is_sealed(query.view, *dates, sealed.seal_offset):
                    if offset > sealed.seal_offset:
                        dated = dates[0] if dates[0] == dates[1] else f"{dates[0]} to {dates[1]}"
                        raise BadRequest(
                            f"{dated} was not sealed at offset {sealed.seal_offset}; ask the stream for its seals"
                        )
                    return None
            if query.across_time and not sealed:
                return read_across(query, stored, transaction, self._warehouse)
            duck = self._cursor()
            try:
                watermark_us = stored.checkpoint.watermark_us
                reader = RowReader(query, stored.description, duck)
                table = reader.read(transaction, watermark_us=watermark_us)
            finally:
                duck.close()
        if sealed:
            return ViewResult(reader.columns, table, sealed.seal_offset, None)
        return ViewResult(reader.columns, table, offset, watermark_us)

    def _wait(self, commits: int, timeout_s: float) -> None:
        """Waits for the next commit of any view."""
        with self._progress:
            self._progress.wait_for(lambda: self._commits != commits or self._closed, timeout=timeout_s)

    def close(self) -> None:
        """Stops following and lets go of threads, connections and store; takes CLOSE_S_MAX at the most a thread."""
        self._roster.close()
        with self._progress:
            self._closed = True
            self._progress.notify_all()
        self._duck.close()
        self._store.close()
