"""`daily`: one UTC date, or a range, from sealed streams to the published warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from airflow.sdk import DAG, CronDataIntervalTimetable

from orchestration.alerts import task_failed
from orchestration.asked import first_midnight, is_scheduled, run_params, streams_of_project
from orchestration.deadline import publication_deadline
from orchestration.failures import retry_arguments
from orchestration.stages import day_tasks
from orchestration.wait import WaitForDates

DOC = """
### One day: sealed, audited, reconciled, published

`wait → take_turn → seal → export → check_sources → balance → dbt → check_marts → reconcile → publish → docs`,
for one UTC date or a range of dates.

- **wait** until the watermark has passed the dates (an idle stream's follows the clock). It costs no worker.
- **take_turn**: one run at a time is between seal and publish. Waiting runs of neighbouring dates are taken along.
- **seal** declares the dates complete: what comes later is late. The run reads rows below the seal's offset alone.
- **export** brings the lake up to the seals, compacts the dates, pins the lake's versions.
- **check_sources** checks at rest what the contract promised; **balance** counts producers, log and lake against
  each other.
- **dbt** builds the models in a copy of the warehouse, layer by layer, with their tests.
- **check_marts** balances lake and staging, and checks the business's expectations.
- **reconcile** compares each live view, as it stood at the seal, with its dbt model.
- **publish** makes the copy the warehouse that readers open. Nothing unaudited gets there.
- **docs** writes dbt docs and data docs.

A run may be repeated, or cleared at any task: it ends in the same tables. A failed check is not retried: look at what
it names, repair it, then clear the task. Many dates: a backfill, from this page, from the command line
(`tidemill day backfill --from --to`) or by REST; its runs queue here and share what can be shared.
"""


def daily_dag(
    dag_id: str = "daily",
    *,
    schedule: str = "0 0 * * *",
    scheduled: bool | None = None,
    start_date: datetime | None = None,
    streams: Sequence[str] | None = None,
    retries: int = 3,
    patience: timedelta = timedelta(hours=12),
    deadline: str | None = None,
    max_active_runs: int = 32,
    tags: Sequence[str] = (),
    doc_md: str = DOC,
) -> DAG:
    """Make the DAG of the day.

    schedule: cron, UTC; its interval is the date, so the run starts once the date has passed. scheduled: whether to
    have the schedule; None: unless TIDEMILL_SCHEDULED is 0. streams: the form's choices; None: those of the project's
    dbt sources. retries: of what a retry can help; failed checks and models are never tried again. patience: how long
    to wait for the watermark. deadline: hour (UTC, "06:00") by which a scheduled date is to be published, else an
    alert is raised; None: TIDEMILL_DEADLINE, "": none. max_active_runs: they take turns, and what waits together is
    published together.
    """
    with DAG(
        dag_id=dag_id,
        schedule=CronDataIntervalTimetable(schedule, timezone="UTC")
        if (is_scheduled() if scheduled is None else scheduled)
        else None,
        start_date=start_date or first_midnight(),
        catchup=False,
        max_active_runs=max_active_runs,
        params=run_params(list(streams) if streams is not None else streams_of_project()),
        default_args={"owner": "tidemill", "on_failure_callback": [task_failed], **retry_arguments(retries)},
        deadline=publication_deadline(deadline),
        tags=["tidemill", "warehouse", *tags],
        doc_md=doc_md,
    ) as made:
        # Asking again is the trigger's work; a service that is away counts as not complete.
        wait = WaitForDates(task_id="wait", patience=patience, retries=0)
        day_tasks(wait.output)
    return made
