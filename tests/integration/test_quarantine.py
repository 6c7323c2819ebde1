"""Quarantine end to end: rows are refused, the contract is loosened, the rows are replayed, the service is killed."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.conftest import IngestProcess

import tidemill
from tidemill.cli import main

CONTRACT = """syntax = "proto3";
package shop.v1;
import "buf/validate/validate.proto";
import "google/protobuf/timestamp.proto";
import "tidemill/v1/options.proto";
message Reading {
  option (tidemill.v1.stream) = {name: "readings", event_time: "at", version: VERSION};
  google.protobuf.Timestamp at = 1;
  int64 n = 2;
  int64 amount = 3 [(buf.validate.field).int64.lte = LIMIT];
}
"""
AT = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)


def write_contract(folder: Path, version: int, limit: int) -> None:
    (folder / "proto").mkdir(exist_ok=True)
    text = CONTRACT.replace("VERSION", str(version)).replace("LIMIT", str(limit))
    (folder / "proto" / "reading.proto").write_text(text, encoding="utf-8")


@pytest.fixture
def readings(tmp_path: Path) -> Iterator[IngestProcess]:
    """A service whose contract takes amounts up to 10, with small segments."""
    write_contract(tmp_path, 1, 10)
    options = ("--proto", str(tmp_path / "proto"), "--segment-bytes", "200kB", "--export-interval", "0")
    process = IngestProcess(tmp_path, None, *options)
    process.start()
    yield process
    process.kill()


def loosen(process: IngestProcess, limit: int) -> None:
    process.stop()
    write_contract(process.data.parent, 2, limit)
    process.start()


def send(tm: tidemill.Client, amounts: list[int]) -> None:
    stream = tm.stream("readings", on_rejected=lambda rejected: None)
    for n, amount in enumerate(amounts):
        stream.send({"at": AT, "n": n, "amount": amount})
    stream.flush(60)


def test_rows_are_listed_shown_and_replayed(readings, capsys):
    address = ["--address", readings.address]
    with tidemill.connect(readings.address, wait_s=20) as tm:
        send(tm, [1, 50, 5000])
        before = tm.stream_status("readings").counts
    assert (before.appended, before.quarantined) == (1, 2)
    assert main(["quarantine", "list", "readings", *address, "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["rule"], first["field"], first["replayed"]) == ("int64.lte", "amount", False)
    assert main(["quarantine", "show", "readings", first["id"], *address]) == 0
    shown = capsys.readouterr().out
    assert "int64.lte (amount)" in shown
    assert '"amount": "50"' in shown
    assert main(["quarantine", "replay", "readings", *address]) == 0
    assert "2 rows: 0 appended, 0 duplicates of rows appended since, 2 still break" in capsys.readouterr().out

    loosen(readings, 100)
    address = ["--address", readings.address]
    assert main(["quarantine", "replay", "readings", "--check-only", *address, "--json"]) == 0
    would = json.loads(capsys.readouterr().out)
    assert (would["checked"], would["appended"], would["still_broken"]) == (2, 1, 1)
    assert main(["quarantine", "replay", "readings", first["id"], *address]) == 0
    assert "1 rows: 1 appended" in capsys.readouterr().out
    assert main(["quarantine", "list", "readings", *address]) == 0
    listed = capsys.readouterr().out
    assert second["id"] in listed
    assert first["id"] not in listed
    assert "1 of 1 rows" in listed
    assert main(["quarantine", "show", "readings", first["id"], *address, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["row"]["replayed"] is True
    assert main(["quarantine", "show", "readings", "9-9-9", *address]) == 1
    assert "there is no quarantined row 9-9-9" in capsys.readouterr().err
    assert main(["stream", "show", "readings", *address]) == 0
    shown = capsys.readouterr().out
    assert "rows from offset 0 on" in shown
    assert "(15 min)" in shown
    with tidemill.connect(readings.address) as tm:
        counts = tm.stream_status("readings").counts
    assert counts.sent == counts.received == counts.appended + counts.duplicate + counts.quarantined == 3


@pytest.mark.parametrize("kills", [2, pytest.param(40, marks=pytest.mark.soak)])
def test_rows_are_replayed_once_although_the_service_is_killed(readings, kills):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    bad = 15_000
    with tidemill.connect(readings.address, wait_s=20) as tm:
        send(tm, [50] * bad)
    loosen(readings, 100)
    for _ in range(kills):
        started = threading.Event()

        def replay(address: str = readings.address, started: threading.Event = started) -> None:
            with tidemill.connect(address) as tm:
                started.set()
                with contextlib.suppress(tidemill.ServiceUnavailable):
                    # As long as the service lives: a kill that comes late finds a replay that has nothing to do.
                    while tm.replay_quarantine("readings", timeout_s=30):
                        pass

        thread = threading.Thread(target=replay)
        thread.start()
        started.wait(20)
        threading.Event().wait(chance.uniform(0.0, 0.3))
        readings.kill()
        thread.join(60)
        assert not thread.is_alive()
        readings.start()
    with tidemill.connect(readings.address, wait_s=20) as tm:
        rest = tm.replay_quarantine("readings")
        assert rest.still_broken == 0
        assert tm.replay_quarantine("readings").checked == 0
        assert tm.quarantine("readings").total == 0
        numbers = [row.n for row in tm.stream("readings").read()]
        counts = tm.stream_status("readings").counts
    assert numbers == list(range(bad))
    assert (counts.sent, counts.received, counts.appended, counts.quarantined) == (bad, bad, bad, 0)
