"""`tidemill sql`: questions to the published warehouse."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import Any

import click

from tidemill.cli import options
from tidemill.cli.output import console, print_rows
from tidemill.errors import TidemillError


@click.command(short_help="Ask the published warehouse, in SQL.")
@click.argument("query", required=False)
@click.option("--data", type=click.Path(path_type=Path), envvar="TIDEMILL_DATA", default=Path(".tidemill"),
              show_default=True, show_envvar=True, help="The data folder.")  # fmt: skip
@options.as_json
def sql(query: str | None, data: Path, as_json: bool) -> None:
    """Run QUERY, or what comes on stdin, over the published warehouse; it is opened read-only.

    Below the rows stands when it was published.

    \b
    Examples:
      tidemill sql 'from fct_daily_sales order by sales_date'
      tidemill sql 'from tidemill_published order by published_at desc'
      tidemill sql --json < report.sql
    """
    import duckdb

    text = query if query is not None else sys.stdin.read()
    if not text.strip():
        raise click.UsageError("there is no query: give it as an argument or on stdin")
    warehouse = data / "warehouse" / "warehouse.duckdb"
    if not warehouse.is_file():
        raise TidemillError(
            f"there is no published warehouse at {warehouse}; the `daily` DAG publishes one: tidemill demo, tidemill up"
        )
    try:
        with duckdb.connect(str(warehouse), read_only=True) as connection:
            connection.execute("set TimeZone = 'UTC'")
            result = connection.sql(text)
            if result is None:
                return
            columns = list(result.columns)
            rows = [dict(zip(columns, row, strict=True)) for row in result.fetchall()]
            published_at = None if as_json else _published_at(connection)
    except duckdb.Error as error:
        raise TidemillError(" ".join(str(error).split())) from None
    print_rows(rows, columns, as_json=as_json)
    if published_at is not None:
        console().print(f"[dim]{len(rows):,} rows, published {published_at:%Y-%m-%d %H:%M:%S} UTC[/dim]")


def _published_at(connection: Any) -> dt.datetime | None:
    """When the warehouse was published; None of one that does not say."""
    import duckdb

    try:
        rows = connection.execute("select epoch_us(max(published_at)) from tidemill_published").fetchall()
    except duckdb.CatalogException:
        return None
    return None if rows[0][0] is None else dt.datetime.fromtimestamp(rows[0][0] / 1e6, dt.UTC)
