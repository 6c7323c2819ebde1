"""How soon a single event shows in a live view; under load: `live_visible`."""

from __future__ import annotations

import time

import tidemill
from benchmarks.events import messages
from benchmarks.ingest import SINGLE_SENDS
from benchmarks.result import Result, percentile
from benchmarks.service import data_folder, running_stack


def visible() -> list[Result]:
    """visible_ms_p50 and visible_ms_p99: one event at a time, from send to a query that shows it."""
    with data_folder() as data, running_stack(data) as stack, tidemill.connect(stack.address) as client:
        stream = client.stream("order_lines")
        view = client.view("sales_by_minute")
        for message in messages(stream, 50, "warm"):
            view.query(after=stream.send(message), limit=1)
        waited_ms = []
        for message in messages(stream, SINGLE_SENDS, "single"):
            start = time.perf_counter()
            view.query(after=stream.send(message), limit=1)
            waited_ms.append((time.perf_counter() - start) * 1000)
    return [
        Result("visible_ms_p50", percentile(waited_ms, 0.5), "ms, send to visible"),
        Result("visible_ms_p99", percentile(waited_ms, 0.99), "ms, send to visible"),
    ]
