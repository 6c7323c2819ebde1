"""`tidemill key`: API keys in a data folder. The service's own tool does the work, as a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import click

from tidemill.cli import options
from tidemill.errors import MissingExtra


@click.group()
def key() -> None:
    """API keys: one a client, each for some streams and to read, write or administer them.

    A running service knows of a change within a second. docs/security.md says more.
    """


@key.command()
@click.argument("name")
@click.option("--stream", "streams", multiple=True, required=True, help="A stream that it is for; * for every one.")
@click.option(
    "--allow",
    multiple=True,
    required=True,
    type=click.Choice(["read", "write", "admin"]),
    help="What it may do there: read events and views, write events, admin (seal, export, replay, apply contracts).",
)
@click.option("--expires", metavar="TIME", help="When it ends: 12h or 90d from now. Default: never.")
@options.data_folder
@options.as_json
def create(
    name: str, streams: tuple[str, ...], allow: tuple[str, ...], expires: str | None, data: Path, as_json: bool
) -> int:
    """Make a key for the client NAME and print it: this once, it is kept nowhere.

    \b
    Examples:
      tidemill key create shop --stream order_lines --allow write > shop.key
      tidemill key create daily --stream '*' --allow read --allow admin --expires 90d
    """
    given = [f"--stream={each}" for each in streams] + [f"--allow={each}" for each in allow]
    return _run("create", data, as_json, *given, *([f"--expires={expires}"] if expires else []), "--", name)


@key.command("list")
@options.data_folder
@options.as_json
def list_(data: Path, as_json: bool) -> int:
    """All keys, without their secrets: id, client, what they allow, when they were made and end."""
    return _run("list", data, as_json)


@key.command()
@click.argument("which", metavar="NAME_OR_ID")
@options.data_folder
@options.as_json
def revoke(which: str, data: Path, as_json: bool) -> int:
    """Make a key worthless: calls with it are refused, and those that run end within two seconds."""
    return _run("revoke", data, as_json, "--", which)


def _run(tool: str, data: Path, as_json: bool, *arguments: str) -> int:
    """Run the service's tool and give its exit code; its output is the command's."""
    if importlib.util.find_spec("ingest_service") is None or importlib.util.find_spec("grpc") is None:
        raise MissingExtra(f"tidemill key {tool}", "service")
    sys.stdout.flush()
    command = [sys.executable, "-m", "ingest_service.access", tool, f"--data={data}"]
    return subprocess.run([*command, *(["--json"] if as_json else []), *arguments], check=False).returncode
