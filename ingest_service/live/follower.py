"""Reads one stream's log and gives it to views: one read and one decode for all of them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from ingest_service.clock import Clock
from ingest_service.errors import StorageError
from ingest_service.live.ahead import ReadAhead, count_rows
from ingest_service.live.feed import LogLike
from ingest_service.live.session import BULK_ROWS
from ingest_service.live.view import LiveView, TakeAgain, ViewStopped
from ingest_service.log.records import Entry, Seal

ROWS_MAX = 500_000
"""Rows of one micro-batch, about, at the most: it grows under load up to this, so that its fixed cost is shared."""
PENDING_MAX = 4_000_000
"""Rows of states, about as many as groups, that a view keeps back at the most before it commits."""
POLL_S = 0.2
"""How long a read waits for entries, and so how long closing waits for a read."""
_COMMIT_S, _COMMIT_REBUILD_S = 1.0, 10.0  # how long a view that is behind keeps rows back, at the least,
_COMMIT_SHARE = 8  # and how many times as long as committing them takes
_WINDOWS_S, _EXPIRE_S = 1.0, 10.0  # how often an idle stream's windows are closed, and how often old ones may leave
_RETRY_FIRST_S, _RETRY_MAX_S = 0.2, 10.0
_SAMPLES_MAX = 1_000

_log = logging.getLogger(__name__)


class Follower(threading.Thread):
    """One thread that follows one log for some views, until it is stopped or `on_round` says that it is done.

    While few rows come at a time each micro-batch is committed at once; while many do, several are kept back and
    committed together. A view that fails for good is left out, with its reason in `errors`; one whose store failed is
    tried again from its checkpoint, with a growing pause. Neither holds up the others. Views may be added, retried and
    closed at any time from any thread; a closed one is left out.
    """

    def __init__(
        self,
        log: LogLike,
        views: Sequence[LiveView],
        clock: Clock,
        *,
        on_progress: Callable[[], None],
        on_round: Callable[[Follower], bool] = lambda _: False,
        rebuilds: bool = False,
    ) -> None:
        """`on_progress` is called after commits, `on_round` after each read: when it says True the thread ends.

        rebuilds: nobody reads what these views commit, so they may commit seldom.
        """
        super().__init__(name=f"live-{log.spec.stream}", daemon=True)
        self._source = log
        self._clock = clock
        self._on_progress = on_progress
        self._on_round = on_round
        self._commit_s = _COMMIT_REBUILD_S if rebuilds else _COMMIT_S
        self._stop_asked = threading.Event()
        self._lock = threading.Lock()
        self._added = list(views)
        self._views: list[LiveView] = []
        self._stopped: set[LiveView] = set()  # views that failed for good
        self._waiting: set[LiveView] = set()  # views whose store or log failed; they are tried again at _retry_at_s
        self._retry_at_s = 0.0
        self._retry_s = _RETRY_FIRST_S
        self._committed_s = self._windows_s = self._expired_s = clock.monotonic_s()
        self._commit_took_s = 0.0
        self._samples: deque[tuple[int, float]] = deque()  # durable offsets, each with when it was first seen
        self.errors: dict[LiveView, str] = {}
        """Why a view stands still."""

    @property
    def views(self) -> list[LiveView]:
        """The views that it follows for, those that stand still included."""
        with self._lock:
            return [view for view in [*self._views, *self._added] if not view.closed]

    def add(self, view: LiveView) -> None:
        """Takes on a view, from its checkpoint on; one that has stopped is tried again."""
        with self._lock:
            self._stopped.discard(view)
            self.errors.pop(view, None)
            if view not in self._added:
                self._added.append(view)

    def remove(self, view: LiveView) -> None:
        """Leaves a view to another follower."""
        with self._lock:
            for views in (self._views, self._added):
                if view in views:
                    views.remove(view)
            self.errors.pop(view, None)

    def has_stopped(self, view: LiveView) -> bool:
        """Whether a view has failed for good."""
        return view in self._stopped

    def stands(self, view: LiveView) -> bool:
        """Whether a view has failed, for good or until its next try."""
        return view in self._stopped or view in self._waiting

    def behind_ms(self, view: LiveView) -> int:
        """For how long rows have been durable that the view does not cover."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            seen = next((at_s for offset, at_s in self._samples if offset > view.offset), now_s)
        return max(0, round(1000 * (now_s - seen)))

    def stop(self) -> None:
        """Asks the thread to end, which it does within POLL_S and the micro-batch at hand."""
        self._stop_asked.set()

    def run(self) -> None:
        """Follows; each pass of the loop opens a reader at the lowest checkpoint of the views that can go on."""
        while not self._stop_asked.is_set():
            if self._must_reopen():
                self._try_again()
            if self._follow(self._active()):
                return

    def _try_again(self) -> None:
        """Lets waiting views go on from what the store has of them: a commit may have been made that seemed to fail."""
        waiting, self._waiting = self._waiting, set()
        for view in waiting:
            self._try(view, LiveView.reload)

    def _active(self) -> list[LiveView]:
        with self._lock:
            self._views += [view for view in self._added if view not in self._views]
            self._added = []
            self._views = [view for view in self._views if not view.closed]
            return [view for view in self._views if view not in self._stopped | self._waiting]

    def _follow(self, views: list[LiveView]) -> bool:
        """Reads until the set of views or a checkpoint has changed; True when the thread's work is done."""
        needed = {name for view in views for name in view.plan.batch_columns}
        try:
            if not views:
                self._stop_asked.wait(POLL_S)
                return self._on_round(self)
            columns = [name for name in self._source.schema.names if name in needed]
            reader = ReadAhead(self._source.reader(min(view.offset for view in views), columns), ROWS_MAX)
            try:
                while not (self._stop_asked.is_set() or self._must_reopen()):
                    kept_back = any(view.pending for view in views)
                    entries = reader.read(0 if kept_back else POLL_S)
                    self._take_sample(views)
                    if not self._give(views, entries):
                        return False
                    self._look_after(views, idle=not entries)
                    if self._on_round(self):
                        return True
            finally:
                reader.close()
        except Exception as error:  # noqa: BLE001 - whatever the log does, the views' status must say so
            if not self._stop_asked.is_set():  # a log that is closed while its readers stop is no fault
                _log.warning("the log of stream %s cannot be followed: %s", self._source.spec.stream, error)
                for view in views or self.views:
                    where = "" if isinstance(error, StorageError) else f"the log cannot be read from {view.offset} on: "
                    self._wait_for(view, f"{where}{error}")
                self._on_progress()
        return False

    def _give(self, views: list[LiveView], entries: list[Entry]) -> bool:
        """Gives entries to the views, or lets them commit when none came; False when one wants to read again."""
        in_bulk = count_rows(entries) >= BULK_ROWS
        if not entries:
            return self._commit(views)
        # All of them take the entries before any is read for again.
        took = [self._try(view, self._take, entries, in_bulk) for view in views]
        if not all(took):
            return False
        if any(isinstance(entry, Seal) for entry in entries):
            # No view's offset moved by it, but copies were made, and somebody may wait for one.
            self._on_progress()
        kept_back_s = self._clock.monotonic_s() - self._committed_s
        if in_bulk and kept_back_s >= max(self._commit_s, _COMMIT_SHARE * self._commit_took_s):
            return self._commit(views)
        return True

    @staticmethod
    def _take(view: LiveView, entries: list[Entry], in_bulk: bool) -> None:
        if in_bulk:
            view.absorb(entries)
            if view.pending > PENDING_MAX:
                view.commit()
        else:
            view.apply(entries)

    def _commit(self, views: list[LiveView]) -> bool:
        begun_s = self._clock.monotonic_s()
        committed = [self._try(view, LiveView.commit) for view in views if view.reached != view.checkpoint]
        self._committed_s = self._clock.monotonic_s()
        self._commit_took_s = self._committed_s - begun_s
        return all(committed)

    def _try(self, view: LiveView, work: Callable[..., None], *arguments: object) -> bool:
        """Lets a view do its work, unless it stands still; False when it wants to read again from its checkpoint."""
        if view in self._stopped or view in self._waiting:
            return True
        try:
            before = view.offset
            work(view, *arguments)
        except TakeAgain:
            return False
        except StorageError as error:
            self._wait_for(view, str(error))
        except Exception as error:  # noqa: BLE001 - one view's fault must not stop the others
            text = str(error) if isinstance(error, ViewStopped) else f"stopped at offset {view.offset}: {error!r}"
            _log.warning("live view %s: %s", view.name, text)
            self._stopped.add(view)
            self.errors[view] = text
            self._on_progress()
        else:
            self._retry_s = _RETRY_FIRST_S
            self.errors.pop(view, None)
            if view.offset != before:
                self._on_progress()
        return True

    def _look_after(self, views: list[LiveView], *, idle: bool) -> None:
        """Closes an idle stream's windows by the wall clock, and lets old ones leave."""
        now_s = self._clock.monotonic_s()
        if idle and now_s - self._windows_s >= _WINDOWS_S:
            self._windows_s = now_s
            watermark_us = self._source.watermark_us
            for view in views:
                if watermark_us is not None and view.offset >= self._source.durable_offset:
                    self._try(view, self._close_windows, watermark_us)
        if now_s - self._expired_s >= _EXPIRE_S:
            self._expired_s = now_s
            for view in views:
                self._try(view, self._expire)

    def _close_windows(self, view: LiveView, watermark_us: int) -> None:
        if view.close_windows(watermark_us):
            self._on_progress()

    @staticmethod
    def _expire(view: LiveView) -> None:
        if view.expire():
            _log.info("live view %s: windows of dates that were reconciled have left it", view.name)

    def _take_sample(self, views: list[LiveView]) -> None:
        durable, lowest = self._source.durable_offset, min(view.offset for view in views)
        with self._lock:
            while self._samples and self._samples[0][0] <= lowest:
                self._samples.popleft()
            last = self._samples[-1][0] if self._samples else lowest
            if durable > last and len(self._samples) < _SAMPLES_MAX:
                self._samples.append((durable, self._clock.monotonic_s()))

    def _wait_for(self, view: LiveView, reason: str) -> None:
        """Leaves a view out until its next try."""
        if not self._waiting:
            self._retry_at_s = self._clock.monotonic_s() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _RETRY_MAX_S)
        self._waiting.add(view)
        self.errors[view] = reason

    def _must_reopen(self) -> bool:
        """Whether a view is to be read for from another place: one that was added, or one that is tried again."""
        return bool(self._added) or (bool(self._waiting) and self._clock.monotonic_s() >= self._retry_at_s)
