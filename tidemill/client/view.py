"""Live views, as their readers use them."""

from __future__ import annotations

import datetime as dt
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tidemill.client.ack import Ack, Acked, TableAck, TableAcked
from tidemill.client.applied import AppliedView, to_applied_view
from tidemill.client.channel import Connection
from tidemill.client.models import ViewStatus, to_datetime, to_view_status
from tidemill.client.options import ProducerOptions
from tidemill.client.rows import Rows
from tidemill.client.table import import_pyarrow
from tidemill.client.values import make_filter
from tidemill.client.watch import Watch
from tidemill.errors import NotFound
from tidemill.v1 import views_pb2, views_pb2_grpc

if TYPE_CHECKING:
    import pyarrow as pa

RETRY_FOR_S = ProducerOptions().retry_for_s

After = Ack | Acked | TableAck | TableAcked | int | None
"""What a query waits for: an ack's rows, or an offset below which everything must be covered."""

Condition = tuple[str, str, object]
"""Column, operator (= != < <= > >=) and value."""


class ViewRows(Rows):
    """Rows of a view at one offset: iterate over them, or take them as dicts, Arrow or pandas.

    `published_at`, `batch_dates`, `last_batch_date` and `stale_dates` say of a view that was read across time where
    batch ends and live begins.
    """

    def __init__(self, response: views_pb2.QueryViewResponse) -> None:
        super().__init__(response)
        self._watermark = to_datetime(response.watermark) if response.HasField("watermark") else None
        self._published_at = to_datetime(response.published_at) if response.HasField("published_at") else None
        self._batch_dates, self._stale_dates = response.batch_dates, response.stale_dates
        self._last_batch_date = dt.date.fromisoformat(response.last_batch_date) if response.last_batch_date else None

    @property
    def watermark(self) -> dt.datetime | None:
        """The view's watermark at that offset; None before the first event."""
        return self._watermark

    @property
    def published_at(self) -> dt.datetime | None:
        """When the warehouse was published that the batch rows are of; None where there is none."""
        return self._published_at

    @property
    def batch_dates(self) -> int:
        """The rows of how many dates come from batch, whether it has any of them or not."""
        return self._batch_dates

    @property
    def last_batch_date(self) -> dt.date | None:
        """The last date whose rows come from batch; None when there is none."""
        return self._last_batch_date

    @property
    def stale_dates(self) -> int:
        """How many of these dates are by an earlier definition of the view, and have left its live table since."""
        return self._stale_dates


class View:
    """One live view; made by `Client.view`. Thread-safe."""

    def __init__(self, connection: Connection, name: str, retry_for_s: float = RETRY_FOR_S) -> None:
        """retry_for_s: how long a watch makes a call that is lost again without progress, in seconds."""
        self._connection = connection
        self._retry_for_s = retry_for_s
        self._service = connection.stub(views_pb2_grpc.ViewServiceStub)
        self.name = name

    def status(self) -> ViewStatus:
        """Where the view is now; raises NotFound."""
        views = list_views(self._connection)
        for view in views:
            if view.view == self.name:
                return view
        known = ", ".join(view.view for view in views) or "none"
        raise NotFound(f"there is no live view {self.name!r}; the live views are: {known}", "NOT_FOUND")

    def query(
        self,
        *,
        after: After = None,
        where: Iterable[Condition] = (),
        order_by: str | Sequence[str] = (),
        limit: int = 0,
        wait_s: float = 10.0,
        arrow: bool | None = None,
        window_state: bool = False,
        across_time: bool = False,
        **equal: object,
    ) -> ViewRows:
        """The view's rows for which every condition holds.

        after: wait until the view covers these rows, up to `wait_s` seconds (then ServiceBusy): an ack, for reading
            your own writes, or an offset.
        where: conditions such as `("revenue", ">", 100)`; equal: columns that must equal a value, `country="France"`.
        order_by: columns to sort by, one after another; "-" in front: descending. limit: rows at the most; 0: all.
        arrow: how rows travel; by default as Arrow where pyarrow is installed.
        window_state: a last column more, `_window_state`: "open", "closed" (the watermark passed the window's end) or
            "corrected" (it changed after that); conditions and `order_by` may name it. Of a view without windows it is
            refused.
        across_time: the published warehouse's rows of the dates that were reconciled and published, the live table's of
            all others, windows that have left it included; a last column more, `_source`: "batch" or "live".

        Raises BadQuery, NotFound for an unknown view, RequestRefused for an unknown column and for an answer of more
        than 64 MiB: `watch` gives large views part by part.
        """
        request = views_pb2.QueryViewRequest(
            view=self.name,
            filters=_filters(where, equal),
            order_by=[order_by] if isinstance(order_by, str) else list(order_by),
            limit=limit,
            after_offset=_offset_after(after, wait_s),
            wait_ms=max(1, round(wait_s * 1000)),
            format=_format(arrow),
            window_state=window_state,
            across_time=across_time,
        )
        return ViewRows(self._call(request, self._connection.timeout_s + wait_s))

    def sealed(
        self,
        first_date: dt.date,
        last_date: dt.date,
        seal_offset: int,
        *,
        wait_s: float = 60.0,
        where: Iterable[Condition] = (),
        order_by: str | Sequence[str] = (),
        limit: int = 0,
    ) -> pa.Table:
        """The rows as they were copied when these dates were sealed at `seal_offset`, as an Arrow table.

        Waits up to `wait_s` seconds for the view to reach the seal. where, order_by, limit: as for `query`, to read a
        large copy part by part. Raises NotFound without such a copy, RequestRefused for more than 64 MiB.
        """
        import_pyarrow("sealed")
        request = views_pb2.QueryViewRequest(
            view=self.name,
            sealed_date=str(first_date),
            sealed_last_date=str(last_date),
            seal_offset=seal_offset,
            filters=_filters(where, {}),
            order_by=[order_by] if isinstance(order_by, str) else list(order_by),
            limit=limit,
            after_offset=seal_offset,
            wait_ms=max(1, round(wait_s * 1000)),
            format=views_pb2.ROW_FORMAT_ARROW,
        )
        return ViewRows(self._call(request, self._connection.timeout_s + wait_s)).to_arrow()

    def watch(
        self,
        *,
        where: Iterable[Condition] = (),
        resume: str | None = None,
        only_new: bool = False,
        arrow: bool | None = None,
        **equal: object,
    ) -> Watch:
        """The view's changes as they are committed, for as long as the program iterates over them.

        At first come all rows for which every condition holds (`where`, `equal`: as for `query`), then those that
        change, as they are now. A row that changes so that a condition holds no longer is not told of.
        resume: go on behind a `ViewChange.resume` of an earlier watch. only_new: leave out what is there already.
        arrow: how rows travel; by default as Arrow where pyarrow is installed.

        Raises BadQuery at once; NotFound, RequestRefused and ServiceUnavailable when iterated over.
        """
        request = views_pb2.WatchViewRequest(
            view=self.name,
            filters=_filters(where, equal),
            resume=resume or "",
            only_new=only_new,
            format=_format(arrow),
        )
        return Watch(self._service.WatchView, request, self._connection.address, self._retry_for_s)

    def rebuild(self) -> None:
        """Make the view's rows anew from the stream's first event on; `status` says how far that is.

        The rows that are there serve until the new ones have caught up. Raises NotFound, RequestRefused.
        """
        self._connection.call(self._service.RebuildView, views_pb2.RebuildViewRequest(view=self.name))

    def confirm_reconciled(self, first_date: dt.date, last_date: dt.date, seal_offset: int) -> None:
        """Say that the copy of these dates, sealed at `seal_offset`, agrees with batch.

        From then on the dates' windows may leave once their retention is over. Raises RequestRefused where there is no
        such copy.
        """
        request = views_pb2.ConfirmReconciledRequest(
            view=self.name, first_date=str(first_date), last_date=str(last_date), seal_offset=seal_offset
        )
        self._connection.call(self._service.ConfirmReconciled, request)

    def _call(self, request: views_pb2.QueryViewRequest, timeout_s: float) -> Any:
        return self._connection.call(self._service.QueryView, request, timeout_s)


def list_views(connection: Connection) -> list[ViewStatus]:
    """All live views, by name."""
    service = connection.stub(views_pb2_grpc.ViewServiceStub)
    response = connection.call(service.ListViews, views_pb2.ListViewsRequest())
    return [to_view_status(view) for view in response.views]


def apply_views(connection: Connection, manifest: bytes, check_only: bool, timeout_s: float) -> list[AppliedView]:
    """Put a manifest in force, or ask what it would do."""
    service = connection.stub(views_pb2_grpc.ViewServiceStub)
    request = views_pb2.ApplyViewsRequest(manifest=manifest, check_only=check_only)
    return [to_applied_view(view) for view in connection.call(service.ApplyViews, request, timeout_s).views]


def _filters(where: Iterable[Condition], equal: Mapping[str, object]) -> list[views_pb2.Filter]:
    conditions = [*where, *((column, "=", value) for column, value in equal.items())]
    return [make_filter(*condition) for condition in conditions]


def _offset_after(after: After, wait_s: float) -> int:
    if isinstance(after, Ack | TableAck):
        after = after.result(wait_s)
    if isinstance(after, Acked | TableAcked):
        return after.after_offset
    return after or 0


def _format(arrow: bool | None) -> views_pb2.RowFormat:
    if arrow is None:
        arrow = importlib.util.find_spec("pyarrow") is not None
    return views_pb2.ROW_FORMAT_ARROW if arrow else views_pb2.ROW_FORMAT_VALUES
