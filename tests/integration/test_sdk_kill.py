"""SIGKILL of the service in the middle of sending: no acknowledged event is lost, none doubled, the SDK carries on."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import tidemill

ROUNDS = 4
SOAK_ROUNDS = 200
PRODUCERS = {"T1": "typed", "T2": "typed", "A1": "table", "A2": "table"}
ROWS_A_ROUND = 2_000
"""Rows that each producer has for each time that the service is killed."""
TABLE_ROWS = 1_000


@pytest.mark.parametrize("rounds", [ROUNDS, pytest.param(SOAK_ROUNDS, marks=pytest.mark.soak)])
def test_nothing_is_lost_or_doubled_when_the_service_is_killed_under_several_producers(ingest: Any, rounds: int):
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    options = tidemill.ProducerOptions(batch_rows=300, table_rows=300, in_flight_rows=3_000)
    rows = ROWS_A_ROUND * rounds
    rejected: list[tidemill.Rejected] = []
    with contextlib.ExitStack() as closing, ThreadPoolExecutor(len(PRODUCERS)) as threads:
        # A connection each: streams of one connection share their producer.
        connected = [closing.enter_context(tidemill.connect(ingest.address, options=options)) for _ in PRODUCERS]
        streams = [tm.stream("order_lines", on_rejected=rejected.append) for tm in connected]
        sent = [
            threads.submit(_send_typed if way == "typed" else _send_tables, stream, name, rows)
            for stream, (name, way) in zip(streams, PRODUCERS.items(), strict=True)
        ]
        for kill in range(rounds):
            # At a moment that is not the same each time, but surely in the middle: by what is acknowledged.
            threshold = len(PRODUCERS) * rows * (kill + rng.random()) / (rounds + 1)
            while sum(stream.counts().acknowledged for stream in streams) < threshold:
                assert all(not each.done() or not each.exception() for each in sent), f"seed {seed}"
                time.sleep(0.001)
            ingest.kill()
            ingest.start()
        acks = [each.result(60 + 20 * rounds) for each in sent]
        for stream in streams:
            counts = stream.flush(60)
            assert (counts.acknowledged, counts.appended, counts.failed) == (rows, rows, 0), f"seed {seed}"
        export = connected[0].export("order_lines")
        status = streams[0].status()
    total = len(PRODUCERS) * rows
    assert status.durable_offset == status.counts.appended == status.counts.sent == total, f"seed {seed}"
    assert status.counts.duplicate == 0, f"seed {seed}: a resend was taken for new, and only its event ids saved it"
    assert not rejected
    _check_rows(export.lake_uri, rows, acks, seed)


_AT = dt.datetime(2011, 12, 5, 8, 0, tzinfo=dt.UTC)


def _send_typed(stream: tidemill.Stream, name: str, rows: int) -> dict[str, int | None]:
    """Send events one by one; the offset that was acknowledged for each, by event id."""
    message = stream.message
    acks = {}
    for number in range(rows):
        event = message(
            event_id=f"{name}-{number}", invoice_no="536365", stock_code=name, quantity=number + 1,
            unit_price="1.000", invoiced_at=_AT, country="UK",
        )  # fmt: skip
        acks[event.event_id] = stream.send(event)
    return {event_id: ack.result(120).offset for event_id, ack in acks.items()}


def _send_tables(stream: tidemill.Stream, name: str, rows: int) -> dict[str, int]:
    """Send tables; the offset below which all rows of each were acknowledged, by the event id of its last row."""
    acks = {}
    for first in range(0, rows, TABLE_ROWS):
        ids = range(first, first + TABLE_ROWS)
        table = pa.table(
            {
                "event_id": [f"{name}-{number}" for number in ids],
                "invoice_no": ["536365"] * len(ids),
                "stock_code": [name] * len(ids),
                "quantity": [number + 1 for number in ids],
                "unit_price": ["1.000"] * len(ids),
                "invoiced_at": [_AT] * len(ids),
                "country": ["UK"] * len(ids),
            }
        )
        acks[f"{name}-{ids[-1]}"] = stream.send_table(table)
    return {event_id: ack.result(120).after_offset for event_id, ack in acks.items()}


def _check_rows(lake: str, rows: int, acks: list[dict[str, int]], seed: int) -> None:
    """Every event once, offsets dense, those acknowledged, and each producer's events in the order it sent them."""
    files = [str(path) for path in Path(lake).rglob("*.parquet")]
    found = duckdb.sql(
        f"select event_id, _offset, stock_code, quantity from read_parquet({files!r}) order by _offset"
    ).fetchall()
    assert [offset for _, offset, _, _ in found] == list(range(rows * len(PRODUCERS))), f"seed {seed}"
    for name in PRODUCERS:
        in_order = [quantity for _, _, code, quantity in found if code == name]
        assert in_order == list(range(1, rows + 1)), f"seed {seed}: {name}"
    offsets = {event_id: offset for event_id, offset, _, _ in found}
    for (_, way), acked in zip(PRODUCERS.items(), acks, strict=True):
        if way == "typed":
            assert len(acked) == rows, f"seed {seed}"
            assert acked == {event_id: offsets[event_id] for event_id in acked}, f"seed {seed}"
        else:
            assert all(offsets[event_id] < after for event_id, after in acked.items()), f"seed {seed}"


def test_the_service_ends_as_it_should_while_a_producer_is_connected(ingest: Any) -> None:
    with tidemill.connect(ingest.address) as tm:
        stream = tm.stream("order_lines")
        event = {
            "event_id": "1", "invoice_no": "536365", "stock_code": "A", "quantity": 1, "unit_price": "1",
            "invoiced_at": dt.datetime(2011, 12, 5, tzinfo=dt.UTC), "country": "UK",
        }  # fmt: skip
        assert stream.send(event).result(30).offset == 0
        ingest.stop()
        ack = stream.send({**event, "event_id": "2"})
        assert not ack.done()
        ingest.start()
        assert ack.result(60).offset == 1


def test_a_program_that_ends_without_close_loses_nothing(ingest: Any) -> None:
    code = f"""
import datetime as dt, tidemill
stream = tidemill.connect("{ingest.address}").stream("order_lines")
for number in range(3000):
    stream.send({{"event_id": str(number), "invoice_no": "536365", "stock_code": "A", "quantity": 1, "unit_price": "1",
                 "invoiced_at": dt.datetime(2011, 12, 5, tzinfo=dt.UTC), "country": "UK"}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with tidemill.connect(ingest.address) as tm:
        assert tm.stream_status("order_lines").counts.appended == 3000


def test_a_service_that_is_not_there_is_said_at_once() -> None:
    with socket.socket() as taken:
        # Nobody listens there: the port is taken, and silent.
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            tidemill.connect(address) as tm,
            pytest.raises(tidemill.ServiceUnavailable, match=f"no service answers at {address}.*tidemill serve"),
        ):
            tm.stream("order_lines")
        with pytest.raises(tidemill.ServiceUnavailable, match=r"after 0\.1 s"):
            tidemill.connect(address, wait_s=0.1)
    with pytest.raises(tidemill.TidemillError, match="expected an address such as localhost:7433"):
        tidemill.connect("localhost")
