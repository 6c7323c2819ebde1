"""`tidemill simulate`: a made-up shop's order lines."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

import tidemill
from tidemill.cli import options
from tidemill.cli.output import console, print_json
from tidemill.cli.progress import send_with_progress

if TYPE_CHECKING:
    import pyarrow as pa

_BATCHES_A_SECOND = 20
_FULL_SPEED_ROWS = 10_000


@click.command(short_help="Send a made-up shop's order lines.")
@click.option("--date", callback=options.utc_date, metavar="DATE",
              help="A whole day, in the past (UTC). Without it: events happen now.")  # fmt: skip
@click.option("--lines", type=click.IntRange(min=1), default=5_000, show_default=True, help="How many order lines.")
@click.option("--rate", type=click.FloatRange(min=0), help="Events a second; 0: as fast as possible. "
              "Default: 0 with --date, else 100.")  # fmt: skip
@click.option("--forever", is_flag=True, help="Events happen now, without end, until Ctrl-C.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed makes the same day.")
@click.option("--stream", "stream_name", default="order_lines", show_default=True, help="The stream.")
@options.address
@options.as_json
def simulate(
    date: dt.date | None, lines: int, rate: float | None, forever: bool, seed: int,
    stream_name: str, address: str, as_json: bool,
) -> None:  # fmt: skip
    """Send the order lines of a shop that does not exist, in about the proportions of a real one.

    2 % arrive up to an hour after they happened, 0.1 % break the contract, and of a whole day a few are sent twice.

    \b
    Examples:
      tidemill simulate --date yesterday             a whole day, as fast as possible
      tidemill simulate --rate 50 --forever          50 a second, happening now
      tidemill simulate --date 2025-03-04 --lines 1000000
    """
    if date is not None and forever:
        raise click.UsageError("--date is one day, --forever has no end: give one of them")
    now = dt.datetime.now(dt.UTC)
    if date is not None and date >= now.date():
        raise click.UsageError(
            f"--date must be before today, {now.date()} (UTC): {date} has hours that are yet to come"
        )
    out = console()
    out.quiet = as_json
    with tidemill.connect(address) as tm:
        stream = tm.stream(stream_name, on_rejected=lambda row: None)  # noqa: ARG005
        batches, total = _source(date, None if forever else lines, seed, rate)
        summary = send_with_progress(
            stream, batches, total, out, label=f"simulated → {stream_name}", until_interrupted=True
        )
    if as_json:
        print_json({"stream": stream_name, "rows_per_s": summary.rows_per_s, **dataclasses.asdict(summary)})
    else:
        for line in summary.lines():
            out.print(line, markup=False)
    if summary.interrupted:
        raise click.Abort


def _source(
    date: dt.date | None, lines: int | None, seed: int, rate: float | None
) -> tuple[Iterable[pa.Table | pa.RecordBatch], int | None]:
    from tidemill.simulate import simulate_day

    if date is None:
        return _live(seed, 100.0 if rate is None else rate, lines), lines
    assert lines is not None
    day = simulate_day(date, seed=seed, lines=lines)
    if not rate:
        return day.batches(_FULL_SPEED_ROWS), day.truth.sent
    return _paced(day.batches(_rows_a_batch(rate)), rate), day.truth.sent


def _live(seed: int, rate: float, lines: int | None) -> Iterator[pa.Table]:
    from tidemill.simulate import LiveShop

    shop = LiveShop(seed, dt.datetime.now(dt.UTC))
    rows = _rows_a_batch(rate) if rate else _FULL_SPEED_ROWS
    sent = 0
    for _ in _ticks(rows, rate) if rate else itertools.count():
        count = rows if lines is None else min(rows, lines - sent)
        if not count:
            return
        sent += count
        yield shop.take(count, dt.datetime.now(dt.UTC))


def _paced(batches: Iterable[pa.RecordBatch], rate: float) -> Iterator[pa.RecordBatch]:
    for batch, _ in zip(batches, _ticks(_rows_a_batch(rate), rate), strict=False):
        yield batch


def _rows_a_batch(rate: float) -> int:
    return max(1, round(rate / _BATCHES_A_SECOND))


def _ticks(rows: int, rate: float) -> Iterator[int]:
    """Numbers from 0, each when its batch is due; a batch that is overdue is not waited for."""
    started_s = time.monotonic()
    for number in itertools.count():
        time.sleep(max(0.0, started_s + number * rows / rate - time.monotonic()))
        yield number
