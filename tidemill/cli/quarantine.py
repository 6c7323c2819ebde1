"""`tidemill quarantine`: rows that broke their contract."""

from __future__ import annotations

import click

import tidemill
from tidemill.cli import options
from tidemill.cli.output import console, print_json, print_rows


@click.group()
def quarantine() -> None:
    """Rows that broke their contract: they are kept, with the reason."""


@quarantine.command("list")
@click.argument("stream_name", metavar="STREAM")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Rows at the most, the newest."
)
@options.address
@options.as_json
def list_(stream_name: str, limit: int, address: str, as_json: bool) -> None:
    """The newest rows in quarantine, oldest of them first."""
    with tidemill.connect(address) as tm:
        found = tm.quarantine(stream_name, limit)
    if as_json:
        for row in found.rows:
            print_json(row)
        return
    rows = [
        {"time": row.append_time, "field": row.field, "rule": row.rule, "reason": row.message, "index": row.index}
        for row in found.rows
    ]
    print_rows(rows, ["time", "field", "rule", "reason", "index"], as_json=False)
    console().print(f"[dim]{len(rows):,} of {found.total:,} rows[/dim]")
