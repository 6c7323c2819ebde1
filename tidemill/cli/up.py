"""`tidemill up`: all parts on this machine, until Ctrl-C."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from tidemill.cli import options
from tidemill.cli.output import console
from tidemill.local.errors import DagBroken
from tidemill.local.folder import DataFolder, find_project
from tidemill.local.process import ProcessEvent, State
from tidemill.local.stack import DAILY, Stack
from tidemill.local.supervisor import interrupted_by_signals

SERVICE_PORT = 7433
AIRFLOW_PORT = 8080


@click.command(short_help="Run all parts until Ctrl-C.")
@click.option("--airflow/--no-airflow", default=True, help="With Airflow (default), or the stream side alone.")
@options.project_data
@options.project
@click.option(
    "--port", type=int, default=SERVICE_PORT, show_default=True, help="The ingest service's port; 0 for any free one."
)
@click.option(
    "--airflow-port", type=int, default=AIRFLOW_PORT, show_default=True, help="Airflow's port; 0 for any free one."
)
def up(*, airflow: bool, data: Path | None, project: Path | None, port: int, airflow_port: int) -> None:
    """Run the ingest service and Airflow until Ctrl-C, and print where they are and how to log in.

    A process that dies is started again; one that keeps dying ends the command with the place of its log.

    \b
    Examples:
      tidemill up
      tidemill up --no-airflow --port 0
    """
    screen = console()
    place = find_project(project)
    folder = DataFolder.at(data, place)
    reporter = _Reporter(screen)
    # The stack is left inside: its end is shown too, and a second Ctrl-C there hurries it.
    with contextlib.suppress(KeyboardInterrupt), interrupted_by_signals():
        try:
            with Stack(
                folder, place, service_port=port, airflow_port=airflow_port, on_event=reporter.show
            ) as stack:  # fmt: skip
                _start(stack, screen, with_airflow=airflow)
                stack.supervisor.wait_failure()
        finally:
            screen.print("[dim]stopped[/]")


def _start(stack: Stack, screen: Console, *, with_airflow: bool) -> None:
    """Start the parts, and show each as soon as it can be used."""
    if with_airflow:
        stack.start_airflow()
    with _busy(screen, "starting the ingest service"):
        stack.start_service()
    screen.print(f"[bold]Tidemill[/] with its data in {escape(str(stack.folder.root))}")
    _row(screen, "ingest service", stack.address, f'tidemill.connect("{stack.address}")')
    if not with_airflow:
        screen.print("[dim]Ctrl-C stops it[/]")
        return
    with _busy(screen, "starting Airflow"):
        client = stack.wait_airflow(None)
    login = stack.login
    _row(screen, "Airflow", stack.airflow_url, f"user {login.user}, password {login.password}")
    for what, file in (("dbt docs", stack.folder.dbt_docs), ("data docs", stack.folder.data_docs)):
        _row(screen, what, file.as_uri() if file.exists() else "written by the first run of daily", "")
    _row(screen, "logs", str(stack.folder.logs), "")
    screen.print("[dim]The DAGs are paused until you switch them on in Airflow. Ctrl-C stops everything[/]")
    if (stack.project / "dags" / f"{DAILY}.py").exists():
        try:
            client.wait_dag(DAILY, check=stack.check)
        except DagBroken as error:
            # Airflow reads the file again every few seconds: its author may repair it while all runs on.
            screen.print(f"[red]{escape(str(error))}[/]")


class _Reporter:
    """Shows what happens to the processes once all of them have started; called from the supervisor's thread."""

    def __init__(self, screen: Console) -> None:
        self._screen = screen
        self._restarting: set[str] = set()

    def show(self, event: ProcessEvent) -> None:
        now = dt.datetime.now().astimezone().strftime("%H:%M:%S")
        if event.state is State.WAITING:
            self._restarting.add(event.name)
            self._screen.print(f"{now} [yellow]{event.name} {escape(event.detail)}; starting it again[/]")
        elif event.state is State.READY and event.name in self._restarting:
            self._restarting.discard(event.name)
            self._screen.print(f"{now} [green]{event.name} runs again[/]")


def _row(screen: Console, what: str, where: str, how: str) -> None:
    screen.print(f"  {what:16}[bold]{escape(where)}[/]  {escape(how)}".rstrip())


@contextlib.contextmanager
def _busy(screen: Console, what: str) -> Iterator[None]:
    if not screen.is_terminal:
        yield
        return
    with screen.status(what):
        yield
