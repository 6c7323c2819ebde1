"""A small data folder: one stream in several segments, its lake, a live store, a warehouse."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pytest
from support.logs import NOON_US, SPEC, SetClock, append, batch

from ingest_service.data.folder import HOLD_NAME, DataFolder, lock_folder
from ingest_service.lake import LakeExporter
from ingest_service.log import Append, Log, LogSettings, QuarantinedRow
from ingest_service.log.retention import Retention, RetentionHold

DAY_US = 86_400_000_000
SETTINGS = LogSettings(segment_bytes=4_000, dedup_ids_max=20)


@dataclass
class Running:
    """A data folder that is being written, as a service does it."""

    folder: DataFolder
    clock: SetClock
    log: Log
    lake: LakeExporter

    @property
    def log_folder(self) -> Path:
        return self.folder.root / "log" / SPEC.stream / "0"

    def segments(self) -> list[Path]:
        return sorted(self.log_folder.glob("*.seg"))

    def send(self, count: int, days: int = 1) -> None:
        """Append so many rows, of some event dates in turn, in appends of ten."""
        first = self.log.durable_offset
        for start in range(first, first + count, 10):
            numbers = range(start, min(start + 10, first + count))
            times = [self.clock.us - (number % days) * DAY_US for number in numbers]
            self.log.append(append([f"e{number}" for number in numbers], at_us=times)).result(30)

    def quarantine(self, rows: int) -> None:
        """Append rows that break their contract, and none that keeps it."""
        broken = tuple(QuarantinedRow(index, "rule", "amount", "is wrong", b"payload") for index in range(rows))
        self.log.append(Append(batch([]), rows, broken)).result(30)

    def drop(self, segments: int) -> int:
        """Let retention drop so many of the oldest segments, if the lake has them; how many it dropped."""
        hold = RetentionHold(self.folder.root / HOLD_NAME)
        kept_bytes = sum(path.stat().st_size for path in self.segments()[segments:])
        settings = replace(SETTINGS, retain_bytes=kept_bytes)
        retention = Retention(
            self.log, self.log_folder, lambda: self.lake.state().offset, hold, settings=settings, clock=self.clock
        )
        return retention.run().segments

    def view_at(self, offset: int) -> None:
        """Let the live store have a view that covers the log up to there."""
        with closing(sqlite3.connect(self.folder.live_store, isolation_level=None)) as connection:
            connection.execute("pragma journal_mode = wal")
            connection.execute("create table if not exists tidemill_views (view primary key, stream, next_offset)")
            connection.execute("insert or replace into tidemill_views values ('sales', ?, ?)", [SPEC.stream, offset])


@pytest.fixture
def clock() -> SetClock:
    return SetClock(NOON_US)


@pytest.fixture
def running(tmp_path: Path, clock: SetClock) -> Iterator[Running]:
    root = tmp_path / "data"
    folder = DataFolder(root)
    with lock_folder(root):
        log = Log.open(root / "log" / SPEC.stream / "0", SPEC, clock=clock, settings=SETTINGS)
        lake = LakeExporter(log, SPEC.stream, folder.lake_uri(SPEC.stream))
        lake.ensure()
        made = Running(folder, clock, log, lake)
        folder.live_store.parent.mkdir()
        # As a day publishes it: the name that readers open is a link.
        version = folder.warehouse.parent / "versions" / "1-r1" / folder.warehouse.name
        version.parent.mkdir(parents=True)
        folder.warehouse.symlink_to(version.relative_to(folder.warehouse.parent))
        with duckdb.connect(str(version)) as connection:
            connection.execute("create table fct as select range as n, repeat('tide', 20) as t from range(10000)")
        made.send(300, days=3)
        lake.export(200)
        made.view_at(250)
        yield made
        log.close()


@pytest.fixture
def folder(running: Running) -> DataFolder:
    """The same after the service has ended."""
    running.log.close()
    return running.folder
