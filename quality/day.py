"""The stages of a daily run: each is a function of the configuration and the run's id, and may be repeated.

    seal → check_sources → build → check_marts → reconcile → publish → document

Each gives a small result that can be written as JSON, keeps it in the run's record, and makes the results of later
stages void when it is run again. Each raises an error of `quality.errors` whose text is fit to be shown.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

from quality.config import DayConfig
from quality.run import Run, check_dates, check_run_id, finish_stage, forget_from, load_run, save_run

REQUIRED = {
    "check_sources": ("seal",),
    "build": ("seal", "check_sources"),
    "check_marts": ("build",),
    "reconcile": ("build",),
    "publish": ("check_sources", "build", "check_marts", "reconcile"),
    "document": ("publish",),
}
"""What must have ended well before a stage: nothing is published that was not audited, whoever calls."""


def seal(
    config: DayConfig, run_id: str, date: str, last_date: str | None = None, force: bool = False
) -> dict[str, Any]:
    """Begin a run: seal the dates (UTC, ISO form, both included) in every stream that dbt reads, and pin the lake.

    force: seal although the watermark has not passed the dates' end. Run again, it seals again, at a new offset.
    Gives run_id, date, last_date and streams: name → seal_offset, lake_version, lake_uri, lake_offset, counts.
    """
    from quality.seal import seal_streams

    check_run_id(run_id)
    first, last = check_dates(date, last_date)
    # Written before sealing: should it fail, what an earlier attempt pinned must not be taken for this one's.
    run = Run(run_id, first, last)
    save_run(config, run)
    pins = seal_streams(config, dt.date.fromisoformat(first), dt.date.fromisoformat(last), force=force)
    run = dataclasses.replace(run, streams=pins)
    result = {
        "run_id": run_id,
        "date": first,
        "last_date": last,
        "streams": {name: dataclasses.asdict(pin) for name, pin in pins.items()},
    }
    return finish_stage(config, run, "seal", result)


def check_sources(config: DayConfig, run_id: str) -> dict[str, Any]:
    """Check the balance of log and lake, then the source's expectations. Gives balance, checks, verdict, warnings."""
    from quality.balance import balance_lake
    from quality.gate import check_lake

    run = _begin(config, run_id, "check_sources")
    balance = balance_lake(config, run)
    return finish_stage(config, run, "check_sources", {"balance": balance, **check_lake(config, run)})


def build(config: DayConfig, run_id: str) -> dict[str, Any]:
    """Take a copy of the published warehouse and run `dbt build` in it. Gives models, tests and log."""
    from quality import dbt_project
    from quality.publish import take_copy

    run = _begin(config, run_id, "build")
    take_copy(config, run_id)
    return finish_stage(config, run, "build", dbt_project.build(config, run))


def check_marts(config: DayConfig, run_id: str) -> dict[str, Any]:
    """Check the balance of lake and staging, then the marts' expectations. Gives balance, checks, verdict, warnings."""
    from quality.balance import balance_staging
    from quality.gate import check_warehouse

    run = _begin(config, run_id, "check_marts")
    balance = balance_staging(config, run)
    return finish_stage(config, run, "check_marts", {"balance": balance, **check_warehouse(config, run)})


def reconcile(config: DayConfig, run_id: str) -> dict[str, Any]:
    """Compare every live view's copy of the seal with its model. Gives views: windows, rows, differences, note; note.

    Then tells the service, whose old windows may leave the live tables from then on.
    """
    from quality.reconcile_views import compare_views, confirm_views

    run = _begin(config, run_id, "reconcile")
    # Kept first: a service that cannot be told does not make the comparison void.
    result = finish_stage(config, run, "reconcile", compare_views(config, run))
    confirm_views(config, run, result)
    return result


def publish(config: DayConfig, run_id: str) -> dict[str, Any]:
    """Make the run's copy the warehouse that readers open. Gives run_id, dates, published_at, warehouse, size_bytes."""
    from quality.publish import publish as publish_copy

    run = _begin(config, run_id, "publish")
    return finish_stage(config, run, "publish", publish_copy(config, run))


def document(config: DayConfig, run_id: str) -> dict[str, Any]:
    """Write the dbt docs and the data docs. Gives their paths: dbt_docs, data_docs."""
    from quality.data_docs import write_data_docs
    from quality.dbt_project import put_docs

    run = _begin(config, run_id, "document")
    page = put_docs(config, run)
    return finish_stage(
        config, run, "document", {"dbt_docs": str(page), "data_docs": str(write_data_docs(config, run_id))}
    )


def _begin(config: DayConfig, run_id: str, stage: str) -> Run:
    run = load_run(config, run_id)
    for needed in REQUIRED[stage]:
        run.result(needed)
    return forget_from(config, run, stage)
