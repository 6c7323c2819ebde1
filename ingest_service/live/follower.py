"""Reads one stream's log and gives it to views: one read and one decode for all of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from ingest_service.clock import Clock
from ingest_service.errors import StorageError
from ingest_service.live.feed import LogLike
from ingest_service.live.view import LiveView, ViewStopped
from ingest_service.log.records import Entry

ROWS_MAX = 200_000
"""Rows of one micro-batch, about, at the most: it grows under load up to this, so that its fixed cost is shared."""
POLL_S = 0.2  # how long a read waits for entries, and so how long closing waits for a read
_RETRY_FIRST_S, _RETRY_MAX_S = 0.2, 10.0

_log = logging.getLogger(__name__)


class Follower(threading.Thread):
    """One thread that follows one log for some views, until it is stopped or `on_round` says that it is done.

    A view that fails for good is left out, with its reason in `errors`; one whose store failed is tried again from its
    checkpoint, with a growing pause. Neither holds up the others. Views may be added at any time from any thread.
    """

    def __init__(
        self,
        log: LogLike,
        views: Sequence[LiveView],
        clock: Clock,
        *,
        on_progress: Callable[[], None],
        on_round: Callable[[], bool] = lambda: False,
    ) -> None:
        """`on_progress` is called after commits, `on_round` after each read: when it says True the thread ends."""
        super().__init__(name=f"live-{log.spec.stream}", daemon=True)
        self._source = log
        self._clock = clock
        self._on_progress = on_progress
        self._on_round = on_round
        self._stop_asked = threading.Event()
        self._lock = threading.Lock()
        self._added = list(views)
        self._views: list[LiveView] = []
        self._stopped: set[str] = set()  # views that failed for good
        self._waiting: set[str] = set()  # views whose store or log failed; they are tried again at _retry_at_s
        self._retry_at_s = 0.0
        self._retry_s = _RETRY_FIRST_S
        self.errors: dict[str, str] = {}
        """Why a view stands still, by its name."""

    def add(self, view: LiveView) -> None:
        """Takes on a view that has been followed elsewhere, from its checkpoint on."""
        with self._lock:
            self._added.append(view)

    def has_stopped(self, view: str) -> bool:
        """Whether a view has failed for good."""
        return view in self._stopped

    def stop(self) -> None:
        """Asks the thread to end, which it does within POLL_S and the micro-batch at hand."""
        self._stop_asked.set()

    def run(self) -> None:
        """Follows; each pass of the loop opens a reader at the lowest checkpoint of the views that can go on."""
        while not self._stop_asked.is_set():
            if self._must_reopen():
                self._waiting.clear()
            self._take_added()
            if self._follow([view for view in self._views if view.name not in self._stopped | self._waiting]):
                return

    def _follow(self, views: list[LiveView]) -> bool:
        """Reads until the set of views or a checkpoint has changed; True when the thread's work is done."""
        if not views:
            self._stop_asked.wait(POLL_S)
            return self._on_round()
        try:
            reader = self._source.reader(min(view.offset for view in views))
            try:
                while not (self._stop_asked.is_set() or self._must_reopen()):
                    entries = reader.read(ROWS_MAX, POLL_S)
                    if entries:
                        self._give(views, entries)
                        self._on_progress()
                    if self._on_round():
                        return True
            finally:
                reader.close()
        except Exception as error:  # noqa: BLE001 - whatever the log does, the views' status must say so
            if not self._stop_asked.is_set():  # a log that is closed while its readers stop is no fault
                _log.warning("the log of stream %s cannot be followed: %s", self._source.spec.stream, error)
                for view in views:
                    where = "" if isinstance(error, StorageError) else f"the log cannot be read from {view.offset} on: "
                    self._wait_for(view, f"{where}{error}")
                self._on_progress()
        return False

    def _give(self, views: list[LiveView], entries: list[Entry]) -> None:
        for view in views:
            if view.name in self._stopped or view.name in self._waiting:
                continue
            try:
                view.apply(entries)
            except StorageError as error:
                self._wait_for(view, str(error))
            except Exception as error:  # noqa: BLE001 - one view's fault must not stop the others
                text = str(error) if isinstance(error, ViewStopped) else f"stopped at offset {view.offset}: {error!r}"
                _log.warning("live view %s: %s", view.name, text)
                self._stopped.add(view.name)
                self.errors[view.name] = text
            else:
                self._retry_s = _RETRY_FIRST_S
                self.errors.pop(view.name, None)

    def _wait_for(self, view: LiveView, reason: str) -> None:
        """Leaves a view out until its next try."""
        if not self._waiting:
            self._retry_at_s = self._clock.monotonic_s() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _RETRY_MAX_S)
        self._waiting.add(view.name)
        self.errors[view.name] = reason

    def _must_reopen(self) -> bool:
        """Whether a view is to be read for from another place: one that was added, or one that is tried again."""
        return bool(self._added) or (bool(self._waiting) and self._clock.monotonic_s() >= self._retry_at_s)

    def _take_added(self) -> None:
        with self._lock:
            self._views += self._added
            self._added = []
