"""Reading streams: from the SDK and the command line, against the real service, which dies at times."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

import tidemill

ROOT = Path(__file__).parents[2]
TAIL = [sys.executable, "-c", "import sys; from tidemill.cli import main; sys.exit(main())", "tail", "order_lines"]


@pytest.fixture
def tm(ingest: Any) -> Iterator[tidemill.Client]:
    options = tidemill.ProducerOptions(retry_for_s=20)
    with tidemill.connect(ingest.address, options=options) as client:
        yield client


def lines(tm: tidemill.Client, first: int, count: int, **changes: Any) -> list[str]:
    """Sends order lines and waits for them; their ids."""
    stream = tm.stream("order_lines")
    ids = [f"line-{number}" for number in range(first, first + count)]
    base = {
        "invoice_no": "536365", "stock_code": "85123A", "quantity": 6, "unit_price": "2.550", "country": "France",
        "invoiced_at": dt.datetime(2011, 12, 5, 8, 26, tzinfo=dt.UTC),
    }  # fmt: skip
    for event_id in ids:
        stream.send({**base, **changes, "event_id": event_id})
    tm.flush(60)
    return ids


def test_rows_come_as_messages_or_as_record_batches(tm: tidemill.Client) -> None:
    ids = lines(tm, 0, 3000)
    stream = tm.stream("order_lines")
    rows = list(stream.read())
    assert [row.event_id for row in rows] == ids
    assert rows[0] == stream.message.FromString(stream.serialize(rows[0]))
    assert (rows[0].unit_price, rows[0].country) == ("2.550", "France")
    table = pa.Table.from_batches(stream.read_arrow())
    assert table["_offset"].to_pylist() == list(range(3000))
    assert table.select(stream.schema.names).schema == stream.schema
    part = stream.read(from_offset=10, limit=3, columns=["event_id"])
    assert [(row.event_id, row.country) for row in part] == [(event_id, "") for event_id in ids[10:13]]
    assert (part.next_offset, part.durable_offset) == (13, 3000)


def test_reading_goes_on_where_it_was_left(tm: tidemill.Client) -> None:
    ids = lines(tm, 0, 100)
    stream = tm.stream("order_lines")
    with stream.read(follow=True) as reading:
        first = [next(reading).event_id for _ in range(37)]
        assert reading.next_offset == 37
    with pytest.raises(StopIteration):
        next(reading)
    assert first + [row.event_id for row in stream.read(from_offset=37)] == ids
    time = next(stream.read_arrow(from_offset=50, limit=1))["_append_time"][0].as_py()
    found = next(stream.read_arrow(from_time=time))
    assert found["_append_time"][0].as_py() == time
    assert found["_offset"][0].as_py() <= 50


def test_a_follower_gets_every_row_once_though_the_service_is_killed(ingest: Any, tm: tidemill.Client) -> None:
    stream = tm.stream("order_lines")
    total = 2000
    found: list[tuple[int, str]] = []

    def follow() -> None:
        with tidemill.connect(ingest.address) as other:
            reading = other.stream("order_lines").read(follow=True)
            for row in reading:
                assert reading.next_offset is not None
                found.append((reading.next_offset - 1, row.event_id))
                if len(found) == total:
                    return

    follower = threading.Thread(target=follow)
    follower.start()
    sent: list[str] = []
    for number in range(4):
        sent += lines(tm, 500 * number, 500)
        if number < 3:
            ingest.kill()
            ingest.start()
    follower.join(60)
    assert not follower.is_alive()
    assert found == list(enumerate(sent))
    assert stream.status().durable_offset == total


def test_what_was_asked_for_ends_where_it_would_have(ingest: Any, tm: tidemill.Client) -> None:
    ids = lines(tm, 0, 1000, description="x" * 200)
    reading = tm.stream("order_lines").read()
    first = next(reading).event_id
    ingest.kill()
    ingest.start()
    lines(tm, 1000, 10)
    assert [first, *(row.event_id for row in reading)] == ids


def test_patience_ends(ingest: Any) -> None:
    options = tidemill.ProducerOptions(retry_for_s=0.3)
    with tidemill.connect(ingest.address, options=options) as tm:
        reading = tm.stream("order_lines").read(follow=True)
        lines(tm, 0, 1)
        next(reading)
        ingest.kill()
        with pytest.raises(tidemill.ServiceUnavailable):
            next(reading)


def test_wrong_questions(tm: tidemill.Client) -> None:
    stream = tm.stream("order_lines")
    with pytest.raises(tidemill.BadQuery, match="give one of them"):
        stream.read(from_offset=1, from_end=True)
    with pytest.raises(tidemill.BadQuery, match="has no time zone"):
        stream.read(from_time=dt.datetime(2011, 12, 5))  # noqa: DTZ001 - that is the mistake
    with pytest.raises(tidemill.BadQuery, match="expected a list of names"):
        stream.read(columns="event_id")
    with pytest.raises(tidemill.RequestRefused, match="'nope' is unknown; the columns are: event_id"):
        next(stream.read(columns=["nope"]))
    with pytest.raises(tidemill.RequestRefused, match="expected at most 0, the durable offset; came 5"):
        next(stream.read(from_offset=5))


def test_another_thread_may_end_it(tm: tidemill.Client) -> None:
    reading = tm.stream("order_lines").read(follow=True)
    ended: list[list[Any]] = []
    waiting = threading.Thread(target=lambda: ended.append(list(reading)))
    waiting.start()
    reading.close()
    waiting.join(10)
    assert ended == [[]]


def test_a_client_that_is_closed_ends_its_readings(ingest: Any) -> None:
    tm = tidemill.connect(ingest.address)
    lines(tm, 0, 1)
    reading = tm.stream("order_lines").read(follow=True)
    next(reading)
    tm.close()
    with pytest.raises(tidemill.ClientClosed):
        next(reading)


def test_readers_that_never_read_cost_the_service_nothing(ingest: Any, tm: tidemill.Client) -> None:
    stream = tm.stream("order_lines")
    at = dt.datetime(2011, 12, 5, 8, 26, tzinfo=dt.UTC)
    numbers = iter(range(10**6))

    def fill(batches: int) -> None:
        for _ in range(batches):
            rows = range(10_000)
            columns: dict[str, Any] = {
                "event_id": [f"n{next(numbers)}" for _ in rows], "invoice_no": ["536365"] * 10_000,
                "stock_code": ["A"] * 10_000, "description": [os.urandom(90).hex()] * 10_000,
                "quantity": [1] * 10_000, "unit_price": ["1.000"] * 10_000, "invoiced_at": [at] * 10_000,
                "country": ["France"] * 10_000,
            }  # fmt: skip
            stream.send_table(pa.table(columns)).result(60)

    fill(20)
    process = psutil.Process(ingest.pid)
    fill(10)
    before = process.memory_info().rss
    idle = [stream.read(follow=True) for _ in range(100)]
    for reading in idle:
        # One row, so that the call is there; then nothing more is taken.
        next(reading)
    fill(10)
    grown_mib = (process.memory_info().rss - before) / (1 << 20)
    # Some 100 MB wait for each of them.
    assert grown_mib < 250, f"{grown_mib:.0f} MiB for 100 readers"
    for reading in idle:
        reading.close()


def tail(ingest: Any, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TAIL, "--address", ingest.address, *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def test_tail_prints_the_newest_rows(ingest: Any, tm: tidemill.Client) -> None:
    ids = lines(tm, 0, 25, description='a "quoted"\n\x1b[31mtext')
    done = tail(ingest)
    out, error = done.communicate(timeout=30)
    assert (done.returncode, error) == (0, "")
    assert [line.split()[2] for line in out.splitlines()] == [f"event_id={event_id}" for event_id in ids[-10:]]
    assert out.splitlines()[0].startswith("15 20")
    assert '\\n\\u001b[31mtext"' in out
    assert "\x1b" not in out
    done = tail(ingest, "--json", "-n", "2", "--from-offset", "3")
    rows = [json.loads(line) for line in done.communicate(timeout=30)[0].splitlines()]
    assert [(row["_offset"], row["event_id"], row["unit_price"]) for row in rows] == [
        (3, ids[3], "2.550"), (4, ids[4], "2.550"),
    ]  # fmt: skip
    done = tail(ingest, "--columns", "country, event_id", "-n", "1")
    assert done.communicate(timeout=30)[0].split()[2:] == ["country=France", f"event_id={ids[-1]}"]
    done = tail(ingest, "--from-time", "2100-01-01")
    assert done.communicate(timeout=30)[0] == ""
    done = tail(ingest, "--from-time", "yesterday")
    assert "expected a time such as 2011-12-05T08:26" in done.communicate(timeout=30)[1]
    assert done.returncode == 2


def test_tail_follows_until_ctrl_c(ingest: Any, tm: tidemill.Client) -> None:
    lines(tm, 0, 3)
    following = tail(ingest, "-f", "-n", "1", "--json", "--columns", "event_id", start_new_session=True)
    assert following.stdout is not None
    assert json.loads(following.stdout.readline()) == {"event_id": "line-2"}
    for number in (3, 4):
        lines(tm, number, 1)
        assert json.loads(following.stdout.readline()) == {"event_id": f"line-{number}"}
    following.send_signal(signal.SIGINT)
    out, error = following.communicate(timeout=30)
    assert (following.returncode, out, error) == (0, "", "")


def test_tail_ends_with_who_reads_it(ingest: Any, tm: tidemill.Client) -> None:
    lines(tm, 0, 3)
    following = tail(ingest, "-f")
    assert following.stdout is not None
    following.stdout.readline()
    following.stdout.close()
    send_more(tm, following.poll)
    assert following.wait(30) == 0
    assert following.stderr is not None
    assert following.stderr.read() == ""
    following.stderr.close()


def send_more(tm: tidemill.Client, ended: Callable[[], int | None]) -> None:
    """A pipe's end shows at the next write: rows are sent until then."""
    for number in range(3, 1000):
        if ended() is not None:
            return
        lines(tm, number, 1)
