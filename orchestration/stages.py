"""The day's stages as Airflow tasks, the same for `daily` and `late_events`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow.sdk import Asset, chain, get_current_context, task, task_group

from orchestration.failures import unless_retryable
from orchestration.turn import TakeTurn, give_turn

# What readers of the warehouse may schedule their own DAGs by.
WAREHOUSE = Asset("tidemill_warehouse")
# In the run's record, and too long for what Airflow keeps of a task.
_LONG = ("results",)


def run_stage(name: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    """Run one of the day's stages and give its result; what cannot get better by itself fails without a retry."""
    # Imported here: Airflow reads DAG files every few seconds.
    from quality import day
    from quality.config import DayConfig

    work: Callable[..., dict[str, Any]] = getattr(day, name)
    with unless_retryable():
        result = work(DayConfig.from_environment(), *arguments, **options)
    return {key: value for key, value in result.items() if key not in _LONG}


def day_tasks(asked: Any) -> Any:
    """Wire the tasks from the turn to the docs, for what `asked` gives; returns the first of them.

    Every task is idempotent and may be cleared: the turn is taken again with it, because it is the setup of all tasks
    up to `publish`, and given up after them, however they ended.
    """

    @task
    def seal(turn: dict[str, Any]) -> dict[str, Any]:
        """Declare the dates complete in every stream, and pin the offsets that this run reads below."""
        options = {key: turn[key] for key in ("force", "streams", "full_refresh", "as_of")}
        names = {"dag_id": turn["holder"]["dag_id"], "dag_run_id": turn["holder"]["run_id"]}
        return run_stage("seal", turn["run_id"], turn["date"], turn["last_date"], **options, **names)

    @task
    def export(turn: dict[str, Any]) -> dict[str, Any]:
        """Bring the lake up to the seals, compact the dates, and pin its versions."""
        return run_stage("export", turn["run_id"])

    @task
    def check_sources(turn: dict[str, Any]) -> dict[str, Any]:
        """Check at rest what the contract promised when the events came in."""
        return run_stage("check_sources", turn["run_id"])

    @task
    def balance(turn: dict[str, Any]) -> dict[str, Any]:
        """Count twice: what producers sent, the log took and the lake holds must add up."""
        return run_stage("balance", turn["run_id"])

    @task_group(group_id="dbt")
    def dbt() -> None:
        """Build the models in a copy of the warehouse, layer by layer, each with its tests."""
        chain(*(layer_task(layer)(turn) for layer in ("staging", "intermediate", "marts", "live")))

    @task
    def check_marts(turn: dict[str, Any]) -> dict[str, Any]:
        """Check that lake and staging balance, then the business's expectations of the marts."""
        return run_stage("check_marts", turn["run_id"])

    @task
    def reconcile(turn: dict[str, Any]) -> dict[str, Any]:
        """Compare every live view, as it stood at the seal, with its dbt model, window by window."""
        return run_stage("reconcile", turn["run_id"])

    @task(outlets=[WAREHOUSE])
    def publish(turn: dict[str, Any]) -> dict[str, Any]:
        """Make the audited copy the warehouse that readers open, by one atomic rename."""
        result = run_stage("publish", turn["run_id"])
        # A run as of another one ends here too, and publishes nothing: whoever starts by this asset can tell.
        told = {"run_id": turn["run_id"], "date": turn["date"], "last_date": turn["last_date"]}
        get_current_context()["outlet_events"][WAREHOUSE].extra = {**told, "published": turn["as_of"] is None}
        return result

    @task
    def docs(turn: dict[str, Any]) -> dict[str, Any]:
        """Write dbt docs and data docs, both one click away in Airflow's navigation."""
        return run_stage("document", turn["run_id"])

    taken = TakeTurn(task_id="take_turn", asked=asked).as_setup()
    turn = taken.output
    given = give_turn(turn).as_teardown(setups=taken)
    published = publish(turn)
    chain(
        seal(turn), export(turn), check_sources(turn), balance(turn), dbt(), check_marts(turn), reconcile(turn),
        published, given,
    )  # fmt: skip
    chain(published, docs(turn))
    return taken


def layer_task(layer: str) -> Any:
    """Make the task that builds one layer of the dbt project."""

    @task(task_id=layer)
    def build(turn: dict[str, Any]) -> dict[str, Any]:
        """Build this layer's models and run their tests, in the run's copy of the warehouse."""
        return run_stage("build", turn["run_id"], layer)

    return build
