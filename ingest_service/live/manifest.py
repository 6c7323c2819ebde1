"""Reads dbt's manifest: which models are tagged `live`, their compiled SQL, and which streams their sources are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError

from ingest_service.errors import ConfigError
from ingest_service.live.seeds import Seed

LIVE_TAG = "live"
DISTINCT_VALUES_MAX = 100_000
"""How many values count(distinct …) keeps for one group, by default."""
HOW_TO_COMPILE = (
    "run `dbt compile --project-dir dbt_project --target-path FOLDER` and copy FOLDER/manifest.json there "
    "(`tidemill up` and `tidemill demo` do it)"
)

Relation = tuple[str, ...]
"""A table's name as compiled SQL writes it, in lower case: (database, schema, name), as far as it is qualified."""


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """What a model's `meta.live` says; none of it changes the rows of a view.

    retain_s: how long a window stays after its end, in seconds; 0: for ever. distinct_values_max: see
    DISTINCT_VALUES_MAX. problem: what is wrong with them, or "".
    """

    retain_s: int = 0
    distinct_values_max: int = DISTINCT_VALUES_MAX
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LiveModel:
    """A dbt model that asks to be a live view.

    path: its file, relative to the dbt project, for messages.
    sql: compiled, no Jinja left. raw_sql: as written, to find a place of the compiled SQL again.
    materialized, incremental_strategy: dbt's configuration; they decide which windows are allowed.
    streams, seeds: which relation of the SQL is which stream, or which seed.
    """

    name: str
    path: str
    sql: str
    raw_sql: str
    materialized: str
    incremental_strategy: str | None
    streams: Mapping[Relation, str]
    seeds: Mapping[Relation, Seed] = field(default_factory=dict)
    options: LiveOptions = LiveOptions()

    def to_json(self) -> str:
        """The model as JSON text, to be kept beside its rows."""
        fields = asdict(self)
        fields["streams"] = [[list(relation), stream] for relation, stream in self.streams.items()]
        fields["seeds"] = [[list(relation), asdict(seed)] for relation, seed in self.seeds.items()]
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> LiveModel:
        """The model that `to_json` wrote."""
        fields = json.loads(text)
        fields["streams"] = {tuple(relation): stream for relation, stream in fields["streams"]}
        fields["options"] = LiveOptions(**fields["options"])
        seeds = {}
        for relation, seed in fields["seeds"]:
            seed["column_types"] = tuple(tuple(pair) for pair in seed["column_types"])
            seeds[tuple(relation)] = Seed(**seed)
        return cls(**{**fields, "seeds": seeds})


def relation_of(table: exp.Table) -> Relation:
    """A table's name in the form by which sources are looked up."""
    return tuple(part.name.lower() for part in table.parts)


def read_manifest(path: Path) -> list[LiveModel]:
    """The live models of a dbt manifest, by name.

    Raises ConfigError when there is no manifest, when it is none, or when it holds no compiled SQL.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"there is no dbt manifest at {path}, so no live view is known; {HOW_TO_COMPILE}") from None
    except OSError as error:
        raise ConfigError(f"the dbt manifest {path} cannot be read ({error}); {HOW_TO_COMPILE}") from error
    return parse_manifest(content, str(path))


def parse_manifest(content: bytes, path: str = "that was sent") -> list[LiveModel]:
    """The live models of a dbt manifest's content, by name; raises ConfigError as `read_manifest` does."""
    manifest = _load(content, path)
    streams = _streams(manifest["sources"])
    seeds = _seeds(manifest["nodes"])
    nodes = [n for n in manifest["nodes"].values() if n.get("resource_type") == "model" and LIVE_TAG in _tags(n)]
    without = sorted(n["name"] for n in nodes if not n.get("compiled_code"))
    if without:
        raise ConfigError(
            f"the dbt manifest {path} holds no compiled SQL for {', '.join(without)}: dbt run and dbt build strip it, "
            f"dbt parse never writes it; {HOW_TO_COMPILE}"
        )
    return sorted((_model(node, streams, seeds) for node in nodes), key=lambda model: model.name)


def _load(content: bytes, path: str) -> dict[str, Any]:
    try:
        manifest = json.loads(content)
    except ValueError as error:
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
        relation = _relation(source)
        if relation is not None:
            streams[relation] = str(meta.get("stream") or source["name"])
    return streams


def _seeds(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Relation, Seed]]:
    """The seeds that live models depend on, with the relation that stands for each, by the node's id."""
    wanted = {
        needed
        for node in nodes.values()
        if node.get("resource_type") == "model" and LIVE_TAG in _tags(node)
        for needed in node.get("depends_on", {}).get("nodes", [])
    }
    seeds = {}
    for key, node in nodes.items():
        if key in wanted and node.get("resource_type") == "seed":
            relation = _relation(node)
            if relation is not None:
                seeds[key] = relation, Seed.of(node)
    return seeds


def _relation(node: Mapping[str, Any]) -> Relation | None:
    """How compiled SQL names a source or a seed; None when it is no plain name (a path, a function)."""
    try:
        table = sqlglot.parse_one(node["relation_name"], into=exp.Table, dialect="duckdb")
    except ParseError:
        return None
    return relation_of(table) if isinstance(table.this, exp.Identifier) else None


_RETAIN = re.compile(r"(\d{1,6})\s*(minute|hour|day)s?")
_SECONDS = {"minute": 60, "hour": 3600, "day": 86_400}


def _options(meta: Mapping[str, Any]) -> LiveOptions:
    asked = meta.get("live") or {}
    if not isinstance(asked, Mapping):
        return LiveOptions(problem=f"meta.live: expected options such as {{'retain': '90 days'}}, came {asked!r}")
    unknown = sorted(set(asked) - {"retain", "distinct_values_max"})
    if unknown:
        return LiveOptions(problem=f"meta.live has no option {unknown[0]}; it knows retain and distinct_values_max")
    retain = _RETAIN.fullmatch(str(asked.get("retain", "0 days")).strip().lower())
    if retain is None:
        return LiveOptions(problem=f"meta.live.retain: expected such as '90 days', came {asked['retain']!r}")
    limit = asked.get("distinct_values_max", DISTINCT_VALUES_MAX)
    if not isinstance(limit, int) or limit < 1:
        return LiveOptions(problem=f"meta.live.distinct_values_max: expected a number from 1 on, came {limit!r}")
    return LiveOptions(int(retain[1]) * _SECONDS[retain[2]], limit)


def _model(
    node: Mapping[str, Any], streams: Mapping[Relation, str], seeds: Mapping[str, tuple[Relation, Seed]]
) -> LiveModel:
    config = node.get("config", {})
    needed = node.get("depends_on", {}).get("nodes", [])
    return LiveModel(
        name=node.get("alias") or node["name"],
        path=node.get("original_file_path", node["name"]),
        sql=node["compiled_code"],
        raw_sql=node.get("raw_code", ""),
        materialized=config.get("materialized", "view"),
        incremental_strategy=config.get("incremental_strategy"),
        streams=streams,
        seeds=dict(seeds[key] for key in needed if key in seeds),
        options=_options({**node.get("meta", {}), **config.get("meta", {})}),
    )
