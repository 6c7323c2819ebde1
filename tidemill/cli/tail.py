"""`tidemill tail`: a stream's rows, the newest ones or from a place on, and those to come."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping

import click

import tidemill
from tidemill.cli import options
from tidemill.cli.lines import plain, words

ROWS_DEFAULT = 10
_OFFSET, _TIME = "_offset", "_append_time"
_OURS = frozenset({"_partition", _OFFSET, _TIME, "event_date"})


def _utc_time(ctx: click.Context, param: click.Parameter, value: str | None) -> dt.datetime | None:
    if value is None:
        return None
    try:
        time = dt.datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"expected a time such as 2011-12-05T08:26, came {value!r}", ctx, param) from None
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time


@click.command(
    short_help="Print a stream's newest rows.",
    epilog="Each line is a row: its offset, when it was appended, its fields. With --follow, Ctrl-C is the way to end: "
    "exit code 0.",
)
@click.argument("name", metavar="STREAM")
@click.option("-n", "--rows", type=click.IntRange(min=0), metavar="N",
              help=f"The last N rows (default: {ROWS_DEFAULT}); with --from-offset or --from-time N rows from there "
              "(default: all).")  # fmt: skip
@click.option("-f", "--follow", is_flag=True, help="Go on with rows as they become durable, until Ctrl-C.")
@click.option("--from-offset", type=click.IntRange(min=0), metavar="OFFSET", help="Begin at this offset.")
@click.option("--from-time", callback=_utc_time, metavar="TIME",
              help="Begin at the first row appended at this time or later; UTC unless it names a zone.")  # fmt: skip
@click.option("--columns", default="", metavar="A,B", help="Only these columns, in this order.")
@options.address
@options.as_json
def tail(
    name: str,
    rows: int | None,
    follow: bool,
    from_offset: int | None,
    from_time: dt.datetime | None,
    columns: str,
    address: str,
    as_json: bool,
) -> None:
    """Print the newest rows of STREAM, one a line.

    \b
    Example:
      tidemill tail order_lines --follow --columns invoice_no,quantity,country
    """
    wanted = [column.strip() for column in columns.split(",") if column.strip()]
    show = _as_json if as_json else _as_line
    with tidemill.connect(address) as tm:
        stream = tm.stream(name)
        limit = rows or 0
        if from_offset is None and from_time is None:
            from_offset = max(0, stream.status().durable_offset - (ROWS_DEFAULT if rows is None else rows))
            limit = 0
        elif rows == 0:
            return
        asked = [*dict.fromkeys([*wanted, _OFFSET, _TIME])] if wanted else []
        reading = stream.read_arrow(
            from_offset=from_offset, from_time=from_time, follow=follow, columns=asked, limit=limit
        )
        try:
            with reading:
                for batch in reading:
                    _print(batch.to_pylist(), wanted, show)
        except KeyboardInterrupt:
            if not follow:
                raise


def _print(
    rows: list[dict[str, object]], wanted: list[str], show: Callable[[Mapping[str, object], list[str]], str]
) -> None:
    click.echo("\n".join(show(row, wanted) for row in rows))


def _as_json(row: Mapping[str, object], wanted: list[str]) -> str:
    return json.dumps({name: plain(row[name]) for name in wanted or row}, ensure_ascii=False)


def _as_line(row: Mapping[str, object], wanted: list[str]) -> str:
    names = wanted or [name for name in row if name not in _OURS]
    return " ".join([str(row[_OFFSET]), str(plain(row[_TIME])), *words(row, names)])
