"""What becomes of the rows of a frame in the making: which are appended, which are duplicates, which are late."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ingest_service.log.dedup import DedupWindow
from ingest_service.log.records import Append, RowVerdict, Verdict
from ingest_service.log.table import AppendEntry, RowsTable

_US_PER_DAY = 86_400_000_000
_EPOCH = dt.date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Staged:
    """The rows and the table of a frame; rows have the contract's columns only, None where there is no row."""

    batch: pa.RecordBatch | None
    table: RowsTable

    @property
    def rows(self) -> int:
        """How many rows are appended."""
        return 0 if self.batch is None else int(self.batch.num_rows)


def stage(
    appends: Sequence[Append],
    dedup: DedupWindow | None,
    sealed_days: set[int],
    event_time: str,
    event_id: str | None,
    now_us: int,
) -> Staged:
    """The frame that holds the appends, in their order; all their rows are looked at together.

    Duplicates are dropped, each with a verdict, as are those within the frame. Rows of sealed days (in days since 1970)
    are named as late. dedup: takes the ids; the caller commits it or rolls it back.
    """
    sent = _SentRows(appends)
    batch = sent.batch()
    days: dict[int, int] = {}
    newest_us = None
    if batch is not None:
        if dedup is not None and event_id is not None:
            batch = sent.without(dedup.take(batch.column(event_id), now_us), batch, event_id)
        if batch.num_rows:
            event_us = np.asarray(batch.column(event_time).cast(pa.int64()))
            newest_us = int(event_us.max())
            days = sent.count_days(event_us // _US_PER_DAY, sealed_days, event_time)
    return Staged(batch if batch is not None and batch.num_rows else None, RowsTable(sent.entries(), newest_us, days))


class _SentRows:
    """The valid rows of several appends, one after another, and the verdicts on them.

    `_bounds[k]` to `_bounds[k + 1]` are append k's rows, of those that are left.
    """

    def __init__(self, appends: Sequence[Append]) -> None:
        self._appends = appends
        self._bounds = np.concatenate([[0], np.cumsum([append.rows.num_rows for append in appends])])
        # Where each row that is left stood at first; None while all are left.
        self._left: np.ndarray | None = None
        self._first_bounds = self._bounds
        self._verdicts: dict[int, list[RowVerdict]] = {}
        self._indices: dict[int, np.ndarray] = {}
        for k, append in enumerate(appends):
            if append.quarantined:
                self._verdicts[k] = [
                    RowVerdict(q.index, Verdict.QUARANTINED, q.rule, q.field, q.message) for q in append.quarantined
                ]

    def batch(self) -> pa.RecordBatch | None:
        """All rows as one batch; None where there is none."""
        batches = [append.rows for append in self._appends if append.rows.num_rows]
        if not batches:
            return None
        return batches[0] if len(batches) == 1 else pa.concat_batches(batches)

    def without(self, duplicates: np.ndarray | None, batch: pa.RecordBatch, event_id: str) -> pa.RecordBatch:
        """The batch without its duplicates (rows, rising), which get their verdicts."""
        if duplicates is None:
            return batch
        ids = batch.column(event_id)
        # Duplicates are exceptions: each gets a verdict of its own.
        for row in duplicates.tolist():
            self._say(row, Verdict.DUPLICATE, "event_id", event_id, f"{ids[row].as_py()!r} was appended before")
        self._left = np.delete(np.arange(batch.num_rows), duplicates)
        self._bounds = np.searchsorted(self._left, self._first_bounds)
        return batch.take(pa.array(self._left))

    def count_days(self, days: np.ndarray, sealed_days: set[int], event_time: str) -> dict[int, int]:
        """How many rows each day has; those of sealed days are late."""
        values, counts = np.unique(days, return_counts=True)
        by_day = dict(zip(values.tolist(), counts.tolist(), strict=True))
        for day in by_day.keys() & sealed_days:
            message = f"{_EPOCH + dt.timedelta(days=day)} was sealed before this row came"
            rows = np.flatnonzero(days == day)
            for row in (rows if self._left is None else self._left[rows]).tolist():
                self._say(row, Verdict.LATE, "sealed", event_time, message)
        return by_day

    def _say(self, row: int, verdict: Verdict, rule: str, field: str, message: str) -> None:
        """Note the verdict on a row, by where it stood at first, under its index in its append as sent."""
        k = int(np.searchsorted(self._first_bounds, row, side="right")) - 1
        index = int(self._sent_indices(k)[row - int(self._first_bounds[k])])
        self._verdicts.setdefault(k, []).append(RowVerdict(index, verdict, rule, field, message))

    def _sent_indices(self, k: int) -> np.ndarray:
        """Index in append k, as sent, of each of its valid rows."""
        if k not in self._indices:
            append = self._appends[k]
            self._indices[k] = np.delete(np.arange(append.row_count), [row.index for row in append.quarantined])
        return self._indices[k]

    def entries(self) -> tuple[AppendEntry, ...]:
        """What the frame's table says of each append."""
        return tuple(map(self._entry, range(len(self._appends))))

    def _entry(self, k: int) -> AppendEntry:
        append, first, end = self._appends[k], int(self._bounds[k]), int(self._bounds[k + 1])
        return AppendEntry(
            append.producer_id, append.sequence, append.rows_sent, first, end - first,
            append.row_count, self._verdicts_of(k), append.quarantined, append.replays,
        )  # fmt: skip

    def _verdicts_of(self, k: int) -> tuple[RowVerdict, ...]:
        if k not in self._verdicts:
            return ()
        return tuple(sorted(self._verdicts[k], key=lambda verdict: verdict.index))
