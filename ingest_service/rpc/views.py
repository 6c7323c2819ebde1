"""Live views as clients see them: where they are, and their rows."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import math
from typing import Any

import grpc
import pyarrow as pa
from google.protobuf import struct_pb2, timestamp_pb2

from ingest_service.errors import BadRequest, UnknownView
from ingest_service.live import LiveViews, Operator, SealedRange, ViewColumn, ViewFilter, ViewQuery
from ingest_service.rpc.caller import caller
from ingest_service.rpc.status import answers
from tidemill.v1 import views_pb2, views_pb2_grpc

WAIT_MS_DEFAULT = 10_000
WAIT_MS_MAX = 300_000
_JSON_INTEGER_MAX = 1 << 53
_Call = grpc.aio.ServicerContext[Any, Any]


class ViewServicer(views_pb2_grpc.ViewServiceServicer):
    """Tells of live views and reads them."""

    def __init__(self, views: LiveViews, *, guarded: bool = False) -> None:
        """`guarded`: see `Streams`."""
        self._views = views
        self._guarded = guarded

    def _visible(self) -> list[str]:
        """The views of streams that the caller may read: of others it is not told that they exist."""
        known = caller(guarded=self._guarded)
        return [view for view, stream in self._views.streams().items() if known.may_see(stream)]

    @answers
    async def ListViews(self, request: views_pb2.ListViewsRequest, context: _Call) -> views_pb2.ListViewsResponse:
        """All live views, by name."""
        del request, context
        response = views_pb2.ListViewsResponse()
        visible = self._visible()
        for status in await asyncio.to_thread(self._views.status):
            if status.view not in visible:
                continue
            response.views.add(
                view=status.view,
                stream=status.stream,
                offset=status.offset,
                lag=status.lag,
                rows=status.rows,
                group_columns=status.group_columns,
                window_column=status.window_column or "",
                error=status.error or "",
                definition_hash=status.definition_hash,
                columns=[_column(column) for column in status.columns],
            )
        return response

    @answers
    async def QueryView(self, request: views_pb2.QueryViewRequest, context: _Call) -> views_pb2.QueryViewResponse:
        """A view's rows, as they are or as they were sealed."""
        del context
        visible = self._visible()
        if request.view not in visible:
            raise UnknownView(request.view, visible)
        result = await asyncio.to_thread(self._views.query, _query(request))
        response = views_pb2.QueryViewResponse(
            columns=[_column(column) for column in result.columns], offset=result.offset
        )
        if result.watermark_us is not None:
            seconds, rest_us = divmod(result.watermark_us, 1_000_000)
            response.watermark.CopyFrom(timestamp_pb2.Timestamp(seconds=seconds, nanos=rest_us * 1000))
        if request.format == views_pb2.ROW_FORMAT_ARROW:
            response.arrow = _ipc(result.table)
        else:
            # For clients without Arrow: an answer's rows, not the path of events.
            for row in zip(*(column.to_pylist() for column in result.table.columns), strict=True):
                response.values.append(struct_pb2.ListValue(values=[_value(value) for value in row]))
        return response


def _query(request: views_pb2.QueryViewRequest) -> ViewQuery:
    filters = []
    for each in request.filters:
        try:
            operator = Operator(each.operator or Operator.EQUAL)
        except ValueError:
            raise BadRequest(f"filter on {each.column!r}: operator {each.operator} is not known here") from None
        filters.append(ViewFilter(each.column, operator, each.value if each.HasField("value") else None))
    sealed = None
    if request.sealed_date:
        first = _date(request.sealed_date)
        last = _date(request.sealed_last_date) if request.sealed_last_date else first
        sealed = SealedRange(first, last, request.seal_offset)
    return ViewQuery(
        view=request.view,
        filters=tuple(filters),
        order_by=tuple(request.order_by),
        limit=request.limit,
        after_offset=request.after_offset,
        wait_s=min(request.wait_ms or WAIT_MS_DEFAULT, WAIT_MS_MAX) / 1000,
        sealed=sealed,
    )


def _date(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise BadRequest(f'expected a date such as "2011-12-05", came {text[:40]!r}') from None


def _column(column: ViewColumn) -> views_pb2.ViewColumn:
    return views_pb2.ViewColumn(
        name=column.name, type=column.type, exact=column.exact, relative_tolerance=column.relative_tolerance
    )


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _value(value: Any) -> struct_pb2.Value:
    """A value as JSON can hold it without loss; what it can't hold comes as text."""
    match value:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=value)
        case int() if abs(value) <= _JSON_INTEGER_MAX:
            return struct_pb2.Value(number_value=value)
        case float() if math.isfinite(value):
            return struct_pb2.Value(number_value=value)
    return struct_pb2.Value(string_value=_text(value))


def _text(value: Any) -> str:
    match value:
        case dt.datetime():
            return value.isoformat()
        case decimal.Decimal():
            return f"{value:f}"
        case bytes():
            return value.hex()
    return str(value)
