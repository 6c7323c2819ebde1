"""Tidemill's days in Airflow: factories of DAGs, their operators, triggers, callbacks and pages.

Owns everything that knows Airflow; the work itself is in `quality`, which knows no Airflow. A project's `dags/` folder
calls the factories, with its own settings:

    from orchestration import daily_dag

    daily = daily_dag(retries=3)

Nothing heavy is imported before a task runs: Airflow reads DAG files every few seconds.

Main functions: `daily_dag`, `late_events_dag`, `import_files_dag`, `maintain_dag`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestration.daily import daily_dag
    from orchestration.import_files import import_files_dag
    from orchestration.late_events import late_events_dag
    from orchestration.maintain import maintain_dag

__all__ = ["daily_dag", "import_files_dag", "late_events_dag", "maintain_dag"]


def __getattr__(name: str) -> Any:
    """Import a factory when it is asked for: a DAG file reads one of them, and each has imports of its own."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{name.removesuffix('_dag')}"), name)
