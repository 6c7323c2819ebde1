"""Which commands there are, and the group that imports one when it is asked for."""

from __future__ import annotations

import importlib
import os
import sys

import click

import tidemill
from tidemill.cli.credentials import credentials

_COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("tidemill.cli.init:init", "Make a project of your own."),
    "new": ("tidemill.cli.new:new", "Add to a project: a stream, a view, a model, a suite."),
    "demo": ("tidemill.cli.demo:demo", "A day of events, end to end, in one go."),
    "up": ("tidemill.cli.up:up", "Run all parts until Ctrl-C."),
    "serve": ("tidemill.cli.serve:serve", "Run the ingest service alone."),
    "status": ("tidemill.cli.status:status", "Where streams and live views are."),
    "send": ("tidemill.cli.send:send", "Send a file's rows (Parquet, CSV, JSON lines) to a stream."),
    "import": ("tidemill.cli.landed:import_files", "Import what lies in a landing folder, each file once."),
    "tail": ("tidemill.cli.tail:tail", "A stream's newest rows, and those to come."),
    "simulate": ("tidemill.cli.simulate:simulate", "Send a made-up shop's order lines."),
    "collect": ("tidemill.cli.collect:collect", "Readings of this machine as a stream: host."),
    "contract": ("tidemill.cli.contract:contract", "Contracts: check a change, apply it, generate from them."),
    "stream": ("tidemill.cli.stream:stream", "Streams: list, show."),
    "view": ("tidemill.cli.view:view", "Live views: list, query, watch, check, apply, rebuild."),
    "test": ("tidemill.cli.trial:test", "Run live models live and as batch over some events, and compare."),
    "day": ("tidemill.cli.day:day", "The warehouse's days: run, backfill, status."),
    "quarantine": ("tidemill.cli.quarantine:quarantine", "Rows that broke their contract: list, show, replay."),
    "data": ("tidemill.cli.data:data", "The data folder: verify, usage, backup, restore, maintain."),
    "key": ("tidemill.cli.key:key", "API keys: create, list, revoke."),
    "sql": ("tidemill.cli.sql:sql", "Ask the published warehouse, in SQL."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they run; their one-line help stands here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names, in the order of the help."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None when there is none of that name."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; that whoever read its output has seen enough is no failure, as click would have it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Python must not try to flush the rest at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(0) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in _COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong use, 130 stopped by Ctrl-C.",
)
@click.version_option(tidemill.__version__, prog_name="tidemill")
@credentials
def cli() -> None:
    """Event ingestion over gRPC, live tables within milliseconds, a nightly dbt warehouse over the same events.

    \b
    Try it:
      tidemill demo                         a day of events, end to end
      tidemill up                           everything, until Ctrl-C
      tidemill view query sales_by_minute   what the live table says now
    """
