"""The wait for the watermark: a run's dates are complete when every stream's watermark has passed their end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from orchestration.asked import run_asked

if TYPE_CHECKING:
    from airflow.sdk import Context

WAIT_POLL_S = 2.0


class WaitForDates(BaseOperator):
    """Waits until the run's dates are complete, in the triggerer: waiting costs no worker. Returns what is asked.

    Runs with "Seal now", and those of the data of an earlier run, don't wait.
    """

    ui_color = "#d8e8f0"

    def __init__(self, *, patience: timedelta, **arguments: Any) -> None:
        """patience: after so long the task fails, and says which streams are behind."""
        arguments.setdefault("doc_md", "Waits until every stream's watermark has passed the end of the dates.")
        super().__init__(**arguments)
        self.patience = patience

    def execute(self, context: Context) -> dict[str, Any]:
        """Look once; what is complete already, most days of the past, goes on at once."""
        from orchestration.triggers import WatermarkTrigger, look_at_watermark

        run = context["dag_run"]
        asked = run_asked(run.dag_id, run.run_id, dict(context["params"]), run.data_interval_start)
        if asked["force"] or asked["as_of"]:
            return asked
        look = look_at_watermark(asked["last_date"], asked["streams"])
        if look.get("failed"):
            raise AirflowFailException(look["failed"])
        if look["complete"]:
            return asked
        self.log.info("%s is not complete: %s", asked["last_date"], describe(look["waiting"]))
        until = datetime.now(UTC) + self.patience
        raise TaskDeferred(
            trigger=WatermarkTrigger(
                last_date=asked["last_date"], streams=asked["streams"], until=until.isoformat(), poll_s=WAIT_POLL_S
            ),
            method_name="resume",
            kwargs={"asked": asked},
        )

    def resume(self, context: Context, asked: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """Go on once the dates are complete."""
        if event.get("failed"):
            raise AirflowFailException(event["failed"])
        if not event["complete"]:
            hours = self.patience.total_seconds() / 3600
            raise AirflowFailException(
                f"{asked['last_date']} is not complete after {hours:g} h: {describe(event['waiting'])}. Clear the task "
                'to wait on, or trigger the date with "Seal now": what comes later is then late'
            )
        return asked


def describe(waiting: Mapping[str, str]) -> str:
    """Put the streams that are behind into one line."""
    return "; ".join(f"{stream}: {why}" for stream, why in sorted(waiting.items())) or "the service does not answer"
