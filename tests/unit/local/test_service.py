"""The service as a process, with the repository's own models: compiled when they changed, served, explained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tidemill.local.errors import CompileFailed, ProcessFailed
from tidemill.local.folder import DataFolder, find_project
from tidemill.local.ports import free_port
from tidemill.local.service import COMPILE, SERVICE, compile_models, is_serving, project_digest, service_spec
from tidemill.local.supervisor import Supervisor

pytest.importorskip("dbt")
PROJECT = find_project(start=Path(__file__).parent, environment={})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the repository's project, to be damaged."""
    copy = tmp_path / "project"
    for part in ("proto", "dbt_project"):
        shutil.copytree(PROJECT / part, copy / part, ignore=shutil.ignore_patterns("target", "logs", "dbt_packages"))
    return copy


def compiled(supervisor: Supervisor) -> bool:
    return COMPILE in [status.name for status in supervisor.status()]


def test_models_are_compiled_once_and_served(project: Path, tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    port = free_port()
    with Supervisor() as supervisor:
        compile_models(project, folder, supervisor)
        assert compiled(supervisor)
        assert not is_serving(port)
        supervisor.start(service_spec(project, folder, port))
        supervisor.wait_ready(SERVICE)
        assert is_serving(port)
    assert not is_serving(port)
    with Supervisor() as supervisor:
        assert compile_models(project, folder, supervisor) == folder.manifest
        assert not compiled(supervisor), "nothing has changed since"


def test_the_digest_follows_the_models_and_not_what_dbt_writes(project: Path) -> None:
    models = project / "dbt_project"
    before = project_digest(models)
    (models / "target").mkdir()
    (models / "target" / "manifest.json").write_text("{}")
    assert project_digest(models) == before
    model = models / "models" / "live" / "sales_by_minute.sql"
    model.write_text(model.read_text() + "\n")
    assert project_digest(models) != before


def test_a_model_that_does_not_compile_is_named(project: Path, tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    model = project / "dbt_project" / "models" / "live" / "sales_by_minute.sql"
    model.write_text("{{ config(tags=['live']) }} select * from {{ ref('nothing_of_that_name') }}")
    with Supervisor() as supervisor, pytest.raises(CompileFailed) as failed:
        compile_models(project, folder, supervisor)
    assert "sales_by_minute" in str(failed.value)
    assert "nothing_of_that_name" in str(failed.value)
    assert failed.value.log.exists()
    assert not folder.manifest.exists()


def test_a_service_without_its_manifest_says_so(project: Path, tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    with Supervisor() as supervisor:
        supervisor.start(service_spec(project, folder, free_port()))
        with pytest.raises(ProcessFailed, match="--manifest: there is no file"):
            supervisor.wait_ready(SERVICE)
