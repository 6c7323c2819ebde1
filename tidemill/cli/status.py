"""`tidemill status`: streams and views in one look."""

from __future__ import annotations

import click

import tidemill
from tidemill.cli import options
from tidemill.cli.output import console, print_json, print_rows
from tidemill.cli.stream import STREAM_COLUMNS, stream_row
from tidemill.cli.view import VIEW_COLUMNS, view_row


@click.command()
@options.address
@options.as_json
def status(address: str, as_json: bool) -> None:
    """Where streams and live views are; exit code 1 when the service does not answer."""
    with tidemill.connect(address) as tm:
        streams, views = tm.streams(), tm.views()
    if as_json:
        print_json({"address": address, "streams": streams, "views": views})
        return
    out = console()
    out.print(f"ingest service at {address}", markup=False)
    print_rows([stream_row(each) for each in streams], list(STREAM_COLUMNS), as_json=False)
    if views:
        out.print()
        print_rows([view_row(each) for each in views], list(VIEW_COLUMNS), as_json=False)
