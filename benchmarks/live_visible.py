"""How soon a sent event shows in a live view while many more come, beside Spark's micro-batches."""

from __future__ import annotations

import bisect
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import tidemill
from benchmarks.live_events import order_lines
from benchmarks.live_service import apply, live_service
from benchmarks.live_views import BY_MINUTE
from benchmarks.peers.environment import Job
from benchmarks.peers.peer import PeerMissing
from benchmarks.peers.spark import spark
from benchmarks.result import Result, percentile
from retail.v1.order_line_pb2 import OrderLine

RATES = (1_000, 10_000, 50_000)
SECONDS = 30
"""Long enough that the lake's export, which comes every 30 s, falls into it."""
_WARM_S = 5
_TICKS_A_S = 100  # how often events are sent
_FILES_A_S = 10  # how often Spark gets a file
_WAIT_S = 60.0


@dataclass
class _Seen:
    """Up to where something was seen, and when: both grow."""

    places: list[int] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)

    def add(self, place: int) -> None:
        """Seen up to a place, now."""
        self.at_s.append(time.monotonic())
        self.places.append(place)

    def when(self, place: int) -> float:
        """When a place had been reached for the first time."""
        if not self.places or self.places[-1] < place:
            raise RuntimeError(f"expected to see up to {place} within {_WAIT_S:.0f} s, saw {self.places[-1:]}")
        return self.at_s[bisect.bisect_left(self.places, place)]


def visible() -> list[Result]:
    """visible_RATE_ms_…: from when events are due to be sent, and from their ack, until a watched view shows them.

    Sending follows a clock, not the acks: what stands still is seen by every event that was due.
    """
    results: list[Result] = []
    with ExitStack() as peers:
        jobs: list[Job] = []
        try:
            jobs.append(peers.enter_context(spark()))
        except PeerMissing as missing:
            print(f"skipped: Spark beside visible: {missing}", file=sys.stderr)
        for rate in RATES:
            from_due, from_ack = _ours_ms(rate)
            theirs = [_spark_ms(job, rate) for job in jobs]
            for share in (50, 99):
                value = percentile(from_due, share / 100)
                result = Result(f"visible_{rate}_ms_p{share}", value, f"ms, due to visible, {rate:,}/s")
                for other in (percentile(waited, share / 100) for waited in theirs):
                    label = f"Spark, file to micro-batch's end: {other:,.0f} ms"
                    result = Result(result.name, value, result.unit, label, value / other)
                results.append(result)
            results.append(
                Result(f"visible_{rate}_acked_ms_p99", percentile(from_ack, 0.99), f"ms, ack to visible, {rate:,}/s")
            )
    return results


def _ours_ms(rate: int) -> tuple[list[float], list[float]]:
    """What each tick's events waited, in ms: from when they were due, and from when their ack came."""
    ticks = list(_messages(rate))
    with ExitStack() as closing:
        data = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-bench-"))) / "data"
        service = closing.enter_context(live_service(data, export=True))
        client = closing.enter_context(tidemill.connect(service.address))
        apply(client, {"by_minute": BY_MINUTE})
        stream = client.stream("order_lines")
        watch = closing.enter_context(client.view("by_minute").watch())
        next(watch)
        seen, acked = _Seen(), _Seen()
        acks: queue.SimpleQueue[tidemill.TableAck] = queue.SimpleQueue()
        total = sum(map(len, ticks))

        def see() -> None:
            while not seen.places or seen.places[-1] < total:
                change = next(watch)
                if change.complete:
                    seen.add(change.offset)

        def take_acks() -> None:
            for _ in ticks:
                acked.add(acks.get().result(_WAIT_S).after_offset)

        threads = [threading.Thread(target=work, daemon=True) for work in (see, take_acks)]
        for thread in threads:
            thread.start()
        begin_s = time.monotonic() + 0.1
        for number, rows in enumerate(ticks):
            _sleep_until(begin_s + number / _TICKS_A_S)
            acks.put(stream.send_many(rows))
        for thread in threads:
            thread.join(_WAIT_S)
        if len(acked.places) != len(ticks):
            raise RuntimeError(f"expected {len(ticks)} acks within {_WAIT_S:.0f} s, came {len(acked.places)}")
    first = _WARM_S * _TICKS_A_S
    shown = [seen.when(offset) for offset in acked.places]
    from_due = [1000 * (at_s - begin_s - number / _TICKS_A_S) for number, at_s in enumerate(shown)]
    from_ack = [1000 * max(0.0, at_s - ack_s) for at_s, ack_s in zip(shown, acked.at_s, strict=True)]
    return from_due[first:], from_ack[first:]


def _spark_ms(job: Job, rate: int) -> list[float]:
    """What each file's events waited, in ms, from its arrival in Spark's folder to the end of its micro-batch."""
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        made, incoming = Path(name) / "made", Path(name) / "incoming"
        made.mkdir()
        incoming.mkdir()
        files, places, arrived_s = [], [], []
        for number, rows in enumerate(_tables(rate, _FILES_A_S)):
            files.append(f"{number:05}.parquet")
            pq.write_table(rows, made / files[-1])
            last = pc.max(rows.filter(pc.greater(rows["quantity"], 0))["invoiced_at"])
            places.append(last.cast(pa.int64()).as_py())
        # The first one tells Spark the columns.
        (made / files[0]).rename(incoming / files[0])
        job.ask(do="follow", folder=str(incoming))
        job.ask(do="covered", time_us=places[0])
        begin_s = time.monotonic()
        for number, file in enumerate(files[1:]):
            _sleep_until(begin_s + number / _FILES_A_S)
            (made / file).rename(incoming / file)
            arrived_s.append(time.monotonic())
        covered = job.ask(do="covered", time_us=places[-1])["covered"]
        job.ask(do="rest")
    seen = _Seen([place for place, _ in covered], [at_s for _, at_s in covered])
    waited = [1000 * (seen.when(place) - at_s) for place, at_s in zip(places[1:], arrived_s, strict=True)]
    return waited[_WARM_S * _FILES_A_S :]


def _tables(rate: int, a_second: int) -> Iterator[pa.Table]:
    """The events of the run, so many tables a second; event time passes as time does."""
    each = rate // a_second
    for second in range(_WARM_S + SECONDS):
        rows = order_lines(second * rate, rate, step_us=1_000_000 // rate)
        for number in range(a_second):
            yield rows.slice(number * each, each)


def _messages(rate: int) -> Iterator[list[bytes]]:
    """The same as serialized messages, a list a tick."""
    for table in _tables(rate, _TICKS_A_S):
        times_us = table["invoiced_at"].cast(pa.int64()).to_pylist()
        columns = table.drop_columns(["invoiced_at"]).cast(_AS_SENT).to_pylist()
        rows = []
        for row, time_us in zip(columns, times_us, strict=True):
            message = OrderLine(**row)
            message.invoiced_at.seconds, micros = divmod(time_us, 1_000_000)
            message.invoiced_at.nanos = 1000 * micros
            rows.append(message.SerializeToString())
        yield rows


_AS_SENT = pa.schema(
    [
        ("event_id", pa.string()),
        ("invoice_no", pa.string()),
        ("stock_code", pa.string()),
        ("description", pa.string()),
        ("quantity", pa.int64()),
        ("unit_price", pa.string()),
        ("customer_id", pa.int64()),
        ("country", pa.string()),
    ]
)


def _sleep_until(due_s: float) -> None:
    time.sleep(max(0.0, due_s - time.monotonic()))
