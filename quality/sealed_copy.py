"""Asks the service for a view's sealed copy, together with the definition that the copy is of.

A view that is rebuilt, because its definition or a seed has changed or because somebody asked for it, serves its old
rows until the new ones take their place. Their sealed copy would be compared with a model of another definition, so it
is waited for the new ones, whose rebuild makes the copy of each seal anew.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from quality.reconcile import has_expired
from quality.run import Run

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill import Client, RequestRefused, ViewStatus

REBUILD_WAIT_S = 600.0
"""How long a run waits for views that are being made anew, in all, in seconds; then it fails, and may be repeated."""
PART_ROWS = 250_000
"""How many rows of a copy are asked for at once, when it is more than one answer holds."""
_TOO_LARGE = "MiB, more than"
_POLL_S = 1.0
_SEALED_WAIT_S_MAX = 300.0  # the longest that the service lets a query wait
_TAKE_ATTEMPTS = 5


class NotComparable(Exception):
    """A view has no sealed copy that could be compared; `retryable` says whether time alone can help."""

    def __init__(self, message: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class SealedCopies:
    """The copies of one run's seals. One deadline for all views: a second one does not wait as long again."""

    def __init__(
        self,
        client: Client,
        run: Run,
        *,
        wait_s: float = REBUILD_WAIT_S,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._run = run
        self._wait_s = wait_s
        self._now_s = now_s
        self._sleep = sleep
        self._deadline_s = now_s() + wait_s

    def take(self, view: str) -> tuple[ViewStatus, pa.Table | None]:
        """Give the status that describes the view's columns, and its copy of the run's seal.

        None instead of a copy: all windows of the run's dates have left the live table, and such copies with them.
        Raises NotComparable when the view stands still, is still rebuilt at the deadline, or has no such copy;
        ServiceBusy when it does not come as far as the seal.
        """
        status = self._settled(view)
        for _ in range(_TAKE_ATTEMPTS):
            if has_expired(status, self._run.end):
                return status, None
            missing: NotComparable | None = None
            try:
                table = self._copy(status)
            except NotComparable as error:
                missing = error
            after = self._settled(view)
            # Equal before and after: nothing else took the rows' place in between, and none of them left.
            if _what_rows_are_of(after) == _what_rows_are_of(status):
                if missing is not None:
                    raise missing
                return after, table
            status = after
        raise NotComparable(f"{view} changes its definition again and again: reconcile once it follows", retryable=True)

    def _settled(self, view: str) -> ViewStatus:
        """Give the view's status once it is not being rebuilt."""
        from tidemill import NotFound, ViewState

        while True:
            try:
                status = self._client.view(view).status()
            except NotFound as error:
                raise NotComparable(
                    f"{view} is a live model of the project that was built, but no live view of the service: apply "
                    "the project (tidemill view apply), then reconcile"
                ) from error
            if status.error:
                # What stopped or was refused stays so; a store that failed is tried again by the service itself.
                stays = {ViewState.STOPPED: "stands still", ViewState.REFUSED: "is refused"}
                what = stays.get(status.state, "is not as it should be")
                raise NotComparable(f"{view} {what}: {status.error}", retryable=status.state not in stays)
            if status.state != ViewState.REBUILDING:
                return status
            if self._now_s() >= self._deadline_s:
                raise NotComparable(
                    f"{view} is being rebuilt, and has come to offset {status.rebuild_offset or 0:,} after waiting for "
                    f"{self._wait_s:g} s: reconcile again once it follows (tidemill view list)",
                    retryable=True,
                )
            self._sleep(_POLL_S)

    def _copy(self, status: ViewStatus) -> pa.Table:
        from tidemill import NotFound, RequestRefused

        run = self._run
        seal_offset = run.streams[status.stream].seal_offset
        try:
            # A view that was made anew has a long way to the seal; one that follows is there at once.
            wait_s = min(max(self._deadline_s - self._now_s(), 1.0), _SEALED_WAIT_S_MAX)
            ask = functools.partial(
                self._client.view(status.view).sealed, run.first, run.last, seal_offset, wait_s=wait_s
            )
            try:
                return ask()
            except RequestRefused as error:
                if not _is_too_large(error):
                    raise
            return _by_parts(ask, status)
        except (NotFound, RequestRefused) as error:
            raise NotComparable(
                f"{status.view}: its copy of the seal at offset {seal_offset:,} cannot be had: {error}. If there is "
                "none, the view was made anew from a log without the seal's record: run the day again from seal on"
            ) from error


def _is_too_large(error: RequestRefused) -> bool:
    return _TOO_LARGE in str(error)


def _by_parts(ask: Callable[..., pa.Table], status: ViewStatus) -> pa.Table:
    """Read a copy that is more than one answer holds, part by part, by the order of one of its group's columns.

    A part that is full may have only some of the rows of its last value: those are left to the next one, which begins
    with that value. Rows without a value come last.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from tidemill import RequestRefused

    column = _paging_column(status)
    parts: list[pa.Table] = []
    rows = PART_ROWS
    condition: tuple[str, str, object] = (column, "!=", None)
    while True:
        try:
            part = ask(where=[condition], order_by=column, limit=rows)
        except RequestRefused as error:
            if not _is_too_large(error) or rows <= 1:
                raise
            rows //= 2
            continue
        if part.num_rows < rows:
            return pa.concat_tables([*parts, part, ask(where=[(column, "=", None)])])
        last = part[column][-1]
        whole = part.filter(pc.not_equal(part[column], last))
        if whole.num_rows:
            parts.append(whole)
            condition = (column, ">=", last.as_py())
        else:
            # All of one value, and perhaps not all that have it.
            rows *= 2


def _paging_column(status: ViewStatus) -> str:
    """Give the group's column that has most values: the one that says when, or a number, or the first."""
    if status.window_column and status.window_column in status.group_columns:
        return status.window_column
    kinds = {column.name: column.type for column in status.columns}
    exact = [name for name in status.group_columns if "FLOAT" not in kinds[name] and "DOUBLE" not in kinds[name]]
    numbers = [name for name in exact if "INT" in kinds[name]]
    return (numbers or exact or list(status.group_columns))[0]


def _what_rows_are_of(status: ViewStatus) -> tuple[object, ...]:
    return status.definition_hash, status.columns, status.expired_before
