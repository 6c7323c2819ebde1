"""The live models as one run builds them: what the service's views are held against.

Kept in `runs/<run_id>/live_models.json`: a live manifest, compiled at the run's build, as the service takes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quality.config import DayConfig
from quality.errors import ModelFailed, RunWrong
from quality.files import write_atomically
from quality.run import Run
from tidemill.lake import identifier

if TYPE_CHECKING:
    from tidemill import ViewStatus


@dataclass(frozen=True)
class LiveModel:
    """A live model: its table in the work copy, attached as `work`, and what its rows depend on.

    by_day: dbt builds it by day, so that each of its windows lies in one UTC day. seeds: the text of each seed that it
    reads, by the seed's name; tables: their tables.
    """

    name: str
    table: str
    sql: str
    by_day: bool
    seeds: Mapping[str, str]
    tables: Mapping[str, str]

    def is_defined_as(self, view: ViewStatus, applied_seeds: Mapping[str, str]) -> bool:
        """Tell whether the service's view is of this very definition, but for its layout.

        applied_seeds: the seeds as the service has them; a seed that it is not known of is taken to be the same.
        """
        same_seeds = all(applied_seeds.get(seed, text) == text for seed, text in self.seeds.items())
        return same_seeds and (not view.sql or view.sql == self.sql or _normal(view.sql) == _normal(self.sql))


def keep_live_models(config: DayConfig, run: Run, manifest: Path) -> None:
    """Keep the live models of a manifest that dbt has just compiled; ModelFailed when one cannot be one."""
    from tidemill.local.errors import CompileFailed
    from tidemill.local.live_models import live_manifest

    log = config.run_folder(run.run_id) / "logs" / "dbt.log"
    try:
        content = live_manifest(json.loads(manifest.read_text(encoding="utf-8")), log)
    except CompileFailed as error:
        raise ModelFailed(str(error), [], str(log)) from error
    write_atomically(_file(config, run), json.dumps(content, ensure_ascii=False) + "\n")


def load_live_models(config: DayConfig, run: Run) -> dict[str, LiveModel]:
    """Give the live models of the run's build, by name; RunWrong when the run has not kept them."""
    try:
        nodes = json.loads(_file(config, run).read_text(encoding="utf-8"))["nodes"]
    except (OSError, ValueError, KeyError) as error:
        raise RunWrong(
            f"run {run.run_id}: expected its live models in {_file(config, run)} ({error!r}). Run build again"
        ) from error
    models = [_model(node, nodes) for node in nodes.values() if node["resource_type"] == "model"]
    return {model.name: model for model in models}


def applied_seeds(config: DayConfig) -> dict[str, str]:
    """Give the seeds' texts that a service of this data folder has, by name; none when it runs elsewhere."""
    return {name: node["tidemill_content"] for name, node in applied_seed_nodes(config).items()}


def applied_seed_nodes(config: DayConfig) -> dict[str, dict[str, Any]]:
    """Give the seeds' nodes in the manifest of a service of this data folder, by name; none when it runs elsewhere."""
    file = config.data / "live" / "manifest.json"
    try:
        nodes = json.loads(file.read_text(encoding="utf-8"))["nodes"].values()
    except (OSError, ValueError, KeyError):
        return {}
    return {node.get("alias") or node["name"]: node for node in nodes if "tidemill_content" in node}


def _file(config: DayConfig, run: Run) -> Path:
    return config.run_folder(run.run_id) / "live_models.json"


def _model(node: Mapping[str, Any], nodes: Mapping[str, Any]) -> LiveModel:
    read = [nodes[name] for name in node["depends_on"]["nodes"] if name in nodes]
    seeds = [each for each in read if each["resource_type"] == "seed"]
    return LiveModel(
        name=node.get("alias") or node["name"],
        table=_table(node),
        sql=node["compiled_code"],
        by_day=node["config"]["materialized"] == "incremental",
        seeds={seed.get("alias") or seed["name"]: seed["tidemill_content"] for seed in seeds},
        tables={seed.get("alias") or seed["name"]: _table(seed) for seed in seeds},
    )


def _table(node: Mapping[str, Any]) -> str:
    return f"work.{identifier(node['schema'])}.{identifier(node.get('alias') or node['name'])}"


def _normal(sql: str) -> str:
    """Give SQL apart from its layout, its comments and the database's name; what cannot be read stays as it is.

    DuckDB names a database by its file: who compiles into a file of another name has it in all relations' names.
    """
    import sqlglot

    try:
        tree = sqlglot.parse_one(sql, dialect="duckdb")
    except sqlglot.errors.SqlglotError:
        return sql.strip()
    for table in tree.find_all(sqlglot.exp.Table):
        table.set("catalog", None)
    return str(tree.sql(dialect="duckdb", comments=False))
