"""dbt's unit tests at night: a layer's run when the project has changed since they last passed, and not otherwise.

What they test is SQL over rows of their own, so the day's rows can change nothing about them. What passed is kept in
`runs/unit_tests.json`: layer → the digest of everything that their outcome depends on.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

from quality.config import DayConfig
from quality.files import write_atomically

_FILE = "unit_tests.json"
_OF_NODES = ("raw_code", "checksum", "columns")
_OF_TESTS = ("model", "given", "expect", "overrides")


def digest(manifest: Mapping[str, Any], settings: str = "") -> str:
    """Give one text for all that unit tests' outcomes depend on: models, seeds, macros, sources, the tests, dbt.

    settings: the project's own, dbt_project.yml: the variables that models read stand there, and in no manifest.
    """
    content = {
        "settings": settings,
        "nodes": _chosen(manifest["nodes"], _OF_NODES),
        "sources": _chosen(manifest["sources"], ("columns",)),
        "macros": _chosen(manifest["macros"], ("macro_sql",)),
        "unit_tests": _chosen(manifest.get("unit_tests", {}), _OF_TESTS),
        "versions": [importlib.metadata.version(name) for name in ("dbt-core", "dbt-duckdb", "duckdb")],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def have_passed(config: DayConfig, layer: str, project: str) -> bool:
    """Tell whether a layer's unit tests have passed for a project of this digest."""
    return _passed(config).get(layer) == project


def keep_passed(config: DayConfig, layer: str, project: str) -> None:
    """Remember that a layer's unit tests have passed for a project of this digest."""
    write_atomically(config.runs / _FILE, json.dumps({**_passed(config), layer: project}, indent=2) + "\n")


def _passed(config: DayConfig) -> dict[str, str]:
    try:
        kept = json.loads((config.runs / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _chosen(described: Mapping[str, Mapping[str, Any]], fields: tuple[str, ...]) -> dict[str, list[Any]]:
    return {name: [each.get(field) for field in fields] for name, each in described.items()}
