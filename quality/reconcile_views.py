"""Reconciles all live views of a run: their sealed copies, asked from the service, with its work copy.

Every live model of the run's build must have been compared, and of every stream that has rows of the dates at least
one window, but for views whose windows have all left the live table: a run that compared nothing proves nothing.
"""

# ruff: noqa: S608 - SQL is put together here: names are quoted, dates are dates.

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quality.causes import UNEXPLAINED, CannotRun, explain, of_magnitudes, rows_by_definition
from quality.config import DayConfig
from quality.errors import Finding, ReconciliationFailed, ServiceFailed
from quality.files import write_atomically
from quality.lake import pinned_query, reading_lake
from quality.live_models import LiveModel, applied_seed_nodes, applied_seeds, load_live_models
from quality.publish import agreed
from quality.reconcile import Comparison, compare_view, expiry, has_expired, tolerant
from quality.run import Run
from quality.sealed_copy import NotComparable, SealedCopies
from quality.service import connected
from tidemill.lake import identifier, literal

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill import Client, ViewStatus

SHOWN_MAX = 5
"""How many differences the error's text names."""
NOTHING = "no stream has a row of the dates: there was nothing to compare"


def compare_views(config: DayConfig, run: Run) -> dict[str, Any]:
    """Compare each live view of the run's streams; give view → windows, rows, differences and note.

    Raises ReconciliationFailed when live and batch differ, when a view cannot be compared, or when nothing was.
    """
    import duckdb

    models = load_live_models(config, run)
    comparisons: list[Comparison] = []
    failures: list[NotComparable] = []
    with connected(config) as client, duckdb.connect(":memory:") as connection, reading_lake():
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"attach {literal(config.work_copy(run.run_id))} as work (read_only)")
        comparing = _Comparing(config, run, connection, models, SealedCopies(client, run))
        for view in _in_order(client, run, models):
            try:
                comparisons.append(comparing.compare(view))
            except NotComparable as error:
                failures.append(error)
        unseen = streams_unseen(config, run, connection, comparisons)
    _write(config, run, comparisons, failures)
    result = judge(run, comparisons, failures, unseen, str(report_file(config, run.run_id)))
    for name, definition in comparing.definitions.items():
        result["views"][name].update(definition_hash=definition, by_day=models[name].by_day)
    return result


def confirm_views(config: DayConfig, run: Run, result: dict[str, Any]) -> None:
    """Tell the service which views' copies agreed; ServiceFailed, retryable, when it cannot be told. Idempotent."""
    # Of a view that follows another definition than was published, old windows stay: batch does not have them.
    agreed = [name for name, view in result["views"].items() if view["compared"] and not view["explained"]]
    try:
        with connected(config) as client:
            for name in agreed:
                _confirm(config, client, run, name, run.streams[result["views"][name]["stream"]].seal_offset)
    except ServiceFailed as error:
        raise ServiceFailed(
            f"live and batch agree, but the service could not be told ({error}); until it is, no old window of the "
            "dates leaves the live tables. Run publish again",
            error.code,
            retryable=True,
        ) from error


def _confirm(config: DayConfig, client: Client, run: Run, name: str, seal_offset: int) -> None:
    from tidemill import RequestRefused

    view = client.view(name)
    try:
        view.confirm_reconciled(run.first, run.last, seal_offset)
    except RequestRefused:
        # It was told before, and since then the windows have left, and their copy with them; or it was told of a later
        # seal of the dates, and has let the copies of earlier ones go.
        later = agreed(config, name)
        if not has_expired(view.status(), run.end) and any(later.get(date, 0) <= seal_offset for date in run.dates):
            raise


def report_file(config: DayConfig, run_id: str) -> Path:
    """Give the file that holds a run's comparisons with all their listed differences, whether they agree or not."""
    return config.run_folder(run_id) / "reconciliation.json"


def judge(
    run: Run,
    comparisons: list[Comparison],
    failures: list[NotComparable],
    unseen: Collection[str] = (),
    report: str = "",
) -> dict[str, Any]:
    """Give the result of comparisons that agree, or of which each difference has a cause; else ReconciliationFailed.

    unseen: streams that have rows of the dates, and of which no window was compared. report: the file that has all.
    """
    differences = [text for each in comparisons for text in _difference_texts(each)]
    texts = [str(failure) for failure in failures] + _unseen_texts(run, comparisons, failures, unseen) + differences
    if texts:
        views = [each.view for each in comparisons if each.unexplained]
        only_time = all(failure.retryable for failure in failures) and len(texts) == len(failures)
        findings = [_finding(each, report) for each in comparisons if each.unexplained]
        raise ReconciliationFailed("; ".join(texts), views, retryable=only_time, findings=findings)
    return {
        "views": {
            each.view: {
                "stream": each.stream,
                "compared": each.compared,
                "windows": each.windows_compared,
                "rows": each.rows_compared,
                "differences": each.difference_count,
                "explained": each.explained,
                "causes": dict(each.causes),
                "note": "; ".join(filter(None, (each.expired, each.note))),
            }
            for each in comparisons
        },
        "note": "" if unseen or any(each.windows_compared for each in comparisons) else NOTHING,
    }


class _Comparing:
    """Compares one view after another, over one connection that has the run's work copy attached as `work`."""

    def __init__(
        self, config: DayConfig, run: Run, connection: Any, models: dict[str, LiveModel], copies: SealedCopies
    ) -> None:
        self._config = config
        self._run = run
        self._connection = connection
        self._models = models
        self._copies = copies
        self._seeds = applied_seeds(config)
        self.definitions: dict[str, str] = {}
        """The hash of each view's definition, by which it was compared."""

    def compare(self, name: str) -> Comparison:
        """Compare one view; raises NotComparable, and what the service and the lake raise."""
        run, model = self._run, self._models.get(name)
        if model is None:
            raise NotComparable(
                f"{name} is a live view of the service, but no live model of the project that was built: apply the "
                "project (tidemill view apply), and it is one no more"
            )
        view, copy = self._copies.take(name)
        self.definitions[name] = view.definition_hash
        if copy is None:
            note = expiry(view, run.first, run.end)
            return Comparison(name, view.stream, 0, 0, 0, (), note, compared=False)
        if model.is_defined_as(view, self._seeds):
            bounds = self._bounds(view, model, whole=False)
            found = compare_view(self._connection, view, copy, model.table, run.first, run.end, bounds)
            near = {column.name for _, column in tolerant(view)} & {each.column for each in found.differences}
            return self._by_magnitude(view, model, copy, bounds, found) if near else found
        return self._by_own_definition(view, model, copy)

    def _by_magnitude(
        self, view: ViewStatus, model: LiveModel, copy: pa.Table, bounds: str, found: Comparison
    ) -> Comparison:
        """Compare again, with how large the numbers are of which the sums are: near zero, that is what counts."""
        run, pin = self._run, self._run.streams[view.stream]
        rows = pinned_query(self._config, view.stream, pin, pin.seal_offset)
        try:
            sql = of_magnitudes(model.sql)
            sizes = rows_by_definition(sql, rows, {}, model.tables, self._config.work_copy(run.run_id))
        except CannotRun:
            return found
        self._connection.register("magnitudes", sizes)
        try:
            return compare_view(
                self._connection, view, copy, model.table, run.first, run.end, bounds, magnitudes="magnitudes"
            )
        finally:
            self._connection.unregister("magnitudes")

    def _by_own_definition(self, view: ViewStatus, model: LiveModel, copy: pa.Table) -> Comparison:
        """Compare a view of another definition than was built: with what its own gives, then with the model."""
        run, pin = self._run, self._run.streams[view.stream]
        rows = pinned_query(self._config, view.stream, pin, pin.seal_offset)
        nodes = applied_seed_nodes(self._config)
        try:
            own = rows_by_definition(view.sql, rows, nodes, model.tables, self._config.work_copy(run.run_id))
        except CannotRun as error:
            raise NotComparable(
                f"{view.view} follows another definition than was built, and that one cannot be run here ({error}): "
                "apply the project (tidemill view apply) if it is newer, or run the day again from dbt on if it is "
                "older; then reconcile"
            ) from error
        bounds = self._bounds(view, model, whole=True)
        dates = run.first, run.end
        self._connection.register("by_own_definition", own)
        try:
            first = compare_view(self._connection, view, copy, "by_own_definition", *dates, bounds)
        finally:
            self._connection.unregister("by_own_definition")
        described = self._connection.execute(f"describe select * from {model.table}").fetchall()
        built = {str(name): str(kind) for name, kind, *_ in described}
        live = {column.name: column.type for column in view.columns}
        batch = compare_view(self._connection, view, copy, model.table, *dates, bounds) if live == built else None
        as_texts = tuple([f"{name} {kind}" for name, kind in columns.items()] for columns in (live, built))
        return explain(first, batch, (as_texts[0], as_texts[1]))

    def _bounds(self, view: ViewStatus, model: LiveModel, *, whole: bool) -> str:
        """Give the query for the bounds of approximate quantiles, and make the relations that it reads.

        whole: from all rows below the seal, whatever their date.
        """
        if not any(column.rank_error for column in view.columns):
            return ""
        if not view.bounds_sql:
            raise NotComparable(f"{view.view} has approximate quantiles, but the service gave no bounds of them")
        pin = self._run.streams[view.stream]
        rows = pinned_query(self._config, view.stream, pin, pin.seal_offset)
        # Only where the windows lie within a day do they have rows of no other dates.
        dates = _of_dates(self._run) if model.by_day and not whole else "true"
        self._connection.execute(f"create or replace temp view tidemill_batch as select * from ({rows}) where {dates}")
        for seed, table in model.tables.items():
            relation = identifier(f"tidemill_seed_{seed}")
            self._connection.execute(f"create or replace temp view {relation} as select * from {table}")
        return view.bounds_sql


def _in_order(client: Client, run: Run, models: dict[str, LiveModel]) -> Iterable[str]:
    """Give the views to be compared: those that are being rebuilt last, as they may have to be waited for.

    Live models that the service has no view of are among them: their models were built, and nothing was compared. Views
    of streams that the run has not sealed are not: their last seal may be of other dates, and nothing of them is new.
    """
    from tidemill import ViewState

    views = client.views()
    # A model that was refused has no stream: it is no live view, but it should be one.
    known = [view for view in views if not view.stream or view.stream in run.fresh]
    waiting = {view.view for view in known if view.state == ViewState.REBUILDING}
    names = {view.view for view in known} | (models.keys() - {view.view for view in views})
    return sorted(names, key=lambda name: (name in waiting, name))


def streams_unseen(config: DayConfig, run: Run, connection: Any, comparisons: list[Comparison]) -> list[str]:
    """Give the streams of this run's seals that have rows of the dates below, and of which no window was compared."""
    seen = {each.stream for each in comparisons if each.windows_compared}
    unseen = []
    for stream, pin in run.fresh.items():
        if stream in seen:
            continue
        rows = pinned_query(config, stream, pin, pin.seal_offset)
        if connection.execute(f"select 1 from ({rows}) where {_of_dates(run)} limit 1").fetchall():
            unseen.append(stream)
    return unseen


def _of_dates(run: Run) -> str:
    return f"event_date between date {literal(run.date)} and date {literal(run.last_date)}"


def _unseen_texts(
    run: Run, comparisons: list[Comparison], failures: list[NotComparable], unseen: Collection[str]
) -> list[str]:
    dates = run.date if run.date == run.last_date else f"{run.date} to {run.last_date}"
    texts = []
    for stream in sorted(unseen):
        views = [each for each in comparisons if each.stream == stream]
        if any(each.compared for each in views):
            names = ", ".join(sorted(each.view for each in views))
            texts.append(
                f"{stream} has rows of {dates}, but neither live nor batch has a window of them in {names}: nothing "
                "was compared. A view that counts all of a stream's events would show that it was"
            )
    nothing = not any(each.windows_compared or not each.compared for each in comparisons)
    if unseen and nothing and not texts and not failures:
        texts.append(
            f"{', '.join(sorted(unseen))}: expected a live view, as there are rows of {dates}; there is none: "
            "nothing was compared"
        )
    return texts


def _finding(comparison: Comparison, report: str) -> Finding:
    sample = tuple(str(each) for each in comparison.differences if not each.cause)[:SHOWN_MAX]
    message = f"{comparison.unexplained:,} differences between live and batch that have no cause"
    return Finding(comparison.view, message, comparison.unexplained, sample, report)


def _difference_texts(comparison: Comparison) -> list[str]:
    found = [each for each in comparison.differences if not each.cause]
    shown = [f"{UNEXPLAINED}: {difference}" for difference in found[:SHOWN_MAX]]
    if comparison.unexplained > len(shown):
        shown.append(f"and {comparison.unexplained - len(shown):,} more in {comparison.view}")
    if shown and comparison.note:
        shown.append(f"{comparison.view}: {comparison.note}")
    return shown


def _write(config: DayConfig, run: Run, comparisons: list[Comparison], failures: list[NotComparable]) -> None:
    content = {
        "views": [dataclasses.asdict(each) for each in comparisons],
        "not_compared": [str(failure) for failure in failures],
    }
    write_atomically(report_file(config, run.run_id), json.dumps(content, indent=2, ensure_ascii=False) + "\n")
