"""Live views as messages: what clients ask, and what they are told."""

from __future__ import annotations

import datetime as dt
import decimal
import math
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from google.protobuf import struct_pb2, timestamp_pb2

from ingest_service.errors import BadRequest
from ingest_service.live import (
    Boundary,
    Change,
    Operator,
    SealedRange,
    ViewChange,
    ViewColumn,
    ViewFilter,
    ViewQuery,
    ViewResult,
    ViewState,
    ViewStatus,
    ViewWatch,
)
from tidemill.v1 import views_pb2

WAIT_MS_DEFAULT = 10_000
WAIT_MS_MAX = 300_000
FILTERS_MAX = 100
RESUME_CHARS_MAX = 1_000
_JSON_INTEGER_MAX = 1 << 53
_STATES = {
    ViewState.FOLLOWING: views_pb2.VIEW_STATE_FOLLOWING,
    ViewState.REBUILDING: views_pb2.VIEW_STATE_REBUILDING,
    ViewState.STOPPED: views_pb2.VIEW_STATE_STOPPED,
    ViewState.REFUSED: views_pb2.VIEW_STATE_REFUSED,
}
_CHANGES = {
    Change.ADDED: views_pb2.AppliedView.CHANGE_ADDED,
    Change.CHANGED: views_pb2.AppliedView.CHANGE_CHANGED,
    Change.SAME: views_pb2.AppliedView.CHANGE_SAME,
    Change.REMOVED: views_pb2.AppliedView.CHANGE_REMOVED,
    Change.REFUSED: views_pb2.AppliedView.CHANGE_REFUSED,
}


def query_of(request: views_pb2.QueryViewRequest) -> ViewQuery:
    """What the request asks; raises BadRequest for what can't be asked."""
    sealed = None
    if request.sealed_date and request.across_time:
        raise BadRequest(
            "expected sealed_date or across_time, came both: a sealed copy is of live alone", "across_time"
        )
    if request.sealed_date:
        sealed = SealedRange(
            *date_range(request.sealed_date, request.sealed_last_date, "sealed_date"), request.seal_offset
        )
    return ViewQuery(
        view=request.view,
        filters=_filters(request.filters),
        order_by=tuple(request.order_by),
        limit=request.limit,
        after_offset=request.after_offset,
        wait_s=min(request.wait_ms or WAIT_MS_DEFAULT, WAIT_MS_MAX) / 1000,
        sealed=sealed,
        window_state=request.window_state,
        across_time=request.across_time,
    )


def watch_of(request: views_pb2.WatchViewRequest) -> ViewWatch:
    """What the request asks to be told; raises BadRequest for what can't be."""
    if len(request.resume) > RESUME_CHARS_MAX:
        raise BadRequest(f"expected the `resume` of an earlier response, came {len(request.resume)} characters")
    return ViewWatch(request.view, _filters(request.filters), request.resume, request.only_new)


def date_range(first: str, last: str, field: str) -> tuple[dt.date, dt.date]:
    """Two dates, of which the last may be empty: the first alone. Raises BadRequest."""
    dates = _date(first, field), _date(last or first, field)
    if dates[0] > dates[1]:
        raise BadRequest(f"expected dates in their order, came {dates[0]} and then {dates[1]}", field)
    return dates


def _date(text: str, field: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise BadRequest(f'expected a date such as "2011-12-05", came {text[:40]!r}', field) from None


def _filters(filters: Iterable[views_pb2.Filter]) -> tuple[ViewFilter, ...]:
    asked = []
    for each in filters:
        try:
            operator = Operator(each.operator or Operator.EQUAL)
        except ValueError:
            raise BadRequest(f"filter on {each.column!r}: operator {each.operator} is not known here") from None
        asked.append(ViewFilter(each.column, operator, each.value if each.HasField("value") else None))
    if len(asked) > FILTERS_MAX:
        raise BadRequest(f"expected {FILTERS_MAX} filters at the most, came {len(asked)}", "filters")
    return tuple(asked)


def status_message(status: ViewStatus) -> views_pb2.ViewStatus:
    """Where a view is."""
    return views_pb2.ViewStatus(
        view=status.view,
        stream=status.stream,
        offset=status.offset,
        lag=status.lag,
        rows=status.rows,
        group_columns=status.group_columns,
        window_column=status.window_column,
        error=status.error,
        definition_hash=status.definition_hash,
        columns=column_messages(status.columns),
        state=_STATES[status.state],
        lag_ms=status.lag_ms,
        watermark=timestamp(status.watermark_us),
        retain_s=status.retain_s,
        expired_before=timestamp(status.expired_before_us),
        rebuild_offset=status.rebuild_offset,
        sql=status.sql,
        bounds_sql=status.bounds_sql,
    )


def applied_message(change: ViewChange) -> views_pb2.AppliedView:
    """What became of a view."""
    return views_pb2.AppliedView(view=change.view, change=_CHANGES[change.change], problem=change.problem)


def column_messages(columns: Iterable[ViewColumn]) -> list[views_pb2.ViewColumn]:
    """A view's columns."""
    return [
        views_pb2.ViewColumn(
            name=column.name,
            type=column.type,
            exact=column.exact,
            relative_tolerance=column.relative_tolerance,
            rank_error=column.rank_error,
        )
        for column in columns
    ]


def result_message(result: ViewResult) -> views_pb2.QueryViewResponse:
    """An answer, but for its rows."""
    boundary = result.boundary or Boundary()
    return views_pb2.QueryViewResponse(
        columns=column_messages(result.columns),
        offset=result.offset,
        watermark=timestamp(result.watermark_us),
        published_at=timestamp(boundary.published_at_us),
        batch_dates=len(boundary.dates),
        last_batch_date=boundary.dates[-1].isoformat() if boundary.dates else "",
        stale_dates=boundary.stale_dates,
    )


def timestamp(time_us: int | None) -> timestamp_pb2.Timestamp | None:
    """A time in µs since 1970 UTC."""
    if time_us is None:
        return None
    seconds, rest_us = divmod(time_us, 1_000_000)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=rest_us * 1000)


def arrow_rows(table: pa.Table, *, compressed: bool = False) -> bytes:
    """Rows as one Arrow IPC stream; uncompressed, every Arrow library reads it."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd" if compressed else None)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def value_rows(table: pa.Table) -> Iterator[struct_pb2.ListValue]:
    """Rows as lists of JSON values. A loop over rows: of an answer, for clients without Arrow, not of events."""
    for batch in table.to_batches():
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield struct_pb2.ListValue(values=[_value(value) for value in row])


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
