"""Great Expectations' context: where results are kept, and the data docs that show them.

Results and suites are files below `docs/gx`; the data docs in `docs/data` show them twice. Our own pages
(`quality.report_page`) read well without a network. GX's, in `docs/data/gx`, have more detail, but load Bootstrap and
more from a content network: without it they are bare, and their index is empty.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quality.config import DayConfig
from quality.report_page import write_report

if TYPE_CHECKING:
    from great_expectations.data_context import AbstractDataContext

_SITE = "data_docs"


class _DuckDB(enum.StrEnum):
    """What GX's own list of dialects has members like."""

    DUCKDB = "duckdb"


@contextmanager
def gx_context(config: DayConfig) -> Iterator[AbstractDataContext]:
    """Give a context whose results outlive it; its datasources do not."""
    # Read while GX is imported.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import DataContextConfig, ProgressBarsConfig

    _keep_connections()
    folder = config.expectations
    folder.mkdir(parents=True, exist_ok=True)
    yield gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            stores={
                "suites": _store("ExpectationsStore", _files(folder / "suites", ".json")),
                "results": _store("ValidationResultsStore", _files(folder / "results", ".json")),
                "checkpoints": _store("CheckpointStore", {"class_name": "InMemoryStoreBackend"}),
                "validation_definition_store": _store(
                    "ValidationDefinitionStore", {"class_name": "InMemoryStoreBackend"}
                ),
            },
            expectations_store_name="suites",
            validation_results_store_name="results",
            checkpoint_store_name="checkpoints",
            data_docs_sites={
                _SITE: {
                    "class_name": "SiteBuilder",
                    "show_how_to_buttons": False,
                    "store_backend": _files(config.data_docs / "gx", None),
                    "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                }
            },
            analytics_enabled=False,
            progress_bars=ProgressBarsConfig(globally=False),
        ),
    )


def write_pages(config: DayConfig, context: AbstractDataContext, run_id: str) -> Path:
    """Write the pages of a run's results, GX's and our own, and the indexes of both; give our own index."""
    results = [key for key in context.validation_results_store.list_keys() if key.run_id.run_name == run_id]
    if results:
        context.build_data_docs(site_names=[_SITE], resource_identifiers=results)
    # After GX's, which our own pages link to.
    return write_report(config, run_id)


def write_data_docs(config: DayConfig, run_id: str) -> Path:
    """Bring the data docs up to date with a run's results; give the index."""
    with gx_context(config) as context:
        return write_pages(config, context, run_id)


def _keep_connections() -> None:
    """Make GX keep its connection to DuckDB: otherwise it rolls back before it fetches, and finds no rows.

    The list is private to GX, which is pinned; a test holds this to its effect.
    """
    from great_expectations.execution_engine import sqlalchemy_execution_engine as module

    if not any(str(dialect.value) == "duckdb" for dialect in module._PERSISTED_CONNECTION_DIALECTS):
        module._PERSISTED_CONNECTION_DIALECTS = (*module._PERSISTED_CONNECTION_DIALECTS, _DuckDB.DUCKDB)


def _store(kind: str, backend: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": kind, "store_backend": backend}


def _files(folder: Path, suffix: str | None) -> dict[str, Any]:
    backend = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)}
    return backend if suffix is None else {**backend, "filepath_suffix": suffix}
