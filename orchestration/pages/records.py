"""What the runs left behind, read for the pages: each run's record in short, and which belongs to a run of Airflow."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quality.config import DayConfig
from quality.errors import RunWrong
from quality.run import Run, load_run

CHECK_STAGES = ("check_sources", "check_marts")


@dataclass(frozen=True)
class Summary:
    """A run's record in short, as the list of days needs it. Dates are the first and the last, both included.

    state: as `Run.state` has it. last_at: when a stage of it last ended, well or not. failed_stage: where it stopped;
    empty when it did not. reconciled: the reconciliation has ended well; differences are then those with a cause.
    """

    run_id: str
    dag_id: str
    dag_run_id: str
    first: dt.date
    last: dt.date
    state: str
    began_at: str
    last_at: str
    as_of: str
    failed_stage: str
    failed_names: tuple[str, ...]
    checks: int
    warnings: int
    reconciled: bool
    views: int
    windows: int
    differences: int

    @classmethod
    def of(cls, run: Run) -> Summary:
        """Shorten a record."""
        last_failure: Mapping[str, Any] = run.failures[-1] if run.failures else {}
        checked = [result_of(run, stage) for stage in CHECK_STAGES]
        ended = [str(entry["ended_at"]) for entry in run.stages.values()]
        views = result_of(run, "reconcile").get("views", {}).values()
        return cls(
            run_id=run.run_id,
            dag_id=run.options.dag_id,
            dag_run_id=run.options.dag_run_id,
            first=run.first,
            last=run.last,
            state=run.state,
            began_at=run.began_at,
            last_at=max([run.began_at, *ended, *(str(each["at"]) for each in run.failures)]),
            as_of=run.options.as_of,
            failed_stage=str(last_failure.get("stage", "")),
            failed_names=tuple(str(name) for each in run.failures for name in each.get("names", ())),
            checks=sum(int(each.get("checks", 0)) for each in checked),
            warnings=sum(len(each.get("warnings", ())) for each in checked),
            reconciled="reconcile" in run.stages,
            views=sum(bool(each.get("compared", True)) for each in views),
            windows=sum(int(each.get("windows", 0)) for each in views),
            differences=sum(int(each.get("differences", 0)) for each in views),
        )


def result_of(run: Run, stage: str) -> dict[str, Any]:
    """Give what a stage gave; empty when it has not ended well."""
    result: dict[str, Any] = run.stages.get(stage, {}).get("result") or {}
    return result


class Records:
    """All runs' records in short. A file is read again only once it has changed; safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[tuple[int, int], Summary]] = {}

    def all(self, config: DayConfig) -> list[Summary]:
        """Give every run's, the one that began last first. What is no record is passed over."""
        with self._lock:
            known: dict[Path, tuple[tuple[int, int], Summary]] = {}
            for file in config.runs.glob("*/run.json"):
                try:
                    state = file.stat()
                    version = (state.st_mtime_ns, state.st_size)
                    old = self._known.get(file)
                    known[file] = (
                        old
                        if old is not None and old[0] == version
                        else (version, Summary.of(load_run(config, file.parent.name)))
                    )
                except (OSError, RunWrong, ValueError, TypeError, KeyError, AttributeError):
                    continue  # gone by now, half a folder, or none of ours
            self._known = known
            found = [summary for _, summary in known.values()]
        return sorted(found, key=lambda each: (each.began_at, each.run_id), reverse=True)

    def of_airflow_run(self, config: DayConfig, dag_id: str, dag_run_id: str) -> list[Summary]:
        """Give those that a run of Airflow made: one in `daily`, one for each group of dates in `late_events`."""
        found = [each for each in self.all(config) if (each.dag_id, each.dag_run_id) == (dag_id, dag_run_id)]
        return sorted(found, key=lambda each: each.first)
