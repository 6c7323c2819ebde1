"""What a run of the `daily` DAG did, for people: headline, quality, balance, reconciliation."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from tidemill.local.airflow_client import AirflowClient, TaskFailure

LAYERS = ("dbt.staging", "dbt.intermediate", "dbt.marts", "dbt.live")
TASKS = (
    "seal", "export", "check_sources", "balance", *LAYERS, "check_marts", "reconcile", "publish", "docs",
)  # fmt: skip
"""The tasks of `daily` that do the day's work, in their order."""
COUNTRIES_MAX = 3
_SHOWN_WARNINGS = 3


@dataclass(frozen=True)
class Day:
    """A finished run: its dates, how it ended, what each task returned (None where it did not end), what failed."""

    first: dt.date
    last: dt.date
    state: str
    results: dict[str, Any]
    failures: list[TaskFailure] = field(default_factory=list)

    @property
    def dates(self) -> str:
        """The date, or the range, as people write it."""
        return str(self.first) if self.first == self.last else f"{self.first} to {self.last}"


def read_day(client: AirflowClient, dag_id: str, run_id: str, first: dt.date, last: dt.date) -> Day:
    """What Airflow knows of a run that has ended."""
    results = {task: client.result(dag_id, run_id, task) for task in TASKS}
    return Day(first, last, client.run_state(dag_id, run_id), results, client.failures(dag_id, run_id))


def headline(warehouse: Path, first: dt.date, last: dt.date) -> dict[str, Any]:
    """The retail marts' headline of some dates, from the published warehouse; amounts are Decimal: exact."""
    import duckdb

    dates = [first, last]
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        # An invoice with lines in two countries is one order: counted by invoice, not summed over countries.
        orders = connection.execute(
            "select count(*) from fct_orders where order_date between ? and ? and not is_cancellation", dates
        ).fetchall()[0][0]
        units, revenue = connection.execute(
            "select coalesce(sum(units), 0)::bigint, coalesce(sum(revenue), 0) "
            "from fct_daily_sales where sales_date between ? and ?",
            dates,
        ).fetchall()[0]
        countries = connection.execute(
            "select country, sum(revenue) as revenue from fct_daily_sales where sales_date between ? and ? "
            "group by country order by revenue desc, country limit ?",
            [*dates, COUNTRIES_MAX],
        ).fetchall()
    top = [{"country": country, "revenue": amount} for country, amount in countries]
    return {"orders": orders, "units": units, "revenue": revenue, "top_countries": top}


def print_day(out: Console, day: Day, figures: dict[str, Any]) -> None:
    """The whole account of a run that was published."""
    out.print(f"\n[bold]The marts of {day.dates}[/]")
    out.print(f"  {figures['orders']:,} orders · revenue {figures['revenue']:,} · {figures['units']:,} units")
    tops = [f"{top['country']} {top['revenue']:,}" for top in figures["top_countries"]]
    out.print(f"  top countries: {', '.join(tops) or 'none'}", markup=False)
    print_quality(out, day)
    print_balance(out, day)
    print_reconciliation(out, day)


def print_quality(out: Console, day: Day) -> None:
    """The checks' verdicts, and the warnings that weigh most."""
    out.print("\n[bold]Quality[/]")
    layers = [day.results[layer] for layer in LAYERS]
    for task, subject in (("check_sources", "source"), ("check_marts", "marts")):
        result = day.results[task]
        out.print(f"  {subject}: {result['checks']} expectations, {result['verdict']}", markup=False)
        for warning in result["warnings"][:_SHOWN_WARNINGS]:
            out.print(f"    {warning['name']}: {warning['unexpected_rows'] or 0:,} of {warning['rows']:,} rows",
                      markup=False, style="dim")  # fmt: skip
        if len(result["warnings"]) > _SHOWN_WARNINGS:
            out.print(f"    and {len(result['warnings']) - _SHOWN_WARNINGS} more: see the data docs", style="dim")
    models, tests = sum(len(layer["models"]) for layer in layers), sum(layer["tests"] for layer in layers)
    out.print(f"  dbt: {models} models built, {tests} tests passed")


def print_balance(out: Console, day: Day) -> None:
    """Every line of the balance that matters to a reader."""
    out.print("\n[bold]Balance[/]")
    for line in [*day.results["balance"]["balance"], *day.results["check_marts"]["balance"]]:
        out.print(f"  {line['text']}", markup=False)


def print_reconciliation(out: Console, day: Day) -> None:
    """Each view with how many windows were compared and how many differ."""
    out.print("\n[bold]Reconciliation[/] (live at the seal against batch)")
    for view, result in day.results["reconcile"]["views"].items():
        out.print(f"  {view}: {result['windows']:,} windows compared, {result['differences']} differences")
