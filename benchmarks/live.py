"""Live views: how fast they catch up with the log, and how soon a sent event shows."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa

import tidemill
from benchmarks.events import messages
from benchmarks.ingest import SINGLE_SENDS
from benchmarks.result import Result, percentile
from benchmarks.service import data_folder, running_stack

REPLAY_ROWS = 2_000_000


def order_lines(rows: int) -> pa.Table:
    """Valid order lines of one day, in order: four countries, 4,000 articles, as many customers."""
    index = np.arange(rows)
    at_us = 1_772_582_400_000_000 + index * (86_400_000_000 // rows)
    countries = np.array(["United Kingdom", "France", "Germany", "Spain"])
    return pa.table(
        {
            "event_id": pa.array(index).cast(pa.string()),
            "invoice_no": pa.array(np.full(rows, "536365")),
            "stock_code": pa.array(index % 4000).cast(pa.string()),
            "quantity": pa.array(index % 12 + 1),
            "unit_price": pa.array(np.full(rows, "2.550")),
            "invoiced_at": pa.array(at_us).cast(pa.timestamp("us", tz="UTC")),
            "customer_id": pa.array(index % 4000 + 1),
            "country": pa.array(countries[index % 4]),
        }
    )


def replay() -> list[Result]:
    """replay: events a second from the log into sales_by_minute, by a service that finds its live tables lost."""
    with data_folder() as data:
        with running_stack(data) as stack, tidemill.connect(stack.address) as client:
            client.stream("order_lines").send_table(order_lines(REPLAY_ROWS)).result(300)
        for file in data.live.glob("live.sqlite*"):
            file.unlink()
        with running_stack(data) as stack, tidemill.connect(stack.address) as client:
            start = time.perf_counter()
            view = client.view("sales_by_minute")
            # What it took in before the first answer is not counted.
            before = view.status().offset
            view.query(after=REPLAY_ROWS, wait_s=300, limit=1)
            replay_s = time.perf_counter() - start
    return [Result("replay", (REPLAY_ROWS - before) / replay_s, "events/s into the view")]


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
