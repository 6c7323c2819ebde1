"""All live views of a service: opens them, keeps them following, answers questions about them."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ingest_service.clock import Clock, SystemClock
from ingest_service.errors import BadRequest, UnknownView, ViewBehind, ViewRefused
from ingest_service.live.duck import open_duck
from ingest_service.live.feed import LogLike
from ingest_service.live.follower import Follower
from ingest_service.live.lifecycle import begin_rebuild, is_rebuilding, open_serving, set_up, swap_in
from ingest_service.live.manifest import LiveModel, parse_manifest, read_manifest
from ingest_service.live.plan import MergePlan, plan_view
from ingest_service.live.query import RowReader, ViewQuery, ViewResult
from ingest_service.live.status import Change, ViewChange, ViewPosition, ViewState, ViewStatus
from ingest_service.live.store import ReadTransaction, Store
from ingest_service.live.tables import REBUILD, ViewTables, check_names
from ingest_service.live.view import LiveView, ViewStopped
from ingest_service.live.watch import ViewChanges, ViewWatch, changes

CLOSE_S_MAX = 30.0
"""How long `close` waits for a thread; a micro-batch and its commit take far less."""
_CATCH_UP_ROWS = 1_000_000  # a view that is further behind the others catches up on a thread beside theirs
_SWAP_ROWS = 100_000

_log = logging.getLogger(__name__)


@dataclass
class _Handle:
    """One live model, and what keeps its rows.

    plan: of the model in force; None while it was refused, from the first time on. serving: what keeps the rows up to
    date that readers see; None when nothing does. rebuilding: what makes the rows that will take their place.
    """

    model: LiveModel
    plan: MergePlan | None = None
    refused: str = ""
    serving: LiveView | None = None
    rebuilding: LiveView | None = None
    follower: Follower | None = None
    rebuilder: Follower | None = None

    @property
    def error(self) -> str:
        """Why the view stands still, or why its rebuild does, or why its newest model was refused; else ""."""
        stands = self.follower.errors.get(self.serving, "") if self.follower and self.serving else ""
        rebuild = self.rebuilder.errors.get(self.rebuilding, "") if self.rebuilder and self.rebuilding else ""
        return stands or (f"the rebuild: {rebuild}" if rebuild else self.refused)

    @property
    def has_stopped(self) -> bool:
        """Whether the rows that readers see go no further."""
        if self.serving is None or self.follower is None:
            return self.rebuilder is None or (
                self.rebuilding is not None and self.rebuilder.has_stopped(self.rebuilding)
            )
        return self.follower.has_stopped(self.serving)

    @property
    def state(self) -> ViewState:
        """What the view does at present."""
        if self.plan is None:
            return ViewState.REFUSED
        if self.has_stopped:
            return ViewState.STOPPED
        return ViewState.FOLLOWING if self.rebuilding is None else ViewState.REBUILDING


class LiveViews:
    """The live views of a manifest; thread-safe. `open` starts them, `close` ends them."""

    def __init__(self, store: Store, logs: Mapping[str, LogLike], clock: Clock) -> None:
        self._store = store
        self._logs = logs
        self._clock = clock
        self._duck = open_duck()
        self._duck_lock = threading.Lock()  # a connection makes its cursors one at a time
        self._changing = threading.RLock()  # one manifest, rebuild or swap at a time
        self._progress = threading.Condition()
        self._commits = 0  # counted up with every commit, so that a waiting query looks again
        self._listeners: list[Callable[[], None]] = []
        self._handles: dict[str, _Handle] = {}
        self._main: dict[str, Follower] = {}  # by stream: the thread of all views that are up to date, or nearly
        self._rebuilders: list[Follower] = []
        self._closed = False

    @classmethod
    def open(
        cls,
        manifest: Path | None,
        store_url: str,
        logs: Mapping[str, LogLike],
        *,
        clock: Clock | None = None,
    ) -> LiveViews:
        """Opens the views of a dbt manifest (None: no views) over streams' logs, by stream name, and lets them follow.

        A model that cannot be a live view is in `status` with the reason; it stops nothing else.

        Raises:
            ConfigError: no manifest, no compiled SQL in it, or a store URL that cannot be used.
            StorageError: the store does not open.
        """
        models = read_manifest(manifest) if manifest is not None else []
        views = cls(Store(store_url), logs, clock or SystemClock())
        try:
            views._put(models)
            # Without any model it is more likely that something went wrong when they were compiled.
            views._drop_unknown(keep_all=not models)
        except BaseException:
            views.close()
            raise
        return views

    # Which views there are.

    def check(self, manifest: bytes) -> list[ViewChange]:
        """What `apply` would do; raises ConfigError for what is no manifest."""
        models = parse_manifest(manifest)
        with self._changing:
            found = []
            taken: list[str] = []
            for model in models:
                try:
                    plan = self._plan(model, taken)
                except ViewRefused as error:
                    found.append(ViewChange(model.name, Change.REFUSED, str(error)))
                else:
                    taken.append(model.name)
                    found.append(ViewChange(model.name, self._change(plan)))
            return [*found, *(ViewChange(name, Change.REMOVED) for name in self._without(models))]

    def apply(self, manifest: bytes) -> list[ViewChange]:
        """Puts another manifest in force: views are added, rebuilt and removed while the others go on.

        Raises ConfigError for what is no manifest; StorageError when the store failed: what was done by then holds,
        and applying it again does the rest.
        """
        models = parse_manifest(manifest)
        with self._changing:
            found = self.check(manifest)
            for name in self._without(models):
                self._remove(name)
            self._put(models)
        self._notify()
        return found

    def rebuild(self, view: str) -> None:
        """Makes a view's rows again from the first event on, in tables of their own, which are swapped in when they
        have caught up. A rebuild that is under way begins again.

        Raises UnknownView, ViewRefused.
        """
        with self._changing:
            handle = self._handle(view)
            assert handle.plan is not None
            self._begin_rebuild(handle, handle.plan)
            self._rebuild(self._logs[handle.plan.description.stream], [handle])
        self._notify()

    def confirm_reconciled(self, view: str, first: dt.date, last: dt.date, seal_offset: int) -> None:
        """Notes that the copy made at a seal was found equal to batch; its windows may leave by retention from now on.

        Raises UnknownView, ViewRefused; BadRequest when there is no such copy.
        """
        self._handle(view)
        with self._store.write() as transaction:
            stored = transaction.load(view)
            if stored is None or not transaction.is_sealed(view, str(first), str(last), seal_offset):
                raise BadRequest(f"{view} has no copy of {first} to {last} at offset {seal_offset}")
            dates = [str(first + dt.timedelta(days)) for days in range((last - first).days + 1)]
            transaction.confirm(ViewTables.of(stored.description), dates, seal_offset)

    def _handle(self, view: str) -> _Handle:
        handle = self._handles.get(view)
        if handle is None:
            raise UnknownView(view, list(self._handles))
        if handle.plan is None:
            raise ViewRefused(handle.refused)
        return handle

    def _plan(self, model: LiveModel, others: Sequence[str]) -> MergePlan:
        plan = plan_view(model, self._logs, self._duck)
        check_names(plan.description, model.path, others)
        return plan

    def _change(self, plan: MergePlan) -> Change:
        handle = self._handles.get(plan.description.view)
        if handle is None or handle.plan is None:
            return Change.ADDED
        same = handle.plan.description.definition_hash == plan.description.definition_hash
        return Change.SAME if same else Change.CHANGED

    def _without(self, models: Sequence[LiveModel]) -> list[str]:
        names = {model.name for model in models}
        return [name for name in self._handles if name not in names]

    def _put(self, models: Sequence[LiveModel]) -> None:
        """1 Plan. 2 Find or make the tables. 3 Follow: one thread a stream, and another one for those far behind."""
        taken: list[str] = []
        behind: dict[str, list[_Handle]] = {}
        with self._changing:
            try:
                for model in models:
                    handle = self._handles.get(model.name) or _Handle(model)
                    try:
                        plan = self._plan(model, taken)
                        if self._set_up(handle, plan):
                            behind.setdefault(plan.description.stream, []).append(handle)
                    except ViewRefused as error:
                        handle.refused = str(error)
                        self._add(model.name, handle)
                        _log.warning("live view refused: %s", error)
                        continue
                    taken.append(model.name)
                    handle.model, handle.plan, handle.refused = model, plan, ""
                    self._add(model.name, handle)
            finally:  # what was set up before the store failed is followed
                for stream, handles in behind.items():
                    self._follow(self._logs[stream], handles)

    def _add(self, name: str, handle: _Handle) -> None:
        """Makes a view known, once there is something to say of it. Who asks meanwhile goes through the old dict."""
        if name not in self._handles:
            self._handles = dict(sorted({**self._handles, name: handle}.items()))

    def _set_up(self, handle: _Handle, plan: MergePlan) -> bool:
        """Gives the handle what keeps its rows by this plan; whether there is anything new to follow."""
        log = self._logs[plan.description.stream]
        running = next((view for view in (handle.rebuilding, handle.serving) if view and not view.closed), None)
        if running is not None and running.plan.description.definition_hash == plan.description.definition_hash:
            # The same rows; what else the model says holds from now on, and what had stopped is tried again.
            running.plan = replace(plan, batch_columns=running.plan.batch_columns)
            follower = handle.rebuilder if running is handle.rebuilding else handle.follower
            if follower is not None and follower.has_stopped(running):
                follower.add(running)
            return follower is None  # the store failed when it was to be followed
        serving = handle.serving if running is not None else None
        if serving is not None and serving.plan.description.definition_hash == plan.description.definition_hash:
            self._end_rebuild(handle)  # back to what serves
            return False
        if serving is not None:
            self._begin_rebuild(handle, plan)
            return True
        view = set_up(plan, self._store, log, self._duck)
        if is_rebuilding(view):
            handle.rebuilding = view
            handle.serving = open_serving(view.name, self._store, self._logs, self._duck)
        else:
            handle.serving = view
        return True

    def _remove(self, name: str) -> None:
        handle = self._handles[name]
        for view in (handle.rebuilding, handle.serving):
            if view is not None:
                view.close()
        self._drop(name)
        self._handles = {other: each for other, each in self._handles.items() if other != name}

    def _drop(self, name: str) -> None:
        with self._store.write() as transaction:
            transaction.drop(name)
            transaction.drop(name + REBUILD)
            transaction.forget_reconciled(name)

    def _drop_unknown(self, *, keep_all: bool) -> None:
        """Drops what the store has of views that are in no manifest any more."""
        with self._store.read() as transaction:
            names = {name.removesuffix(REBUILD) for name in transaction.names()}
        for name in sorted(names - set(self._handles)):
            _log.warning("live view %s is not in the manifest: %s", name, "left alone" if keep_all else "dropped")
            if not keep_all:
                self._drop(name)

    def _begin_rebuild(self, handle: _Handle, plan: MergePlan) -> None:
        """A rebuild in place of one that is under way, which goes on when the store fails."""
        old = handle.rebuilding
        new = begin_rebuild(plan, self._store, self._logs[plan.description.stream], self._duck)
        if old is not None:
            old.close()
        handle.rebuilding, handle.rebuilder = new, None

    def _end_rebuild(self, handle: _Handle) -> None:
        if handle.rebuilding is not None:
            handle.rebuilding.close()
            with self._store.write() as transaction:
                transaction.drop(handle.rebuilding.name + REBUILD)
        handle.rebuilding, handle.rebuilder = None, None

    # Following.

    def _follow(self, log: LogLike, handles: list[_Handle]) -> None:
        """Views that are about equally far share a thread; the others join them once they have caught up."""
        stream = log.spec.stream
        main = self._main.get(stream)
        if main is None:
            main = self._main[stream] = Follower(log, [], self._clock, on_progress=self._notify)
            main.start()
        serving = [handle for handle in handles if handle.serving and handle.serving not in main.views]
        offsets = [view.offset for view in main.views] + [h.serving.offset for h in serving if h.serving]
        ahead = max(offsets, default=0)
        far = []
        for handle in serving:
            assert handle.serving is not None
            if handle.serving.offset + _CATCH_UP_ROWS < ahead:
                far.append(handle)
                continue
            handle.follower = main
            main.add(handle.serving)
        # Rebuilds are not mixed with those that are read meanwhile.
        for group in (far, [handle for handle in handles if handle.rebuilding and handle not in far]):
            self._rebuild(log, group)

    def _rebuild(self, log: LogLike, handles: list[_Handle]) -> None:
        """Starts a thread for views that are far behind."""
        if not handles:
            return
        views = [handle.rebuilding or handle.serving for handle in handles]
        follower = Follower(
            log,
            [view for view in views if view is not None],
            self._clock,
            on_progress=self._notify,
            on_round=self._join_main,
            rebuilds=all(handle.rebuilding for handle in handles),
        )
        for handle in handles:
            if handle.rebuilding is not None:
                handle.rebuilder = follower
            else:
                handle.follower = follower
        self._rebuilders = [each for each in self._rebuilders if each.is_alive()]
        self._rebuilders.append(follower)
        follower.start()

    def _join_main(self, follower: Follower) -> bool:
        """Lets views that have caught up join the others; whether none is left. Called by the follower's thread."""
        for view in follower.views:
            log = self._logs[view.plan.description.stream]
            if view.pending or view.offset < log.durable_offset or follower.stands(view):
                continue
            with self._changing:
                handle = self._handles.get(view.name)
                if view.closed or handle is None:
                    continue
                if handle.rebuilding is view and not self._swap(handle, view, log):
                    continue
                follower.remove(view)
                handle.follower = self._main[log.spec.stream]
                handle.follower.add(view)
            self._notify()
        return not follower.views

    def _swap(self, handle: _Handle, view: LiveView, log: LogLike) -> bool:
        """Puts a rebuilt view in place of the one that serves, which stands still until then; whether it succeeded."""
        old = handle.serving
        if old is None:
            swap_in(view, self._store)
        else:
            with old.lock:
                # Readers have seen what the old one covers: the new one must not be behind it.
                if view.offset < old.offset and not self._read_up_to(view, log, old.offset):
                    return False
                swap_in(view, self._store)
                old.close()
        handle.serving, handle.rebuilding, handle.rebuilder = view, None, None
        return True

    def _read_up_to(self, view: LiveView, log: LogLike, offset: int) -> bool:
        reader = log.reader(view.offset, view.plan.batch_columns)
        try:
            while view.offset < offset:
                view.apply(reader.read(_SWAP_ROWS, 0))
        except ViewStopped:
            return False  # its follower will find it too, and say so
        finally:
            reader.close()
        return True

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
        with self._store.read() as transaction:
            return [self._status(name, handle, transaction) for name, handle in self._handles.items()]

    def _status(self, name: str, handle: _Handle, transaction: ReadTransaction) -> ViewStatus:
        stored = transaction.load(name) if handle.plan else None
        if stored is None or handle.plan is None:
            return ViewStatus(name, ViewState.REFUSED, error=handle.error)
        description, at = stored.description, stored.checkpoint
        lag = max(0, self._logs[description.stream].durable_offset - at.offset)
        behind_ms = handle.follower.behind_ms(handle.serving) if handle.follower and handle.serving else 0
        return ViewStatus(
            view=name,
            state=handle.state,
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
            rebuild_offset=handle.rebuilding.offset if handle.rebuilding else None,
            definition_hash=description.definition_hash,
            columns=description.columns,
            sql=description.sql,
            bounds_sql=description.bounds_sql,
        )

    def streams(self) -> dict[str, str]:
        """The stream of every live model, by the model's name; "" for one that was refused."""
        handles = self._handles
        return {name: each.plan.description.stream if each.plan else "" for name, each in handles.items()}

    def positions(self) -> dict[str, ViewPosition]:
        """Where every view with a plan is, by name; asks no store."""
        found = {}
        for name, handle in self._handles.items():
            view = handle.serving or handle.rebuilding
            if view is not None:
                found[name] = ViewPosition(view.plan.description.stream, view.offset, handle.error)
        return found

    def place(self, view: str) -> tuple[str, int] | None:
        """Which of a view's rows readers see: their build, and the offset that they cover. Asks no store."""
        handle = self._handles.get(view)
        serving = None if handle is None else handle.serving
        return None if serving is None else (serving.build, serving.offset)

    def query(self, query: ViewQuery) -> ViewResult:
        """Reads a view's rows, as they are or as they were at a seal.

        Raises:
            UnknownView, ViewRefused: there is no such view, or its model cannot be one.
            BadRequest: a column, value or seal that does not exist.
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
        handle = self._handle(query.view)
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
        error = self._handle(query.view).error
        reason = f": {error}" if error else ""
        return ViewBehind(f"the view {query.view} has not reached {wanted} in {query.wait_s:g} s{reason}")

    def changes(self, watch: ViewWatch) -> ViewChanges | None:
        """What has changed in a view since `watch.resume`, or None; never waits, see `listen`.

        Raises UnknownView, ViewRefused; BadRequest for a column, value or `resume` that does not exist.
        """
        handle = self._handle(watch.view)
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
                raise UnknownView(query.view, list(self._handles))
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
        followers = [*self._main.values(), *self._rebuilders]
        for follower in followers:
            follower.stop()
        for follower in followers:
            follower.join(CLOSE_S_MAX)
        with self._progress:
            self._closed = True
            self._progress.notify_all()
        for handle in self._handles.values():
            for view in (handle.serving, handle.rebuilding):
                if view is not None:
                    view.close()
        self._duck.close()
        self._store.close()
