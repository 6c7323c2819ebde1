"""The stages of a daily run: each is a function of the configuration and the run's id, and may be repeated.

    seal → export → check_sources → balance → build (staging, intermediate, marts, live) → check_marts → reconcile
    → publish → document

Each gives a small result that can be written as JSON, keeps it in the run's record, and makes the results of later
stages void when it is run again. Each raises an error of `quality.errors` whose text is fit to be shown, and keeps
that in the record too. From seal to publish a run has the turn (`quality.turn`): one run at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from quality.config import DayConfig
from quality.errors import ReconciliationFailed, RunWrong, disk_full
from quality.run import (
    LAYERS,
    STAGES,
    Options,
    Run,
    check_dates,
    check_run_id,
    fail_stage,
    finish_stage,
    forget_from,
    load_run,
    now,
    save_run,
)

__all__ = [
    "LAYERS",
    "balance",
    "build",
    "check_marts",
    "check_sources",
    "document",
    "export",
    "give_turn",
    "is_complete",
    "publish",
    "reconcile",
    "seal",
    "take_turn",
]

_BUILT = tuple(f"dbt.{layer}" for layer in LAYERS)
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "export": ("seal",),
    "check_sources": ("export",),
    "balance": ("export",),
    **{f"dbt.{layer}": ("check_sources", "balance", *_BUILT[:number]) for number, layer in enumerate(LAYERS)},
    "check_marts": _BUILT,
    "reconcile": _BUILT,
    "publish": ("check_sources", "balance", *_BUILT, "check_marts", "reconcile"),
    "document": ("publish",),
}
"""What must have ended well before a stage: nothing is published that was not audited, whoever calls."""


def is_complete(config: DayConfig, last_date: str, streams: Sequence[str] | None = None) -> dict[str, Any]:
    """Look whether the dates up to the last one are complete in the streams; nothing is changed, nothing waited for.

    Gives complete, and waiting: stream → why it is not complete.
    """
    import datetime as dt

    from quality.seal import look

    waiting = look(config, dt.date.fromisoformat(check_dates(last_date, None)[0]), streams)
    return {"complete": not waiting, "waiting": waiting}


def take_turn(config: DayConfig, ticket: Mapping[str, Any]) -> dict[str, Any]:
    """Ask for the turn to write the warehouse; see `quality.turn.take`. Gives turn: held, wait or shared; and whose."""
    from quality import turn

    return turn.take(config, turn.Ticket.of(ticket))


def give_turn(config: DayConfig, ticket_id: str, failed: bool) -> None:
    """Give the turn back, or leave the queue; does nothing where there is nothing to give."""
    from quality import turn

    turn.give(config, ticket_id, failed=failed)


def seal(
    config: DayConfig,
    run_id: str,
    date: str,
    last_date: str | None = None,
    *,
    force: bool = False,
    streams: Sequence[str] | None = None,
    full_refresh: bool = False,
    as_of: str | None = None,
    dag_id: str = "",
    dag_run_id: str = "",
) -> dict[str, Any]:
    """Begin a run: seal the dates (UTC, ISO form, both included) in the streams.

    force: seal although the watermark has not passed the dates' end. streams: those to be sealed and rebuilt; None: all
    that dbt reads. full_refresh: make the models by window anew, for all dates. as_of: seal nothing, take the pins of
    that run. Run again, it seals again, at a new offset. Gives run_id, date, last_date and streams: name → pin.
    """
    check_run_id(run_id)
    first, last = check_dates(date, last_date)
    chosen = tuple(sorted(set(streams))) if streams else None
    options = Options(chosen, force, full_refresh, as_of or "", dag_id, dag_run_id)
    # Written before sealing: should it fail, what an earlier attempt pinned must not be taken for this one's.
    run = Run(run_id, first, last, options=options, began_at=_began_at(config, run_id))
    save_run(config, run)
    with _kept(config, run_id, "seal") as started_at:
        return _seal(config, run, started_at)


def export(config: DayConfig, run_id: str) -> dict[str, Any]:
    """Bring the lake up to the seals, compact the dates, pin the version. Gives streams: name → pin."""
    from quality.operations import write_arrived
    from quality.seal import export_streams

    def work(run: Run) -> dict[str, Any]:
        pins = run.streams if run.options.as_of else export_streams(config, run)
        exported = dataclasses.replace(run, streams=pins)
        save_run(config, exported)
        write_arrived(config, exported)
        return {"streams": {name: dataclasses.asdict(pin) for name, pin in pins.items()}}

    return _stage(config, run_id, "export", work)


def check_sources(config: DayConfig, run_id: str) -> dict[str, Any]:
    """Check the sources' expectations. Gives checks, verdict, warnings."""
    from quality.gate import check_lake

    return _stage(config, run_id, "check_sources", lambda run: check_lake(config, run))


def balance(config: DayConfig, run_id: str) -> dict[str, Any]:
    """Compare the producers' count, the log's and the lake's. Gives balance: its lines."""
    from quality.balance import balance_lake

    return _stage(config, run_id, "balance", lambda run: {"balance": balance_lake(config, run)})


def build(config: DayConfig, run_id: str, layer: str | None = None) -> dict[str, Any]:
    """Run `dbt build` for one layer in the run's copy of the warehouse; None: for all layers, one after another.

    The first takes the copy. A run whose pins are older than what is published by now is sealed and checked anew
    first; a later layer whose copy is gone has the layers before it built again. Gives models, tests, their times.
    """
    if layer is None:
        return {each: build(config, run_id, each) for each in LAYERS}
    if layer not in LAYERS:
        raise RunWrong(f"expected a layer of {', '.join(LAYERS)}; came {layer!r}")
    stage = f"dbt.{layer}"
    if layer == LAYERS[0]:
        _renew(config, run_id)
    else:
        _catch_up(config, run_id, stage)
    return _stage(config, run_id, stage, lambda run: _build(config, run, layer))


def check_marts(config: DayConfig, run_id: str) -> dict[str, Any]:
    """Check the balance of lake and staging, then the marts' expectations. Gives balance, checks, verdict, warnings."""
    from quality.balance import balance_staging
    from quality.gate import check_warehouse

    def work(run: Run) -> dict[str, Any]:
        return {"balance": balance_staging(config, run), **check_warehouse(config, run)}

    _catch_up(config, run_id, "check_marts")
    return _stage(config, run_id, "check_marts", work)


def reconcile(config: DayConfig, run_id: str) -> dict[str, Any]:
    """Compare every live view's copy of the seal with its model. Gives views: windows, rows, differences, note; note.

    For a run as of another one the copies of that seal may be gone: then its note says so.
    """
    from quality.reconcile_views import compare_views

    def work(run: Run) -> dict[str, Any]:
        try:
            return compare_views(config, run)
        except ReconciliationFailed as error:
            if not run.options.as_of or error.views or error.retryable:
                raise
            return {"views": {}, "note": f"not compared, as of run {run.options.as_of}: {error}"}

    _catch_up(config, run_id, "reconcile")
    return _stage(config, run_id, "reconcile", work)


def publish(config: DayConfig, run_id: str) -> dict[str, Any]:
    """Make the run's copy the warehouse that readers open. Gives run_id, dates, published_at, warehouse, size_bytes.

    What is known of the runs is written and built into it first. Then the service is told which views agreed: their
    old windows may leave the live tables from then on. A run as of another one is kept in its own folder instead.
    """
    from quality.publish import drop_published_copy, has_copy, published_by
    from quality.reconcile_views import confirm_views

    drop_published_copy(config, run_id)
    if published_by(config, run_id) is None or has_copy(config, run_id):
        _catch_up(config, run_id, "publish")
    before = load_run(config, run_id).stages.get("publish", {}).get("result", {})
    result = _stage(config, run_id, "publish", lambda run: _publish(config, run, before))
    run = load_run(config, run_id)
    if not run.options.as_of:
        with _kept(config, run_id, "publish"):
            # The publication is kept first: a service that cannot be told does not make it void.
            confirm_views(config, run, run.result("reconcile"))
    return result


def document(config: DayConfig, run_id: str) -> dict[str, Any]:
    """Write the dbt docs and the data docs. Gives their paths: dbt_docs, data_docs.

    The dbt docs are of the published warehouse: those of a run as of another one are not made.
    """
    from quality.data_docs import write_data_docs
    from quality.dbt_project import put_docs

    def work(run: Run) -> dict[str, Any]:
        pages = {"data_docs": str(write_data_docs(config, run_id))}
        return {"dbt_docs": "" if run.options.as_of else str(put_docs(config, run)), **pages}

    return _stage(config, run_id, "document", work)


def _stage(config: DayConfig, run_id: str, stage: str, work: Callable[[Run], dict[str, Any]]) -> dict[str, Any]:
    """Run a stage once what it needs has ended well, and keep what it gave, or what it failed by."""
    run = load_run(config, run_id)
    for needed in REQUIRED[stage]:
        run.result(needed)
    run = forget_from(config, run, stage)
    with _kept(config, run_id, stage) as started_at:
        result = work(run)
        # Read again, as the stage may have changed the record.
        return finish_stage(config, load_run(config, run_id), stage, result, started_at)


@contextmanager
def _kept(config: DayConfig, run_id: str, stage: str) -> Iterator[str]:
    """Keep in the record what goes wrong inside; a full disk is told as such, and the run's copy gives its space back.

    Gives the time.
    """
    from quality.publish import remove_copy

    try:
        yield now()
    except Exception as error:
        full = disk_full(error)
        if full is None:
            fail_stage(config, run_id, stage, error)
            raise
        remove_copy(config, run_id)
        fail_stage(config, run_id, stage, full)
        if full is error:
            raise
        raise full from error


def _began_at(config: DayConfig, run_id: str) -> str:
    try:
        return load_run(config, run_id).began_at or now()
    except RunWrong:
        return now()


def _seal(config: DayConfig, run: Run, started_at: str) -> dict[str, Any]:
    from quality.seal import pins_of, seal_streams

    options = run.options
    if options.as_of:
        pins = pins_of(config, options.as_of, run.first, run.last)
    else:
        pins = seal_streams(config, run.first, run.last, options.streams, force=options.force)
    run = dataclasses.replace(run, streams=pins)
    result = {
        "run_id": run.run_id,
        "date": run.date,
        "last_date": run.last_date,
        "streams": {name: dataclasses.asdict(pin) for name, pin in pins.items()},
    }
    return finish_stage(config, run, "seal", result, started_at)


def _build(config: DayConfig, run: Run, layer: str) -> dict[str, Any]:
    from quality import dbt_project
    from quality.publish import take_copy

    if layer == LAYERS[0]:
        # As of another run: from its pins alone, not from what was published since.
        take_copy(config, run.run_id, empty=bool(run.options.as_of))
    return dbt_project.build(config, run, layer)


def _publish(config: DayConfig, run: Run, before: Mapping[str, Any]) -> dict[str, Any]:
    """before: what this stage gave when it published, where it is run once more."""
    from quality import dbt_project
    from quality import publish as publishing
    from quality.layers import OPERATIONS
    from quality.operations import write_operations

    done = publishing.published_by(config, run.run_id)
    if done is not None and not publishing.has_copy(config, run.run_id):
        return {**before, **done}
    if run.options.as_of:
        return publishing.keep(config, run)
    write_operations(config, run)
    built = dbt_project.build(config, run, OPERATIONS)
    dbt_project.make_docs(config, run)
    return {**publishing.publish(config, run), "operations": built}


def _renew(config: DayConfig, run_id: str) -> None:
    """Seal and check anew a run that is built again after others have published: marts never go back in time."""
    from quality.publish import is_stale

    run = load_run(config, run_id)
    if run.options.as_of or not is_stale(config, run):
        return
    options = run.options
    seal(
        config, run_id, run.date, run.last_date, force=True, streams=options.streams,
        full_refresh=options.full_refresh, dag_id=options.dag_id, dag_run_id=options.dag_run_id,
    )  # fmt: skip
    for stage in (export, check_sources, balance):
        stage(config, run_id)


def _catch_up(config: DayConfig, run_id: str, stage: str) -> None:
    """Run the stages from the first layer up to this one again when the run's copy is gone or was overtaken.

    It is gone once it was published, or the disk was full: so every stage can be cleared alone.
    """
    from quality.publish import has_copy, is_overtaken

    run = load_run(config, run_id)
    for needed in REQUIRED[stage]:
        run.result(needed)
    if has_copy(config, run_id) and (run.options.as_of or not is_overtaken(config, run_id)):
        return
    for earlier in STAGES[STAGES.index(_BUILT[0]) : STAGES.index(stage)]:
        if earlier in _BUILT:
            build(config, run_id, earlier.removeprefix("dbt."))
        else:
            (check_marts if earlier == "check_marts" else reconcile)(config, run_id)
