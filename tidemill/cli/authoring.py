"""`tidemill view check` and `tidemill view apply`: from a project's live models to the views of a service."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import click
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import tidemill
from tidemill.cli import options
from tidemill.cli.output import console, print_json
from tidemill.cli.project import Project, of_project
from tidemill.cli.tool import Line, Tool
from tidemill.client.applied import AppliedView, DefinitionChange
from tidemill.client.models import ViewState, ViewStatus

_POLL_S = 0.2
_SAY_EVERY_S = 5.0
_FINE, _REFUSED = "[green]fine[/]   ", "[red]refused[/]"
_CHANGES = {
    DefinitionChange.ADDED: "[green]added[/]  ",
    DefinitionChange.CHANGED: "[yellow]changed[/]",
    DefinitionChange.SAME: "[dim]same[/]   ",
    DefinitionChange.REMOVED: "[red]removed[/]",
    DefinitionChange.REFUSED: _REFUSED,
}
_WHAT_IT_MEANS = {
    DefinitionChange.ADDED: "built from the first event on",
    DefinitionChange.CHANGED: "rebuilt from the first event on while the old one serves",
    DefinitionChange.REMOVED: "its tables are dropped; they can be rebuilt from the events",
}
_DAY_S, _HOUR_S, _MINUTE_S = 86_400, 3_600, 60


@click.command()
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@of_project
@click.option("--address", metavar="HOST:PORT", help="Also say what would change in the service that listens there.")
@options.as_json
def check(models: tuple[str, ...], *, project: Project, address: str | None, as_json: bool) -> int:
    """Say of live models what their views would be, or where and why they can't be live.

    MODEL is a name or a file; without one, all are checked. Needs no service. Exit code 1: something is refused.

    \b
    Examples:
      tidemill view check
      tidemill view check sales_by_minute --address localhost:7433
    """
    manifest = project.compiled(as_json)
    names = project.model_names(manifest, models)
    arguments = [f"--manifest={manifest}", f"--proto={project.proto}", *(names if models else ())]
    code = 0
    with Tool("tidemill view check", "ingest_service.live.check", arguments) as tool:
        for line in tool.lines():
            if "problem" in line and "model" in line:
                code = 1
            _show(line, project, as_json=as_json)
    if address is not None:
        with tidemill.connect(address) as tm:
            changes = tm.apply_views(manifest.read_bytes(), check_only=True)
        changes = [each for each in changes if not models or each.view in names]
        if not as_json:
            console().print(f"\nin the service at {address}:", markup=False)
        code = max(code, _show_changes(changes, as_json=as_json))
    return code


@click.command()
@of_project
@click.option("--check-only", is_flag=True, help="Only say what would change.")
@click.option("--wait", is_flag=True, help="Wait until new and changed views have taken in all events.")
@click.option("--yes", is_flag=True, help="Remove views without asking.")
@options.address
@options.as_json
def apply(*, project: Project, check_only: bool, wait: bool, yes: bool, address: str, as_json: bool) -> int:
    """Make the project's live models the views of a running service, without a restart.

    A changed view is rebuilt while the old one serves; one that is no longer among the models is removed, after a
    question on a terminal. Exit code 1: something is refused, or a rebuild failed (with --wait).

    \b
    Examples:
      tidemill view apply --check-only
      tidemill view apply --wait
    """
    manifest = project.compiled(as_json).read_bytes()
    with tidemill.connect(address) as tm:
        if check_only:
            return _show_changes(tm.apply_views(manifest, check_only=True), as_json=as_json)
        if not (yes or as_json) and sys.stdin.isatty():
            _ask_before_removing(tm.apply_views(manifest, check_only=True))
        before = {view.view: view.definition_hash for view in tm.views()}
        changes = tm.apply_views(manifest)
        code = _show_changes(changes, as_json=as_json)
        if wait:
            code = max(code, _wait(tm, changes, before, as_json=as_json))
    return code


def _show(line: Line, project: Project, *, as_json: bool) -> None:
    if as_json:
        print_json(line)
    elif "problem" in line:
        _show_refused(line, project)
    else:
        _show_fine(line)


def _show_fine(line: Line) -> None:
    out = console()
    what = "the events" if line["is_of_events"] else f"one row a {', '.join(line['group_columns'])}"
    if not line["group_columns"]:
        what = "one row"
    kept = f"; kept for {_duration(line['retain_s'])}" if line["retain_s"] else ""
    out.print(f"{_FINE} [bold]{escape(line['model'])}[/]: {escape(what)} of {escape(line['stream'])}{kept}")
    width = max(len(column["name"]) for column in line["columns"])
    for column in line["columns"]:
        how = "tells the rows apart" if column["in_grain"] else column["compared"]
        if column["name"] == line["window_column"]:
            how = "when it happened" if line["is_of_events"] else f"start of the window{_width(line['window_width'])}"
        out.print(f"          {escape(column['name'].ljust(width))}  [dim]{column['type']:24}[/]  {how}")


def _width(interval: str) -> str:
    """A window's length in words; `interval` is DuckDB's, or "" where it is not known."""
    number, _, unit = interval.removeprefix("INTERVAL '").removesuffix("'").partition(" ")
    if unit == "microseconds" and int(number) % 1_000_000 == 0:
        return f" of {_duration(int(number) // 1_000_000)}"
    return f" of {number} {unit}" if interval else ""


def _duration(seconds: int) -> str:
    for unit, size in (("day", _DAY_S), ("hour", _HOUR_S), ("minute", _MINUTE_S)):
        if seconds % size == 0:
            return f"{seconds // size} {unit}{'s' if seconds > size else ''}"
    return f"{seconds} seconds"


def _show_refused(line: Line, project: Project) -> None:
    out = console()
    if "model" not in line:
        out.print(f"{_REFUSED} {escape(line['problem'])}")
        return
    place = project.shown(line["file"])
    if line["line"] is not None:
        here = f":{line['line']}:{line['column']}"
        place += f" (line {line['line']}, column {line['column']} of its compiled SQL)" if line["compiled"] else here
    out.print(f"{_REFUSED} [bold]{escape(line['model'])}[/]: {escape(place)}")
    out.print(f"          {escape(line['problem'])}")


def _show_changes(changes: Iterable[AppliedView], *, as_json: bool) -> int:
    """Print what becomes of views; the exit code."""
    refused = 0
    out = console()
    for each in changes:
        refused += each.change is DefinitionChange.REFUSED
        if as_json:
            print_json(each)
            continue
        why = each.problem or _WHAT_IT_MEANS.get(each.change, "")
        out.print(f"{_CHANGES[each.change]} [bold]{escape(each.view)}[/]{': ' if why else ''}{escape(why)}")
    return 1 if refused else 0


def _ask_before_removing(changes: Iterable[AppliedView]) -> None:
    removed = [each.view for each in changes if each.change is DefinitionChange.REMOVED]
    if not removed:
        return
    dropped = "no longer among the models. Their tables are dropped, and can be rebuilt from the events. Remove?"
    if not click.confirm(f"{', '.join(removed)}: {dropped}", err=True):
        raise click.ClickException("nothing was applied")


def _wait(tm: tidemill.Client, changes: Iterable[AppliedView], before: Mapping[str, str], *, as_json: bool) -> int:
    """Wait until added and changed views serve their new definition over all events that there were; the exit code."""
    built = {DefinitionChange.ADDED, DefinitionChange.CHANGED}
    waiting = {each.view for each in changes if each.change in built}
    targets: dict[str, int] = {}
    failed = 0
    with _Waiting(quiet=as_json) as shown:
        while waiting:
            there = {status.view: status for status in tm.views()}
            for view in sorted(waiting):
                status = there.get(view)
                if status is None or status.error:
                    failed += 1
                    waiting.discard(view)
                    shown.say(
                        f"{view}: {status.error if status else 'it is gone: something else was applied'}", failed=True
                    )
                    continue
                target = targets.setdefault(view, status.offset + status.lag)
                at = status.offset if status.rebuild_offset is None else status.rebuild_offset
                shown.show(view, at, target)
                if _is_built(status, target, before):
                    waiting.discard(view)
                    shown.say(f"{view} serves {at:,} events")
            if waiting:
                time.sleep(_POLL_S)
    return 1 if failed else 0


def _is_built(status: ViewStatus, target: int, before: Mapping[str, str]) -> bool:
    is_new = before.get(status.view) != status.definition_hash
    return status.state is ViewState.FOLLOWING and is_new and status.offset >= target


class _Waiting:
    """Bars on a terminal; elsewhere a line now and then."""

    def __init__(self, *, quiet: bool) -> None:
        self._out = console()
        self._quiet = quiet
        self._said_at_s = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f} events"))
        on_terminal = self._out.is_terminal and not quiet
        self._progress = Progress(*columns, TimeElapsedColumn(), console=self._out, disable=not on_terminal)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Waiting:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self._progress.stop()

    def show(self, view: str, offset: int, target: int) -> None:
        """Show how far a view is."""
        if view not in self._tasks:
            self._tasks[view] = self._progress.add_task(view, total=target)
        self._progress.update(self._tasks[view], completed=offset)
        now_s = time.monotonic()
        if not self._quiet and not self._out.is_terminal and now_s - self._said_at_s >= _SAY_EVERY_S:
            self._said_at_s = now_s
            self._out.print(f"{view}: {offset:,} of {target:,} events", markup=False)

    def say(self, text: str, *, failed: bool = False) -> None:
        """Say what came of one view."""
        if failed:
            click.echo(text, err=True)
        elif not self._quiet:
            self._out.print(text, markup=False)
