"""The data folder and the project: where they are, and that one stack at a time holds a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tidemill.local.errors import FolderBusy, ProjectMissing
from tidemill.local.folder import DataFolder, find_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("proto", "dbt_project"):
        (tmp_path / "shop" / name).mkdir(parents=True)
    return tmp_path / "shop"


def test_the_project_is_found_from_within(project: Path) -> None:
    deep = project / "dbt_project" / "models"
    deep.mkdir()
    assert find_project(environment={}, start=deep) == project


def test_a_named_project_goes_before_the_current_folder(project: Path, tmp_path: Path) -> None:
    assert find_project(environment={"TIDEMILL_PROJECT": str(project)}, start=tmp_path) == project
    assert find_project(project, environment={"TIDEMILL_PROJECT": "/nowhere"}, start=tmp_path) == project


def test_no_project_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ProjectMissing, match=r"no Tidemill project in .* --project or TIDEMILL_PROJECT"):
        find_project(environment={}, start=tmp_path)
    with pytest.raises(ProjectMissing, match="is no Tidemill project"):
        find_project(tmp_path, environment={})


def test_the_data_folder_by_option_environment_and_default(project: Path, tmp_path: Path) -> None:
    environment = {"TIDEMILL_DATA": str(tmp_path / "named")}
    assert DataFolder.at(tmp_path / "given", project, environment).root == tmp_path / "given"
    assert DataFolder.at(None, project, environment).root == tmp_path / "named"
    assert DataFolder.at(None, project, {}).root == project / ".tidemill"
    assert not (project / ".tidemill").exists(), "naming a folder makes nothing"


def test_a_relative_folder_becomes_absolute(project: Path) -> None:
    assert DataFolder.at("data", project, {}).root == Path.cwd() / "data"


def test_a_second_stack_is_refused_and_told_who_has_the_folder(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    with folder.locked(), pytest.raises(FolderBusy, match=f"process {os.getpid()}"), folder.locked(wait_s=0):
        pass
    with folder.locked(wait_s=0):
        pass


def test_whoever_got_the_descriptor_holds_the_folder_on(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    with folder.locked() as descriptor:
        heir = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(descriptor,)
        )  # fmt: skip
    with pytest.raises(FolderBusy), folder.locked(wait_s=0):
        pass
    heir.communicate(b"\n")
    with folder.locked(wait_s=0):
        pass
