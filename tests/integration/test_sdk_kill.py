"""SIGKILL of the service in the middle of sending: no acknowledged event is lost, none doubled, the SDK carries on."""

from __future__ import annotations

import datetime as dt
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

import tidemill

ROUNDS = 3
SOAK_ROUNDS = 40
ROWS = 30_000


@pytest.mark.parametrize("rounds", [ROUNDS, pytest.param(SOAK_ROUNDS, marks=pytest.mark.soak)])
@pytest.mark.parametrize("way", ["typed", "table"])
def test_the_sdk_carries_on_when_the_service_is_killed(ingest: Any, way: str, rounds: int) -> None:
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    options = tidemill.ProducerOptions(batch_rows=500, table_rows=500, in_flight_rows=20_000)
    rejected: list[tidemill.Rejected] = []
    with tidemill.connect(ingest.address, options=options) as tm:
        stream = tm.stream("order_lines", on_rejected=rejected.append)
        outcome: list[Any] = []
        sender = threading.Thread(target=lambda: outcome.append(_send(stream, way)))
        sender.start()
        for kill in range(rounds):
            # At a moment that is not the same each time, but surely in the middle: by what is acknowledged.
            threshold = int(ROWS * (kill + rng.random()) / (rounds + 1))
            while stream.counts().acknowledged < threshold:
                assert sender.is_alive() or outcome, f"seed {seed}"
                time.sleep(0.001)
            ingest.kill()
            ingest.start()
        sender.join(60 + 20 * rounds)
        acks = outcome[0]
        counts = stream.flush(60)
        assert (counts.acknowledged, counts.appended, counts.failed) == (ROWS, ROWS, 0), f"seed {seed}"
        export = tm.export("order_lines")
        status = stream.status()
    assert status.durable_offset == status.counts.appended == status.counts.sent == ROWS, f"seed {seed}"
    assert status.counts.duplicate == 0, f"seed {seed}: a resend was taken for new, and only its event ids saved it"
    assert not rejected
    _check_rows(export.lake_uri, acks, seed)


def _send(stream: tidemill.Stream, way: str) -> dict[str, int | None]:
    """Send ROWS events; the offset that was acknowledged for each, by event id (typed events only)."""
    message, start = stream.message, dt.datetime(2011, 12, 5, 8, 0, tzinfo=dt.UTC)
    if way == "table":
        import pyarrow as pa

        for first in range(0, ROWS, 3_000):
            ids = range(first, first + 3_000)
            stream.send_table(
                pa.table(
                    {
                        "event_id": [f"e{number}" for number in ids],
                        "invoice_no": ["536365"] * 3_000,
                        "stock_code": ["A"] * 3_000,
                        "quantity": [number + 1 for number in ids],
                        "unit_price": ["1.000"] * 3_000,
                        "invoiced_at": [start] * 3_000,
                        "country": ["UK"] * 3_000,
                    }
                )
            )
        return {}
    acks = {}
    for number in range(ROWS):
        event = message(
            event_id=f"e{number}", invoice_no="536365", stock_code="A", quantity=number + 1, unit_price="1.000",
            invoiced_at=start, country="UK",
        )  # fmt: skip
        acks[f"e{number}"] = stream.send(event)
    return {name: ack.result(120).offset for name, ack in acks.items()}


def _check_rows(lake: str, acked: dict[str, int | None], seed: int) -> None:
    """Every event once, its offset the one acknowledged, and in the order in which it was sent."""
    files = [str(path) for path in Path(lake).rglob("*.parquet")]
    rows = duckdb.sql(f"select event_id, _offset, quantity from read_parquet({files!r}) order by _offset").fetchall()
    assert len(rows) == ROWS, f"seed {seed}"
    assert [offset for _, offset, _ in rows] == list(range(ROWS)), f"seed {seed}"
    assert [quantity for _, _, quantity in rows] == list(range(1, ROWS + 1)), f"seed {seed}"
    if acked:
        assert {name: offset for name, offset, _ in rows} == acked, f"seed {seed}"


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
