"""How a live view's replay, memory and restart grow with the events in the log."""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import tidemill
from benchmarks.live_events import chunks, send
from benchmarks.live_service import LiveService, forget_views, live_service, replay_s
from benchmarks.live_views import BY_MINUTE
from benchmarks.result import Result

SIZES = (1_000_000, 10_000_000, 100_000_000)
EVENTS_MAX_VARIABLE = "BENCH_EVENTS_MAX"
_RESTARTS = 3


def growth() -> list[Result]:
    """growth_SIZE_…: events in minutes by country, 20 million a day: 100 million are five days and 216,000 groups."""
    events_max = int(os.environ.get(EVENTS_MAX_VARIABLE, SIZES[-1]))
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        data, sent = Path(name) / "data", 0
        for size in SIZES:
            if size > events_max:
                print(f"skipped: growth to {size:,} events: {EVENTS_MAX_VARIABLE} is {events_max:,}", file=sys.stderr)
                continue
            send(data, chunks(size, sent))
            sent = size
            results += _at(data, size)
    return results


def _at(data: Path, rows: int) -> list[Result]:
    forget_views(data)
    with live_service(data) as service:
        took_s = replay_s(service.address, {"by_minute": BY_MINUTE}, rows)
    restarts_s = [_restart_s(data, rows) for _ in range(_RESTARTS)]
    name = f"growth_{rows // 1_000_000}m"
    return [
        Result(f"{name}_replay_s", took_s, f"s, {rows:,} events into the view"),
        Result(f"{name}_peak_mib", service.peak_bytes / (1 << 20), "MiB resident, at the most, meanwhile"),
        Result(f"{name}_restart_s", statistics.median(restarts_s), "s, start to answer, after SIGKILL"),
    ]


def _restart_s(data: Path, rows: int) -> float:
    """From the start of a service to the view's answer, all rows covered; the service is killed afterwards."""
    start = time.perf_counter()
    service = LiveService(data, "--export-interval", "0")
    try:
        with tidemill.connect(service.address) as client:
            answer = client.view("by_minute").query(limit=1)
        seconds = time.perf_counter() - start
    finally:
        service.stop(signal.SIGKILL)
    if answer.offset != rows:
        raise RuntimeError(f"expected the view at offset {rows}, came {answer.offset}")
    return seconds
