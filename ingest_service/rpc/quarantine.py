"""Quarantine as clients see it: listed, and replayed."""

from __future__ import annotations

from google.protobuf import timestamp_pb2

from ingest_service.contracts.replay import replay
from ingest_service.log import KeptRow, Verdict
from ingest_service.rpc.parts import StreamParts
from tidemill.v1 import append_pb2, streams_pb2

LIMIT_MAX = 10_000
"""Quarantined rows that one answer may hold."""
_LIMIT = 100


def list_quarantine(
    parts: StreamParts, request: streams_pb2.ListQuarantineRequest
) -> streams_pb2.ListQuarantineResponse:
    """The rows asked for, or the newest that wait. Blocks; raises what `Quarantine` raises."""
    quarantine = parts.log.quarantine
    ids = list(request.ids)[:LIMIT_MAX]
    rows = quarantine.by_id(ids) if ids else quarantine.newest(min(request.limit or _LIMIT, LIMIT_MAX))
    return streams_pb2.ListQuarantineResponse(rows=[_row(each) for each in rows], total=quarantine.waiting)


def replay_quarantine(
    parts: StreamParts, request: streams_pb2.ReplayQuarantineRequest, now_us: int
) -> streams_pb2.ReplayQuarantineResponse:
    """Replay rows by the contract in force. Blocks; raises what `replay` raises."""
    done = replay(parts.log, parts.intake, list(request.ids), check_only=request.check_only, now_us=now_us)
    return streams_pb2.ReplayQuarantineResponse(
        checked=done.checked,
        appended=done.appended,
        duplicate=done.duplicate,
        still_broken=done.still_broken,
        after_offset=done.after_offset,
    )


def _row(kept: KeptRow) -> streams_pb2.QuarantinedRow:
    row = kept.row
    return streams_pb2.QuarantinedRow(
        at_offset=kept.at_offset,
        append_time=timestamp_pb2.Timestamp(
            seconds=kept.append_time_us // 1_000_000, nanos=kept.append_time_us % 1_000_000 * 1000
        ),
        producer_id=kept.producer_id,
        sequence=kept.sequence,
        verdict=append_pb2.RowVerdict(
            index=row.index,
            verdict=int(Verdict.QUARANTINED),  # type: ignore[arg-type]
            rule=row.rule,
            field=row.field,
            message=row.message,
        ),
        payload=row.payload,
        id=kept.row_id,
        replayed=kept.replayed,
    )
