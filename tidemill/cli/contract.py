"""`tidemill contract`: what a changed contract breaks, putting it in force, and what is made from it."""

from __future__ import annotations

import base64
import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

import tidemill
from tidemill.cli import options
from tidemill.cli.output import console, print_json
from tidemill.client.applied import AppliedContract
from tidemill.errors import MissingExtra, NotFound
from tidemill.local.folder import find_project

_Line = dict[str, Any]
_DONE = {"missing": "made", "no longer generated from proto/": "removed"}
_MARKS = {True: "[green]fine[/]  ", False: "[red]breaks[/]"}

_proto = click.option(
    "--proto",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("proto"),
    show_default=True,
    metavar="DIR",
    help="The folder of the contracts.",
)


@click.group()
def contract() -> None:
    """Contracts: what a change breaks, putting it in force without a restart, and what is made from them.

    docs/contracts.md has the rules.
    """


@contract.command()
@_proto
@click.option("--against", metavar="REV", help="Compare with this git revision; needs no service. For CI: origin/main.")
@options.address
@options.as_json
def check(proto: Path, against: str | None, address: str, as_json: bool) -> int:
    """Compare the folder's contracts with those in force in the service, or with an earlier revision.

    Says all that is different. Exit code 0: rows, readers and producers stay valid; 1: something breaks.

    \b
    Examples:
      tidemill contract check
      tidemill contract check --against origin/main
    """
    if against is not None:
        return _show(_ask_tool(proto, f"--against={against}"), as_json)
    lines = _ask_tool(proto, "--describe")
    with tidemill.connect(address) as tm:
        return _show([_compared(tm, line) for line in lines], as_json)


@contract.command()
@click.argument("which", metavar="STREAM_OR_FILE")
@_proto
@click.option(
    "--dbt-project",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("dbt_project"),
    show_default=True,
    metavar="DIR",
    help="Where the stream's dbt source is written anew.",
)
@click.option("--check-only", is_flag=True, help="Only say what would change.")
@options.address
@options.as_json
def apply(which: str, proto: Path, dbt_project: Path, check_only: bool, address: str, as_json: bool) -> int:
    """Put a changed contract in force, and write its dbt source. Nothing happens where anything breaks.

    It takes effect from the next segment of the log on, without a restart; rows from before have NULL in new columns.
    Live views get to know new columns when the service is started again with their models compiled anew.

    \b
    Examples:
      tidemill contract apply order_lines
      tidemill contract apply proto/retail/v1/order_line.proto --check-only
    """
    lines = _chosen(_ask_tool(proto, "--describe"), which, proto)
    with tidemill.connect(address) as tm:
        found = [_compared(tm, line) for line in lines]
        if check_only or not all(line.get("compatible") for line in found):
            return _show(found, as_json)
        applied = [_applied(line, tm.apply_contract(_descriptors(line), line["message_type"])) for line in lines]
    code = _show(applied, as_json)
    for line in lines:
        _write_source(dbt_project / "models" / "sources" / f"{line['stream']}.yml", line["dbt_source"], quiet=as_json)
    return code


@contract.command(short_help="Make stubs and dbt sources from the contracts.")
@click.option("--project", type=click.Path(file_okay=False, path_type=Path), envvar="TIDEMILL_PROJECT",
              show_envvar=True, metavar="DIR",
              help="The folder with proto/ and dbt_project/.  [default: this one or one above]")  # fmt: skip
@click.option("--check", "check_only", is_flag=True, help="Write nothing; exit code 1: something is out of date.")
@options.as_json
def generate(project: Path | None, *, check_only: bool, as_json: bool) -> int:
    """Make everything that is made from proto/: stubs of the events, and dbt's sources with their descriptions.

    \b
    Examples:
      tidemill contract generate
      tidemill contract generate --check     what CI asks
    """
    found = generate_from_contracts(find_project(project), check_only=check_only)
    if as_json:
        print_json(found)
    else:
        for path, change in found["changes"].items():
            click.echo(f"{path}: {change if check_only else _DONE.get(change, 'made anew')}")
        if not check_only:
            click.echo(f"{found['files']} files are made from proto/, {len(found['changes'])} changed")
    if check_only and found["changes"]:
        if not as_json:
            click.echo("out of date: run `tidemill contract generate` and commit what it changes", err=True)
        return 1
    return 0


def generate_from_contracts(project: Path, *, check_only: bool = False) -> dict[str, Any]:
    """Run the generator in a project; how many files it makes, and what was different, by path.

    Raises MissingExtra, ClickException with what is wrong with a contract.
    """
    arguments = [f"--root={project}", *(["--check"] if check_only else [])]
    done = _run_tool("ingest_service.contracts.codegen", "--json", *arguments)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise click.ClickException(done.stderr.strip() or "the contracts can't be read") from None
    if "problem" in found:
        raise click.ClickException(f"nothing was generated: {found['problem']}")
    return found


def describe_contracts(proto: Path) -> list[dict[str, Any]]:
    """What the folder's contracts are: file, stream, version and more of each, or its problem. Raises MissingExtra."""
    return _ask_tool(proto, "--describe")


def _ask_tool(proto: Path, how: str) -> list[_Line]:
    """What the service's own tool says of the folder, one object a contract or wrong file."""
    done = _run_tool("ingest_service.contracts.check", f"--proto={proto}", how)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode and not lines:
        raise click.ClickException(done.stderr.strip().removeprefix("tidemill: ") or "the contracts can't be read")
    return lines


def require_tools(command: str) -> None:
    """Raise MissingExtra where what reads contracts is not installed; `command` is who needs it."""
    if importlib.util.find_spec("ingest_service") is None or importlib.util.find_spec("grpc_tools") is None:
        raise MissingExtra(command, "service")


def _run_tool(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    require_tools("tidemill contract")
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, encoding="utf-8")


def _chosen(lines: Iterable[_Line], which: str, proto: Path) -> list[_Line]:
    """The contracts of a stream's name or of a file, which may be named from here or from the folder."""
    lines = list(lines)
    by_file = {which, Path(which).as_posix()}
    if Path(which).resolve().is_relative_to(proto.resolve()):
        by_file.add(Path(which).resolve().relative_to(proto.resolve()).as_posix())
    chosen = [line for line in lines if line.get("stream") == which or line["file"] in by_file]
    if not chosen:
        wrong = [line["problem"] for line in lines if "problem" in line]
        known = ", ".join(line["stream"] for line in lines if "stream" in line) or "none"
        raise click.ClickException("\n".join([f"no contract {which!r} in {proto}; its streams are: {known}", *wrong]))
    return chosen


def _compared(tm: tidemill.Client, line: _Line) -> _Line:
    """What the service says of a contract; as it is where the file is none."""
    if "problem" in line:
        return line
    try:
        return _applied(line, tm.apply_contract(_descriptors(line), line["message_type"], check_only=True))
    except NotFound:
        # The service opens a new stream when it starts.
        return {"stream": line["stream"], "version_before": None, "version": line["version"], "compatible": True,
                "changes": []}  # fmt: skip


def _applied(line: _Line, contracts: list[AppliedContract]) -> _Line:
    (found,) = contracts
    return {
        "stream": found.stream,
        "version_in_force": found.version,
        "version": line["version"],
        "applied": found.applied,
        "compatible": found.compatible,
        "changes": [dataclasses.asdict(change) for change in found.changes],
    }


def _descriptors(line: _Line) -> bytes:
    return base64.b64decode(line["descriptors"])


def _show(lines: Iterable[_Line], as_json: bool) -> int:
    """Print what was found; the exit code."""
    broken = 0
    for line in lines:
        broken += not line.get("compatible", False)
        if as_json:
            print_json(line)
        elif "problem" in line:
            console().print(f"{_MARKS[False]} {line['file']}", style=None)
            console().print(line["problem"], markup=False)
        else:
            _show_stream(line)
    if broken and not as_json:
        click.echo("something breaks: take it back, or see docs/contracts.md for the way out", err=True)
    return 1 if broken else 0


def _show_stream(line: _Line) -> None:
    out = console()
    out.print(f"[bold]{line['stream']}[/]: {_summary(line)}")
    for change in line["changes"]:
        where = f"{change['field']}: " if change["field"] else ""
        out.print(f"  {_MARKS[change['compatible']]}", end=" ")
        out.print(f"{where}{change['message']}", markup=False)


def _summary(line: _Line) -> str:
    if line.get("applied"):
        return f"version {line['version']} is in force"
    if line.get("version_before", 0) is None:
        return "a new stream"
    return f"{len(line['changes'])} differences" if line["changes"] else "no difference"


def _write_source(file: Path, text: str, *, quiet: bool) -> None:
    """The stream's dbt source; a project that has no generated sources is left alone."""
    if not file.parent.is_dir():
        note = f"{file.parent} is not there: no dbt source was written (--dbt-project)"
    elif file.exists() and file.read_text(encoding="utf-8") == text:
        return
    else:
        file.write_text(text, encoding="utf-8")
        note = f"written: {file}; run `make proto` where stubs are generated from the contracts, too"
    if not quiet:
        click.echo(note)
