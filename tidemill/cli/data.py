"""`tidemill data`: the data folder as a whole. The service's own tools do the work, each as a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tidemill.cli import options
from tidemill.cli.quality_tool import run_quality_tool
from tidemill.errors import MissingExtra

_folder = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="TIDEMILL_DATA",
    default=Path(".tidemill"),
    show_default=True,
    show_envvar=True,
    metavar="DIR",
    help="The data folder.",
)
_path = click.Path(path_type=Path)


@click.group()
def data() -> None:
    """The data folder: is it sound, what grows in it, copies of it, its upkeep. All of it works beside the service."""


def _command(**settings: Any) -> Callable[[Callable[..., int]], click.Command]:
    """A tool's command: the folder, --json, and Ctrl-C as every program has it."""

    def wrap(function: Callable[..., int]) -> click.Command:
        return data.command(**settings)(_folder(options.as_json(function)))

    return wrap


@_command()
@click.option("--lake", metavar="URL", help="The lake's folder or URL, when the service was given one with --lake.")
def verify(data: Path, lake: str | None, *, as_json: bool) -> int:
    """Read everything back: each checksum of the log, the lake's files, the databases; see that they agree.

    Says of a damage the file and the byte. Exit code 1 when anything is damaged. Works on a backup too.

    \b
    Examples:
      tidemill data verify
      tidemill data verify --data /backups/tidemill/2026-03-04T02-00-00Z
    """
    return _run("verify", data, as_json, *([f"--lake={lake}"] if lake else []))


@_command()
def usage(data: Path, *, as_json: bool) -> int:
    """What takes room, what grows a day, and for how many days the disk lasts.

    Unsure, and saying so, while there is less than a day of data.
    """
    return _run("usage", data, as_json)


@_command()
@click.argument("destination", type=_path, metavar="DEST")
def backup(destination: Path, data: Path, *, as_json: bool) -> int:
    """Make a backup in the folder DEST, named by the time: log, lake, live views, warehouse, contracts and keys.

    What the former backup there has already is linked to, not copied; each can be removed without harm to the others.

    \b
    Example:
      tidemill data backup /backups/tidemill
    """
    return _run("backup", data, as_json, "--", str(destination))


@_command()
@click.argument("source", type=_path, metavar="SRC")
@click.option("--force", is_flag=True, help="Move aside what is in the data folder's place; nothing is deleted.")
def restore(source: Path, data: Path, *, force: bool, as_json: bool) -> int:
    """Make a data folder out of the backup SRC, or of the newest one in the folder SRC.

    Every checksum is checked first. The service must not be running there.

    \b
    Example:
      tidemill data restore /backups/tidemill --data /srv/tidemill
    """
    return _run("restore", data, as_json, *(["--force"] if force else []), "--", str(source))


@data.command()
@click.argument("parts", nargs=-1, metavar="[PART]...")
@options.project_data
@options.address
@options.project
@options.as_json
def maintain(parts: tuple[str, ...], data: Path | None, address: str, project: Path | None, *, as_json: bool) -> int:
    """Do what the DAG `maintain` does every night: compact the lake, remove what nobody needs, make a backup.

    PART: lake, runs, docs, alerts, leftovers, backup, log, live, disk; all of them unless named. The service must be
    running for lake, log and live. Exit code 1 when a part failed; the others are done all the same.

    \b
    Examples:
      tidemill data maintain
      tidemill data maintain lake runs
    """
    return run_quality_tool(
        "tidemill data maintain", "quality.upkeep", parts, needs="deltalake", data=data, project=project,
        address=address, settings={}, show=None if as_json else _upkeep_line,
    )  # fmt: skip


def _upkeep_line(result: dict[str, Any]) -> str:
    """What a part of the upkeep did, for people."""
    if "error" in result:
        return f"{result['what']}: failed: {result['error']}"
    line = f"{result['what']}: {result['removed']:,} removed, {result['freed_bytes'] / 1e6:,.1f} MB freed"
    if "bytes" in result:
        line += f"; {result['bytes'] / 1e6:,.1f} MB now"
    if "path" in result:
        line += f"; a backup at {result['path']}"
    return "; ".join(filter(None, [line, result.get("skipped", ""), result.get("warning", "")]))


def _run(tool: str, folder: Path, as_json: bool, *arguments: str) -> int:
    """Run a tool and give its exit code; its output is the command's."""
    if importlib.util.find_spec("ingest_service") is None or importlib.util.find_spec("deltalake") is None:
        raise MissingExtra(f"tidemill data {tool}", "service")
    sys.stdout.flush()
    command = [sys.executable, "-m", "ingest_service.data", tool, "--data", str(folder)]
    return subprocess.run([*command, *(["--json"] if as_json else []), *arguments], check=False).returncode
