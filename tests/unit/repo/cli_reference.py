"""Writes docs/reference/cli.md from the commands' own help: `python tests/unit/repo/cli_reference.py`."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "docs" / "reference" / "cli.md"
WIDTH = 100
HEAD = """\
# Command line

Written by `python tests/unit/repo/cli_reference.py` from the commands' own `--help`; a test holds it to them.

Options may also be given as the environment variables that stand beside them. Commands that print tables print one JSON
object a line with `--json`.
"""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, groups before what is in them."""
    from tidemill.cli.commands import cli

    yield "tidemill", cli
    yield from _below("tidemill", cli)


def _below(path: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from _below(f"{path} {name}", command)


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    for path, command in commands():
        if path == "tidemill serve":
            text = service_help().replace("python -m ingest_service", "tidemill serve")
        else:
            context = click.Context(command, info_name=path, max_content_width=WIDTH, terminal_width=WIDTH)
            context.help_option_names = ["-h", "--help"]
            text = command.get_help(context)
        parts.append(f"## {path}\n\n```text\n{_tidy(text)}\n```\n")
    return "\n".join(parts)


def service_help() -> str:
    """What the ingest service says of its options."""
    environment = {**os.environ, "COLUMNS": str(WIDTH), "TIDEMILL_DATA": ".tidemill"}
    done = subprocess.run(
        [sys.executable, "-m", "ingest_service", "--help"],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def _tidy(text: str) -> str:
    return re.sub(r"[ \t]+$", "", text.strip(), flags=re.MULTILINE)


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
