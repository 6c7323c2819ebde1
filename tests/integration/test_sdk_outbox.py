"""SIGKILL of a producer with an outbox, and of the service: what `send` returned for arrives, once and in order."""

from __future__ import annotations

import random
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

import tidemill

ROUNDS = 3
SOAK_ROUNDS = 60
# Prints a number once `send` has returned for it: the program may be killed at any moment after.
PROGRAM = """
import datetime as dt, sys, tidemill
address, outbox, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
with tidemill.connect(address, outbox=outbox) as tm:
    stream = tm.stream("order_lines")
    for number in range(first, first + 100_000):
        stream.send({"event_id": f"e{number}", "invoice_no": "536365", "stock_code": "A", "quantity": number + 1,
                     "unit_price": "1", "invoiced_at": dt.datetime(2011, 12, 5, tzinfo=dt.UTC), "country": "UK"})
        print(number, flush=True)
"""


class Program:
    """A producer in a process of its own; it can be killed."""

    def __init__(self, address: str, outbox: Path, first: int) -> None:
        command = [sys.executable, "-c", PROGRAM, address, str(outbox), str(first)]
        # Unbuffered: `select` then knows what there is to read.
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
        self.last = first - 1

    def read(self, numbers: int) -> None:
        """Read so many numbers."""
        assert self._process.stdout is not None
        for _ in range(numbers):
            ready, _, _ = select.select([self._process.stdout], [], [], 60)
            assert ready, "the producer stands still"
            self.last = int(self._process.stdout.readline())

    def kill(self) -> None:
        """SIGKILL; then `last` is the last number that was promised."""
        assert self._process.stdout is not None
        self._process.kill()
        rest = self._process.stdout.read().split(b"\n")[:-1]
        self.last = int(rest[-1]) if rest else self.last
        self._process.stdout.close()
        self._process.wait(30)


@pytest.mark.parametrize("rounds", [ROUNDS, pytest.param(SOAK_ROUNDS, marks=pytest.mark.soak)])
def test_a_killed_producer_loses_nothing_and_doubles_nothing(ingest: Any, tmp_path: Path, rounds: int) -> None:
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    outbox, first = tmp_path / "till.outbox", 0
    unpromised: set[int] = set()
    for _ in range(rounds):
        service_dies = rng.random() < 0.4
        program = Program(ingest.address, outbox, first)
        program.read(rng.randrange(1, 200))
        if service_dies:
            ingest.kill()
            program.read(rng.randrange(1, 200))  # with the service away: into the outbox
        program.kill()
        # One more may have been stored than was printed.
        unpromised.add(program.last + 1)
        first = program.last + 2
        if service_dies:
            ingest.start()
    with tidemill.connect(ingest.address, outbox=outbox) as tm:
        tm.flush(120)
        assert tm.outbox is not None
        assert (tm.outbox.pending_rows, tm.outbox.set_aside()) == (0, ())
        status = tm.stream_status("order_lines")
        export = tm.export("order_lines")
    counts = status.counts
    assert counts.sent == counts.received == counts.appended, f"seed {seed}: a count was carried wrongly"
    assert counts.duplicate == 0, f"seed {seed}: a batch was taken twice, and only its event ids saved it"
    files = [str(path) for path in Path(export.lake_uri).rglob("*.parquet")]
    rows = duckdb.sql(f"select quantity - 1 from read_parquet({files!r}) order by _offset").fetchall()
    arrived = [number for (number,) in rows]
    assert arrived == sorted(set(arrived)), f"seed {seed}: out of order or twice"
    assert set(range(first - 1)) - set(arrived) <= unpromised, f"seed {seed}: promised, and not there"


def test_a_program_starts_without_the_service(ingest: Any, tmp_path: Path) -> None:
    outbox = tmp_path / "till.outbox"
    with tidemill.connect(ingest.address, outbox=outbox) as tm:
        tm.stream("order_lines")
    ingest.stop()
    program = Program(ingest.address, outbox, 0)
    program.read(50)
    program.kill()
    ingest.start()
    with tidemill.connect(ingest.address, outbox=outbox) as tm:
        tm.flush(60)
        assert tm.stream_status("order_lines").counts.appended in {program.last + 1, program.last + 2}
