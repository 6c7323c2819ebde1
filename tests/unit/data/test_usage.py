"""`usage` says what grows, by what the data themselves say, and admits what it can't tell."""

from __future__ import annotations

import os

import pytest
from unit.data.conftest import DAY_US, Running

from ingest_service.data.__main__ import main
from ingest_service.data.folder import DataFolder
from ingest_service.data.shown import usage_lines
from ingest_service.data.usage import Part, Usage, usage


def part(measured: Usage, name: str) -> Part:
    return next(each for each in measured.parts if each.name == name)


def made(running: Running, us: int) -> None:
    """Let the folder have been made then."""
    os.utime(running.folder.root / "FORMAT", (us / 1e6, us / 1e6))


def test_less_than_a_day_of_data_is_unsure(running: Running) -> None:
    made(running, running.clock.us)
    running.clock.us += DAY_US - 1
    measured = usage(running.folder, running.clock)
    assert (measured.growth, measured.days_left) == (None, None)
    assert "unsure, there is less than a day of data" in usage_lines(measured)[-1]


def test_growth_is_that_of_the_last_days(running: Running) -> None:
    made(running, running.clock.us)
    begun = running.clock.us
    for day in range(1, 21):
        running.clock.us = begun + day * DAY_US
        running.send(100 if day > 10 else 10)
    running.lake.export()
    measured = usage(running.folder, running.clock)
    log = part(measured, "log of payments")
    sizes = {path: path.stat().st_size for path in running.segments()}
    per_row = sum(sizes.values()) / running.log.durable_offset
    # The first segments hold the first rows; those of the last seven days came at 100 a day.
    assert log.growth == pytest.approx(100 * per_row, rel=0.2)
    lake = part(measured, "lake of payments")
    assert lake.growth is not None
    assert lake.growth > 0
    assert measured.growth == pytest.approx(sum(each.growth or 0 for each in measured.parts))
    assert measured.days_left == pytest.approx(measured.free / measured.growth)
    assert measured.total == sum(each.bytes for each in measured.parts)
    assert "the disk lasts" in usage_lines(measured)[-1]


def test_a_stream_that_has_stopped_grows_no_more(running: Running) -> None:
    running.clock.us += 30 * DAY_US
    assert part(usage(running.folder, running.clock), "log of payments").growth == 0


def test_a_log_that_drops_its_old_segments_stays_as_large(running: Running) -> None:
    running.clock.us += 2 * DAY_US
    running.send(100)
    assert part(usage(running.folder, running.clock), "log of payments").growth != 0
    assert running.drop(2) == 2
    assert part(usage(running.folder, running.clock), "log of payments").growth == 0


def test_every_byte_is_counted_once(running: Running) -> None:
    (running.folder.root / "logs").mkdir()
    (running.folder.root / "logs" / "service.log").write_bytes(b"x" * 100_000)
    os.link(running.folder.root / "logs" / "service.log", running.folder.root / "same.log")
    (running.folder.root / "airflow" / "postgres").mkdir(parents=True)
    (running.folder.root / "airflow" / "postgres" / "base").write_bytes(b"x" * 50_000)
    measured = usage(running.folder, running.clock)
    assert part(measured, "logs").bytes == pytest.approx(100_000, abs=8192)
    assert part(measured, "Airflow's database").bytes == pytest.approx(50_000, abs=8192)
    files = {path.stat().st_ino: path.stat().st_blocks * 512
             for path in running.folder.root.rglob("*") if path.is_file()}  # fmt: skip
    assert measured.total == sum(files.values())


def test_the_command(folder: DataFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", "--data", str(folder.root)]) == 0
    out = capsys.readouterr().out
    for words in ("log of payments", "lake of payments", "live store", "warehouse", "free:", "share"):
        assert words in out
