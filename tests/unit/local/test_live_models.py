"""The live manifest: compiled with dbt when the project changed, cut down, the same on every machine."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tidemill.errors import MissingExtra
from tidemill.local import live_models
from tidemill.local.errors import CompileFailed, FolderBusy
from tidemill.local.folder import DataFolder, find_project
from tidemill.local.live_models import COMPILE, compile_models, live_manifest, project_digest, put_in_force
from tidemill.local.supervisor import Supervisor

pytest.importorskip("dbt")
PROJECT = find_project(start=Path(__file__).parent, environment={})
SEED = 'country,tariff,since,vat,note\r\nFrance,0.200,2011-01-01,true,\r\n,0.1,,false,"a, ""b"""\r\n'
TYPES = {"country": "varchar", "tariff": "decimal(6,3)", "since": "date", "vat": "boolean", "note": "varchar"}
SEED_YML = """
seeds:
  - name: tariffs
    config:
      column_types: {country: varchar, tariff: "decimal(6,3)", since: date, vat: boolean, note: varchar}
"""
BY_TARIFF = """{{ config(materialized='table', tags=['live']) }}
select t.tariff, count(*) as lines
from {{ source('events', 'order_lines') }} as o
left join {{ ref('known_tariffs') }} as t on t.country = o.country
group by all
"""


def cut_out_project(folder: Path) -> Path:
    """A project of one live model, cut out of the repository's."""
    models = folder / "dbt_project"
    (folder / "proto").mkdir(parents=True)
    for file in (
        "dbt_project.yml", "profiles.yml", "models/sources/order_lines.yml", "models/live/sales_by_minute.sql",
        "models/staging/stg_order_lines.sql",
    ):  # fmt: skip
        (models / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / "dbt_project" / file, models / file)
    shutil.copytree(PROJECT / "dbt_project" / "macros", models / "macros")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project to be changed."""
    return cut_out_project(tmp_path / "project")


@dataclass(frozen=True)
class Compiled:
    """A project with a live model that reads a seed through an ephemeral model, and what came of compiling it."""

    project: Path
    folder: DataFolder
    manifest: dict[str, Any]


@pytest.fixture(scope="module")
def with_seed(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    place = tmp_path_factory.mktemp("with_seed")
    models = cut_out_project(place / "project") / "dbt_project"
    (models / "seeds").mkdir()
    (models / "seeds" / "tariffs.csv").write_bytes(SEED.encode())
    (models / "seeds" / "unused.csv").write_text("a\n1\n")
    (models / "seeds" / "tariffs.yml").write_text(SEED_YML)
    (models / "models" / "staging" / "known_tariffs.sql").write_text(
        "{{ config(materialized='ephemeral') }} select * from {{ ref('tariffs') }} where tariff is not null"
    )
    (models / "models" / "live" / "by_tariff.sql").write_text(BY_TARIFF)
    folder = DataFolder(place / "data")
    return Compiled(models.parent, folder, read(compile_models(models.parent, folder)))


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor() as supervisor:
        yield supervisor


def compiles(supervisor: Supervisor) -> int:
    return [status.name for status in supervisor.status()].count(COMPILE)


def read(path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return manifest


def test_models_are_compiled_once(project: Path, tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    with Supervisor() as supervisor:
        first = compile_models(project, folder, supervisor)
        assert compiles(supervisor)
        assert not folder.manifest.exists(), "only `up` and `apply` put models in force"
    with Supervisor() as supervisor:
        assert compile_models(project, folder, supervisor) == first
        assert put_in_force(project, folder, supervisor) == folder.manifest
        assert not compiles(supervisor), "nothing has changed since"
    assert folder.manifest.read_bytes() == first.read_bytes()


def test_the_digest_follows_the_models_and_not_what_dbt_writes(project: Path) -> None:
    models = project / "dbt_project"
    before = project_digest(models)
    (models / "target").mkdir()
    (models / "target" / "manifest.json").write_text("{}")
    assert project_digest(models) == before
    model = models / "models" / "live" / "sales_by_minute.sql"
    model.write_text(model.read_text() + "\n")
    assert project_digest(models) != before


def test_it_holds_live_models_their_seeds_and_the_sources(with_seed: Compiled) -> None:
    manifest = with_seed.manifest
    kinds = {node["name"]: node["resource_type"] for node in manifest["nodes"].values()}
    assert kinds == {"by_tariff": "model", "sales_by_minute": "model", "tariffs": "seed"}, "only what live models read"
    seed = manifest["nodes"]["seed.tidemill_retail.tariffs"]
    assert seed["tidemill_content"] == SEED
    assert seed["config"]["column_types"] == TYPES
    by_tariff = manifest["nodes"]["model.tidemill_retail.by_tariff"]
    assert seed["relation_name"] in by_tariff["compiled_code"]
    assert by_tariff["config"]["materialized"] == "table"
    sources = {source["name"]: source["relation_name"] for source in manifest["sources"].values()}
    assert sources["order_lines"] in by_tariff["compiled_code"]


def test_it_is_the_same_on_every_machine_and_follows_its_seeds(with_seed: Compiled, tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "project", DataFolder(tmp_path / "data")
    shutil.copytree(with_seed.project, elsewhere)
    there = compile_models(elsewhere, folder).read_text(encoding="utf-8")
    here = (with_seed.folder.compile / "manifest.json").read_text(encoding="utf-8")
    assert there == here
    assert str(tmp_path) not in there
    (elsewhere / "dbt_project" / "seeds" / "tariffs.csv").write_bytes(SEED.replace("0.200", "0.250").encode())
    changed = read(compile_models(elsewhere, folder))
    assert "0.250" in changed["nodes"]["seed.tidemill_retail.tariffs"]["tidemill_content"]


def test_a_seeds_content_loads_as_dbt_loads_the_file(with_seed: Compiled, tmp_path: Path) -> None:
    """The promise on which joins to seeds rest: types and rows are those of the table that dbt makes."""
    seed = with_seed.manifest["nodes"]["seed.tidemill_retail.tariffs"]
    (tmp_path / "from_manifest.csv").write_bytes(seed["tidemill_content"].encode())
    header = next(csv.reader(io.StringIO(seed["tidemill_content"], newline="")))
    columns = ", ".join(f'"{name}" {seed["config"]["column_types"][name]}' for name in header)
    warehouse = tmp_path / "warehouse.duckdb"
    places = ["--target-path", str(tmp_path / "target"), "--log-path", str(tmp_path / "logs")]
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from dbt.cli.main import cli; cli()", "seed", "--select", "tariffs", *places],
        cwd=with_seed.project / "dbt_project",
        env={**os.environ, "TIDEMILL_DATA": str(with_seed.folder.root), "TIDEMILL_WAREHOUSE": str(warehouse)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    with duckdb.connect() as ours:
        ours.execute(f"create table tariffs ({columns})")
        ours.execute(f"copy tariffs from '{tmp_path}/from_manifest.csv' (format csv, header true, delimiter ',')")
        ours.execute(f"attach '{warehouse}' as theirs (read_only)")
        described = [ours.sql(f"describe {table}").fetchall() for table in ("tariffs", "theirs.main.tariffs")]
        rows = [ours.sql(f"from {table}").fetchall() for table in ("tariffs", "theirs.main.tariffs")]
    assert described[0] == described[1]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2


def test_a_model_that_does_not_compile_is_named_and_leaves_the_last_manifest(
    project: Path, tmp_path: Path, supervisor: Supervisor
) -> None:
    folder = DataFolder(tmp_path / "data")
    before = compile_models(project, folder).read_bytes()
    model = project / "dbt_project" / "models" / "live" / "sales_by_minute.sql"
    written = model.read_text()
    model.write_text("{{ config(tags=['live']) }} select * from {{ ref('nothing_of_that_name') }}")
    with pytest.raises(CompileFailed) as failed:
        put_in_force(project, folder, supervisor)
    assert "sales_by_minute" in str(failed.value)
    assert "nothing_of_that_name" in str(failed.value)
    assert failed.value.log.exists()
    assert not folder.manifest.exists()
    model.write_text(written)
    assert compile_models(project, folder).read_bytes() == before


def node(name: str, kind: str, **values: Any) -> dict[str, Any]:
    return {"name": name, "resource_type": kind, "original_file_path": f"seeds/{name}.csv", **values}


def manifest_with_seed(root: Path) -> dict[str, Any]:
    return {
        "nodes": {
            "model.p.a": node("a", "model", tags=["live"], depends_on={"nodes": ["seed.p.s"]}),
            "seed.p.s": node("s", "seed", root_path=str(root)),
        }
    }


def test_a_seed_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "s.csv").write_bytes("name\nJosé\n".encode("latin-1"))
    with pytest.raises(CompileFailed, match=r"the seed s, .*s\.csv.* is not UTF-8 \(byte 8\)"):
        live_manifest(manifest_with_seed(tmp_path), tmp_path / "log")


def test_a_seed_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "seeds").mkdir()
    monkeypatch.setattr(live_models, "SEED_BYTES_MAX", 8)
    (tmp_path / "seeds" / "s.csv").write_text("a\n1\n2\n3\n")
    live_manifest(manifest_with_seed(tmp_path), tmp_path / "log")
    (tmp_path / "seeds" / "s.csv").write_text("a\n1\n2\n34\n")
    with pytest.raises(CompileFailed, match="has 9 bytes, more than 8"):
        live_manifest(manifest_with_seed(tmp_path), tmp_path / "log")


def test_a_seed_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompileFailed, match=r"the seed s, .* cannot be read: .*No such file"):
        live_manifest(manifest_with_seed(tmp_path), tmp_path / "log")


def test_without_dbt_it_says_what_to_install(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise live_models.importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(live_models.importlib.metadata, "version", missing)
    with pytest.raises(MissingExtra, match=r"tidemill\[batch\]"):
        compile_models(project, DataFolder(tmp_path / "data"))


def test_compiles_of_one_folder_take_turns(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = DataFolder(tmp_path / "data")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(compile_models(project, folder))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    log = folder.log(COMPILE).read_text(encoding="utf-8")
    assert log.count("Running with dbt") == 1, "the second finds what the first compiled"
    monkeypatch.setattr(live_models, "COMPILE_WAIT_S", 0.0)
    (folder.compile / "manifest.sha256").unlink()
    with live_models._one_at_a_time(folder), pytest.raises(FolderBusy, match="another dbt compile"):
        compile_models(project, folder)
