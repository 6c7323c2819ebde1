"""`tidemill serve`: becomes the ingest service's process."""

from __future__ import annotations

import importlib.util
import os
import sys

import click

from tidemill.errors import MissingExtra


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    short_help="Run the ingest service alone.",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(options: tuple[str, ...]) -> None:
    """Run the ingest service in this process until Ctrl-C; all options are its own."""
    if importlib.util.find_spec("ingest_service") is None or importlib.util.find_spec("ptars") is None:
        raise MissingExtra("tidemill serve", "service")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "ingest_service", *options])  # noqa: S606 - no shell is wanted
