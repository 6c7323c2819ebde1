"""Watching a live view: its changes as they are committed."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tidemill.client.lasting import LastingCall
from tidemill.client.rows import Rows
from tidemill.v1 import views_pb2

_SHOWN_ROWS = 10


class ViewChange(Rows):
    """Rows of a view that changed, as they are now: iterate over them, or take them as dicts, Arrow or pandas.

    A change of many rows comes in several of these, one after another; `complete` says of the last one that it is.
    """

    def __init__(self, response: views_pb2.WatchViewResponse, before: str) -> None:
        """before: the place that the changes before this one end at."""
        super().__init__(response)
        self._complete, self._reset = bool(response.resume), response.reset
        self._resume = response.resume or before

    @property
    def resume(self) -> str:
        """Where a later `watch` goes on (`resume=`) without losing anything; "": it begins anew.

        Until a change is complete that is the place in front of it: its rows come once more then.
        """
        return self._resume

    @property
    def reset(self) -> bool:
        """Whether to forget all rows from before: the view consists of this change (after a rebuild, and at first)."""
        return self._reset

    @property
    def complete(self) -> bool:
        """Whether nothing more of this change follows: the rows told so far are the view's at `offset`."""
        return self._complete

    def __repr__(self) -> str:
        rows = self.rows()
        shown = ", ".join(str(row) for row in rows[:_SHOWN_ROWS])
        more = f", and {len(rows) - _SHOWN_ROWS} more" if len(rows) > _SHOWN_ROWS else ""
        return f"ViewChange(offset={self.offset}, reset={self.reset}, rows=[{shown}{more}])"


class Watch:
    """The changes of a live view as they are committed; made by `View.watch`.

    Iterate over it, from one thread at a time: it has no end but `close`. Each committed change comes at least once,
    and none is lost: a connection that is lost is made again, and the watch goes on behind the last complete change;
    only when that fails for `retry_for_s` seconds is ServiceUnavailable raised. To whoever iterates slowly, changes of
    the same row come as one. As a context manager it closes itself.
    """

    def __init__(
        self,
        watch: Callable[[views_pb2.WatchViewRequest], Any],
        request: views_pb2.WatchViewRequest,
        address: str,
        retry_for_s: float,
    ) -> None:
        self._request = request
        self._call: LastingCall[views_pb2.WatchViewResponse] = LastingCall(
            lambda: watch(self._request), address, retry_for_s
        )

    @property
    def resume(self) -> str:
        """Where a later watch goes on behind the last complete change that was given."""
        return self._request.resume

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ViewChange:
        change = self.take()
        if change is None:
            raise StopIteration
        return change

    def take(self) -> ViewChange | None:
        """The next change; None at the end."""
        while (response := self._call.next()) is not None:
            change = ViewChange(response, self.resume)
            if response.resume:
                # A copy: the call before may not have sent its own yet.
                again = views_pb2.WatchViewRequest()
                again.CopyFrom(self._request)
                again.resume = response.resume
                self._request = again
            if len(change) or change.reset:
                return change
        return None

    def close(self) -> None:
        """End the call; from any thread. Whoever waits for the next change gets to the end."""
        self._call.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
