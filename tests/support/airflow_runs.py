"""Runs of DAGs, as the tests start, follow and look into them."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import duckdb

import tidemill
from tidemill.local.airflow_client import AirflowClient, TaskChange
from tidemill.local.stack import Stack

LAYERS = ["dbt.staging", "dbt.intermediate", "dbt.marts", "dbt.live"]
STAGES = ["seal", "export", "check_sources", "balance", *LAYERS, "check_marts", "reconcile", "publish", "docs"]
TASKS = ["wait", "take_turn", *STAGES, "give_turn"]
# Not the day's data: what is known of the runs, which every run adds to.
OF_RUNS = {"tidemill_dates", "tidemill_published", "tidemill_reconciled"}


def send_lines(stack: Stack, date: dt.date, rows: int, *, name: str = "", hour: int = 8) -> None:
    """Send a morning of sales; acknowledged when this returns."""
    start = dt.datetime.combine(date, dt.time(hour), dt.UTC)
    # Six digits, and of this date alone: an invoice has one.
    invoice = 100_000 + date.toordinal() % 800 * 1_000
    with tidemill.connect(stack.address) as service:
        lines = service.stream("order_lines")
        acks = [
            lines.send(
                {
                    "event_id": f"{date}{name}-{number}",
                    "invoice_no": str(invoice + number // 5),
                    "stock_code": f"S{number % 17}",
                    "description": "a lantern",
                    "quantity": 1 + number % 3,
                    "unit_price": Decimal("2.55"),
                    "invoiced_at": start + dt.timedelta(seconds=20 * number),
                    "customer_id": 17850 + number // 5 % 40,
                    "country": ("France", "Germany")[number // 5 % 2],
                }
            )
            for number in range(rows)
        ]
        for ack in acks:
            ack.result()


def new_run() -> str:
    return f"test~{uuid.uuid4().hex[:12]}"


def run_dag(
    client: AirflowClient,
    stack: Stack,
    dag_id: str,
    conf: dict[str, Any],
    on: Callable[[TaskChange], None] | None = None,
) -> tuple[str, str]:
    """Trigger a run and follow it to its end; its id and state. on: told of each change of a task's state."""
    run = new_run()
    client.trigger(dag_id, conf, run)
    return run, end_of(client, stack, dag_id, run, on)


def end_of(
    client: AirflowClient, stack: Stack, dag_id: str, run: str, on: Callable[[TaskChange], None] | None = None
) -> str:
    for change in client.follow(dag_id, run, timeout_s=900, check=stack.check):
        if on is not None:
            on(change)
    return client.run_state(dag_id, run)


def task_states(client: AirflowClient, dag_id: str, run: str) -> dict[str, list[str]]:
    """Task → the states of its instances."""
    found: dict[str, list[str]] = {}
    for task in tasks_of(client, dag_id, run):
        found.setdefault(task["task_id"], []).append(task["state"])
    return found


def tasks_of(client: AirflowClient, dag_id: str, run: str) -> list[dict[str, Any]]:
    path = f"/dags/{dag_id}/dagRuns/{run}/taskInstances?limit=200"
    return list(client._call("GET", path)["task_instances"])


def ask(stack: Stack, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
    """Ask the published warehouse."""
    with duckdb.connect(str(stack.folder.warehouse), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        return connection.execute(sql, list(arguments)).fetchall()


def publications(stack: Stack) -> list[tuple[str, str, str]]:
    """Run, first and last date of each publication, in their order."""
    rows = ask(
        stack, "select run_id, first_date::varchar, last_date::varchar from tidemill_published order by published_at"
    )
    return [(run, first, last) for run, first, last in rows]


def content(stack: Stack, date: dt.date | None = None) -> dict[str, str]:
    """Model → a hash over its rows, whatever their order: two publications of the same data have the same.

    The models over the runs themselves are left out: every run adds to them.
    """
    with duckdb.connect(str(stack.folder.warehouse), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        operations = {path.stem for path in (stack.project / "dbt_project" / "models" / "operations").glob("*.sql")}
        names = [
            f'"{schema}"."{name}"'
            for schema, name in connection.execute(
                "select table_schema, table_name from information_schema.tables where table_type = 'BASE TABLE'"
            ).fetchall()
            if name not in OF_RUNS | operations
        ]
        return {
            name: hashlib.sha256(
                json.dumps(sorted(map(repr, connection.execute(f"from {name}").fetchall()))).encode()
            ).hexdigest()
            for name in sorted(names)
        }
