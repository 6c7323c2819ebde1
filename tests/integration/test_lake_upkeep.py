"""The lake is looked after through the service, which is its only writer, while it takes events."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable

import tidemill
import tidemill.aio

AT = dt.datetime(2011, 12, 5, 8, 0, tzinfo=dt.UTC)


def send(tm: tidemill.Client, first: int, count: int) -> tidemill.Export:
    lines = tm.stream("order_lines")
    for number in range(first, first + count):
        lines.send(
            {
                "event_id": f"e{number}",
                "invoice_no": "536365",
                "stock_code": "85123A",
                "quantity": 1,
                "unit_price": "2.550",
                "country": "France",
                "invoiced_at": AT + dt.timedelta(days=number % 2),
            }
        )
    lines.flush(30)
    return tm.export("order_lines")


def rows(uri: str, version: int | None = None) -> list[int]:
    files = DeltaTable(uri, version=version).file_uris()
    return [row for (row,) in duckdb.sql(f"select _offset from read_parquet({files!r}) order by 1").fetchall()]


def test_pinned_versions_can_be_read_and_others_are_gone(ingest: Any) -> None:
    with tidemill.connect(ingest.address) as tm:
        exports = [send(tm, first, 10) for first in range(0, 60, 10)]
        uri = exports[0].lake_uri
        pinned, other = exports[2], exports[4]
        compacted = tm.maintain_lake("order_lines", compact_only=True)
        assert compacted.compacted == (AT.date(), AT.date() + dt.timedelta(days=1))
        assert (compacted.deleted_files, compacted.freed_bytes) == (0, 0)
        assert rows(uri, other.lake_version) == list(range(50))
        young = tm.maintain_lake("order_lines")
        assert (young.compacted, young.deleted_files, young.files) == ((), 0, 2)
        assert young.kept_files == 12
        done = tm.maintain_lake("order_lines", keep_versions=[pinned.lake_version, 900], min_age_s=0)
        assert (done.deleted_files, done.files, done.kept_files, done.missing_versions) == (6, 2, 6, (900,))
        assert done.freed_bytes > 0
        assert rows(uri, pinned.lake_version) == list(range(30))
        assert rows(uri) == list(range(60))
        with pytest.raises(duckdb.IOException):
            rows(uri, other.lake_version)
        # The service goes on, and so does whoever reads from the lake.
        assert send(tm, 60, 10).lake_offset == 70
        assert rows(uri) == list(range(70))
        status = tm.stream_status("order_lines")
        assert (status.lake_offset, status.lake_error) == (70, "")
    parquet = [path for path in Path(uri).rglob("*.parquet") if "_delta_log" not in path.parts]
    assert len(parquet) == 10


def test_what_is_asked_wrongly_is_refused(ingest: Any) -> None:
    with tidemill.connect(ingest.address) as tm:
        with pytest.raises(tidemill.RequestRefused, match="keep_versions: expected 1000 at the most, came 1001"):
            tm.maintain_lake("order_lines", keep_versions=range(1001))
        with pytest.raises(tidemill.NotFound):
            tm.maintain_lake("nothing")


def test_asyncio_asks_the_same(ingest: Any) -> None:
    async def run() -> tidemill.LakeUpkeep:
        async with tidemill.aio.connect(ingest.address) as tm:
            return await tm.maintain_lake("order_lines", dates=[AT.date()], min_age_s=0)

    with tidemill.connect(ingest.address) as tm:
        send(tm, 0, 4)
        send(tm, 4, 4)
    done = asyncio.run(run())
    assert (done.compacted, done.deleted_files, done.kept_files) == ((AT.date(),), 2, 0)


def test_killed_in_the_middle_nothing_that_is_needed_is_lost(ingest: Any) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    pins: dict[int, int] = {}
    uri = ""
    sent = 0
    pause = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        for _ in range(4):
            with tidemill.connect(ingest.address) as tm:
                for _ in range(4):
                    export = send(tm, sent, 10)
                    sent, uri = sent + 10, export.lake_uri
                    if chance.random() < 0.5:
                        pins[export.lake_version] = export.lake_offset
            upkeep = threads.submit(maintain_quietly, ingest.address, list(pins))
            # No event tells that it is in the middle: at any moment, also before and after.
            pause.wait(chance.uniform(0, 0.3))
            ingest.kill()
            upkeep.result(60)
            ingest.start()
            for version, offset in pins.items():
                assert rows(uri, version) == list(range(offset)), f"seed {seed}, version {version}"
            assert rows(uri) == list(range(sent)), f"seed {seed}"
    with tidemill.connect(ingest.address) as tm:
        done = tm.maintain_lake("order_lines", keep_versions=list(pins), min_age_s=0)
    assert done.missing_versions == (), f"seed {seed}"
    needed = {file for version in [*pins, None] for file in DeltaTable(uri, version=version).file_uris()}
    there = {str(path) for path in Path(uri).rglob("*.parquet") if "_delta_log" not in path.parts}
    assert there == needed, f"seed {seed}"
    assert rows(uri) == list(range(sent)), f"seed {seed}"


def maintain_quietly(address: str, pins: list[int]) -> None:
    """Upkeep whose service may be killed."""
    with contextlib.suppress(tidemill.ServiceError), tidemill.connect(address) as tm:
        tm.maintain_lake("order_lines", keep_versions=pins, min_age_s=0)
