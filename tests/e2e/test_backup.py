"""A backup of a service under load, restored elsewhere: nothing that was acknowledged is missing, and all agrees."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from integration.conftest import SALES_BY_MINUTE, IngestProcess, live_manifest

import tidemill

TIDEMILL = [sys.executable, "-c", "import sys; from tidemill.cli import main; sys.exit(main())"]
FIRST = dt.datetime(2011, 12, 5, 8, 0, tzinfo=dt.UTC)


def data_tool(*arguments: object) -> dict[str, Any]:
    """Run a `tidemill data` command; what it says with --json."""
    command = [*TIDEMILL, "data", *(str(each) for each in arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


class Sender:
    """Sends without end: good rows, some that break the contract, some twice. `acked`: event id → offset."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._acked: dict[str, int] = {}
        self._more = threading.Condition(self._lock)
        self.failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def acked(self, at_least: int = 0) -> dict[str, int]:
        """What was acknowledged so far; waits until it is so much."""
        with self._more:
            assert self._more.wait_for(lambda: self.failed or len(self._acked) >= at_least, 60)
            assert self.failed is None
            return dict(self._acked)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert self.failed is None

    def _run(self) -> None:
        try:
            with tidemill.connect(self._address) as tm:
                stream = tm.stream("order_lines")
                for number in itertools.count():
                    # Some thousand events a second: load, and not more than the test has to count.
                    if number % 100 == 0 and self._stopping.wait(0.03):
                        break
                    name = f"e{number - 1 if number % 50 == 0 and number else number}"
                    ack = stream.send(self._event(name, number))
                    ack.add_done_callback(lambda ack, name=name: self._note(name, ack))
        except BaseException as error:
            with self._more:
                self.failed = error
                self._more.notify_all()

    def _event(self, name: str, number: int) -> dict[str, Any]:
        return {
            "event_id": name, "invoice_no": "536365", "stock_code": "" if number % 31 == 0 else "A",
            "quantity": number % 7 + 1, "unit_price": "2.550", "customer_id": 12346 + number % 5,
            "invoiced_at": FIRST + dt.timedelta(seconds=number % 1800), "country": ("France", "Spain")[number % 2],
        }  # fmt: skip

    def _note(self, name: str, ack: Any) -> None:
        try:
            result = ack.result(0)
        except tidemill.RowQuarantined:
            return
        with self._more:
            if result.offset is not None and result.verdict is tidemill.Verdict.APPENDED:
                self._acked[name] = result.offset
            self._more.notify_all()


@pytest.fixture
def ingest(tmp_path: Path) -> Iterator[IngestProcess]:
    folder = tmp_path / "first"
    folder.mkdir()
    process = IngestProcess(folder, live_manifest(folder), "--export-interval", "0.3")
    process.start()
    yield process
    process.kill()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[IngestProcess]:
    folder = tmp_path / "second"
    folder.mkdir()
    process = IngestProcess(folder, live_manifest(folder))
    yield process
    process.kill()


def test_a_backup_under_load_restored_elsewhere(
    ingest: IngestProcess, elsewhere: IngestProcess, tmp_path: Path
) -> None:
    vault = tmp_path / "vault"
    sender = Sender(ingest.address)
    try:
        sender.acked(at_least=2_000)
        data_tool("backup", vault, "--data", ingest.data)
        acked = sender.acked(at_least=6_000)
        made = data_tool("backup", vault, "--data", ingest.data)
        assert made["base"] is not None
        assert data_tool("verify", "--data", ingest.data)["ok"]
        assert data_tool("usage", "--data", ingest.data)["days_left"] is None
        sender.acked(at_least=len(acked) + 1_000)
    finally:
        sender.stop()
    ingest.kill()
    data_tool("restore", vault, "--data", elsewhere.data)
    report = data_tool("verify", "--data", elsewhere.data)
    assert report["ok"]
    assert report["notes"] == []
    elsewhere.start()
    with tidemill.connect(elsewhere.address) as tm:
        end = tm.stream_status("order_lines").durable_offset
        assert end == made["streams"]["order_lines"]["next_offset"]
        lake = tm.export("order_lines").lake_uri
        counts = tm.stream_status("order_lines").counts
        live = tm.view("sales_by_minute").query(after=end, limit=10_000).rows()
        quarantined = tm.quarantine("order_lines", 1)
        # It takes events, where it was left.
        again = tm.stream("order_lines").send(sender._event("new", 1)).result(30)
        assert again.offset == end
    assert counts.appended == end > max(acked.values())
    assert counts.sent == counts.appended + counts.duplicate + counts.quarantined
    assert counts.duplicate > 0
    assert counts.quarantined == quarantined.total > 0
    _check_rows(lake, acked, end)
    _check_live(lake, live, end)


def _rows(lake: str, end: int) -> str:
    files = [str(path) for path in Path(lake).rglob("*.parquet")]
    return f"(select * from read_parquet({files!r}) where _offset < {end})"


def _check_rows(lake: str, acked: dict[str, int], end: int) -> None:
    """Every row once, and all that were acknowledged before the backup began at their offsets."""
    rows = duckdb.sql(f"select event_id, _offset from {_rows(lake, end)} order by _offset").fetchall()
    assert [offset for _, offset in rows] == list(range(end))
    found = dict(rows)
    assert len(found) == end
    assert {name: found.get(name) for name in acked} == acked


def _check_live(lake: str, live: list[dict[str, Any]], end: int) -> None:
    """The live view over the same rows, in the model's own SQL."""
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        sql = SALES_BY_MINUTE.replace('"warehouse"."events"."order_lines"', _rows(lake, end))
        batch = connection.execute(sql).fetchall()
    columns = ("window_start", "country", "lines", "revenue", "customers")
    assert sorted(tuple(row[name] for name in columns) for row in live) == sorted(batch)
    assert batch
