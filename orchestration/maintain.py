"""`maintain`: every night what would fill the disk is compacted, thinned out and backed up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, get_current_context, task

from orchestration.alerts import send_alert, task_failed
from orchestration.asked import first_midnight, is_scheduled
from orchestration.failures import retry_arguments, unless_retryable

STEPS = {
    "lake": "Compact the lake's dates, and delete files that no version needs which a run is pinned to.",
    "runs": "Thin out the runs' folders: large files first, the record last.",
    "docs": "Remove old results of checks with their pages in the data docs.",
    "alerts": "Remove old alerts; the warehouse keeps them.",
    "leftovers": "Remove what runs and imports that died have left.",
    "backup": "Make a backup in TIDEMILL_BACKUP, if that is set, and remove the oldest ones.",
    "log": "Tell how large each stream's log is; the service drops old segments by itself.",
    "live": "Tell how large the live store is; the service bounds it by itself.",
    "disk": "Tell what takes room and for how long there is some; alert when that is not for long.",
}
"""The parts of `quality.upkeep`, a task each."""

DOC = """
### Every night: so that the disk does not fill

Each task is for itself: one that fails stops no other. What is in use is never touched: the run that has the turn, runs
that wait, the publication and its pins, lake versions that a run of the last 30 days is pinned to.

- **lake**, **runs**, **docs**, **alerts**, **leftovers** remove what is old; for how long what is kept is
  said in `docs/operate.md`.
- **backup** needs `TIDEMILL_BACKUP`; without, it says so.
- **log**, **live**, **disk** tell sizes; **disk** alerts when the room is not for long.
- **airflow_database** and **airflow_logs** remove what Airflow itself keeps of old runs.
"""


def maintain_dag(
    dag_id: str = "maintain",
    *,
    schedule: str = "30 2 * * *",
    scheduled: bool | None = None,
    retries: int = 2,
    airflow_days: int = 90,
    clean_airflow: bool = True,
    tags: Sequence[str] = (),
    doc_md: str = DOC,
) -> DAG:
    """Make the DAG of the upkeep.

    schedule: cron, UTC; after the day's run, before people come. scheduled: whether to have it; None: unless
    TIDEMILL_SCHEDULED is 0. retries: of what a retry can help. airflow_days: how long Airflow keeps its runs and their
    logs; clean_airflow: False where somebody else looks after that.
    """
    with DAG(
        dag_id=dag_id,
        schedule=CronTriggerTimetable(schedule, timezone="UTC")
        if (is_scheduled() if scheduled is None else scheduled)
        else None,
        start_date=first_midnight(),
        catchup=False,
        max_active_runs=1,
        # One at a time: the stream side and people's queries go on beside it.
        max_active_tasks=1,
        default_args={"owner": "tidemill", "on_failure_callback": [task_failed], **retry_arguments(retries)},
        tags=["tidemill", "upkeep", *tags],
        doc_md=doc_md,
    ) as made:
        for name, what in STEPS.items():
            task(task_id=name, doc_md=what)(_step(name))()
        if clean_airflow:

            @task
            def airflow_database() -> dict[str, Any]:
                """Remove what Airflow keeps of runs that ended long ago."""
                from orchestration.airflow_upkeep import clean_database

                return clean_database(airflow_days)

            @task
            def airflow_logs() -> dict[str, Any]:
                """Remove the task logs that nobody has written to for as long."""
                from orchestration.airflow_upkeep import clean_logs

                return clean_logs(airflow_days)

            airflow_database()
            airflow_logs()
    return made


def _step(name: str) -> Callable[[], dict[str, Any]]:
    def step() -> dict[str, Any]:
        from quality import upkeep
        from quality.config import DayConfig

        with unless_retryable():
            result = dict(getattr(upkeep, name)(DayConfig.from_environment()))
        if result.get("warning"):
            run = get_current_context()["dag_run"]
            # Kept by the step itself.
            send_alert(kind=name, dag_id=run.dag_id, dag_run_id=run.run_id, task_id=name, message=result["warning"])
        return result

    return step
