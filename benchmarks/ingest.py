"""Sending: rows a second acknowledged, and the time from one send to its ack. Client and server share the cores."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator

import tidemill
from benchmarks.result import Result, percentile
from benchmarks.service import data_folder, running_stack

TYPED_ROWS = 300_000
PREPARED_ROWS = 1_000_000
SINGLE_SENDS = 1_000
_AT = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)


def messages(stream: tidemill.Stream, count: int, name: str) -> Iterator[object]:
    """Valid order lines; their ids begin with `name`."""
    message = stream.message
    for i in range(count):
        yield message(
            event_id=f"{name}-{i:08d}", invoice_no="536365", stock_code=f"{i % 4000:05d}",
            description="WHITE HANGING HEART T-LIGHT HOLDER", quantity=i % 12 + 1, unit_price="2.550",
            invoiced_at=_AT, customer_id=17850, country="United Kingdom",
        )  # fmt: skip


def append() -> list[Result]:
    """append_typed and append_prepared: fsynced, validated, deduplicated, with the live view following."""
    with data_folder() as data, running_stack(data) as stack, tidemill.connect(stack.address) as client:
        stream = client.stream("order_lines")
        typed = list(messages(stream, TYPED_ROWS, "typed"))
        start = time.perf_counter()
        for message in typed:
            stream.send(message)
        stream.flush()
        typed_s = time.perf_counter() - start
        prepared = [message.SerializeToString() for message in messages(stream, PREPARED_ROWS, "prepared")]
        start = time.perf_counter()
        acked = stream.send_many(prepared).result(120)
        prepared_s = time.perf_counter() - start
        assert acked.appended == PREPARED_ROWS
    return [
        Result("append_typed", TYPED_ROWS / typed_s, "rows/s acknowledged"),
        Result("append_prepared", PREPARED_ROWS / prepared_s, "rows/s acknowledged"),
    ]


def ack() -> list[Result]:
    """ack_ms_p50 and ack_ms_p99: one event at a time, from send to ack."""
    with data_folder() as data, running_stack(data) as stack, tidemill.connect(stack.address) as client:
        stream = client.stream("order_lines")
        for message in messages(stream, 50, "warm"):
            stream.send(message).result(10)
        waited_ms = []
        for message in messages(stream, SINGLE_SENDS, "single"):
            start = time.perf_counter()
            stream.send(message).result(10)
            waited_ms.append((time.perf_counter() - start) * 1000)
    return [
        Result("ack_ms_p50", percentile(waited_ms, 0.5), "ms, send to ack"),
        Result("ack_ms_p99", percentile(waited_ms, 0.99), "ms, send to ack"),
    ]
