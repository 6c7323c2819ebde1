"""`daily`: one UTC date from sealed stream to published warehouse. Thin: the work is in `quality.day`.

Settings, from the environment of Airflow's processes: TIDEMILL_DATA, TIDEMILL_PROJECT, TIDEMILL_ADDRESS (see
`quality.config.DayConfig`), and TIDEMILL_SCHEDULED: 0 leaves the DAG without a schedule, so that only triggered runs
start (a demo, a test).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import CronDataIntervalTimetable, Param, chain, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

# DuckDB takes one writer at a time. `tidemill up` makes the pool; in an Airflow of your own, make it with one slot.
WRITER_POOL = "warehouse_writer"
SEAL_RETRY = timedelta(minutes=5)


def run_name(date: str, run_id: str) -> str:
    """Name the run's folder after its date and Airflow's run id, which may hold what a path should not."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", run_id).strip("-")[:80]
    # Different ids may read the same once cleaned; their digests do not.
    return f"{date}_{words}_{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"


def run_date(params: dict[str, Any], interval_start: datetime | None) -> str:
    """Take the date from the form, else from the run's data interval."""
    if params["date"]:
        return str(params["date"])
    if interval_start is None:
        raise AirflowFailException("this run has neither a date nor a data interval: trigger it again with a date")
    return interval_start.astimezone(UTC).date().isoformat()


def stage(name: str, *arguments: Any, retry_refused: bool = False) -> Any:
    """Run one of the day's stages; what cannot get better by itself fails without a retry.

    retry_refused: also retry what the service refused, because it will pass (a date that is not complete yet).
    """
    # Imported here: Airflow reads this file every few seconds.
    from quality import day
    from quality.config import DayConfig
    from quality.errors import QualityError, ServiceFailed

    work: Callable[..., Any] = getattr(day, name)
    try:
        return work(DayConfig.from_environment(), *arguments)
    except QualityError as error:
        passes = error.retryable or (retry_refused and isinstance(error, ServiceFailed))
        if passes:
            raise
        raise AirflowFailException(str(error)) from error


@dag(
    dag_id="daily",
    # The interval is the UTC date itself: its run starts once it has passed.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC")
    if os.environ.get("TIDEMILL_SCHEDULED", "1") != "0"
    else None,
    start_date=datetime(2009, 1, 1, tzinfo=UTC),
    catchup=False,
    # Runs of several dates queue: each starts from the warehouse that the one before published.
    max_active_runs=1,
    params={
        "date": Param(
            None, type=["null", "string"], format="date", title="Date", description="UTC; empty: the run's own interval"
        ),
        "last_date": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Last date",
            description="Runs a range of dates at once, this one included; empty: the one date",
        ),
        "force": Param(
            False,
            type="boolean",
            title="Seal now",
            description="Seal although events of these dates may still be on their way, as for days in the past",
        ),
    },
    default_args={
        "owner": "tidemill",
        # What a retry can help (a service that restarts, a lock) passes in seconds; failed checks are not retried.
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=5),
    },
    tags=["tidemill", "warehouse"],
    doc_md="""
### One day: sealed, audited, reconciled, published

`seal → check_sources → dbt → check_marts → reconcile → publish → docs`, for one UTC date or a range of dates.

- **seal** declares the dates complete and pins what the run reads: rows below the seal offset, of one lake version.
- **check_sources** balances log and lake, and checks the contract's promises at rest.
- **dbt** builds the models in a copy of the warehouse, with their tests.
- **check_marts** balances lake and staging, and checks the business's expectations.
- **reconcile** compares each live view, as it stood at the seal, with its dbt model.
- **publish** makes the copy the warehouse that readers open. Nothing unaudited gets there.
- **docs** writes dbt docs and data docs.

A run may be repeated, or cleared at any task: it ends in the same tables. A failed check is not retried: look at what
it names, repair it, then clear the task. A scheduled run seals as soon as the watermark has passed its date.
""",
)
def daily() -> None:
    """Wire the stages one after another; each gets the run's name from the first."""

    @task(retries=36, retry_delay=SEAL_RETRY, retry_exponential_backoff=False)
    def seal() -> dict[str, Any]:
        """Seal the dates in every stream and pin the lake. A scheduled run tries for three hours after midnight."""
        context = get_current_context()
        run, params = context["dag_run"], context["params"]
        date = run_date(params, run.data_interval_start)
        name = run_name(date, run.run_id)
        scheduled = str(run.run_type) == "scheduled"
        return dict(stage("seal", name, date, params["last_date"], params["force"], retry_refused=scheduled))

    @task
    def check_sources(name: str) -> dict[str, Any]:
        """Check that log and lake balance, then the source's expectations."""
        return dict(stage("check_sources", name))

    @task(task_id="dbt", pool=WRITER_POOL)
    def build(name: str) -> dict[str, Any]:
        """Build every model in a copy of the warehouse, and run their tests."""
        return dict(stage("build", name))

    @task
    def check_marts(name: str) -> dict[str, Any]:
        """Check that lake and staging balance, then the marts' expectations."""
        return dict(stage("check_marts", name))

    @task
    def reconcile(name: str) -> dict[str, Any]:
        """Compare every live view, as it stood at the seal, with its dbt model, window by window."""
        return dict(stage("reconcile", name))

    @task(pool=WRITER_POOL)
    def publish(name: str) -> dict[str, Any]:
        """Make the audited copy the warehouse that readers open."""
        return dict(stage("publish", name))

    @task
    def docs(name: str) -> dict[str, Any]:
        """Write dbt docs and data docs."""
        return dict(stage("document", name))

    name = seal()["run_id"]
    chain(check_sources(name), build(name), check_marts(name), reconcile(name), publish(name), docs(name))


daily()
