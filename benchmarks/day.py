"""The day: from the trigger to the published warehouse and its docs, in a warm Airflow."""

from __future__ import annotations

import datetime as dt
import time

import tidemill
from benchmarks.result import Result
from benchmarks.service import data_folder, running_stack
from tidemill.simulate import simulate_day

LINES = 5_000
_DATES = (dt.date(2026, 3, 3), dt.date(2026, 3, 4))


def daily() -> list[Result]:
    """daily_dag_s: the second of two days of 5,000 events; the first one warms what a running Airflow has warm."""
    with data_folder() as data, running_stack(data) as stack, tidemill.connect(stack.address) as client:
        stack.start_airflow()
        airflow = stack.wait_airflow()
        airflow.unpause("daily")
        seconds = 0.0
        for date in _DATES:
            stream = client.stream("order_lines", on_rejected=_ignore)
            stream.send_table(simulate_day(date, lines=LINES).table).result(60)
            start = time.perf_counter()
            airflow.trigger("daily", {"date": str(date), "force": True}, f"bench-{date}")
            for _ in airflow.follow("daily", f"bench-{date}", check=stack.check):
                pass
            seconds = time.perf_counter() - start
            if airflow.run_state("daily", f"bench-{date}") != "success":
                raise RuntimeError(f"daily failed: {airflow.failures('daily', f'bench-{date}')}")
    return [Result("daily_dag_s", seconds, f"s, {LINES:,} events")]


def _ignore(row: tidemill.Rejected) -> None:
    """The simulated day's broken rows are part of it."""
