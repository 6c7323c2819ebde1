"""Sends a landed file's parts, and keeps in the ledger how far it is."""

from __future__ import annotations

import datetime as dt
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from quality.landing_content import BadFile, rows_by_date
from quality.landing_ledger import Entry

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill import Client, Stream
    from tidemill.client.ack import TableAck
    from tidemill.input import InputFile

FORGOTTEN_S = 86_400.0
"""For how long after its begin the service surely remembers an import (7 days as delivered), s."""
SAMPLE_ROWS = 5


class Sending:
    """Sends a file's parts to a stream as the entry's producer, from the first one on that the service does not have.

    keep: writes the entry; called before the first part is sent, and after each acknowledgement. uncounted: rows that
    an earlier start sent without living to see what became of them.
    """

    def __init__(
        self, tm: Client, stream: str, source: InputFile, entry: Entry, path: Path, keep: Callable[[Entry], None]
    ) -> None:
        self._source, self._entry, self._path, self._keep = source, entry, path, keep
        self._stream: Stream = tm.stream(stream, on_rejected=lambda _: None, producer_id=entry.producer_id)
        self._pending: deque[tuple[TableAck, pa.Table, int]] = deque()
        self.uncounted = 0

    def run(self, now_s: float) -> None:
        """Send all of it, and wait for the acknowledgements. Raises BadFile when the service has forgotten how far.

        now_s: the time, s since 1970.
        """
        from tidemill.input import parts

        entry, state = self._entry, self._stream.resumed
        assert state is not None, "it goes on as a producer"
        if not entry.counts:
            entry.counts = {"appended": 0, "duplicate": 0, "quarantined": 0, "late": 0, "late_dates": {}, "samples": []}
        if not state.known:
            self._check_not_forgotten(now_s)
        self._keep(entry)
        row = state.rows_sent
        self.uncounted = row - sum(entry.counts[name] for name in ("appended", "duplicate", "quarantined"))
        for part in parts(self._source.batches(), state.next_sequence, self._path):
            self._pending.append((self._stream.send_table(part), part, row))
            row += part.num_rows
            while self._pending and self._pending[0][0].done():
                self._settle()
        while self._pending:
            self._settle()

    def _check_not_forgotten(self, now_s: float) -> None:
        """Not to have heard of the producer means that nothing was sent, if it was begun lately."""
        from tidemill.input import PART_ROWS

        entry = self._entry
        if entry.parts or now_s - entry.began_at > FORGOTTEN_S:
            rows = entry.parts * PART_ROWS
            began = dt.datetime.fromtimestamp(entry.began_at, dt.UTC)
            raise BadFile(
                f"its import was cut off after it began at {began:%Y-%m-%d %H:%M} UTC, with {rows:,} rows sent at the "
                "least, and the service does not remember how far it came: sent again, rows might be there twice. Look "
                "what is in the stream, and send the rest with `tidemill send --again`",
                rows,
            )

    def _settle(self) -> None:
        """Count the oldest part's rows by what became of them; waits for its acknowledgement."""
        from tidemill import Verdict
        from tidemill.input import PART_ROWS

        ack, part, first_row = self._pending.popleft()
        acked = ack.result()
        counts = self._entry.counts
        for name in ("appended", "duplicate", "quarantined", "late"):
            counts[name] += getattr(acked, name)
        late = [verdict.index for verdict in acked.verdicts if verdict.verdict is Verdict.LATE]
        if late:
            dates = Counter(counts["late_dates"])
            dates.update(rows_by_date(part.column(self._stream.contract.event_time).take(late)))
            counts["late_dates"] = dict(sorted(dates.items()))
        for verdict in acked.verdicts:
            if verdict.verdict is Verdict.QUARANTINED and len(counts["samples"]) < SAMPLE_ROWS:
                counts["samples"].append(
                    f"row {first_row + verdict.index}: {verdict.field}: {verdict.message} (rule {verdict.rule})"
                )
        self._entry.parts = max(self._entry.parts, first_row // PART_ROWS + 1)
        self._keep(self._entry)
