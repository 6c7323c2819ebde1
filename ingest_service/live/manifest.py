"""Reads dbt's manifest: which models are tagged `live`, their compiled SQL, and which streams their sources are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError

from ingest_service.errors import ConfigError

LIVE_TAG = "live"
HOW_TO_COMPILE = (
    "run `dbt compile --project-dir dbt_project --target-path FOLDER` and copy FOLDER/manifest.json there "
    "(`tidemill up` and `tidemill demo` do it)"
)

Relation = tuple[str, ...]
"""A table's name as compiled SQL writes it, in lower case: (database, schema, name), as far as it is qualified."""


@dataclass(frozen=True, slots=True)
class LiveModel:
    """A dbt model that asks to be a live view.

    path: its file, relative to the dbt project, for messages.
    sql: compiled, no Jinja left. raw_sql: as written, to find a place of the compiled SQL again.
    materialized, incremental_strategy: dbt's configuration; they decide which windows are allowed.
    streams: which relation of the SQL is which stream.
    """

    name: str
    path: str
    sql: str
    raw_sql: str
    materialized: str
    incremental_strategy: str | None
    streams: Mapping[Relation, str]


def relation_of(table: exp.Table) -> Relation:
    """A table's name in the form by which sources are looked up."""
    return tuple(part.name.lower() for part in table.parts)


def read_manifest(path: Path) -> list[LiveModel]:
    """The live models of a dbt manifest, by name.

    Raises ConfigError when there is no manifest, when it is none, or when it holds no compiled SQL.
    """
    manifest = _load(path)
    streams = _streams(manifest["sources"])
    nodes = [n for n in manifest["nodes"].values() if n.get("resource_type") == "model" and LIVE_TAG in _tags(n)]
    without = sorted(n["name"] for n in nodes if not n.get("compiled_code"))
    if without:
        raise ConfigError(
            f"the dbt manifest {path} holds no compiled SQL for {', '.join(without)}: dbt run and dbt build strip it, "
            f"dbt parse never writes it; {HOW_TO_COMPILE}"
        )
    return sorted((_model(node, streams) for node in nodes), key=lambda model: model.name)


def _load(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no dbt manifest at {path}, so no live view is known; {HOW_TO_COMPILE}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"the dbt manifest {path} cannot be read ({error}); {HOW_TO_COMPILE}") from error
    if not (isinstance(manifest, dict) and isinstance(manifest.get("nodes"), dict)):
        raise ConfigError(f"{path} is no dbt manifest: it has no `nodes`; {HOW_TO_COMPILE}")
    manifest.setdefault("sources", {})
    return manifest


def _tags(node: Mapping[str, Any]) -> set[str]:
    tags = node.get("tags") or node.get("config", {}).get("tags") or []
    return {tags} if isinstance(tags, str) else set(tags)


def _streams(sources: Mapping[str, Mapping[str, Any]]) -> dict[Relation, str]:
    """Which relation is which stream: the source's meta `stream`, or its table's name."""
    streams = {}
    for source in sources.values():
        meta = {**source.get("config", {}).get("meta", {}), **source.get("meta", {})}
        try:
            table = sqlglot.parse_one(source["relation_name"], into=exp.Table, dialect="duckdb")
        except ParseError:  # not a plain name (a path, a function): no stream, and no live model can use it
            continue
        if isinstance(table.this, exp.Identifier):
            streams[relation_of(table)] = str(meta.get("stream") or source["name"])
    return streams


def _model(node: Mapping[str, Any], streams: Mapping[Relation, str]) -> LiveModel:
    config = node.get("config", {})
    return LiveModel(
        name=node.get("alias") or node["name"],
        path=node.get("original_file_path", node["name"]),
        sql=node["compiled_code"],
        raw_sql=node.get("raw_code", ""),
        materialized=config.get("materialized", "view"),
        incremental_strategy=config.get("incremental_strategy"),
        streams=streams,
    )
