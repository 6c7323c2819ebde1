"""This machine's CPU, memory, disk and network, by psutil."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

PERCENT, BYTES, BYTES_PER_S, PROCESSES = "percent", "bytes", "bytes/s", "processes"


@dataclass(frozen=True, slots=True)
class Reading:
    """One measured value: of which part of the machine, of what of it, and what the value counts."""

    sensor: str
    metric: str
    value: float
    unit: str


class HostSensors:
    """Reads this machine's sensors; what is a rate, or a share of time, is since the reading before.

    What a machine does not tell (a container without disks, a system without load averages) is left out. Not
    thread-safe, and one in a process: psutil remembers one reading of the CPU.
    """

    def __init__(self, disk: Path = Path("/"), *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        """disk: any folder of the file system to measure. Raises OSError when there is none."""
        self._disk = str(disk)
        self._monotonic_s = monotonic_s
        psutil.disk_usage(self._disk)
        psutil.cpu_percent(None)
        self._counted, self._counted_at_s = _counters(), monotonic_s()

    def read(self) -> list[Reading]:
        """Give every reading of now."""
        return [*self._cpu(), *self._memory(), *self._space(), *self._rates()]

    def _cpu(self) -> list[Reading]:
        readings = [Reading("cpu", "used_percent", psutil.cpu_percent(None), PERCENT)]
        if hasattr(os, "getloadavg"):
            readings.append(Reading("cpu", "load_1m", os.getloadavg()[0], PROCESSES))
        return readings

    def _memory(self) -> list[Reading]:
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        return [
            Reading("memory", "used_percent", memory.percent, PERCENT),
            Reading("memory", "available_bytes", memory.available, BYTES),
            Reading("memory", "swap_used_bytes", swap.used, BYTES),
        ]

    def _space(self) -> list[Reading]:
        space = psutil.disk_usage(self._disk)
        return [
            Reading("disk", "used_percent", space.percent, PERCENT),
            Reading("disk", "free_bytes", space.free, BYTES),
        ]

    def _rates(self) -> list[Reading]:
        before, then_s = self._counted, self._counted_at_s
        self._counted, self._counted_at_s = _counters(), self._monotonic_s()
        seconds = self._counted_at_s - then_s
        readings = []
        for (sensor, metric), count in self._counted.items():
            rate = rate_of(before.get((sensor, metric)), count, seconds)
            if rate is not None:
                readings.append(Reading(sensor, metric, rate, BYTES_PER_S))
        return readings


def rate_of(before: int | None, now: int, seconds: float) -> float | None:
    """Give what was counted in a second; None without a count before, without time, and when a counter began anew."""
    if before is None or now < before or seconds <= 0:
        return None
    return round((now - before) / seconds, 3)


def _counters() -> dict[tuple[str, str], int]:
    """Bytes counted since the machine started, by sensor and name of the rate."""
    counters: dict[tuple[str, str], int] = {}
    disk = psutil.disk_io_counters()
    if disk is not None:
        counters["disk", "read_bytes_per_s"] = disk.read_bytes
        counters["disk", "written_bytes_per_s"] = disk.write_bytes
    network = psutil.net_io_counters()
    if network is not None:
        counters["network", "received_bytes_per_s"] = network.bytes_recv
        counters["network", "sent_bytes_per_s"] = network.bytes_sent
    return counters
