"""What the service tells of streams and views, in Python's own types."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum

from google.protobuf import timestamp_pb2

from tidemill.v1 import streams_pb2, views_pb2

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Seal:
    """Dates (UTC, both included) that are sealed: their rows at or above `seal_offset` are late."""

    date: dt.date
    last_date: dt.date
    seal_offset: int
    sealed_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Counts:
    """What a stream's log counted, in rows; see `Counts` in tidemill/v1/streams.proto.

    A quarantined row that was replayed counts as appended, or duplicate, instead.
    """

    sent: int
    received_counted: int
    received: int
    appended: int
    duplicate: int
    quarantined: int
    late: int
    appended_by_date: dict[dt.date, int]


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast rows come in: appended rows a second, averages over the last 10 seconds, minute and 15 minutes."""

    rows_per_s_10s: float
    rows_per_s_1m: float
    rows_per_s_15m: float


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """Where a stream is: everything strictly below an offset is durable, or in the lake.

    log_start_offset: the first offset that the log still keeps; older rows are read from the lake. segments, log_bytes:
    of the log on disk. error: why the stream takes no events, lake_error: why the lake does not follow; empty while
    they do.
    """

    stream: str
    contract_version: int
    durable_offset: int
    lake_offset: int
    lake_uri: str
    watermark: dt.datetime | None
    counts: Counts
    seals: tuple[Seal, ...]
    log_start_offset: int
    segments: int
    log_bytes: int
    lake_version: int
    rates: Rates
    error: str
    lake_error: str


@dataclass(frozen=True, slots=True)
class Export:
    """The lake's table: `lake_version` of it holds everything strictly below `lake_offset`."""

    lake_version: int
    lake_offset: int
    lake_uri: str


@dataclass(frozen=True, slots=True)
class LakeUpkeep:
    """What upkeep did to a stream's lake table, which is at `lake_version` now.

    compacted: dates whose small files were put together. deleted_files, deleted_log_files, freed_bytes: what no version
    needs that stays readable. files, bytes: of the present version. kept_files, kept_bytes: of earlier versions that
    stay, beside those. missing_versions: were to be kept, but can't be read any more.
    """

    lake_version: int
    compacted: tuple[dt.date, ...]
    deleted_files: int
    deleted_log_files: int
    freed_bytes: int
    files: int
    bytes: int
    kept_files: int
    kept_bytes: int
    missing_versions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A row in quarantine. `event` is what was sent: a serialized message, or JSON for a row of a table.

    id: names it for as long as it is kept. replayed: it was appended since, or found to have been appended before.
    """

    id: str
    replayed: bool
    at_offset: int
    append_time: dt.datetime | None
    producer_id: str
    sequence: int
    index: int
    rule: str
    field: str
    message: str
    event: bytes


@dataclass(frozen=True, slots=True)
class Replay:
    """What became of quarantined rows that were not replayed before, in rows.

    appended: they keep the contract now, and were appended (or would be, where it was only asked). duplicate: they do,
    but their event id had been appended meanwhile. still_broken: they stay in quarantine. after_offset: a view that
    covers it has seen the appended rows.
    """

    checked: int
    appended: int
    duplicate: int
    still_broken: int
    after_offset: int


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Rows in quarantine, oldest first, and how many wait there in all."""

    rows: tuple[QuarantinedRow, ...]
    total: int


@dataclass(frozen=True, slots=True)
class ViewColumn:
    """A live view's column, its DuckDB type, and how live and batch are compared.

    exact: they must be equal; otherwise they may differ by relative_tolerance, relative to batch. rank_error: of an
    approximate quantile q; live lies between the exact ones of q less and of q plus it.
    """

    name: str
    type: str
    exact: bool
    relative_tolerance: float
    rank_error: float = 0.0


class ViewState(StrEnum):
    """What a live view does at present.

    FOLLOWING: it takes in events as they arrive. REBUILDING: its rows are made anew beside those that serve. STOPPED:
    something in its rows, or in its store, keeps it from going on. REFUSED: its model can't be a live view.
    """

    FOLLOWING = "following"
    REBUILDING = "rebuilding"
    STOPPED = "stopped"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ViewStatus:
    """Where a live view is: it covers everything strictly below `offset`.

    lag: how many durable events it does not cover yet; lag_ms: for how long it has not covered all of them.
    error: why it stands still, or why its rebuild failed, or "". watermark: windows that end at or before it are
    closed; None before the first event. retain_s: how long windows stay after their end, in seconds; 0: for ever.
    expired_before: windows (in views of events: events) that began before it have left. rebuild_offset: how far a
    rebuild is; None when there is none. sql: the compiled model. bounds_sql: what bounds its approximate quantiles.
    A model that was refused has a name, a state and an error, and nothing else.
    """

    view: str
    stream: str
    offset: int
    lag: int
    rows: int
    group_columns: tuple[str, ...]
    window_column: str
    error: str
    definition_hash: str
    columns: tuple[ViewColumn, ...]
    state: ViewState = ViewState.FOLLOWING
    lag_ms: int = 0
    watermark: dt.datetime | None = None
    retain_s: int = 0
    expired_before: dt.datetime | None = None
    rebuild_offset: int | None = None
    sql: str = ""
    bounds_sql: str = ""


def to_datetime(stamp: timestamp_pb2.Timestamp) -> dt.datetime:
    """A protobuf time, in UTC, to the microsecond."""
    return _EPOCH + dt.timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


def to_seal(seal: streams_pb2.Seal) -> Seal:
    """A seal as the service tells it."""
    first = dt.date.fromisoformat(seal.date)
    return Seal(
        date=first,
        last_date=dt.date.fromisoformat(seal.last_date) if seal.last_date else first,
        seal_offset=seal.seal_offset,
        sealed_at=to_datetime(seal.sealed_at) if seal.HasField("sealed_at") else None,
    )


def to_lake_upkeep(response: streams_pb2.MaintainLakeResponse) -> LakeUpkeep:
    """From the service's message."""
    return LakeUpkeep(
        lake_version=response.lake_version,
        compacted=tuple(dt.date.fromisoformat(date) for date in response.compacted_dates),
        deleted_files=response.deleted_files,
        deleted_log_files=response.deleted_log_files,
        freed_bytes=response.freed_bytes,
        files=response.files,
        bytes=response.bytes,
        kept_files=response.kept_files,
        kept_bytes=response.kept_bytes,
        missing_versions=tuple(response.missing_versions),
    )


def to_stream_status(status: streams_pb2.StreamStatus) -> StreamStatus:
    """A stream's status as the service tells it."""
    counts = status.counts
    return StreamStatus(
        stream=status.stream,
        contract_version=status.contract_version,
        durable_offset=status.durable_offset,
        lake_offset=status.lake_offset,
        lake_uri=status.lake_uri,
        watermark=to_datetime(status.watermark) if status.HasField("watermark") else None,
        counts=Counts(
            sent=counts.sent,
            received_counted=counts.received_counted,
            received=counts.received,
            appended=counts.appended,
            duplicate=counts.duplicate,
            quarantined=counts.quarantined,
            late=counts.late,
            appended_by_date={
                dt.date.fromisoformat(date): rows for date, rows in sorted(counts.appended_by_date.items())
            },
        ),
        seals=tuple(to_seal(seal) for seal in status.seals),
        log_start_offset=status.log_start_offset,
        segments=status.segments,
        log_bytes=status.log_bytes,
        lake_version=status.lake_version,
        rates=Rates(status.rates.rows_per_s_10s, status.rates.rows_per_s_1m, status.rates.rows_per_s_15m),
        error=status.error,
        lake_error=status.lake_error,
    )


def to_quarantine(response: streams_pb2.ListQuarantineResponse) -> Quarantine:
    """Quarantined rows as the service tells them."""
    rows = tuple(
        QuarantinedRow(
            id=row.id,
            replayed=row.replayed,
            at_offset=row.at_offset,
            append_time=to_datetime(row.append_time) if row.HasField("append_time") else None,
            producer_id=row.producer_id,
            sequence=row.sequence,
            index=row.verdict.index,
            rule=row.verdict.rule,
            field=row.verdict.field,
            message=row.verdict.message,
            event=row.payload,
        )
        for row in response.rows
    )
    return Quarantine(rows, response.total)


def to_view_column(column: views_pb2.ViewColumn) -> ViewColumn:
    """A view's column as the service tells it."""
    return ViewColumn(column.name, column.type, column.exact, column.relative_tolerance, column.rank_error)


def to_view_status(status: views_pb2.ViewStatus) -> ViewStatus:
    """A view's status as the service tells it."""
    return ViewStatus(
        view=status.view,
        stream=status.stream,
        offset=status.offset,
        lag=status.lag,
        rows=status.rows,
        group_columns=tuple(status.group_columns),
        window_column=status.window_column,
        error=status.error,
        definition_hash=status.definition_hash,
        columns=tuple(to_view_column(column) for column in status.columns),
        state=_view_state(status),
        lag_ms=status.lag_ms,
        watermark=to_datetime(status.watermark) if status.HasField("watermark") else None,
        retain_s=status.retain_s,
        expired_before=to_datetime(status.expired_before) if status.HasField("expired_before") else None,
        rebuild_offset=status.rebuild_offset if status.HasField("rebuild_offset") else None,
        sql=status.sql,
        bounds_sql=status.bounds_sql,
    )


_STATES = {
    views_pb2.VIEW_STATE_FOLLOWING: ViewState.FOLLOWING,
    views_pb2.VIEW_STATE_REBUILDING: ViewState.REBUILDING,
    views_pb2.VIEW_STATE_STOPPED: ViewState.STOPPED,
    views_pb2.VIEW_STATE_REFUSED: ViewState.REFUSED,
}


def _view_state(status: views_pb2.ViewStatus) -> ViewState:
    """A service that is older, or newer, than this may tell a state that is not known here."""
    return _STATES.get(status.state, ViewState.STOPPED if status.error else ViewState.FOLLOWING)
