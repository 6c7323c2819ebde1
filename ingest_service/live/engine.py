"""All live views of a service: opens them, keeps them following, answers questions about them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest_service.clock import Clock, SystemClock
from ingest_service.errors import BadRequest, UnknownView, ViewBehind, ViewRefused
from ingest_service.live.duck import open_duck
from ingest_service.live.feed import LogLike
from ingest_service.live.follower import Follower
from ingest_service.live.lifecycle import is_rebuilding, set_up, swap_in
from ingest_service.live.manifest import LiveModel, read_manifest
from ingest_service.live.plan import MergePlan, plan_view
from ingest_service.live.query import RowReader, ViewQuery, ViewResult
from ingest_service.live.status import ViewPosition, ViewStatus
from ingest_service.live.store import ReadTransaction, Store
from ingest_service.live.tables import check_names
from ingest_service.live.view import DISTINCT_VALUES_MAX, LiveView

CLOSE_S_MAX = 30.0
"""How long `close` waits for a thread; a micro-batch and its commit take far less."""
_CATCH_UP_ROWS = 1_000_000  # a view that is further behind the others catches up on a thread of its own


@dataclass
class _Handle:
    """One live model: its plan, or the reason why it has none, and who follows the log for it."""

    model: LiveModel
    plan: MergePlan | None = None
    refused: str = ""
    follower: Follower | None = None

    @property
    def error(self) -> str:
        """Why the view stands still, or ""."""
        return self.refused or (self.follower.errors.get(self.model.name, "") if self.follower else "")


class LiveViews:
    """The live views of a manifest; thread-safe. `open` starts them, `close` ends them."""

    def __init__(
        self,
        models: Sequence[LiveModel],
        store: Store,
        logs: Mapping[str, LogLike],
        clock: Clock,
        distinct_values_max: int,
    ) -> None:
        self._store = store
        self._logs = logs
        self._clock = clock
        self._distinct_values_max = distinct_values_max
        self._duck = open_duck()
        self._duck_lock = threading.Lock()  # a connection makes its cursors one at a time
        self._progress = threading.Condition()
        self._commits = 0  # counted up with every commit, so that a waiting query looks again
        self._handles = {model.name: _Handle(model) for model in models}
        self._views: list[LiveView] = []
        self._followers: list[Follower] = []
        self._closed = False

    @classmethod
    def open(
        cls,
        manifest: Path | None,
        store_url: str,
        logs: Mapping[str, LogLike],
        *,
        clock: Clock | None = None,
        distinct_values_max: int = DISTINCT_VALUES_MAX,
    ) -> LiveViews:
        """Opens the views of a dbt manifest (None: no views) over streams' logs, by stream name, and lets them follow.

        A model that cannot be a live view is in `status` with the reason; it stops nothing else.

        Raises:
            ConfigError: no manifest, no compiled SQL in it, or a store URL that cannot be used.
            StorageError: the store does not open.
        """
        models = read_manifest(manifest) if manifest is not None else []
        views = cls(models, Store(store_url), logs, clock or SystemClock(), distinct_values_max)
        try:
            views._start()
        except BaseException:
            views.close()
            raise
        return views

    def _start(self) -> None:
        """1 Plan. 2 Find or make the tables. 3 Follow: one thread a stream, and one for each view far behind."""
        by_stream: dict[str, list[LiveView]] = {}
        for handle in self._handles.values():
            try:
                plan = plan_view(handle.model, self._logs, self._duck)
                accepted = [name for name, other in self._handles.items() if other.plan is not None]
                check_names(plan.description, handle.model.path, accepted)
                log = self._logs[plan.description.stream]
                view = set_up(plan, handle.model.path, self._store, log, self._duck, self._distinct_values_max)
            except ViewRefused as error:
                handle.refused = str(error)
                continue
            handle.plan = plan
            self._views.append(view)
            by_stream.setdefault(plan.description.stream, []).append(view)
        for stream, views in by_stream.items():
            self._follow(self._logs[stream], views)
        for follower in list(self._followers):
            follower.start()

    def _follow(self, log: LogLike, views: list[LiveView]) -> None:
        """Views that are about equally far share a thread; the others join them once they have caught up."""
        ahead = max((view.offset for view in views if not is_rebuilding(view)), default=0)
        near = [view for view in views if not is_rebuilding(view) and view.offset + _CATCH_UP_ROWS >= ahead]
        main = Follower(log, near, self._clock, on_progress=self._notify)
        self._followers.append(main)
        for view in near:
            self._handles[view.name].follower = main
        for view in views:
            if view not in near:
                self._catch_up(log, view, main)

    def _catch_up(self, log: LogLike, view: LiveView, main: Follower) -> None:
        handle = self._handles[view.name]

        def caught_up() -> bool:
            if view.offset < log.durable_offset or follower.errors:
                return False
            if is_rebuilding(view):
                swap_in(view, self._store)
            handle.follower = main
            main.add(view)
            self._notify()
            return True

        follower = Follower(log, [view], self._clock, on_progress=self._notify, on_round=caught_up)
        handle.follower = follower
        self._followers.append(follower)

    def _notify(self) -> None:
        with self._progress:
            self._commits += 1
            self._progress.notify_all()

    def status(self) -> list[ViewStatus]:
        """Every live model of the manifest, by name; those that were refused with their reason."""
        with self._store.read() as transaction:
            return [self._status(name, handle, transaction) for name, handle in self._handles.items()]

    def _status(self, name: str, handle: _Handle, transaction: ReadTransaction) -> ViewStatus:
        stored = transaction.load(name) if handle.plan else None
        if stored is None:
            return ViewStatus(name, error=handle.error)
        description, offset = stored.description, stored.checkpoint.offset
        return ViewStatus(
            view=name,
            stream=description.stream,
            offset=offset,
            lag=max(0, self._logs[description.stream].durable_offset - offset),
            rows=transaction.count(name),
            group_columns=description.group_columns,
            window_column=description.window_column,
            error=handle.error,
            definition_hash=description.definition_hash,
            columns=description.columns,
        )

    def streams(self) -> dict[str, str]:
        """The stream of every live model, by the model's name; "" for one that was refused."""
        return {name: each.plan.description.stream if each.plan else "" for name, each in self._handles.items()}

    def positions(self) -> dict[str, ViewPosition]:
        """Where every view with a plan is, by name; asks no store."""
        handles = self._handles
        return {
            view.name: ViewPosition(view.plan.description.stream, view.offset, handles[view.name].error)
            for view in self._views
        }

    def query(self, query: ViewQuery) -> ViewResult:
        """Reads a view's rows, as they are or as they were at a seal.

        Raises:
            UnknownView, ViewRefused: there is no such view, or its model cannot be one.
            BadRequest: a column, value or seal that does not exist.
            ViewBehind: the view did not reach `after_offset`, or the seal, within `wait_s`.
        """
        handle = self._handles.get(query.view)
        if handle is None:
            raise UnknownView(query.view, list(self._handles))
        if handle.refused:
            raise ViewRefused(handle.refused)
        deadline_s = self._clock.monotonic_s() + query.wait_s
        while True:
            commits = self._commits
            result = self._read(query)
            if result is not None:
                return result
            self._wait(query, handle, commits, deadline_s)

    def _read(self, query: ViewQuery) -> ViewResult | None:
        """The answer, or None when the view is not there yet. Rows and checkpoint are read in one transaction."""
        with self._store.read() as transaction:
            stored = transaction.load(query.view)
            assert stored is not None, "a planned view has a checkpoint"
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
            with self._duck_lock:
                duck = self._duck.cursor()
            try:
                table = RowReader(query, stored.description, duck).read(transaction)
            finally:
                duck.close()
        columns = stored.description.columns
        if sealed:
            return ViewResult(columns, table, sealed.seal_offset, None)
        return ViewResult(columns, table, offset, stored.checkpoint.watermark_us)

    def _wait(self, query: ViewQuery, handle: _Handle, commits: int, deadline_s: float) -> None:
        """Waits for the next commit of any view; ViewBehind when it cannot help any more."""
        wanted = f"offset {query.after_offset}"
        if query.sealed:
            wanted = f"the seal at offset {query.sealed.seal_offset}"
        remaining_s = deadline_s - self._clock.monotonic_s()
        stopped = handle.follower is not None and handle.follower.has_stopped(query.view)
        if stopped or self._closed or remaining_s <= 0:
            reason = f": {handle.error}" if handle.error else ""
            raise ViewBehind(f"the view {query.view} has not reached {wanted} in {query.wait_s:g} s{reason}")
        with self._progress:
            self._progress.wait_for(lambda: self._commits != commits or self._closed, timeout=remaining_s)

    def close(self) -> None:
        """Stops following and lets go of threads, connections and store; takes CLOSE_S_MAX at the most a thread."""
        for follower in self._followers:
            follower.stop()
        for follower in self._followers:
            if follower.is_alive():
                follower.join(CLOSE_S_MAX)
        with self._progress:
            self._closed = True
            self._progress.notify_all()
        for view in self._views:
            view.close()
        self._duck.close()
        self._store.close()
