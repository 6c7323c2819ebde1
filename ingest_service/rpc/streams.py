"""Streams as clients see them: contracts, offsets, counts, quarantine, seals and the way into the lake."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, timestamp_pb2

from ingest_service.clock import Clock
from ingest_service.errors import BadRequest
from ingest_service.lake import LakeExporter
from ingest_service.log import Seal
from ingest_service.rpc.contracts import apply_contracts
from ingest_service.rpc.parts import StreamParts, Streams
from ingest_service.rpc.quarantine import list_quarantine, replay_quarantine
from ingest_service.rpc.status import answers
from tidemill.v1 import streams_pb2, streams_pb2_grpc

_Call = grpc.aio.ServicerContext[Any, Any]
_MIN_AGE_S = 7 * 86_400
"""For how long every version of the lake stays readable, unless the call says otherwise."""
_KEEP_VERSIONS_MAX = 1_000


class StreamServicer(streams_pb2_grpc.StreamServiceServicer):
    """Tells of streams, and seals and exports their dates."""

    def __init__(self, streams: Streams, clock: Clock) -> None:
        self._streams = streams
        self._clock = clock

    @answers
    async def ListStreams(
        self, request: streams_pb2.ListStreamsRequest, context: _Call
    ) -> streams_pb2.ListStreamsResponse:
        """All streams, by name."""
        del request, context
        listed = {name: _status(parts) for name, parts in self._streams.items()}
        for name, error in self._streams.refused():
            listed[name] = streams_pb2.StreamStatus(stream=name, error=str(error))
        return streams_pb2.ListStreamsResponse(streams=[status for _, status in sorted(listed.items())])

    @answers
    async def GetStream(self, request: streams_pb2.GetStreamRequest, context: _Call) -> streams_pb2.GetStreamResponse:
        """One stream with its contract."""
        del context
        parts = self._streams[request.stream]
        return streams_pb2.GetStreamResponse(
            status=_status(parts),
            message_type=parts.contract.message_type,
            descriptors=descriptor_pb2.FileDescriptorSet.FromString(parts.contract.descriptor_set),
            arrow_schema=parts.log.schema.serialize().to_pybytes(),
        )

    @answers
    async def ApplyContract(
        self, request: streams_pb2.ApplyContractRequest, context: _Call
    ) -> streams_pb2.ApplyContractResponse:
        """Compare a changed contract with the one in force, and put it in force."""
        del context
        return await asyncio.to_thread(apply_contracts, self._streams, request)

    @answers
    async def ListQuarantine(
        self, request: streams_pb2.ListQuarantineRequest, context: _Call
    ) -> streams_pb2.ListQuarantineResponse:
        """The newest quarantined rows, or those of some ids."""
        del context
        return await asyncio.to_thread(list_quarantine, self._streams[request.stream], request)

    @answers
    async def ReplayQuarantine(
        self, request: streams_pb2.ReplayQuarantineRequest, context: _Call
    ) -> streams_pb2.ReplayQuarantineResponse:
        """Append the quarantined rows that keep the contract now, each once."""
        del context
        parts = self._streams[request.stream]
        return await asyncio.to_thread(replay_quarantine, parts, request, self._clock.now_us())

    @answers
    async def SealDate(self, request: streams_pb2.SealDateRequest, context: _Call) -> streams_pb2.SealDateResponse:
        """Seal a date, or a range of dates as one."""
        del context
        first = _date("date", request.date)
        last = _date("last_date", request.last_date) if request.last_date else first
        log = self._streams[request.stream].log
        seal = await asyncio.to_thread(log.seal, first, last, force=request.force)
        return streams_pb2.SealDateResponse(seal=_seal(seal))

    @answers
    async def ExportLake(
        self, request: streams_pb2.ExportLakeRequest, context: _Call
    ) -> streams_pb2.ExportLakeResponse:
        """Bring the lake up to an offset."""
        del context
        parts = self._streams[request.stream]
        if request.up_to_offset > parts.log.durable_offset:
            raise BadRequest(
                f"expected up_to_offset to be at most the durable offset, {parts.log.durable_offset}; "
                f"came {request.up_to_offset}"
            )
        state = await asyncio.to_thread(parts.lake.export, request.up_to_offset or None)
        return streams_pb2.ExportLakeResponse(lake_version=state.version, lake_offset=state.offset, lake_uri=state.uri)

    @answers
    async def MaintainLake(
        self, request: streams_pb2.MaintainLakeRequest, context: _Call
    ) -> streams_pb2.MaintainLakeResponse:
        """Compact dates of the lake, and delete what no version needs that stays readable."""
        del context
        return await asyncio.to_thread(_maintain, self._streams[request.stream].lake, request)


def _maintain(lake: LakeExporter, request: streams_pb2.MaintainLakeRequest) -> streams_pb2.MaintainLakeResponse:
    if len(request.keep_versions) > _KEEP_VERSIONS_MAX:
        raise BadRequest(
            f"keep_versions: expected {_KEEP_VERSIONS_MAX} at the most, came {len(request.keep_versions)}; "
            "min_age_s keeps all of a time"
        )
    compacted = lake.compact_all([_date("dates", text) for text in request.dates])
    response = streams_pb2.MaintainLakeResponse(compacted_dates=[str(date) for date in compacted])
    if not request.compact_only:
        min_age_s = request.min_age_s if request.HasField("min_age_s") else _MIN_AGE_S
        done = lake.vacuum(request.keep_versions, min_age_s)
        response.deleted_files, response.deleted_log_files = done.deleted_files, done.deleted_log_files
        response.freed_bytes = done.freed_bytes
        response.files, response.bytes = done.files, done.bytes
        response.kept_files, response.kept_bytes = done.kept_files, done.kept_bytes
        response.missing_versions.extend(done.missing)
    response.lake_version = lake.state().version
    return response


def _status(parts: StreamParts) -> streams_pb2.StreamStatus:
    log = parts.log
    counts = log.counts()
    lake = parts.lake.state()
    rates = log.rates()
    status = streams_pb2.StreamStatus(
        stream=parts.contract.stream,
        contract_version=parts.contract.version,
        durable_offset=log.durable_offset,
        lake_offset=lake.offset,
        lake_uri=lake.uri,
        lake_version=lake.version,
        lake_error=str(parts.lake.last_error or ""),
        error=parts.error,
        log_start_offset=log.start_offset,
        segments=len(log.segments),
        log_bytes=log.segments.size_bytes(),
        rates=streams_pb2.Rates(rows_per_s_10s=rates[0], rows_per_s_1m=rates[1], rows_per_s_15m=rates[2]),
        counts=streams_pb2.Counts(
            sent=counts.sent,
            received_counted=counts.received_counted,
            received=counts.received,
            appended=counts.appended,
            duplicate=counts.duplicate,
            quarantined=counts.quarantined,
            late=counts.late,
            appended_by_date={str(date): rows for date, rows in counts.appended_by_date.items()},
        ),
        seals=[_seal(seal) for seal in log.seals()],
    )
    watermark_us = log.watermark_us
    if watermark_us is not None:
        status.watermark.CopyFrom(_timestamp(watermark_us))
    return status


def _seal(seal: Seal) -> streams_pb2.Seal:
    return streams_pb2.Seal(
        date=str(seal.first_date),
        last_date=str(seal.last_date),
        seal_offset=seal.seal_offset,
        sealed_at=_timestamp(seal.sealed_at_us),
    )


def _timestamp(time_us: int) -> timestamp_pb2.Timestamp:
    return timestamp_pb2.Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1000)


def _date(field: str, text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise BadRequest(f'{field}: expected a date such as "2011-12-05", came {text[:40]!r}') from None
