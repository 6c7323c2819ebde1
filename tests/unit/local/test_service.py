"""The service as a process, with the repository's own models: served, explained."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tidemill.local.errors import ProcessFailed
from tidemill.local.folder import DataFolder, find_project
from tidemill.local.live_models import put_in_force
from tidemill.local.ports import free_port
from tidemill.local.service import SERVICE, is_serving, service_spec
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


def test_models_are_compiled_and_served(project: Path, tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    port = free_port()
    with Supervisor() as supervisor:
        put_in_force(project, folder, supervisor)
        assert not is_serving(port)
        supervisor.start(service_spec(project, folder, port))
        supervisor.wait_ready(SERVICE)
        assert is_serving(port)
    assert not is_serving(port)


def test_a_service_without_its_manifest_says_so(project: Path, tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    with Supervisor() as supervisor:
        supervisor.start(service_spec(project, folder, free_port()))
        with pytest.raises(ProcessFailed, match="--manifest: there is no file"):
            supervisor.wait_ready(SERVICE)
