"""`tidemill collect`: readings of this machine as a stream."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

import tidemill
from tidemill.cli import options
from tidemill.cli.interrupt import Interruptible
from tidemill.cli.output import console, print_json, print_rows
from tidemill.cli.progress import SendSummary

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

    from tidemill.collect import Round

# A service that is away for an hour costs no reading: what was measured meanwhile waits, and is sent once.
SEND_OPTIONS = tidemill.ProducerOptions(retry_for_s=3600.0)
_SAID_EVERY_S = 60.0
_LAST_ACKS_S = 5.0


@click.group(short_help="Readings of this machine as a stream.")
def collect() -> None:
    """Measure something here, and send it as events."""


@collect.command(short_help="This machine's CPU, memory, disk and network.")
@click.option("--interval", "interval_s", type=click.FloatRange(min=0.1, max=86_400), default=5.0, show_default=True,
              metavar="SECONDS", help="How often to measure. The first time is after a second.")  # fmt: skip
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Measure so many times. Default: until Ctrl-C.")
@click.option("--once", is_flag=True, help="Measure once, and show what was measured.")
@click.option("--host", metavar="NAME", help="The machine's name in the events.  [default: its host name]")
@click.option("--disk", type=click.Path(exists=True, path_type=Path), default=Path("/"), show_default=True,
              metavar="DIR", help="Any folder of the file system to measure.")  # fmt: skip
@click.option("--stream", "stream_name", default="readings", show_default=True, help="The stream.")
@options.address
@options.as_json
def host(
    interval_s: float, count: int | None, once: bool, host: str | None, disk: Path, stream_name: str, address: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Send this machine's CPU, memory, disk and network readings to a stream until Ctrl-C.

    While the service is away, readings are kept for up to an hour and sent once it is back, each once.

    \b
    Examples:
      tidemill collect host                          every 5 seconds, until Ctrl-C
      tidemill collect host --once                   what it measures
      tidemill collect host --interval 1 --count 60  a minute of it
      tidemill view query readings_by_minute --where sensor=cpu --order-by -window_start --limit 5
    """
    from tidemill.collect import HostSensors, rounds

    if once and count is not None:
        raise click.UsageError("--once is --count 1: give one of them")
    out = console()
    out.quiet = as_json
    name = host or socket.gethostname()
    with tidemill.connect(address, options=SEND_OPTIONS) as tm:
        # Rejected readings are told in the summary.
        stream = tm.stream(stream_name, on_rejected=lambda row: None)  # noqa: ARG005
        made = rounds(HostSensors(disk), name, interval_s, 1 if once else count)
        collected = Collected(stream, out, f"{name} → {stream_name}")
        collected.run(made)
        _tell(collected, out, name, as_json=as_json, once=once)
        if collected.summary.interrupted:
            # Inside, so that leaving does not wait for a service that is away.
            raise click.Abort


class Collected:
    """Sends rounds as they come, counts what came of them, and says so now and then."""

    def __init__(self, stream: tidemill.Stream, out: Console, label: str) -> None:
        self.summary = SendSummary()
        self.rounds = 0
        self.last: Round | None = None
        self.stream = stream.name
        self._stream, self._out, self._label = stream, out, label
        self._schema = _schema_of(stream)
        self._pending: deque[tuple[tidemill.TableAck, int]] = deque()
        self._started_s = self._said_at_s = time.monotonic()

    def run(self, made: Iterable[Round]) -> None:
        """Send every round and wait until all is acknowledged. Raises a ServiceError when readings were not taken.

        Ctrl-C ends it between two rounds; what was sent by then is waited for, but not for a service that is away.
        """
        last_acks_s = None
        with self._out.status(self._label) if self._out.is_terminal else contextlib.nullcontext() as status:
            try:
                with Interruptible(True) as interruptible:
                    for each in made:
                        with interruptible.step():
                            self._send(each)
                            self._settle()
                            line = self._line(each)
                        if status is not None:
                            status.update(line)
                        else:
                            self._say(line)
            except KeyboardInterrupt:
                self.summary.interrupted = True
                last_acks_s = _LAST_ACKS_S
            self._settle(all_within_s=last_acks_s, wait=True)

    def _send(self, each: Round) -> None:
        import pyarrow

        rows = each.rows()
        table = pyarrow.Table.from_pylist(rows, schema=self._schema)
        self._pending.append((self._stream.send_table(table), self.summary.sent))
        self.summary.sent += len(rows)
        self.rounds += 1
        self.last = each

    def _settle(self, *, all_within_s: float | None = None, wait: bool = False) -> None:
        """Count what is acknowledged; with `wait` all of it, within `all_within_s` seconds (None: however long)."""
        end_s = None if all_within_s is None else time.monotonic() + all_within_s
        while self._pending and (wait or self._pending[0][0].done()):
            ack, first_row = self._pending[0]
            left_s = None if end_s is None else max(0.0, end_s - time.monotonic())
            try:
                acked = ack.result(left_s)
            except tidemill.WaitTimeout:
                break
            self._pending.popleft()
            self.summary.add(acked, first_row)
        self.summary.seconds = time.monotonic() - self._started_s

    def _line(self, each: Round) -> str:
        used = {reading.sensor: reading.value for reading in each.readings if reading.metric == "used_percent"}
        shown = ", ".join(f"{sensor} {value:.0f} %" for sensor, value in used.items())
        waiting = self.summary.sent - self.summary.acknowledged
        return (
            f"{self._label}: {self.summary.acknowledged:,} readings acknowledged"
            f"{f', {waiting:,} waiting' if waiting else ''}; {shown}"
        )

    def _say(self, line: str) -> None:
        now_s = time.monotonic()
        if now_s - self._said_at_s >= _SAID_EVERY_S:
            self._said_at_s = now_s
            self._out.print(line, markup=False)


def _schema_of(stream: tidemill.Stream) -> pa.Schema:
    """Give the Arrow schema of a reading's fields; a UsageError names those that the stream does not have."""
    import pyarrow

    from tidemill.collect.rounds import FIELDS

    missing = [name for name in FIELDS if name not in stream.schema.names]
    if missing:
        raise click.UsageError(
            f"stream {stream.name!r} has no field {', '.join(missing)}: its contract is not that of readings"
        )
    return pyarrow.schema([stream.schema.field(name) for name in FIELDS])


def _tell(collected: Collected, out: Console, host: str, *, as_json: bool, once: bool) -> None:
    """Print what came of it, and of a single round what was measured."""
    readings = list(collected.last.readings) if collected.last is not None else []
    if as_json:
        print_json(
            {
                "stream": collected.stream,
                "host": host,
                "rounds": collected.rounds,
                "readings": readings,
                "summary": collected.summary,
            }
        )
        return
    if once:
        rows = [
            {"sensor": each.sensor, "metric": each.metric, "value": each.value, "unit": each.unit} for each in readings
        ]
        print_rows(rows, ["sensor", "metric", "value", "unit"], as_json=False)
    for line in collected.summary.lines():
        out.print(line, markup=False)
    unknown = collected.summary.sent - collected.summary.acknowledged
    if unknown:
        out.print(f"  {unknown:,} readings were not acknowledged: the service may have them or not", markup=False)
