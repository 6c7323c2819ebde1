"""`import_files`: what lies in the landing folder is sent to its stream, each file once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, task
from airflow.sdk.exceptions import AirflowSkipException

from orchestration.alerts import task_failed
from orchestration.asked import first_midnight, is_scheduled
from orchestration.failures import retry_arguments, unless_retryable

LANDING_VARIABLE = "TIDEMILL_LANDING"

DOC = """
### Files from a landing folder, through the same door as everything else

Every minute `look` lists the files that lie ready in `TIDEMILL_LANDING` (a folder, or `s3://…`): Parquet, CSV, JSON
lines. `take` sends each to its stream, one task a file: a file counts once by its content's hash, and its rows are
checked as any producer's. A half-written file waits; a bad one is set aside with the reason, and its task fails: the
others go on.

Without `TIDEMILL_LANDING` the DAG has no schedule.
"""


def import_files_dag(
    dag_id: str = "import_files",
    *,
    schedule: str = "* * * * *",
    scheduled: bool | None = None,
    retries: int = 3,
    tags: Sequence[str] = (),
    doc_md: str = DOC,
) -> DAG:
    """Make the DAG of the landing folder.

    schedule: cron, UTC. scheduled: whether to have it; None: unless TIDEMILL_SCHEDULED is 0 or TIDEMILL_LANDING is not
    set. retries: of what a retry can help; a bad file is not tried again.
    """
    wanted = is_scheduled() and bool(os.environ.get(LANDING_VARIABLE)) if scheduled is None else scheduled
    with DAG(
        dag_id=dag_id,
        schedule=CronTriggerTimetable(schedule, timezone="UTC") if wanted else None,
        start_date=first_midnight(),
        catchup=False,
        # A file must not be taken twice at once.
        max_active_runs=1,
        default_args={"owner": "tidemill", "on_failure_callback": [task_failed], **retry_arguments(retries)},
        tags=["tidemill", "ingest", *tags],
        doc_md=doc_md,
    ) as made:

        @task
        def look() -> list[Any]:
            """List the files that lie ready."""
            from quality import landing
            from quality.config import DayConfig

            if not os.environ.get(LANDING_VARIABLE):
                raise AirflowSkipException(f"{LANDING_VARIABLE} is not set: there is no landing folder to look into")
            with unless_retryable():
                return list(landing.look(DayConfig.from_environment()))

        # Said here too: a mapped task's docstring does not get that far.
        @task(doc_md="Send one file to its stream; a bad one is set aside, and this task fails.")
        def take(file: Any) -> dict[str, Any]:
            """Send one file to its stream; a bad one is set aside, and this task fails."""
            from quality import landing
            from quality.config import DayConfig

            with unless_retryable():
                return dict(landing.take(DayConfig.from_environment(), file))

        take.expand(file=look())
    return made
