"""`tidemill day`: the warehouse's days, by the Airflow of the data folder or in a process of their own."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tidemill.cli import options
from tidemill.cli.output import console, print_json, print_rows
from tidemill.errors import TidemillError
from tidemill.local.airflow_client import ENDED, AirflowClient
from tidemill.local.airflow_settings import Login
from tidemill.local.errors import AirflowError
from tidemill.local.folder import DataFolder, find_project

DAILY = "daily"
DATES_MAX = 3_660
"""How many dates one backfill takes at the most: ten years."""
RUN_S_MAX = 86_400.0
_POLL_S = 1.0
_DAY = dt.timedelta(days=1)
_USER = "admin"
# -P: the folder that it runs in must not hide a module.
_PROGRAM = (sys.executable, "-P", "-m", "quality")


@dataclass(frozen=True)
class Where:
    """Where a day is run: the project and its data folder, the service, Airflow (url None: the data folder's own)."""

    project: Path
    folder: DataFolder
    address: str
    url: str | None
    user: str
    password_file: Path | None

    @property
    def environment(self) -> dict[str, str]:
        """What a process of our own is told."""
        return {
            **os.environ,
            "TIDEMILL_DATA": str(self.folder.root),
            "TIDEMILL_PROJECT": str(self.project),
            "TIDEMILL_ADDRESS": self.address,
        }


def _places(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where; in the order of the help."""
    for option in (
        click.option("--password-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
                     help="File of Airflow's password.  [default: the data folder's own]"),
        click.option("--user", default=_USER, show_default=True, help="Who logs in to Airflow."),
        click.option("--airflow-url", metavar="URL", help="Airflow's address.  [default: that of `tidemill up`]"),
        options.address,
        options.project,
        options.project_data,
    ):  # fmt: skip
        command = option(command)
    return command


def _asked(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how dates are run."""
    for option in (
        click.option("--local", is_flag=True, help="In a process of its own, without Airflow."),
        click.option("--unpause", is_flag=True, help="Switch the DAG on in Airflow, with its schedule, if it is off."),
        click.option("--no-wait", is_flag=True, help="Return once Airflow has been told."),
        click.option("--force", is_flag=True,
                     help="Seal although events of the dates may still be on their way, as for days in the past."),
        click.option("--full-refresh", is_flag=True, help="Make the models by window anew, for all dates."),
        click.option("--stream", "streams", multiple=True, metavar="NAME",
                     help="Seal and rebuild only what depends on this stream; may be given more than once."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(short_help="The warehouse's days: run, backfill, status.")
def day() -> None:
    """Run dates from their events to the published warehouse, and see how they are."""


@day.command("run", short_help="Run a date, or a range as one.")
@click.argument("date", callback=options.utc_date)
@click.option("--last-date", callback=options.utc_date, help="Run the dates up to this one as one run.")
@click.option("--as-of", metavar="RUN", help="Build from the very rows of that earlier run; nothing is published.")
@_asked
@_places
@options.as_json
def run(
    date: dt.date, last_date: dt.date | None, as_of: str | None, *, as_json: bool, local: bool, no_wait: bool,
    unpause: bool, force: bool, full_refresh: bool, streams: tuple[str, ...], **places: Any,
) -> None:  # fmt: skip
    """Run DATE (UTC: 2011-12-05, or yesterday) from its seal to the published warehouse.

    Airflow does it where `tidemill up` runs for the data folder; Ctrl-C leaves its run going. With --local it runs
    here, and waits for its turn behind Airflow's runs.

    \b
    Examples:
      tidemill day run yesterday
      tidemill day run 2011-12-01 --last-date 2011-12-09 --force
      tidemill day run 2011-12-05 --stream order_lines --local
      tidemill day run 2011-12-05 --as-of 2011-12-05_cli-20261126T010203-ab12_1f2e3d4c
    """
    where = _where(**places)
    if last_date is not None and last_date < date:
        raise click.UsageError(f"expected --last-date at or after {date}, came {last_date}")
    conf = {
        "date": str(date), "last_date": str(last_date) if last_date else None, "streams": list(streams),
        "full_refresh": full_refresh, "force": force, "as_of": as_of,
    }  # fmt: skip
    if local:
        sys.exit(_run_here(where, conf, as_json=as_json))
    _run_in_airflow(where, [conf], unpause=unpause, wait=not no_wait, as_json=as_json)


@day.command("backfill", short_help="Run every date of a range.")
@click.option("--from", "first", required=True, callback=options.utc_date, help="The first date, UTC.")
@click.option("--to", "last", required=True, callback=options.utc_date, help="The last date, included.")
@click.option("--as-one", is_flag=True, help="One run for the whole range, instead of one a date.")
@_asked
@_places
@options.as_json
def backfill(
    first: dt.date, last: dt.date, *, as_one: bool, as_json: bool, local: bool, no_wait: bool, unpause: bool,
    force: bool, full_refresh: bool, streams: tuple[str, ...], **places: Any,
) -> None:  # fmt: skip
    """Run the dates of a range, each in a run of its own; those that wait together are built and published as one.

    \b
    Examples:
      tidemill day backfill --from 2010-12-01 --to 2011-12-09 --force
      tidemill day backfill --from 2011-12-01 --to 2011-12-09 --force --local
    """
    where = _where(**places)
    days = (last - first).days + 1
    if not 1 <= days <= DATES_MAX:
        raise click.UsageError(f"expected --to at or after --from, and {DATES_MAX:,} dates at the most; came {days:,}")
    common: dict[str, Any] = {"streams": list(streams), "full_refresh": full_refresh, "force": force, "as_of": None}
    whole = {"date": str(first), "last_date": str(last), **common}
    if local:
        sys.exit(_run_here(where, whole, as_json=as_json))
    dates = [first + number * _DAY for number in range(days)]
    confs = [whole] if as_one else [{"date": str(date), "last_date": None, **common} for date in dates]
    _run_in_airflow(where, confs, unpause=unpause, wait=not no_wait, as_json=as_json)


@day.command("status", short_help="The dates: published or not, verdict, late rows.")
@click.option("--from", "first", callback=options.utc_date, help="The first date to be shown.")
@click.option("--to", "last", callback=options.utc_date, help="The last date to be shown.")
@options.project_data
@options.project
@options.address
@options.as_json
def status(
    first: dt.date | None, last: dt.date | None, data: Path | None, project: Path | None, address: str, *, as_json: bool
) -> None:
    """Show each date that has events: whether it is published, how its checks went, and its late rows.

    Late rows came after the date was sealed, and are in the live views; its next run takes them into the warehouse.

    \b
    Examples:
      tidemill day status
      tidemill day status --from 2011-12-01 --json
    """
    where = _where(data=data, project=project, address=address)
    bounds = [f"--{name}={date}" for name, date in (("from", first), ("to", last)) if date is not None]
    said = subprocess.run(
        [*_PROGRAM, "status", "--json", *bounds], env=where.environment, capture_output=True, text=True, check=False
    )
    if said.returncode:
        raise TidemillError(_last_line(said.stderr))
    click.echo(said.stderr, err=True, nl=False)
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    if as_json:
        for row in rows:
            print_json(row)
        return
    columns = ("date", "state", "published at", "late rows", "verdict", "run")
    shown = [
        {
            "date": row["date"],
            "state": row["state"],
            "published at": row["published_at"][:19].replace("T", " "),
            "late rows": row["late_rows"],
            "verdict": row["verdict"],
            "run": row["run_id"],
        }
        for row in rows
    ]
    print_rows(shown, columns, as_json=False)


def _where(
    *, data: Path | None, project: Path | None, address: str, airflow_url: str | None = None, user: str = _USER,
    password_file: Path | None = None,
) -> Where:  # fmt: skip
    root = find_project(project)
    return Where(root, DataFolder.at(data, root), address, airflow_url, user, password_file)


def _run_here(where: Where, conf: Mapping[str, Any], *, as_json: bool) -> int:
    """Run it in a process of its own, whose output is ours; give its exit code. Ctrl-C reaches it too."""
    arguments = [str(conf["date"])]
    arguments += [f"--last-date={conf['last_date']}"] if conf["last_date"] else []
    arguments += [f"--stream={stream}" for stream in conf["streams"]]
    arguments += [f"--as-of={conf['as_of']}"] if conf["as_of"] else []
    flags = {"--full-refresh": conf["full_refresh"], "--force": conf["force"], "--json": as_json}
    arguments += [flag for flag, wanted in flags.items() if wanted]
    with subprocess.Popen([*_PROGRAM, "run", *arguments], env=where.environment) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # It gives its turn back, then it ends.
                process.send_signal(signal.SIGINT)


def _run_in_airflow(
    where: Where, confs: Sequence[Mapping[str, Any]], *, unpause: bool, wait: bool, as_json: bool
) -> None:
    """Start a run for each; wait until they have ended, and fail when one did."""
    client = _client(where)
    if client.is_paused(DAILY):
        if not unpause:
            raise AirflowError(
                f"the DAG {DAILY} is switched off in Airflow, so that its runs would wait: switch it on at "
                f"{client.url}/dags/{DAILY}, or give --unpause; or run here, with --local"
            )
        client.unpause(DAILY)
    # One name for all of them, so that they are found together.
    name = f"cli-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    runs = {}
    for conf in confs:
        run_id = f"{conf['date']}_{name}"
        client.trigger(DAILY, dict(conf), run_id)
        runs[run_id] = conf
    if not wait:
        for run_id, conf in runs.items():
            _tell(client, run_id, conf, "queued", as_json=as_json)
        return
    try:
        failed = _follow(client, runs, as_json=as_json)
    except KeyboardInterrupt:
        click.echo(f"Airflow goes on with {len(runs):,} run(s): {client.url}/dags/{DAILY}", err=True)
        raise
    if failed:
        raise TidemillError(f"{failed:,} of {len(runs):,} runs failed" if len(runs) > 1 else "the run failed")


def _follow(client: AirflowClient, runs: Mapping[str, Mapping[str, Any]], *, as_json: bool) -> int:
    """Tell of each run as it ends, and of a single one each task too; give how many failed."""
    if len(runs) == 1:
        ((run_id, conf),) = runs.items()
        if not as_json:
            click.echo(client.run_url(DAILY, run_id))
        for change in client.follow(DAILY, run_id, timeout_s=RUN_S_MAX):
            if change.ended and not as_json:
                took = "" if change.duration_s is None else f"{change.duration_s:.1f} s"
                click.echo(f"  {change.task_id:18} {change.state:16} {took}".rstrip())
        return _end(client, run_id, conf, as_json=as_json)
    failed = 0
    left = dict(runs)
    with console().status(f"{len(left):,} runs") if console().is_terminal else contextlib.nullcontext() as shown:
        while left:
            for run_id, conf in list(left.items()):
                if client.run_state(DAILY, run_id) in ENDED:
                    failed += _end(client, run_id, conf, as_json=as_json)
                    del left[run_id]
                    if shown is not None:
                        shown.update(f"{len(left):,} of {len(runs):,} runs to go")
                elif len(left) > _LOOKED_AT:
                    break
            if left:
                time.sleep(_POLL_S)
    return failed


_LOOKED_AT = 32
"""Of so many runs only those up to the first that goes on are asked for: Airflow runs them about in their order."""


def _end(client: AirflowClient, run_id: str, conf: Mapping[str, Any], *, as_json: bool) -> int:
    state = client.run_state(DAILY, run_id)
    failures = client.failures(DAILY, run_id) if state == "failed" else []
    _tell(client, run_id, conf, state, as_json=as_json, failures=[f"{f.task_id}: {f.message}" for f in failures])
    return int(state == "failed")


def _tell(
    client: AirflowClient, run_id: str, conf: Mapping[str, Any], state: str, *, as_json: bool,
    failures: Sequence[str] = (),
) -> None:  # fmt: skip
    last = conf["last_date"] or conf["date"]
    if as_json:
        url = client.run_url(DAILY, run_id)
        print_json(
            {"date": conf["date"], "last_date": last, "run": run_id, "state": state, "failures": failures, "url": url}
        )
        return
    dates = conf["date"] if last == conf["date"] else f"{conf['date']} to {last}"
    click.echo(f"{dates}: {state}")
    for failure in failures:
        click.echo(f"  {failure}", err=True)


def _client(where: Where) -> AirflowClient:
    """Give a client of the Airflow that is named, or of the data folder's. Raises AirflowError, with what to do."""
    url = where.url
    if url is None:
        try:
            url = str(json.loads(where.folder.airflow_address.read_text(encoding="utf-8"))["url"])
        except (OSError, ValueError, KeyError):
            raise AirflowError(
                f"no Airflow was started for {where.folder.root}: `tidemill up` starts one, --airflow-url names "
                "another, --local runs here"
            ) from None
    client = AirflowClient(url.rstrip("/"), _login(where))
    if not client.is_up():
        raise AirflowError(f"Airflow does not answer at {url}: start it by `tidemill up`, or run here, with --local")
    return client


def _login(where: Where) -> Login:
    if where.password_file is not None:
        return Login(where.user, where.password_file.read_text(encoding="utf-8").strip(), where.password_file)
    file = where.folder.airflow / "login.json"
    try:
        return Login(where.user, str(json.loads(file.read_text(encoding="utf-8"))[where.user]), file)
    except (OSError, ValueError, KeyError):
        raise AirflowError(f"{file} has no password for {where.user!r}: give --user and --password-file") from None


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].removeprefix("tidemill: ") if lines else "it gave no reason"
