"""Reconciles all live views of a run: their sealed copies, asked from the service, with its work copy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from quality.config import DayConfig
from quality.errors import ReconciliationFailed
from quality.files import write_atomically
from quality.reconcile import Comparison, compare_view
from quality.run import Run
from quality.service import connected
from tidemill.lake import identifier, literal

SHOWN_MAX = 5
"""How many differences the error's text names."""


def compare_views(config: DayConfig, run: Run) -> dict[str, Any]:
    """Compare each live view of the run's streams; give view → windows, rows and differences.

    Raises ReconciliationFailed when live and batch differ, when a view stands still, or when no window was compared.
    """
    import duckdb

    comparisons: list[Comparison] = []
    failures: list[str] = []
    with connected(config) as client, duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"attach {literal(config.work_copy(run.run_id))} as work (read_only)")
        for view in client.views():
            # A model that the service refused has an error and no stream: it is no live view, but it should be one.
            if view.error:
                failures.append(f"{view.view} stands still: {view.error}")
                continue
            if view.stream not in run.streams:
                continue
            sealed = client.view(view.view).sealed(run.first, run.last, run.streams[view.stream].seal_offset)
            batch = f"work.main.{identifier(view.view)}"
            comparisons.append(compare_view(connection, view, sealed, batch, run.first, run.end))
    _write(config, run, comparisons)
    return judge(run, comparisons, failures)


def report_file(config: DayConfig, run_id: str) -> Path:
    """Give the file that holds a run's comparisons with all their listed differences, whether they agree or not."""
    return config.run_folder(run_id) / "reconciliation.json"


def judge(run: Run, comparisons: list[Comparison], failures: list[str]) -> dict[str, Any]:
    """Give the result of comparisons that agree; raise ReconciliationFailed for all others."""
    dates = run.date if run.date == run.last_date else f"{run.date} to {run.last_date}"
    texts = list(failures)
    if not comparisons and not failures:
        texts.append(
            f"expected live views of {', '.join(sorted(run.streams))}; the service has none: nothing was compared"
        )
    for each in comparisons:
        if each.windows_compared == 0:
            texts.append(f"{each.view}: no window of {dates} was compared: neither live nor batch has one")
        shown = [f"UNEXPLAINED: {difference}" for difference in each.differences[:SHOWN_MAX]]
        if each.difference_count > len(shown):
            shown.append(f"and {each.difference_count - len(shown):,} more in {each.view}")
        texts += shown
    if texts:
        views = [each.view for each in comparisons if each.difference_count or not each.windows_compared]
        raise ReconciliationFailed("; ".join(texts), views)
    return {
        "views": {
            each.view: {
                "windows": each.windows_compared,
                "rows": each.rows_compared,
                "differences": each.difference_count,
            }
            for each in comparisons
        }
    }


def _write(config: DayConfig, run: Run, comparisons: list[Comparison]) -> None:
    content = {"views": [dataclasses.asdict(each) for each in comparisons]}
    write_atomically(report_file(config, run.run_id), json.dumps(content, indent=2, ensure_ascii=False) + "\n")
