"""`tidemill demo`: a day of events from a gRPC client to audited, documented tables, on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
from rich.console import Console
from rich.live import Live
from rich.table import Table

import tidemill
from tidemill.cli.day_report import Day, headline, print_day, read_day
from tidemill.cli.output import console, print_json, show
from tidemill.cli.progress import SendSummary, send_with_progress
from tidemill.errors import TidemillError
from tidemill.input.formats import open_format
from tidemill.local.airflow_client import AirflowClient
from tidemill.local.folder import DataFolder, find_project
from tidemill.local.process import ProcessEvent, State
from tidemill.local.stack import DAILY, Stack
from tidemill.local.supervisor import interrupted_by_signals

STREAM = "order_lines"
VIEW = "sales_by_minute"
_WATCH_S = 4.0
"""How long a simulated day is spread over, so that the live table can be watched."""
_SHOWN_WINDOWS = 8


class DemoFailed(TidemillError):
    """A step of the demo failed; the text says which, why and where its log is."""


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """What the demo was asked for; see the command's help."""

    input: Path | None
    entries: tuple[str, ...]
    timezone: str | None
    each_date: bool
    date: dt.date | None
    lines: int
    seed: int
    fault: bool


@click.command(short_help="A day of events, end to end.")
@click.option("--input", "input_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Send this file (Parquet, CSV, JSON lines) instead of a simulated day.")  # fmt: skip
@click.option("--map", "entries", multiple=True, metavar="FIELD=SOURCE",
              help="With --input: where a field comes from; see `tidemill send --help`.")  # fmt: skip
@click.option("--timezone", metavar="ZONE", help="With --input: the zone of times that have none.")
@click.option("--each-date", is_flag=True, help="With --input: run the file's dates one after another, not as a range.")
@click.option("--date", type=click.DateTime(["%Y-%m-%d"]), help="The simulated date (UTC), before today. "
              "[default: the newest that this data folder has no events of]")  # fmt: skip
@click.option("--lines", type=click.IntRange(1), default=5_000, show_default=True, help="How many order lines.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed makes the same day.")
@click.option("--break", "fault", is_flag=True,
              help="Afterwards change one row of the live table by hand, and see that it is found.")  # fmt: skip
@click.option("--clean", is_flag=True, help="Begin with an empty data folder.")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="The data folder.  [default: .tidemill/demo in the project]")  # fmt: skip
@click.option("--project", type=click.Path(file_okay=False, path_type=Path), envvar="TIDEMILL_PROJECT",
              show_envvar=True, metavar="DIR", help="The folder with proto/ and dbt_project/.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end instead, for programs.")
def demo(
    *, input_file: Path | None, entries: tuple[str, ...], timezone: str | None, each_date: bool,
    date: dt.datetime | None, lines: int, seed: int, fault: bool, clean: bool, data: Path | None,
    project: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Take a day of events through every part: service, live table, lake, Airflow, dbt, checks, reconciliation.

    \b
    Examples:
      tidemill demo
      tidemill demo --break
      tidemill demo --input online_retail.parquet --timezone Europe/London \\
          --map 'event_id=r{source_row}' --map invoiced_at=invoice_date
    """
    if input_file is None and (entries or timezone or each_date):
        raise click.UsageError("--map, --timezone and --each-date are about an --input file: name one")
    if input_file is not None:
        # A file that can't be read is told before anything is started.
        open_format(input_file)
    wanted = date.date() if date else None
    if wanted is not None and wanted >= dt.datetime.now(dt.UTC).date():
        raise click.UsageError(f"--date: expected a date before today (UTC), came {wanted}")
    place = find_project(project)
    if not (place / "dbt_project" / "models" / "sources" / f"{STREAM}.yml").is_file():
        raise click.ClickException(
            f"{place} has no stream {STREAM}: the demo is the retail project's own; begin here with `tidemill up`"
        )
    folder = DataFolder(data.expanduser().absolute() if data else place / ".tidemill" / "demo")
    if clean:
        _clean(folder.root)
    options = DemoOptions(input_file, entries, timezone, each_date, wanted, lines, seed, fault)
    out = console()
    out.quiet = as_json
    with interrupted_by_signals(), Stack(folder, place, scheduled=False, on_event=_Deaths(out).show) as stack:
        report = Demo(stack, options, out).run()
    if as_json:
        print_json(report)


class Demo:
    """The demo's steps, each shown as it goes; a step that fails raises."""

    def __init__(self, stack: Stack, options: DemoOptions, out: Console) -> None:
        self._stack, self._options, self._out = stack, options, out
        self._report: dict[str, Any] = {}

    def run(self) -> dict[str, Any]:
        """All steps; what they gave, for --json."""
        out, stack = self._out, self._stack
        started = time.monotonic()
        out.print(f"[bold]Tidemill demo[/], data in {stack.folder.root}", soft_wrap=True)
        # Airflow takes longest to start: it does so while events flow.
        stack.start_airflow()
        address = stack.start_service()
        out.print(f"\n[bold]Ingest service[/] on {address}")
        with tidemill.connect(address) as tm:
            dates = self._send(tm)
            self._show_live(tm)
            client = self._airflow()
            runs = [(date, date) for date in dates] if self._options.each_date else [(dates[0], dates[-1])]
            for first, last in runs:
                day = self._day(client, first, last)
            if self._options.fault:
                self._break(client, day)
        self._say_where(time.monotonic() - started)
        return self._report

    # 1 Events.

    def _send(self, tm: tidemill.Client) -> list[dt.date]:
        """Send the events; the dates that they are of."""
        stream = tm.stream(STREAM, on_rejected=lambda row: None)  # noqa: ARG005 - told in the summary
        batches, total, dates, what = self._source(stream)
        self._out.print(f"\n[bold]Sending[/] {what}", soft_wrap=True)
        with Live(console=self._out, transient=True, auto_refresh=False) as live:
            summary = send_with_progress(
                stream, batches, total, self._out, label=STREAM, on_acknowledged=_LiveTable(tm, live, self._out).update
            )
        for line in summary.lines():
            self._out.print(f"  {line}", markup=False)
        self._report["sent"] = dataclasses.asdict(summary)
        self._report["dates"] = [str(date) for date in dates]
        return dates

    def _source(self, stream: tidemill.Stream) -> tuple[Iterable[Any], int | None, list[dt.date], str]:
        from tidemill.input import ColumnMap, InputFile
        from tidemill.simulate import simulate_day

        options = self._options
        if options.input is not None:
            columns = ColumnMap.parse(options.entries)
            contract = stream.contract
            file = InputFile(options.input, stream.schema, contract.required, columns, options.timezone)
            dates = list(file.dates(contract.event_time))
            if not dates:
                raise DemoFailed(f"{options.input}: expected rows with a time in {contract.event_time}, found none")
            what = f"{options.input.name}: {len(dates)} dates, {dates[0]} to {dates[-1]}"
            return file.batches(), file.rows, dates, what
        date = options.date or _fresh_date(stream.status())
        day = simulate_day(date, seed=options.seed, lines=options.lines)
        rows = max(1, day.truth.sent // 100)
        what = f"{day.truth.sent:,} events of a simulated shop's {date}, over about {_WATCH_S:.0f} s"
        return _paced(day.batches(rows), _WATCH_S * rows / day.truth.sent), day.truth.sent, [date], what

    # 2 The live table.

    def _show_live(self, tm: tidemill.Client) -> None:
        view = tm.view(VIEW)
        offset = tm.stream_status(STREAM).durable_offset
        rows = view.query(after=offset, order_by="-window_start", limit=_SHOWN_WINDOWS)
        status = view.status()
        self._out.print(f"\n[bold]Live table {VIEW}[/]: {status.rows:,} rows, it covers all {rows.offset:,} events")
        self._out.print(_windows(rows))
        self._report["live"] = {"view": VIEW, "rows": status.rows, "offset": rows.offset}

    # 3 The day.

    def _airflow(self) -> AirflowClient:
        with self._out.status("waiting for Airflow"):
            client = self._stack.wait_airflow()
        client.unpause(DAILY)
        return client

    def _day(self, client: AirflowClient, first: dt.date, last: dt.date) -> Day:
        """Run the DAG and show what it did; raises when nothing was published."""
        day = self._follow(client, first, last)
        if day.state != "success":
            raise self._failed(day)
        figures = headline(self._stack.folder.warehouse, first, last)
        print_day(self._out, day, figures)
        self._report |= {"headline": figures, "day": day.results}
        return day

    def _follow(self, client: AirflowClient, first: dt.date, last: dt.date) -> Day:
        run_id = f"demo-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S%f}"
        dates = str(first) if first == last else f"{first} to {last}"
        self._out.print(f"\n[bold]Airflow[/] {client.url}: DAG {DAILY} for {dates}")
        started = time.monotonic()
        client.trigger(DAILY, {"date": str(first), "last_date": str(last), "force": True}, run_id)
        with self._out.status("running"):
            for change in client.follow(DAILY, run_id, check=self._stack.check):
                if change.state in {"success", "failed"}:
                    mark = "[green]✓[/]" if change.state == "success" else "[red]✗[/]"
                    self._out.print(f"  {mark} {change.task_id:<16} {change.duration_s or 0:5.1f} s")
        self._report["daily_s"] = round(time.monotonic() - started, 3)
        return read_day(client, DAILY, run_id, first, last)

    def _failed(self, day: Day) -> DemoFailed:
        logs = self._stack.folder.airflow / "logs"
        texts = [f"task {failure.task_id}: {failure.message}" for failure in day.failures] or ["no task says why"]
        return DemoFailed(f"{DAILY} for {day.dates} failed, nothing was published: {'; '.join(texts)} (logs: {logs})")

    # 4 The fault.

    def _break(self, client: AirflowClient, day: Day) -> None:
        """Change a live row behind the service's back; the next run must find it and publish nothing."""
        published = day.results["publish"]["published_at"]
        store = self._stack.folder.live / "live.sqlite"
        row = _live_row(store, day)
        before, after = row["revenue"], str(Decimal(row["revenue"]) + 1)
        changed = f"{VIEW} {row['window_start']} {row['country']}: revenue {before} became {after}"
        self._out.print(f"\n[bold]Breaking it[/]: {changed}, by hand; the same day again")
        _set_revenue(store, row["_key"], after)
        try:
            again = self._follow(client, day.first, day.last)
        finally:
            _set_revenue(store, row["_key"], before)
        found = [failure for failure in again.failures if failure.task_id == "reconcile"]
        if not found or again.results["publish"] is not None:
            raise DemoFailed("the changed live row was not found: expected the reconciliation to fail")
        self._out.print(f"\n[bold]Found[/]: {found[0].message}", soft_wrap=True)
        self._out.print(f"Nothing was published: readers see the warehouse of {published}. The row is put back.")
        self._report["break"] = {"changed": changed, "found": found[0].message, "published_at": published}

    def _say_where(self, seconds: float) -> None:
        folder = self._stack.folder
        self._out.print("\n[bold]Documentation[/]")
        self._out.print(f"  dbt docs   {folder.dbt_docs}", soft_wrap=True)
        self._out.print(f"  data docs  {folder.data_docs}", soft_wrap=True)
        self._out.print(
            f"\nDone in {seconds:.0f} s; all that was started is stopped. To keep everything running: "
            f'make up ARGS="--data {folder.root}"',
            soft_wrap=True,
        )
        self._report |= {"dbt_docs": str(folder.dbt_docs), "data_docs": str(folder.data_docs)}
        self._report["seconds"] = round(seconds, 3)


class _LiveTable:
    """Shows the view's newest windows while events are sent: in place on a terminal, a line now and then elsewhere."""

    def __init__(self, tm: tidemill.Client, live: Live, out: Console) -> None:
        self._view, self._live, self._out = tm.view(VIEW), live, out
        self._next_s = 0.0

    def update(self, summary: SendSummary) -> None:
        """Show the view as it is now, unless that was just done."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + (0.2 if self._out.is_terminal else 1.0)
        rows = self._view.query(order_by="-window_start", limit=_SHOWN_WINDOWS)
        if self._out.is_terminal:
            self._live.update(_windows(rows), refresh=True)
        elif len(rows):
            newest = rows.rows()[0]["window_start"]
            self._out.print(
                f"  {summary.acknowledged:,} acknowledged; {VIEW} covers {rows.offset:,} events, up to {show(newest)}"
            )


class _Deaths:
    """Tells of processes that die while the demo runs."""

    def __init__(self, out: Console) -> None:
        self._out = out

    def show(self, event: ProcessEvent) -> None:
        """Say that a process died; the rest of what happens to processes is not the demo's subject."""
        if event.state is State.WAITING:
            self._out.print(f"{event.name} died ({event.detail}) and is started again", markup=False)


def _windows(rows: tidemill.ViewRows) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    text = {"TIMESTAMP WITH TIME ZONE", "VARCHAR"}
    for column in rows.columns:
        name = f"  {column.name}" if not table.columns else column.name
        table.add_column(name, justify="left" if column.type in text else "right")
    for row in rows:
        first, *rest = row.values()
        table.add_row(f"  {show(first)}", *(show(value) for value in rest))
    return table


def _paced(batches: Iterable[pa.RecordBatch], pause_s: float) -> Iterator[pa.RecordBatch]:
    due = time.monotonic()
    for batch in batches:
        time.sleep(max(0.0, due - time.monotonic()))
        due += pause_s
        yield batch


def _fresh_date(status: tidemill.StreamStatus) -> dt.date:
    """The newest date before today that the stream has neither events nor a seal of."""
    sealed = {seal.date + dt.timedelta(days=day) for seal in status.seals
              for day in range((seal.last_date - seal.date).days + 1)}  # fmt: skip
    date = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    while date in sealed or date in status.counts.appended_by_date:
        date -= dt.timedelta(days=1)
    return date


def _live_row(store: Path, day: Day) -> sqlite3.Row:
    """The first of the day's live rows."""
    with contextlib.closing(sqlite3.connect(store, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        row: sqlite3.Row | None = connection.execute(
            f"select * from {VIEW} where window_start >= ? and window_start < ? order by _key limit 1",  # noqa: S608
            (str(day.first), str(day.last + dt.timedelta(days=1))),
        ).fetchone()
    if row is None:
        raise DemoFailed(f"--break: {VIEW} has no row of {day.dates} to change")
    return row


def _set_revenue(store: Path, key: str, revenue: str) -> None:
    with contextlib.closing(sqlite3.connect(store, timeout=30)) as connection, connection:
        connection.execute(f"update {VIEW} set revenue = ? where _key = ?", (revenue, key))  # noqa: S608


def _clean(root: Path) -> None:
    """Remove a data folder, and nothing that is none."""
    if not root.exists():
        return
    if any(root.iterdir()) and not ((root / "FORMAT").is_file() or (root / "stack.lock").is_file()):
        raise DemoFailed(
            f"--clean: {root} is not a data folder of Tidemill (it has no file FORMAT): remove it yourself"
        )
    shutil.rmtree(root)
