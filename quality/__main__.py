"""`python -m quality`: a whole day in this process, without Airflow; and how the dates are.

Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong use, 130 stopped by Ctrl-C.
"""

# ruff: noqa: T201 - printing is what it does.

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from quality.config import DayConfig
from quality.errors import QualityError

EXAMPLES = """\
examples:
  python -m quality run 2011-12-05 --force
  python -m quality run 2011-12-01 --last-date 2011-12-09 --force
  python -m quality run 2011-12-05 --as-of 2011-12-05_local-20261126T010203-ab12
  python -m quality status --from 2011-12-01
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = _parser().parse_args(arguments)
    # dbt's own lines are for its log file: who runs a day here wants the stages.
    os.environ.setdefault("DBT_LOG_LEVEL", "none")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        config = DayConfig(given.data, given.project, given.address)
        work: Callable[[DayConfig, argparse.Namespace], None] = given.work
        work(config, given)
    except QualityError as error:
        print(f"tidemill: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"tidemill: this needs {error.name}: pip install 'tidemill[batch,cli]'", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"tidemill: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # Asked for so, as it takes a while to import: such as a warehouse that somebody has open to write.
        duckdb = sys.modules.get("duckdb")
        if duckdb is None or not isinstance(error, duckdb.Error):
            raise
        print(f"tidemill: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _run(config: DayConfig, given: argparse.Namespace) -> None:
    from quality.whole_day import run_day, ticket_of

    out = sys.stderr if given.json else sys.stdout

    def progress(stage: str, text: str) -> None:
        if text:
            print(f"{stage:16} {text}", file=out, flush=True)

    ticket = ticket_of(
        given.date, given.last_date, streams=given.stream, force=given.force, full_refresh=given.full_refresh,
        as_of=given.as_of or "", run_id=given.run_id,
    )  # fmt: skip
    print(f"run {ticket.run_id}", file=out, flush=True)
    result = run_day(config, ticket, progress)
    if given.json:
        print(json.dumps(result))
    elif result["shared"]:
        print(f"published by run {result['run_id']}, together with its own dates")
    elif result.get("published_at"):
        print(f"published at {result['published_at']}: {result['warehouse']}")
    else:
        print(f"{result.get('note', 'not published')}: {result['warehouse']}")


def _status(config: DayConfig, given: argparse.Namespace) -> None:
    from quality.whole_day import date_states

    def away(problem: str) -> None:
        text = "dates that are not published, and late rows, are not known now"
        print(f"tidemill: {text}: {problem}", file=sys.stderr)

    states = date_states(config, given.first, given.last, away)
    for state in states:
        if given.json:
            print(json.dumps(dataclasses.asdict(state)))
            continue
        late = "" if state.late_rows is None else f"{state.late_rows:,} late" if state.late_rows else ""
        print(f"{state.date}  {state.state:9}  {state.published_at[:19]:19}  {late:12}  {state.verdict}".rstrip())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quality", description="A whole day in this process, without Airflow.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run a date from its seal to its publication")
    run.add_argument("date", help="UTC, such as 2011-12-05")
    run.add_argument("--last-date", help="run a range of dates as one, this one included")
    run.add_argument("--stream", action="append", help="seal and rebuild only this; may be given more than once")
    run.add_argument("--full-refresh", action="store_true", help="make the models by window anew, for all dates")
    run.add_argument("--as-of", metavar="RUN", help="build from the pins of that run; nothing is published")
    run.add_argument("--force", action="store_true", help="seal although the watermark has not passed the dates")
    run.add_argument("--run-id", default="", help="the run's name; a new one unless given")
    run.set_defaults(work=_run)
    status = commands.add_parser("status", help="the dates: published or not, verdict, late rows")
    status.add_argument("--from", dest="first", type=dt.date.fromisoformat, help="the first date to be shown")
    status.add_argument("--to", dest="last", type=dt.date.fromisoformat, help="the last date to be shown")
    status.set_defaults(work=_status)
    for command in (run, status):
        environment = os.environ
        command.add_argument("--data", type=Path, default=Path(environment.get("TIDEMILL_DATA", ".tidemill")))
        command.add_argument("--project", type=Path, default=Path(environment.get("TIDEMILL_PROJECT", ".")))
        command.add_argument("--address", default=environment.get("TIDEMILL_ADDRESS", "localhost:7433"))
        command.add_argument("--json", action="store_true", help="print JSON, one object a line")
    return parser


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End as by Ctrl-C: the turn is given back."""
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # At a regular end DuckDB's binding tells of leaks that are none.
    os._exit(code)
