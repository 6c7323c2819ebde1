"""What commands print: tables for people, JSON lines for programs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text


def console() -> Console:
    """Where people read: colours and bars on a terminal only, and nothing cut off in a pipe."""
    plain = not sys.stdout.isatty()
    return Console(highlight=False, soft_wrap=plain, width=10_000 if plain else None)


def print_json(values: object) -> None:
    """One JSON object, on one line; money and other exact numbers are text, times are ISO 8601."""
    click.echo(json.dumps(_plain(values), ensure_ascii=False, separators=(", ", ": ")))


def print_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, title: str = "") -> None:
    """Rows as a table, or as JSON lines."""
    if as_json:
        for row in rows:
            print_json({column: row[column] for column in columns})
        return
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    shown = [[row[column] for column in columns] for row in rows]
    for index, column in enumerate(columns):
        numbers = any(isinstance(row[index], int | float | Decimal) for row in shown)
        table.add_column(Text(column), justify="right" if numbers else "left", overflow="fold")
    for values in shown:
        table.add_row(*(Text(show(value)) for value in values))
    console().print(table)


def show(value: object) -> str:
    """A value as people read it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | Decimal):
        return f"{value:,}"
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ").replace("+00:00", "Z")
    if isinstance(value, enum.Enum):
        return value.name.lower()
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _plain(value: object) -> object:
    if isinstance(value, float | int | str | bool) or value is None:
        return value
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    if isinstance(value, enum.Enum | bytes):
        return show(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, Iterable) else str(value)
