"""Sending many rows, with a bar that shows how far it is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tidemill.cli.interrupt import Interruptible
from tidemill.client.ack import RowVerdict, TableAck, TableAcked, Verdict
from tidemill.client.stream import Stream

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLES_MAX = 5
"""Rows of each verdict that a summary shows."""
_LINE_EVERY_S = 5.0


@dataclass(slots=True)
class SendSummary:
    """What was sent, and what came of it; in rows. `late` ones are among the appended.

    samples: the first rows of each verdict but APPENDED; their index is the row's number.
    """

    sent: int = 0
    appended: int = 0
    duplicate: int = 0
    quarantined: int = 0
    late: int = 0
    seconds: float = 0.0
    samples: list[RowVerdict] = field(default_factory=list)
    interrupted: bool = False

    @property
    def acknowledged(self) -> int:
        """Rows of which it is known what became of them."""
        return self.appended + self.duplicate + self.quarantined

    @property
    def rows_per_s(self) -> float:
        """Rows acknowledged in a second, on average."""
        return self.acknowledged / self.seconds if self.seconds > 0 else 0.0

    def add(self, acked: TableAcked, first_row: int) -> None:
        """Count rows that were acknowledged; `first_row` is how many were sent before them."""
        self.appended += acked.appended
        self.duplicate += acked.duplicate
        self.quarantined += acked.quarantined
        self.late += acked.late
        for verdict in acked.verdicts:
            if sum(sample.verdict is verdict.verdict for sample in self.samples) < SAMPLES_MAX:
                self.samples.append(
                    RowVerdict(first_row + verdict.index, verdict.verdict, verdict.rule, verdict.field, verdict.message)
                )

    def lines(self) -> list[str]:
        """The summary for people: counts, then why rows were quarantined."""
        counts = (
            f"{self.appended:,} appended, {self.duplicate:,} duplicate, {self.quarantined:,} quarantined, "
            f"{self.late:,} late"
        )
        told = [f"{self.sent:,} rows sent in {self.seconds:,.1f} s ({self.rows_per_s:,.0f}/s): {counts}"]
        quarantined = [sample for sample in self.samples if sample.verdict is Verdict.QUARANTINED]
        told += [
            f"  quarantined row {sample.index:,}: {sample.field}: {sample.message} (rule {sample.rule})"
            for sample in quarantined
        ]
        if self.quarantined > len(quarantined):
            told.append(f"  and {self.quarantined - len(quarantined):,} more")
        return told


def send_with_progress(
    stream: Stream,
    batches: Iterable[pa.RecordBatch | pa.Table | Sequence[bytes]],
    total: int | None,
    console: Console,
    *,
    label: str = "sending",
    on_acknowledged: Callable[[SendSummary], None] | None = None,
    until_interrupted: bool = False,
    first_row: int = 0,
) -> SendSummary:
    """Send all batches, wait until all is acknowledged, and show rate and acknowledged rows while it goes on.

    batches: Arrow batches or tables, or lists of serialized events; read as fast as they are acknowledged.
    total: how many rows there are, where that is known. on_acknowledged: called with the summary so far, now and then.
    until_interrupted: Ctrl-C ends the batches, not the program: what was sent is waited for; see `interrupted`.
    first_row: the number of the first row, where rows before it were sent by an earlier start.
    Raises a ServiceError when rows could not be delivered.
    """
    summary = SendSummary()
    pending: deque[tuple[TableAck, int]] = deque()
    started_s = time.monotonic()

    def settle(*, wait: bool) -> None:
        """Count what is acknowledged; with `wait`, the oldest rows' acknowledgement is waited for."""
        moved = False
        while pending and (wait or pending[0][0].done()):
            ack, number = pending.popleft()
            summary.add(ack.result(), number)
            wait, moved = False, True
        summary.seconds = time.monotonic() - started_s
        if moved:
            bar.show(summary)
            if on_acknowledged is not None:
                on_acknowledged(summary)

    with _Bar(console, label, total) as bar:
        try:
            with Interruptible(until_interrupted) as interruptible:
                for batch in batches:
                    with interruptible.step():
                        ack = stream.send_many(batch) if isinstance(batch, Sequence) else stream.send_table(batch)
                        pending.append((ack, first_row + summary.sent))
                        summary.sent += len(batch)
                        settle(wait=False)
        except KeyboardInterrupt:
            if not until_interrupted:
                raise
            summary.interrupted = True
        while pending:
            settle(wait=True)
    return summary


class _Bar:
    """A bar on a terminal; elsewhere a line now and then."""

    def __init__(self, console: Console, label: str, total: int | None) -> None:
        self._console = console
        self._label = label
        self._said_at_s = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("acknowledged, {task.fields[rate]}/s"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(label, total=total, rate="0")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, summary: SendSummary) -> None:
        """Show how far it is."""
        rate = f"{summary.rows_per_s:,.0f}"
        self._progress.update(self._task, completed=summary.acknowledged, rate=rate)
        now_s = time.monotonic()
        if not self._console.is_terminal and now_s - self._said_at_s >= _LINE_EVERY_S:
            self._said_at_s = now_s
            self._console.print(f"{self._label}: {summary.acknowledged:,} acknowledged, {rate}/s")
