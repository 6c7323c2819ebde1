"""A published warehouse's content as one number, and damage done to it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import duckdb

ABOUT_RUNS = "tidemill_%"
OPERATIONS = {
    "alerts", "balance", "check_history", "pipeline_runs", "pipeline_stages", "reconciliation",
    "reconciliation_differences",
}  # fmt: skip
"""Tables that tell of runs: every run adds to them."""


def content_hash(warehouse: Path) -> dict[str, int]:
    """A hash over the rows of each table, whatever their order; without the tables that tell of runs."""
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        connection.execute("set timezone = 'UTC'")
        names = [
            name
            for (name,) in connection.execute(
                "select table_name from duckdb_tables() where schema_name = 'main' and table_name not like ?",
                [ABOUT_RUNS],
            ).fetchall()
            if name not in OPERATIONS
        ]
        return {name: _table_hash(connection, name) for name in names}


def _table_hash(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    """Without doubles: their sums differ in the last digits from run to run, by the order in which threads add."""
    columns = connection.execute(
        "select column_name from duckdb_columns() where table_name = ? and data_type not in ('DOUBLE', 'FLOAT')", [name]
    ).fetchall()
    exact = ", ".join(f'"{column}"' for (column,) in columns)
    rows = connection.execute(
        f'select coalesce(sum(hash(t)::hugeint), 0) + count(*) from (select {exact} from "{name}") t'
    ).fetchall()
    return int(rows[0][0])


def damage(warehouse: Path, date: dt.date) -> None:
    """Change and take away rows of a date: in marts that are made anew as a whole, and in models by day.

    None is doubled: a test of a whole table would find that, and stop a run of another date.
    """
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute("set timezone = 'UTC'")
        connection.execute("update fct_daily_sales set revenue = revenue + 1 where sales_date = ?", [date])
        connection.execute("update sales_by_minute set lines = lines + 1 where cast(window_start as date) = ?", [date])
        connection.execute(
            "delete from fct_orders where invoice_no in (select min(invoice_no) from fct_orders where order_date = ?)",
            [date],
        )
        connection.execute("delete from sales_by_hour where cast(window_start as date) = ?", [date])
