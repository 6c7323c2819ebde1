"""One trial: a model kept live over a sample, in random micro-batches with restarts and a seal, and built as batch."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from ingest_service.errors import IngestError, ViewRefused
from ingest_service.live.lifecycle import set_up
from ingest_service.live.manifest import LiveModel
from ingest_service.live.plan import MergePlan, plan_view
from ingest_service.live.query import RowReader, SealedRange, ViewQuery
from ingest_service.live.store import Store
from ingest_service.live.tables import check_names
from ingest_service.live.trial.batch import BatchSide
from ingest_service.live.trial.compare import Comparison, Difference, compare
from ingest_service.live.trial.log import TrialLog
from ingest_service.live.view import LiveView, TakeAgain, ViewStopped
from ingest_service.log.records import Entry, Rows, Seal

_AT_ONCE_MAX = 4
"""How many batches of the log a view takes at once, at the most."""
_IN_BULK = 0.3
_RESTARTS = 2


@dataclass(frozen=True, slots=True)
class Found:
    """A difference, and when it was seen: at the seal of a date, or at the end."""

    at: str
    difference: Difference


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial found.

    problem: why the model could not be compared: it is refused, the view stopped, or its SQL failed; "" otherwise.
    rows_compared: rows of the view at the end; sealed_rows_compared: those of the copy that the seal made.
    difference_count: in both comparisons; the first of each are listed. live_s, batch_s: what each side took.
    """

    model: str
    path: str
    stream: str = ""
    problem: str = ""
    events: int = 0
    micro_batches: int = 0
    restarts: int = 0
    rows_compared: int = 0
    sealed_rows_compared: int = 0
    columns_compared: int = 0
    live_s: float = 0.0
    batch_s: float = 0.0
    difference_count: int = 0
    found: tuple[Found, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether both sides were compared, and are the same."""
        return not self.problem and not self.difference_count


class Trial:
    """Runs one model over one log; used once. `duck` is a connection that nothing else uses meanwhile."""

    def __init__(self, model: LiveModel, logs: Mapping[str, TrialLog], duck: Any, rng: random.Random) -> None:
        self._model = model
        self._logs = logs
        self._duck = duck
        self._rng = rng
        self._micro_batches = 0
        self._restarts = 0
        self._live_s = 0.0

    def run(self, folder: Path) -> Outcome:
        """Run it, with the live side's store in a folder of its own.

        1 Plan. 2 Keep the view over all rows. 3 Build the model over the rows below the seal, and over all. 4 Compare
        each with what the view had then.
        """
        outcome = Outcome(self._model.name, self._model.path)
        try:
            plan = plan_view(self._model, self._logs, self._duck)
            check_names(plan.description, self._model.path, ())
        except ViewRefused as error:
            return replace(outcome, problem=str(error))
        log = self._logs[plan.description.stream]
        outcome = replace(outcome, stream=plan.description.stream, events=log.durable_offset)
        entries = log.entries(self._rng)
        store_url = f"sqlite:///{folder / 'live.sqlite'}"
        stopped = ""
        try:
            self._keep_live(plan, log, entries, store_url)
        except ViewStopped as error:
            stopped = f"the live view {error}"
        except (IngestError, duckdb.Error) as error:
            stopped = f"the live view failed: {error}"
        outcome = replace(
            outcome, micro_batches=self._micro_batches, restarts=self._restarts, live_s=round(self._live_s, 4)
        )
        try:
            return self._compared(outcome, plan, log, entries, store_url, stopped)
        except duckdb.Error as error:
            failed = f"the model's SQL fails as batch: {' '.join(str(error).split())[:400]}"
            return replace(outcome, problem="; ".join(filter(None, [stopped, failed])))

    def _compared(
        self, outcome: Outcome, plan: MergePlan, log: TrialLog, entries: Sequence[Entry], store_url: str, stopped: str
    ) -> Outcome:
        (seal,) = (entry for entry in entries if isinstance(entry, Seal))
        description = plan.description
        with BatchSide(self._model, description, log) as batch:
            started = time.perf_counter()
            batch.build(log.durable_offset)
            batch_s = time.perf_counter() - started
            if stopped:
                return replace(outcome, problem=f"{stopped}; dbt takes it", batch_s=round(batch_s, 4))
            sealed = SealedRange(seal.first_date, seal.last_date, seal.seal_offset)
            at_end = compare(batch.duck, description, self._live_rows(store_url))
            batch.build(seal.seal_offset)
            batch.keep_windows_of(seal.first_date)
            at_seal = compare(batch.duck, description, self._live_rows(store_url, sealed))
        of_seal = f"seal of {seal.first_date} at offset {seal.seal_offset}"
        return replace(
            outcome,
            batch_s=round(batch_s, 4),
            rows_compared=at_end.rows,
            sealed_rows_compared=at_seal.rows,
            columns_compared=len(description.columns),
            difference_count=at_end.difference_count + at_seal.difference_count,
            found=(*_found("the end", at_end), *_found(of_seal, at_seal)),
        )

    def _keep_live(self, plan: MergePlan, log: TrialLog, entries: Sequence[Entry], store_url: str) -> None:
        """Give the view all entries, in a few runs of the service, so to speak."""
        restarts = sorted(self._rng.randint(1, max(1, len(entries) - 1)) for _ in range(_RESTARTS))
        starts = [0, *restarts]
        for start, end in zip(starts, [*restarts, len(entries)], strict=True):
            # A reader that begins anew may give again what the view has taken already.
            again = max(0, start - self._rng.randint(0, 2))
            with self._opened(plan, log, store_url) as view:
                began = time.perf_counter()
                self._hand_over(view, entries[again:end])
                self._live_s += time.perf_counter() - began
        self._restarts = len(restarts)

    @contextmanager
    def _opened(self, plan: MergePlan, log: TrialLog, store_url: str) -> Iterator[LiveView]:
        store = Store(store_url)
        try:
            view = set_up(plan, store, log, self._duck)
            try:
                yield view
            finally:
                view.close()
        finally:
            store.close()

    def _hand_over(self, view: LiveView, entries: Sequence[Entry]) -> None:
        at = 0
        while at < len(entries):
            some = entries[at : at + self._rng.randint(1, _AT_ONCE_MAX)]
            at += len(some)
            self._micro_batches += sum(isinstance(entry, Rows) for entry in some)
            if self._rng.random() >= _IN_BULK:
                view.apply(some)
                continue
            try:
                view.absorb(some)
                view.commit()
            except TakeAgain:
                # Something in them is at fault: one by one the view finds out what.
                view.apply([entry for entry in entries[:at] if not _is_below(entry, view.offset)])

    def _live_rows(self, store_url: str, sealed: SealedRange | None = None) -> pa.Table:
        """The view's rows as a reader sees them."""
        store, duck = Store(store_url), self._duck.cursor()
        try:
            with store.read() as transaction:
                stored = transaction.load(self._model.name)
                assert stored is not None, "the view was opened, so the store has it"
                query = ViewQuery(self._model.name, sealed=sealed)
                return RowReader(query, stored.description, duck).read(transaction)
        finally:
            duck.close()
            store.close()


def _is_below(entry: Entry, offset: int) -> bool:
    """Whether a view that is at an offset has taken an entry already."""
    return entry.next_offset <= offset if isinstance(entry, Rows) else entry.seal_offset < offset


def _found(at: str, comparison: Comparison) -> list[Found]:
    return [Found(at, difference) for difference in comparison.differences]
