"""A run's steps in time: its stages, as its record has them, and the tasks of Airflow around them."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestration.pages.airflow_runs import RUNNING, AirflowRun
from orchestration.pages.records import result_of
from quality.run import STAGES, Run

TASKS = {"wait": "wait", "take_turn": "take_turn", **{stage: stage for stage in STAGES}, "document": "docs"}
"""Step of the page → task of Airflow."""


@dataclass(frozen=True)
class Step:
    """A stage or a task of the run. state: success, failed, running, skipped, or "" when it has not begun.

    left, width: where its bar lies on the run's whole time, in percent.
    """

    name: str
    task_id: str
    state: str
    started_at: dt.datetime | None
    seconds: float | None
    tries: int
    said: str
    left: float = 0.0
    width: float = 0.0


def moment(text: Any) -> dt.datetime | None:
    """Read a time of a record; None where there is none."""
    try:
        return dt.datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None


def steps_of(run: Run, airflow: AirflowRun | None) -> tuple[Step, ...]:
    """Give all steps in their order, those that have not begun too, each in its place on the run's whole time."""
    return _placed(tuple(_steps(run, airflow)))


def _steps(run: Run, airflow: AirflowRun | None) -> Iterator[Step]:
    failed = {str(each["stage"]): moment(each["at"]) for each in run.failures}
    for name, task_id in TASKS.items():
        entry = run.stages.get(name)
        task = airflow.task(task_id) if airflow else None
        if entry is not None and (task is None or task.state not in RUNNING):
            began, ended = moment(entry["started_at"]), moment(entry["ended_at"])
            tries = task.tries if task else 1
            yield Step(name, task_id, "success", began, _seconds(began, ended), tries, _said(run, name))
        elif task is not None:
            began, ended = task.started_at, task.ended_at
            if task.state in {"running", "deferred"} and began:
                ended = dt.datetime.now(dt.UTC)
            said = f"try {task.tries}" if task.state == "up_for_retry" else ""
            yield Step(name, task_id, _step_state(task.state), began, _seconds(began, ended), task.tries, said)
        elif name in failed:
            yield Step(name, task_id, "failed", failed[name], None, 1, "")
        elif name in STAGES:
            yield Step(name, task_id, "", None, None, 0, "")


def _step_state(state: str) -> str:
    if state in {"success", "failed", "skipped"}:
        return state
    if state == "upstream_failed":
        return ""
    return {"deferred": "waiting", "up_for_retry": "retrying"}.get(state, "running" if state == "running" else "")


def _seconds(began: dt.datetime | None, ended: dt.datetime | None) -> float | None:
    return max((ended - began).total_seconds(), 0.0) if began and ended else None


def span(steps: Sequence[Step]) -> tuple[dt.datetime | None, float | None]:
    """Give when the first of them began, and the seconds to the last one's end."""
    begun = [step for step in steps if step.started_at]
    if not begun:
        return None, None
    first = min(step.started_at for step in begun if step.started_at)
    ends = [step.started_at + dt.timedelta(seconds=step.seconds or 0) for step in begun if step.started_at]
    return first, (max(ends) - first).total_seconds()


def _placed(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Give the steps their places on the run's whole time."""
    first, whole = span(steps)
    if first is None or not whole:
        return steps
    placed = []
    for step in steps:
        if step.started_at is None or step.seconds is None:
            placed.append(step)
            continue
        left = 100 * (step.started_at - first).total_seconds() / whole
        width = max(100 * step.seconds / whole, 0.6)
        placed.append(dataclasses.replace(step, left=round(min(left, 99.4), 2), width=round(width, 2)))
    return tuple(placed)


def _said(run: Run, stage: str) -> str:  # noqa: PLR0911 - one sentence a stage
    """Say in a few words what a stage came to."""
    result = result_of(run, stage)
    match stage:
        case "seal":
            return _many(sum(pin.fresh for pin in run.streams.values()), "stream") + " sealed"
        case "export":
            return _many(len(run.streams), "lake table") + " pinned"
        case "check_sources" | "check_marts":
            lines = result.get("balance", [])
            counted = f", {_many(len(lines), 'balance line')}" if lines else ""
            return f"{_many(int(result.get('checks', 0)), 'check')}: {result.get('verdict', '')}{counted}"
        case "balance":
            return _many(len(result.get("balance", [])), "line") + ", all equal"
        case "reconcile":
            views = result.get("views", {}).values()
            windows = sum(int(view.get("windows", 0)) for view in views)
            differences = sum(int(view.get("differences", 0)) for view in views)
            found = f"{_many(differences, 'difference')}, each explained" if differences else "no difference"
            return f"{_many(len(views), 'view')}, {_many(windows, 'window')}: {found}"
        case "publish":
            return "kept for looking at, not published" if run.options.as_of else "the warehouse that readers open"
        case "document":
            return "dbt docs, data docs"
        case _:
            if result.get("note"):
                return str(result["note"])
            models = len(result.get("models", {})) + len(result.get("seeds", {})) + len(result.get("snapshots", {}))
            return f"{_many(models, 'model')}, {_many(int(result.get('tests', 0)), 'test')}"


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
