"""Live views, as their readers use them."""

from __future__ import annotations

import datetime as dt
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tidemill.client.ack import Ack, Acked, TableAck, TableAcked
from tidemill.client.channel import Connection
from tidemill.client.models import ViewColumn, ViewStatus, to_datetime, to_view_column, to_view_status
from tidemill.client.table import import_pyarrow
from tidemill.client.values import Value, make_filter, read_rows
from tidemill.errors import NotFound
from tidemill.v1 import views_pb2, views_pb2_grpc

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

After = Ack | Acked | TableAck | TableAcked | int | None
"""What a query waits for: an ack's rows, or an offset below which everything must be covered."""

Condition = tuple[str, str, object]
"""Column, operator (= != < <= > >=) and value."""


class ViewRows:
    """Rows of a view at one offset: iterate over them, or take them as dicts, Arrow or pandas."""

    def __init__(self, response: views_pb2.QueryViewResponse) -> None:
        self._response = response
        self._table: pa.Table | None = None
        self._rows: list[dict[str, Value]] | None = None

    @property
    def offset(self) -> int:
        """The rows are those of the log strictly below this offset."""
        return self._response.offset

    @property
    def watermark(self) -> dt.datetime | None:
        """The view's watermark at that offset; None before the first event."""
        response = self._response
        return to_datetime(response.watermark) if response.HasField("watermark") else None

    @property
    def columns(self) -> tuple[ViewColumn, ...]:
        """The columns with their types."""
        return tuple(to_view_column(column) for column in self._response.columns)

    def rows(self) -> list[dict[str, Value]]:
        """The rows as dicts; decimals are Decimal, times are datetime in UTC, dates are date."""
        if self._rows is None:
            if self._response.arrow:
                self._rows = self.to_arrow().to_pylist()
            else:
                self._rows = read_rows(self._response.columns, self._response.values)
        return self._rows

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table. Needs pyarrow, at the time of the query too."""
        pa = import_pyarrow("to_arrow")
        if self._table is None:
            if self._response.arrow:
                with pa.ipc.open_stream(self._response.arrow) as reader:
                    self._table = reader.read_all()
            else:
                self._table = pa.Table.from_pylist(self.rows())
        return self._table

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a pandas frame. Needs pyarrow and pandas."""
        return self.to_arrow().to_pandas()

    def __len__(self) -> int:
        if self._response.arrow:
            return int(self.to_arrow().num_rows)
        return len(self._response.values)

    def __iter__(self) -> Iterator[dict[str, Value]]:
        return iter(self.rows())


class View:
    """Reads one live view; made by `Client.view`. Thread-safe."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
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
        **equal: object,
    ) -> ViewRows:
        """The view's rows for which every condition holds.

        after: wait until the view covers these rows, up to `wait_s` seconds (then ServiceBusy): an ack, for reading
            your own writes, or an offset.
        where: conditions such as `("revenue", ">", 100)`; equal: columns that must equal a value, `country="France"`.
        order_by: columns to sort by, one after another; "-" in front: descending. limit: rows at the most; 0: all.
        arrow: how rows travel; by default as Arrow where pyarrow is installed.

        Raises BadQuery, NotFound for an unknown view, RequestRefused for an unknown column.
        """
        conditions = [*where, *((column, "=", value) for column, value in equal.items())]
        request = views_pb2.QueryViewRequest(
            view=self.name,
            filters=[make_filter(*condition) for condition in conditions],
            order_by=[order_by] if isinstance(order_by, str) else list(order_by),
            limit=limit,
            after_offset=_offset_after(after, wait_s),
            wait_ms=max(1, round(wait_s * 1000)),
            format=_format(arrow),
        )
        return ViewRows(self._call(request, self._connection.timeout_s + wait_s))

    def sealed(self, first_date: dt.date, last_date: dt.date, seal_offset: int, *, wait_s: float = 60.0) -> pa.Table:
        """The rows as they were copied when these dates were sealed at `seal_offset`, as an Arrow table.

        Waits up to `wait_s` seconds for the view to reach the seal. Raises NotFound without such a copy.
        """
        import_pyarrow("sealed")
        request = views_pb2.QueryViewRequest(
            view=self.name,
            sealed_date=str(first_date),
            sealed_last_date=str(last_date),
            seal_offset=seal_offset,
            after_offset=seal_offset,
            wait_ms=max(1, round(wait_s * 1000)),
            format=views_pb2.ROW_FORMAT_ARROW,
        )
        return ViewRows(self._call(request, self._connection.timeout_s + wait_s)).to_arrow()

    def _call(self, request: views_pb2.QueryViewRequest, timeout_s: float) -> Any:
        return self._connection.call(self._service.QueryView, request, timeout_s)


def list_views(connection: Connection) -> list[ViewStatus]:
    """All live views, by name."""
    service = connection.stub(views_pb2_grpc.ViewServiceStub)
    response = connection.call(service.ListViews, views_pb2.ListViewsRequest())
    return [to_view_status(view) for view in response.views]


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
