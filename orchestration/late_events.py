"""`late_events`: dates that got rows after their publication are sealed, built, audited and published again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowFailException

from orchestration.alerts import task_failed
from orchestration.asked import date_params, first_midnight, is_scheduled, run_name, streams_of_project
from orchestration.failures import retry_arguments, unless_retryable
from orchestration.stages import day_tasks

LATE_ROWS = "tidemill_late_rows"

DOC = """
### Late rows: their dates again, and only those

A late row is acknowledged and in the live tables at once; the warehouse gets it by this DAG. It is started by the asset
`tidemill_late_rows`, once nothing more has come for a while, and may be triggered by hand with dates.

`find` lists the dates that got rows after their publication, neighbouring dates together; each group then goes through
the same stages as a day in `daily`, in the same turn: sealed again, built, checked, reconciled, published. The
publication is what takes the rows out of the ledger.

A group that fails is not started again until more rows come: look at what failed, then clear its task.
"""


def late_events_dag(
    dag_id: str = "late_events",
    *,
    scheduled: bool | None = None,
    streams: Sequence[str] | None = None,
    retries: int = 3,
    quiet_s: float = 30.0,
    bundle_s: float = 600.0,
    tags: Sequence[str] = (),
    doc_md: str = DOC,
) -> DAG:
    """Make the DAG of late rows.

    scheduled: whether it starts by itself; None: unless TIDEMILL_SCHEDULED is 0. streams: the form's choices; None:
    those of the project's dbt sources. retries: of what a retry can help. quiet_s: it starts when no late row has come
    for so many seconds; bundle_s: after so many at the latest.
    """
    with DAG(
        dag_id=dag_id,
        schedule=[late_rows_asset(quiet_s, bundle_s)] if (is_scheduled() if scheduled is None else scheduled) else None,
        start_date=first_midnight(),
        catchup=False,
        max_active_runs=1,
        params=date_params(list(streams) if streams is not None else streams_of_project()),
        default_args={"owner": "tidemill", "on_failure_callback": [task_failed], **retry_arguments(retries)},
        tags=["tidemill", "warehouse", *tags],
        doc_md=doc_md,
    ) as made:

        @task
        def find() -> list[dict[str, Any]]:
            """List the dates to be reprocessed: those of the form, else those in the ledger."""
            from quality import late
            from quality.config import DayConfig

            context = get_current_context()
            run, params = context["dag_run"], dict(context["params"])
            with unless_retryable():
                pending = asked_dates(params) or late.pending(DayConfig.from_environment())
            return [
                {
                    "run_id": run_name(group["date"], f"{run.dag_id} {run.run_id}"),
                    **group,
                    "full_refresh": False,
                    # Its dates have been sealed before.
                    "force": True,
                    "as_of": None,
                    "holder": {"kind": "airflow", "dag_id": run.dag_id, "run_id": run.run_id},
                }
                for group in groups_of(pending)
            ]

        @task_group(group_id="dates")
        def dates(asked: dict[str, Any]) -> None:
            """One group of neighbouring dates."""
            day_tasks(asked)

        dates.expand(asked=find())
    return made


def late_rows_asset(quiet_s: float, bundle_s: float) -> Asset:
    """Give the asset that has an event when sealed dates got rows, watched by the triggerer."""
    from orchestration.triggers import LateRowsTrigger

    watcher = AssetWatcher(name="late_rows", trigger=LateRowsTrigger(quiet_s=quiet_s, bundle_s=bundle_s))
    return Asset(LATE_ROWS, watchers=[watcher])


def asked_dates(params: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Give the form's dates in the ledger's shape; every stream unless some are named. Without a date: none."""
    if not params["date"]:
        if given := [name for name in ("last_date", "streams") if params[name]]:
            raise AirflowFailException(f"expected a date with {' and '.join(given)}: trigger it again")
        return {}
    first, last = date.fromisoformat(params["date"]), date.fromisoformat(params["last_date"] or params["date"])
    if last < first:
        raise AirflowFailException(f"expected the last date at or after the first, came {first} to {last}")
    dates = [str(first + timedelta(days=day)) for day in range((last - first).days + 1)]
    return {stream: dict.fromkeys(dates, 0) for stream in params["streams"] or [""]}


def groups_of(pending: Mapping[str, Mapping[Any, int]]) -> list[dict[str, Any]]:
    """Put neighbouring dates together: date, last_date, and the streams that have rows of them (None: all)."""
    streams_by_date: dict[date, set[str]] = {}
    for stream, dates in pending.items():
        for day in dates:
            streams_by_date.setdefault(date.fromisoformat(str(day)), set()).add(stream)
    groups: list[tuple[date, date, set[str]]] = []
    for day in sorted(streams_by_date):
        if groups and day - groups[-1][1] == timedelta(days=1):
            first, _, streams = groups.pop()
            groups.append((first, day, streams | streams_by_date[day]))
        else:
            groups.append((day, day, streams_by_date[day]))
    return [
        {"date": str(first), "last_date": str(last), "streams": None if "" in streams else sorted(streams)}
        for first, last, streams in groups
    ]
