"""Many small producers at once: what one of them waits for its ack."""

from __future__ import annotations

import asyncio
import time

import grpc

import tidemill
from benchmarks.events import serialized
from benchmarks.result import Result, percentile
from benchmarks.service import ingest_service
from tidemill.v1 import append_pb2, append_pb2_grpc

CLIENTS = 200
EVENTS_PER_S = 10
SECONDS = 15
_WARM_S = 3


def clients() -> list[Result]:
    """clients_200_ms_p50 and _p99: 200 connections, each sends 10 events a second, one at a time.

    Sends follow a clock, not the ack before: a service that stands still is seen by every event that was due.
    """
    with ingest_service() as address, tidemill.connect(address) as client:
        rows = serialized(client.stream("order_lines"), CLIENTS * EVENTS_PER_S * (SECONDS + _WARM_S), "client")
        waited_ms = asyncio.run(_all(address, rows))
    return [
        Result(f"clients_200_ms_p{n}", percentile(waited_ms, n / 100), f"ms, due to ack, {CLIENTS * EVENTS_PER_S}/s")
        for n in (50, 99)
    ]


async def _all(address: str, rows: list[bytes]) -> list[float]:
    each = len(rows) // CLIENTS
    begin_s = asyncio.get_running_loop().time() + 1.0
    tasks = [
        _one(address, number, rows[number * each : (number + 1) * each], begin_s + number / CLIENTS / EVENTS_PER_S)
        for number in range(CLIENTS)
    ]
    return [ms for waited in await asyncio.gather(*tasks) for ms in waited]


async def _one(address: str, number: int, rows: list[bytes], begin_s: float) -> list[float]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    waited_ms: list[float] = []
    due: list[float] = []
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call = append_pb2_grpc.AppendServiceStub(channel).Append()

        async def send() -> None:
            for sequence, row in enumerate(rows):
                due.append(begin_s + sequence / EVENTS_PER_S)
                await asyncio.sleep(due[-1] - asyncio.get_running_loop().time())
                await call.write(
                    append_pb2.AppendRequest(
                        stream="order_lines", producer_id=f"client-{number}", sequence=sequence,
                        proto=append_pb2.ProtoRows(messages=[row]),
                    )
                )  # fmt: skip
            await call.done_writing()

        sending = asyncio.create_task(send())
        async for response in call:
            if response.rows_appended != 1:
                raise RuntimeError(f"expected a row appended, came {response}")
            if response.sequence >= _WARM_S * EVENTS_PER_S:
                waited_ms.append(1000 * (time.monotonic() - due[response.sequence]))
        await sending
    return waited_ms
