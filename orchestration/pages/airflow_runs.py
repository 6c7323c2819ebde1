"""What Airflow itself knows of a run: its state, its tasks', and by which run its dates were published instead."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

PUBLISHED_BY = "published_by"
"""The XCom in which `take_turn` leaves the run that has published this one's dates."""
RUNNING = frozenset({"scheduled", "queued", "running", "restarting", "deferred", "up_for_retry", "up_for_reschedule"})


@dataclass(frozen=True)
class TaskState:
    """A task of a run, as of its last try. state: Airflow's word for it; empty before it was scheduled."""

    task_id: str
    map_index: int
    state: str
    started_at: dt.datetime | None
    ended_at: dt.datetime | None
    tries: int


@dataclass(frozen=True)
class AirflowRun:
    """A run of a DAG. asked: the fields of its form. published_by: our run that published its dates along with its own.

    tasks: in the order in which they ran.
    """

    dag_id: str
    run_id: str
    state: str
    kind: str
    started_at: dt.datetime | None
    ended_at: dt.datetime | None
    interval_start: dt.datetime | None
    asked: dict[str, Any]
    tasks: tuple[TaskState, ...]
    published_by: tuple[str, ...]

    @property
    def is_running(self) -> bool:
        """It has not come to an end."""
        return self.state in {"queued", "running"}

    def task(self, task_id: str) -> TaskState | None:
        """Give a task that is not mapped, by its id."""
        return next((each for each in self.tasks if each.task_id == task_id and each.map_index < 0), None)


def find_run(dag_id: str, run_id: str) -> AirflowRun | None:
    """Read a run from Airflow's database; None when there is none of these names."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session(scoped=False) as session:
        run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        if run is None:
            return None
        of_run = (TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
        tasks = session.scalars(select(TaskInstance).where(*of_run)).all()
        shared = session.scalars(
            select(XComModel.value)
            .where(XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.key == PUBLISHED_BY)
            .order_by(XComModel.map_index)
        ).all()
        return AirflowRun(
            dag_id=dag_id,
            run_id=run_id,
            state=_word(run.state),
            kind=_word(run.run_type),
            started_at=run.start_date,
            ended_at=run.end_date,
            interval_start=run.data_interval_start,
            asked=dict(run.conf or {}),
            tasks=tuple(
                TaskState(
                    each.task_id, each.map_index, _word(each.state), each.start_date, each.end_date, each.try_number
                )
                for each in sorted(tasks, key=_began)
            ),
            published_by=tuple(str(value) for value in shared),
        )


def _word(state: Any) -> str:
    return str(getattr(state, "value", state) or "")


def _began(task: Any) -> tuple[bool, float]:
    began = task.start_date
    return began is None, began.timestamp() if began else 0.0
