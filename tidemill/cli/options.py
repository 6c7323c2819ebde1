"""Options that several commands have."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import click

import tidemill

address = click.option(
    "--address",
    envvar="TIDEMILL_ADDRESS",
    default=tidemill.DEFAULT_ADDRESS,
    show_default=True,
    show_envvar=True,
    metavar="HOST:PORT",
    help="Where the ingest service listens.",
)
data_folder = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="TIDEMILL_DATA",
    default=Path(".tidemill"),
    show_default=True,
    show_envvar=True,
    metavar="DIR",
    help="The data folder.",
)
project_data = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="TIDEMILL_DATA",
    show_envvar=True,
    metavar="DIR",
    help="The data folder.  [default: .tidemill in the project]",
)
"""For commands that know the project; its value goes to `DataFolder.at`."""
project = click.option(
    "--project",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="TIDEMILL_PROJECT",
    show_envvar=True,
    metavar="DIR",
    help="The folder with proto/ and dbt_project/.  [default: this one or one above]",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line, for programs.")


def utc_date(ctx: click.Context, param: click.Parameter, value: str | None) -> dt.date | None:
    """The date that an option names: 2011-12-05, today or yesterday (UTC); a callback for click."""
    if value is None:
        return None
    today = dt.datetime.now(dt.UTC).date()
    if value in {"today", "yesterday"}:
        return today if value == "today" else today - dt.timedelta(days=1)
    try:
        return dt.date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"expected a date such as 2011-12-05, came {value!r}", ctx, param) from None
