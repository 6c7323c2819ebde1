"""Which live views there are, what keeps the rows of each, and who follows the log for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ingest_service.clock import Clock
from ingest_service.errors import UnknownView, ViewRefused
from ingest_service.live.feed import LogLike
from ingest_service.live.follower import Follower
from ingest_service.live.lifecycle import begin_rebuild, is_rebuilding, open_serving, set_up, swap_in
from ingest_service.live.manifest import LiveModel
from ingest_service.live.plan import MergePlan, plan_view
from ingest_service.live.status import Change, ViewChange, ViewState
from ingest_service.live.store import Store
from ingest_service.live.tables import REBUILD, check_names
from ingest_service.live.view import LiveView, ViewStopped

CLOSE_S_MAX = 30.0
"""How long `close` waits for a thread; a micro-batch and its commit take far less."""
_CATCH_UP_ROWS = 1_000_000  # a view that is further behind the others catches up on a thread beside theirs
_SWAP_ROWS = 100_000

_log = logging.getLogger(__name__)


@dataclass
class Handle:
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


class Roster:
    """The live models in force, by name; thread-safe. A model that cannot be a live view stops nothing else."""

    def __init__(
        self, store: Store, logs: Mapping[str, LogLike], duck: Any, clock: Clock, notify: Callable[[], None]
    ) -> None:
        """`duck` plans; `notify` is called when a view has come further, or when there are others than before."""
        self._store = store
        self._logs = logs
        self._duck = duck
        self._clock = clock
        self._notify = notify
        self._changing = threading.RLock()  # one manifest, rebuild or swap at a time
        self.handles: dict[str, Handle] = {}
        """By name, in its order; another dict whenever a view comes or goes."""
        self._main: dict[str, Follower] = {}  # by stream: the thread of all views that are up to date, or nearly
        self._rebuilders: list[Follower] = []

    def check(self, models: Sequence[LiveModel]) -> list[ViewChange]:
        """What `apply` would do."""
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

    def apply(self, models: Sequence[LiveModel]) -> list[ViewChange]:
        """Puts other models in force: views are added, rebuilt and removed while the others go on.

        Raises StorageError when the store failed: what was done by then holds, and applying them again does the rest.
        """
        with self._changing:
            found = self.check(models)
            for name in self._without(models):
                self._remove(name)
            self.put(models)
        self._notify()
        return found

    def rebuild(self, view: str) -> None:
        """Makes a view's rows again from the first event on, in tables of their own, which are swapped in when they
        have caught up. A rebuild that is under way begins again.

        Raises UnknownView, ViewRefused.
        """
        with self._changing:
            handle = self.handle(view)
            assert handle.plan is not None
            self._begin_rebuild(handle, handle.plan)
            self._rebuild(self._logs[handle.plan.description.stream], [handle])
        self._notify()

    def handle(self, view: str) -> Handle:
        """The view's; raises UnknownView, ViewRefused."""
        handle = self.handles.get(view)
        if handle is None:
            raise UnknownView(view, list(self.handles))
        if handle.plan is None:
            raise ViewRefused(handle.refused)
        return handle

    def _plan(self, model: LiveModel, others: Sequence[str]) -> MergePlan:
        plan = plan_view(model, self._logs, self._duck)
        check_names(plan.description, model.path, others)
        return plan

    def _change(self, plan: MergePlan) -> Change:
        handle = self.handles.get(plan.description.view)
        if handle is None or handle.plan is None:
            return Change.ADDED
        same = handle.plan.description.definition_hash == plan.description.definition_hash
        return Change.SAME if same else Change.CHANGED

    def _without(self, models: Sequence[LiveModel]) -> list[str]:
        names = {model.name for model in models}
        return [name for name in self.handles if name not in names]

    def put(self, models: Sequence[LiveModel]) -> None:
        """1 Plan. 2 Find or make the tables. 3 Follow: one thread a stream, and another one for those far behind."""
        taken: list[str] = []
        behind: dict[str, list[Handle]] = {}
        with self._changing:
            try:
                for model in models:
                    handle = self.handles.get(model.name) or Handle(model)
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

    def _add(self, name: str, handle: Handle) -> None:
        """Makes a view known, once there is something to say of it. Who asks meanwhile goes through the old dict."""
        if name not in self.handles:
            self.handles = dict(sorted({**self.handles, name: handle}.items()))

    def _set_up(self, handle: Handle, plan: MergePlan) -> bool:
        """Gives the handle what keeps its rows by this plan; whether there is anything new to follow."""
        log = self._logs[plan.description.stream]
        if handle.rebuilding is not None and handle.rebuilding.closed:
            handle.rebuilding = handle.rebuilder = None  # the store has lost its rows
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
        handle = self.handles[name]
        for view in (handle.rebuilding, handle.serving):
            if view is not None:
                view.close()
        self._drop(name)
        self.handles = {other: each for other, each in self.handles.items() if other != name}

    def _drop(self, name: str) -> None:
        with self._store.write() as transaction:
            transaction.drop(name)
            transaction.drop(name + REBUILD)
            transaction.forget_reconciled(name)

    def drop_unknown(self, *, keep_all: bool) -> None:
        """Drops what the store has of views that are in no manifest any more."""
        with self._store.read() as transaction:
            names = {name.removesuffix(REBUILD) for name in transaction.names()}
        for name in sorted(names - set(self.handles)):
            _log.warning("live view %s is not in the manifest: %s", name, "left alone" if keep_all else "dropped")
            if not keep_all:
                self._drop(name)

    def _begin_rebuild(self, handle: Handle, plan: MergePlan) -> None:
        """A rebuild in place of one that is under way, which goes on when the store fails."""
        old = handle.rebuilding
        new = begin_rebuild(plan, self._store, self._logs[plan.description.stream], self._duck)
        if old is not None:
            old.close()
        handle.rebuilding, handle.rebuilder = new, None

    def _end_rebuild(self, handle: Handle) -> None:
        if handle.rebuilding is not None:
            handle.rebuilding.close()
            with self._store.write() as transaction:
                transaction.drop(handle.rebuilding.name + REBUILD)
        handle.rebuilding, handle.rebuilder = None, None

    # Following.

    def _follow(self, log: LogLike, handles: list[Handle]) -> None:
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

    def _rebuild(self, log: LogLike, handles: list[Handle]) -> None:
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
                handle = self.handles.get(view.name)
                if view.closed or handle is None:
                    continue
                if handle.rebuilding is view and not self._swap(handle, view, log):
                    continue
                follower.remove(view)
                handle.follower = self._main[log.spec.stream]
                handle.follower.add(view)
            self._notify()
        return not follower.views

    def _swap(self, handle: Handle, view: LiveView, log: LogLike) -> bool:
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

    def close(self) -> None:
        """Stops following, and lets go of threads and views; takes CLOSE_S_MAX at the most a thread."""
        followers = [*self._main.values(), *self._rebuilders]
        for follower in followers:
            follower.stop()
        for follower in followers:
            follower.join(CLOSE_S_MAX)
        for handle in self.handles.values():
            for view in (handle.serving, handle.rebuilding):
                if view is not None:
                    view.close()
