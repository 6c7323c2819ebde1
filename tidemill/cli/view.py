"""`tidemill view`: live views."""

from __future__ import annotations

import re

import click

import tidemill
from tidemill.cli import options
from tidemill.cli.output import console, print_json, print_rows
from tidemill.client.models import ViewStatus

_CONDITION = re.compile(r"\s*(\w+)\s*(<=|>=|!=|<>|==|=|<|>)\s*(.*)", re.DOTALL)


@click.group()
def view() -> None:
    """Live views: dbt models whose tables follow the events."""


@view.command("list")
@options.address
@options.as_json
def list_(address: str, as_json: bool) -> None:
    """All live views, and how far they are."""
    with tidemill.connect(address) as tm:
        views = tm.views()
    if as_json:
        for status in views:
            print_json(status)
        return
    print_rows([view_row(status) for status in views], list(VIEW_COLUMNS), as_json=False)


@view.command("query")
@click.argument("name", metavar="VIEW")
@click.option("--where", multiple=True, metavar="CONDITION",
              help="Such as country=France or 'revenue>100'; may be given several times.")  # fmt: skip
@click.option("--order-by", multiple=True, metavar="COLUMN", help="Sort by it; -COLUMN: descending.")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Rows at the most; 0: all.")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="OFFSET",
              help="Wait until the view covers this offset.")  # fmt: skip
@options.address
@options.as_json
def query(
    name: str, where: tuple[str, ...], order_by: tuple[str, ...], limit: int, after: int, address: str, as_json: bool
) -> None:
    """Rows of a live view.

    \b
    Example:
      tidemill view query sales_by_minute --where country=France --order-by -window_start --limit 5
    """
    conditions = [_condition(text) for text in where]
    with tidemill.connect(address) as tm:
        rows = tm.view(name).query(where=conditions, order_by=order_by, limit=limit, after=after)
    print_rows(rows, [column.name for column in rows.columns], as_json=as_json)
    if not as_json:
        console().print(f"[dim]{len(rows):,} rows, the log's below offset {rows.offset:,}[/dim]")


VIEW_COLUMNS = ("view", "stream", "offset", "lag", "rows", "grain", "problem")


def view_row(status: ViewStatus) -> dict[str, object]:
    """A view's status as a line of a table."""
    values = (
        status.view, status.stream, status.offset, status.lag, status.rows, ", ".join(status.group_columns),
        status.error,
    )  # fmt: skip
    return dict(zip(VIEW_COLUMNS, values, strict=True))


def _condition(text: str) -> tuple[str, str, str | None]:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"expected a condition such as country=France or 'revenue>100', came {text!r}")
    column, operator, value = match.groups()
    return column, operator, None if value.upper() == "NULL" else value
