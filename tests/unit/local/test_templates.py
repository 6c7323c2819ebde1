"""Templates: filled whole, never written over what is there, and of the shape that this repository's project has."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tidemill.cli.init import _files
from tidemill.local import templates
from tidemill.local.errors import ProjectFileThere
from tidemill.local.templates import fill, listed, rendered, shared_files, write_files

ROOT = Path(__file__).parents[3]
# What a project has and this repository has not: its first stream's own, and what says which Tidemill it wants.
OWN = {"requirements.txt", ".github/workflows/ci.yml"}


def test_every_placeholder_is_filled(tmp_path: Path) -> None:
    for path, text in _files(tmp_path / "shop", "payments", "bank").items():
        assert "[[ " not in text, path
        assert "__" not in Path(path).name.removesuffix(".py"), path
        assert text.endswith("\n"), path


def test_our_own_project_has_the_same_shape(tmp_path: Path) -> None:
    for path in _files(tmp_path / "shop", "payments", "bank").keys() - OWN:
        folder = Path(path).parent
        ours = ROOT / "proto" / "retail" / "v1" if folder == Path("proto/bank/v1") else ROOT / folder
        assert ours.is_dir(), path
        if folder.parts[:1] == ("tests",):
            continue  # ours are sorted by kind
        alike = {file.suffix for file in ours.iterdir() if file.is_file()}
        assert Path(path).suffix in alike, path
        if "payment" not in path:
            assert (ROOT / path).is_file(), path


def test_what_is_shared_is_in_the_wheel() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = wheel["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {name: f"tidemill/templates/shared/{name}" for name in templates._SHARED}
    shared = shared_files()
    assert shared["dbt_project/profiles.yml"] == (ROOT / "dbt_project" / "profiles.yml").read_text(encoding="utf-8")
    assert [name for name in templates._SHARED if not any(path.startswith(name) for path in shared)] == []


def test_no_template_is_taken_for_what_it_will_be() -> None:
    others = [file for file in templates._HERE.rglob("*") if file.is_file() and file.suffix != ".tmpl"]
    assert [file for file in others if file.relative_to(templates._HERE).parts[0] != "shared"] == []


def test_only_given_values_are_put_in() -> None:
    assert fill("[[ a ]] {{ a }} [[a]] [[[ a ]]] $a", {"a": "1"}) == "1 {{ a }} [[a]] [1] $a"
    with pytest.raises(KeyError):
        fill("[[ b ]]", {"a": "1"})


def test_a_path_is_filled_too() -> None:
    assert list(rendered("source_suite", {"name": "x", "subject": "y", "named": ""})) == ["suites/x.py"]


def test_nothing_is_written_where_something_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ProjectFileThere, match=r"^a, link are there already"):
        write_files(tmp_path, {"b": "2", "a": "1", "link": "3"})
    assert not (tmp_path / "b").exists()
    written = write_files(tmp_path, {"deep/b": "2", "a": "1", "link": "3"}, keep=True)
    assert (written.made, written.kept) == (("deep/b",), ("a", "link"))
    assert (tmp_path / "a").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_long_lists_are_cut() -> None:
    assert listed("abc") == "a, b, c"
    assert listed("abcde") == "a, b, c and 2 more"
