"""`tidemill view`: live views."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import tidemill
from tidemill.cli import authoring, options
from tidemill.cli.lines import plain, words
from tidemill.cli.output import console, print_json, print_rows
from tidemill.client.models import ViewState, ViewStatus
from tidemill.client.view import ViewRows
from tidemill.client.watch import ViewChange, Watch

_LOOK_S = 0.2
_EVENTS = ("_offset",)
_where = click.option("--where", multiple=True, metavar="CONDITION",
                      help="Such as country=France or 'revenue>100'; may be given several times.")  # fmt: skip
_CONDITION = re.compile(r"\s*(\w+)\s*(<=|>=|!=|<>|==|=|<|>)\s*(.*)", re.DOTALL)


@click.group()
def view() -> None:
    """Live views: dbt models whose tables follow the events."""


view.add_command(authoring.check)
view.add_command(authoring.apply)


@view.command("list")
@options.address
@options.as_json
def list_(address: str, as_json: bool) -> None:
    """All live views: how far they are, and what keeps those that stand still."""
    with tidemill.connect(address) as tm:
        views = tm.views()
    if as_json:
        for status in views:
            print_json(status)
        return
    print_rows([view_row(status) for status in views], list(VIEW_COLUMNS), as_json=False)


@view.command("query")
@click.argument("name", metavar="VIEW")
@_where
@click.option("--order-by", multiple=True, metavar="COLUMN", help="Sort by it; -COLUMN: descending.")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Rows at the most; 0: all.")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="OFFSET",
              help="Wait until the view covers this offset.")  # fmt: skip
@click.option("--across-time", is_flag=True, help="Published batch for the dates it has, live for all others.")
@options.address
@options.as_json
def query(
    name: str,
    where: tuple[str, ...],
    order_by: tuple[str, ...],
    limit: int,
    after: int,
    *,
    across_time: bool,
    address: str,
    as_json: bool,
) -> None:
    """Rows of a live view; where it has windows, with the state of each: open, closed, or corrected since.

    \b
    Examples:
      tidemill view query sales_by_minute --where country=France --order-by -window_start --limit 5
      tidemill view query sales_by_minute --across-time --where 'window_start>=2011-12-01'
    """
    conditions = [_condition(text) for text in where]
    with tidemill.connect(address) as tm:
        asked = tm.view(name)
        status = asked.status()
        # In a view of events that column says when each happened.
        windows = bool(status.window_column) and status.group_columns != _EVENTS
        rows = asked.query(
            where=conditions, order_by=order_by, limit=limit, after=after, window_state=windows, across_time=across_time
        )
    print_rows(rows, [column.name for column in rows.columns], as_json=as_json)
    if as_json:
        return
    of_live = f"the log's below offset {rows.offset:,}"
    if not across_time:
        console().print(f"[dim]{len(rows):,} rows, {of_live}[/dim]")
        return
    for text in _boundary(rows, of_live):
        console().print(f"[dim]{text}[/dim]")


def _boundary(rows: ViewRows, of_live: str) -> Iterator[str]:
    """Where batch ends and live begins."""
    batch = sum(row["_source"] == "batch" for row in rows)
    yield f"{len(rows):,} rows: {batch:,} of batch, {len(rows) - batch:,} live, {of_live}"
    if rows.published_at is None or rows.last_batch_date is None:
        yield "no date of this view comes from batch"
        return
    yield (
        f"batch: {rows.batch_dates:,} {'date' if rows.batch_dates == 1 else 'dates'} up to {rows.last_batch_date}, "
        f"published {rows.published_at:%Y-%m-%d %H:%M:%S} UTC"
    )
    if rows.stale_dates:
        yield f"{rows.stale_dates:,} of them by an earlier definition of the view: publish them with full refresh"


@view.command(
    "watch",
    short_help="What changes in a live view, as it is committed.",
    epilog="Each line is a row as it is now, with the offset that the view covers. Ctrl-C is the way to end: exit code "
    "0. With --json each line is a change: its rows, and the token with which --resume goes on behind it.",
)
@click.argument("name", metavar="VIEW")
@_where
@click.option("--resume", default="", metavar="TOKEN", help="Go on where an earlier watch was, nothing is lost.")
@click.option("--new", "only_new", is_flag=True, help="Leave out the rows that are there already.")
@options.address
@options.as_json
def watch(name: str, where: tuple[str, ...], resume: str, *, only_new: bool, address: str, as_json: bool) -> None:
    """Print the rows of VIEW, then each that changes, until Ctrl-C.

    \b
    Examples:
      tidemill view watch sales_by_minute --where country=France --new
      tidemill view watch sales_by_minute --json
    """
    conditions = [_condition(text) for text in where]
    with tidemill.connect(address) as tm:
        watching = tm.view(name).watch(where=conditions, resume=resume, only_new=only_new)
        try:
            with watching:
                _print_changes(watching, name, as_json=as_json)
        except KeyboardInterrupt:
            if sys.stdout.isatty() and watching.resume:
                click.echo(f"go on with: tidemill view watch {name} --resume {watching.resume}", err=True)


def _print_changes(changes: Watch, name: str, *, as_json: bool) -> None:
    first = True
    for change in changes:
        if as_json:
            click.echo(json.dumps(_change(change), ensure_ascii=False))
            continue
        if change.reset and not first:
            click.echo(f"{name} was rebuilt: all of its rows follow", err=True)
        if len(change):
            names = [column.name for column in change.columns]
            click.echo("\n".join(" ".join([str(change.offset), *words(row, names)]) for row in change))
        first = False


def _change(change: ViewChange) -> dict[str, object]:
    return {
        "offset": change.offset,
        "reset": change.reset,
        "complete": change.complete,
        "resume": change.resume,
        "rows": plain(change.rows()),
    }


@view.command("rebuild", short_help="Make a live view's rows anew.")
@click.argument("name", metavar="VIEW")
@click.option("--wait", is_flag=True, help="Show how far it is, and return once the new rows serve.")
@options.address
@options.as_json
def rebuild(name: str, *, wait: bool, address: str, as_json: bool) -> None:
    """Make the rows of VIEW anew from its stream's first event on. The ones that are there serve meanwhile.

    \b
    Example:
      tidemill view rebuild sales_by_minute --wait
    """
    with tidemill.connect(address) as tm:
        asked = tm.view(name)
        # A view that stands still is rebuilt all the same: that is why it is.
        problem = asked.status().error
        asked.rebuild()
        status = asked.status()
        if wait:
            with _Rebuild(console(), name) as shown:
                while status.rebuild_offset is not None and status.error in ("", problem):
                    shown.show(status)
                    time.sleep(_LOOK_S)
                    status = asked.status()
    if as_json:
        print_json(status)
    if status.error and (wait or status.error != problem):
        raise click.ClickException(f"{name}: {status.error}")
    if as_json:
        return
    if status.rebuild_offset is not None:
        click.echo(f"{name} is being rebuilt; `tidemill view list` shows how far it is")
    else:
        click.echo(f"{name} was rebuilt: {status.rows:,} rows, the log's below offset {status.offset:,}")


class _Rebuild:
    """How far a rebuild is: a bar on a terminal, elsewhere nothing."""

    def __init__(self, out: Console, name: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeElapsedColumn(),
            console=out, disable=not out.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task(name, total=None)

    def __enter__(self) -> _Rebuild:
        self._progress.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._progress.stop()

    def show(self, status: ViewStatus) -> None:
        self._progress.update(self._task, total=status.offset + status.lag, completed=status.rebuild_offset or 0)


VIEW_COLUMNS = ("view", "stream", "state", "lag", "lag ms", "watermark", "rows", "grain", "problem")


def view_row(status: ViewStatus) -> dict[str, object]:
    """A view's status as a line of a table."""
    if status.state is ViewState.REFUSED:
        return {**dict.fromkeys(VIEW_COLUMNS), "view": status.view, "state": "refused", "problem": status.error}
    values = (
        status.view, status.stream, _state(status), status.lag, status.lag_ms, status.watermark,
        status.rows, ", ".join(status.group_columns), status.error,
    )  # fmt: skip
    return dict(zip(VIEW_COLUMNS, values, strict=True))


def _state(status: ViewStatus) -> str:
    """What it does; of a rebuild also how much is done."""
    end = status.offset + status.lag
    if status.rebuild_offset is None or not end:
        return status.state.value
    return f"{status.state.value} ({min(100, 100 * status.rebuild_offset // end)} %)"


def _condition(text: str) -> tuple[str, str, str | None]:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"expected a condition such as country=France or 'revenue>100', came {text!r}")
    column, operator, value = match.groups()
    return column, operator, None if value.upper() == "NULL" else value
