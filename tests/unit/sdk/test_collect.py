"""What a machine measures of itself, and when."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import psutil
import pytest

from tidemill.collect import HostSensors, Reading, rounds
from tidemill.collect.host import rate_of
from tidemill.collect.rounds import FIELDS

NOON = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)


class Clock:
    """A clock that moves when it is waited for, or by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    def monotonic_s(self) -> float:
        return self.now_s

    def now(self) -> dt.datetime:
        return NOON + dt.timedelta(seconds=self.now_s - 100)


class Slow:
    """A sensor whose reading takes as long as it is told."""

    def __init__(self, clock: Clock, takes_s: list[float]) -> None:
        self._clock, self._takes_s = clock, takes_s

    def read(self) -> list[Reading]:
        self._clock.wait(self._takes_s.pop(0))
        return [Reading("cpu", "used_percent", 12, "percent")]


def moments(interval_s: float, takes_s: list[float]) -> list[float]:
    clock = Clock()
    made = rounds(
        Slow(clock, list(takes_s)), "here", interval_s, len(takes_s),
        wait=clock.wait, monotonic_s=clock.monotonic_s, now=clock.now,
    )  # fmt: skip
    return [(each.measured_at - NOON).total_seconds() for each in made]


@pytest.mark.parametrize(
    ("interval_s", "takes_s", "expected"),
    [
        (5.0, [0, 0, 0], [1, 6, 11]),  # the first after a second
        (0.5, [0, 0, 0], [0.5, 1, 1.5]),  # or sooner
        (5.0, [2, 0, 0], [1, 6, 11]),  # the time that measuring takes is no drift
        (5.0, [5, 0, 0], [1, 11, 16]),  # a round that is missed is left out: the next one is on the grid
        (5.0, [12, 0, 0], [1, 16, 21]),
    ],
)
def test_rounds_keep_to_their_grid(interval_s: float, takes_s: list[float], expected: list[float]) -> None:
    assert moments(interval_s, takes_s) == expected


def test_a_row_is_what_the_contract_wants() -> None:
    clock = Clock()
    first, second = rounds(
        Slow(clock, [0, 0]), "here", 5, 2, wait=clock.wait, monotonic_s=clock.monotonic_s, now=clock.now
    )
    (row,) = first.rows()
    assert tuple(row) == FIELDS
    assert {name: row[name] for name in FIELDS[1:]} == {
        "measured_at": NOON + dt.timedelta(seconds=1), "host": "here", "sensor": "cpu", "metric": "used_percent",
        "value": 12.0, "unit": "percent",
    }  # fmt: skip
    assert isinstance(row["value"], float)
    assert len(row["event_id"]) <= 128
    assert row["event_id"] != second.rows()[0]["event_id"]


def test_two_runs_never_share_an_id() -> None:
    clock = Clock()
    ids = [
        row["event_id"]
        for _ in range(2)
        for each in rounds(Slow(clock, [0, 0]), "here", 1, 2, wait=clock.wait, monotonic_s=clock.monotonic_s)
        for row in each.rows()
    ]
    assert len(set(ids)) == len(ids) == 4


@pytest.mark.parametrize(
    ("before", "now", "seconds", "rate"),
    [
        (100, 300, 2.0, 100.0),
        (100, 100, 2.0, 0.0),
        (None, 300, 2.0, None),  # there was no such counter before
        (300, 100, 2.0, None),  # it began anew
        (100, 300, 0.0, None),
    ],
)
def test_a_rate_needs_two_counts_and_time(before: int | None, now: int, seconds: float, rate: float | None) -> None:
    assert rate_of(before, now, seconds) == rate


def test_this_machine_tells_what_it_is_doing(tmp_path: Path) -> None:
    clock = Clock()
    sensors = HostSensors(tmp_path, monotonic_s=clock.monotonic_s)
    clock.wait(1)
    readings = {(each.sensor, each.metric): each for each in sensors.read()}
    assert {sensor for sensor, _ in readings} >= {"cpu", "memory", "disk"}
    for each in readings.values():
        assert each.value >= 0
        if each.unit == "percent":
            assert each.value <= 100
        assert each.metric.endswith(f"_{each.unit.replace('/s', '_per_s')}") or each.unit == "processes"
    assert readings["memory", "available_bytes"].value <= psutil.virtual_memory().total
    assert readings["disk", "free_bytes"].value <= psutil.disk_usage(str(tmp_path)).total


def test_without_time_there_are_no_rates(tmp_path: Path) -> None:
    clock = Clock()
    units = {each.unit for each in HostSensors(tmp_path, monotonic_s=clock.monotonic_s).read()}
    assert units == {"percent", "bytes", "processes"}


def test_a_disk_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        HostSensors(tmp_path / "nowhere")
