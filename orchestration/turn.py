"""The turn, as a setup and its teardown: from seal to publish one run at a time writes the next warehouse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

from orchestration.failures import unless_retryable

if TYPE_CHECKING:
    from airflow.sdk import Context

TURN_POLL_S = 1.0


class TakeTurn(BaseOperator):
    """Waits for the turn, without a worker while it waits. Returns what was asked, with the dates it came to.

    Who gets the turn takes waiting runs of neighbouring dates with the same options along: `date` and `last_date` may
    be wider than what was asked. A run whose dates another one has published is skipped, and its log names that one.
    """

    template_fields: Sequence[str] = ("asked",)
    ui_color = "#d8e8f0"

    def __init__(self, *, asked: Any, **arguments: Any) -> None:
        """asked: see `orchestration.asked.run_asked`, or an XCom that holds it."""
        arguments.setdefault("doc_md", "Waits until no other run is between its seal and its publication.")
        super().__init__(**arguments)
        self.asked = asked

    def execute(self, context: Context) -> dict[str, Any]:
        """Ask once; with nobody in front there is nothing to wait for."""
        from orchestration.triggers import TurnTrigger, ask_turn

        ticket = {**self.asked, "ticket_id": self.asked["run_id"], "shares": not _is_under_way(context)}
        answer = ask_turn(ticket)
        if answer["turn"] == "wait":
            self.log.info("waiting for the turn: %s", answer.get("holder"))
            raise TaskDeferred(trigger=TurnTrigger(ticket=ticket, poll_s=TURN_POLL_S), method_name="resume")
        return self.resume(context, answer)

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on with what the turn came to."""
        if event["turn"] == "failed":
            raise AirflowFailException(event["error"])
        dates = self.asked["date"], self.asked["last_date"]
        if event["turn"] == "shared":
            # The run report leads there.
            context["ti"].xcom_push(key="published_by", value=event["run_id"])
            raise AirflowSkipException(f"{' to '.join(sorted(set(dates)))}: published by run {event['run_id']}")
        return {**self.asked, **{key: event[key] for key in ("run_id", "date", "last_date")}}


@task(task_id="give_turn", retries=3)
def give_turn(turn: dict[str, Any]) -> None:
    """Let the next run have its turn, however this one ended."""
    from quality import day
    from quality.config import DayConfig

    with unless_retryable():
        # Whether it has published since it took the turn is looked up. That its record tells of a publication proves
        # nothing: a cleared run that was killed before its first stage still has that of the time before.
        day.give_turn(DayConfig.from_environment(), turn["run_id"], failed=True)


def _is_under_way(context: Context) -> bool:
    """Whether this run has sealed already, and was cleared at a later task: then it cannot take others along."""
    ti = context["ti"]
    prefix = ti.task_id.removesuffix("take_turn")
    states = ti.get_task_states(
        dag_id=ti.dag_id, task_ids=[f"{prefix}seal"], run_ids=[ti.run_id], map_index=ti.map_index
    )
    return "success" in states.get(ti.run_id, {}).values()
