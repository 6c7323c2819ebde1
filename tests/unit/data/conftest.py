"""A small data folder: one stream in several segments, its lake, a live store, a warehouse."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
from support.logs import NOON_US, SPEC, SetClock, append

from ingest_service.data.folder import DataFolder, lock_folder
from ingest_service.lake import LakeExporter
from ingest_service.log import Log, LogSettings
from ingest_service.log.files import OsFiles
from ingest_service.log.start import Start, write_start

DAY_US = 86_400_000_000


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

    def drop(self, segments: int) -> None:
        """Drop so many of the oldest segments, as retention does: 1 say where the log begins; 2 remove them."""
        paths = self.segments()
        offset, number = (int(part) for part in paths[segments].stem.split("-"))
        write_start(OsFiles(), self.log_folder, Start(number, offset))
        self.log.drop_before(number)
        for path in paths[:segments]:
            path.unlink()

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
        settings = LogSettings(segment_bytes=4_000)
        log = Log.open(root / "log" / SPEC.stream / "0", SPEC, clock=clock, settings=settings)
        lake = LakeExporter(log, SPEC.stream, folder.lake_uri(SPEC.stream))
        lake.ensure()
        made = Running(folder, clock, log, lake)
        folder.live_store.parent.mkdir()
        folder.warehouse.parent.mkdir()
        with duckdb.connect(str(folder.warehouse)) as connection:
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
