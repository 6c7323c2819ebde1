"""A project of one's own, from the installed package alone: made, tested, added to, kept by an upgrade.

Tidemill is installed here from a wheel into an environment that knows this repository's libraries, and not the
repository: what init makes must need none of its files. Where no wheel can be built (its builder is not at hand without
network), the same is done by this interpreter, whose install is this repository.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "own-project.md"
BUILT_FROM = ("tidemill", "ingest_service", "quality", "orchestration", "dbt_project", "suites", "dags")
COMMAND_S = 600
# What running makes. Everything else is the project's.
MADE_BY_RUNNING = {".tidemill", "__pycache__", ".pytest_cache", "logs", "target"}


@dataclass
class Installed:
    """A Python that has Tidemill; `wheel` is what it was installed from, or None."""

    python: Path
    folder: Path
    wheel: Path | None

    def run(self, command: str, cwd: Path) -> str:
        """Run a command line as a user of this environment would; gives what it said on stdout."""
        words = shlex.split(command)
        if words[0] == "make":
            words.append(f"PYTHON={self.python}")
        elif words[0] == "tidemill":
            words[:1] = [str(self.python), "-m", "tidemill"]
        dropped = ("TIDEMILL_", "DBT_", "PYTHON", "AIRFLOW", "VIRTUAL_ENV", "MAKE")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        # Whatever asked for the network would fail here.
        environment |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "PIP_NO_INDEX": "1"}
        environment |= {"no_proxy": "127.0.0.1,localhost"}
        done = subprocess.run(
            words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
        return done.stdout


def build_wheel(source: Path, out: Path) -> Path | None:
    """The source's wheel; None where its builder is not at hand."""
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "build", "--wheel", "--offline", "--quiet", "--out-dir", str(out), str(source)]
    done = (
        subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False) if uv.exists() else None
    )
    if done is not None and done.returncode:
        assert "hatchling" in done.stderr, done.stderr
    return next(out.glob("*.whl")) if done is not None and done.returncode == 0 else None


def make_environment(folder: Path, wheel: Path) -> Path:
    """An environment with the wheel, and the libraries of this interpreter's; gives its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    install(site, wheel)
    # A path in a .pth file is one more folder to import from; .pth files in there, such as ours, are not read.
    (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return folder / "bin" / "python"


def install(site: Path, wheel: Path) -> None:
    """Put a wheel's files into place, instead of those of the one before."""
    for old in (*(site / name for name in BUILT_FROM), *site.glob("tidemill-*.dist-info")):
        shutil.rmtree(old, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    wheel = build_wheel(ROOT, folder / "dist")
    python = Path(sys.executable) if wheel is None else make_environment(folder / "environment", wheel)
    return Installed(python, folder, wheel)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the document's commands begin in."""
    return tmp_path_factory.mktemp("work")


def commands(heading: str) -> Iterator[str]:
    """The commands of the document's first `sh` block below a heading."""
    text = DOCUMENT.read_text(encoding="utf-8").partition(heading)[2]
    found = re.search(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return iter(found[1].splitlines())


def content(project: Path) -> dict[str, str]:
    """Digests of the project's files, but for what running makes."""
    return {
        str(file.relative_to(project)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(project.rglob("*"))
        if file.is_file() and not MADE_BY_RUNNING.intersection(file.relative_to(project).parts)
    }


def test_the_environment_does_not_know_the_repository(installed: Installed, work: Path) -> None:
    if installed.wheel is None:
        pytest.skip("no wheel can be built without network here")
    program = "import sys, tidemill, quality, orchestration; print(tidemill.__file__, *sys.path, sep='\\n')"
    file, *paths = installed.run(f"{installed.python} -c {shlex.quote(program)}", work).splitlines()
    assert Path(file).is_relative_to(installed.folder)
    assert str(ROOT) not in paths


def test_init_then_its_own_tests(installed: Installed, work: Path) -> None:
    project = work / "shop"
    for command in commands("# A project of your own"):
        if command.startswith("cd "):
            assert work / command.removeprefix("cd ") == project
            continue
        said = installed.run(command, project if project.exists() else work)
    assert re.search(r"^\d+ passed in ", said, re.MULTILINE), said
    assert "skipped" not in said
    installed.run("make check", project)


def test_a_second_stream_and_view(installed: Installed, work: Path) -> None:
    project = work / "shop"
    before = content(project)
    for command in commands("## Add to it"):
        said = installed.run(command, project)
    assert re.search(r"^\d+ passed in ", said, re.MULTILINE), said
    after = content(project)
    changed = [path for path in before if before[path] != after.get(path)]
    assert changed == ["dbt_project/models/staging/staging_filtered.sql"]
    assert {"proto/page_views/v1/page_view.proto", "dbt_project/models/live/page_views_by_hour.sql"} <= after.keys()


def test_nothing_in_it_is_this_repositorys(work: Path) -> None:
    # Words in a unit test's rows are no matter; what is read and imported is.
    names = "order_lines|web_requests|readings"
    foreign = re.compile(rf"retail|sensors|'events', '({names})'|stg_({names})|{re.escape(str(ROOT))}")
    for path in content(work / "shop"):
        found = foreign.search((work / "shop" / path).read_text(encoding="utf-8"))
        assert found is None, (path, found)


def test_this_repositorys_project_is_added_to_the_same_way(installed: Installed, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "target", "logs")
    for name in ("proto", "dbt_project", "suites"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    installed.run("tidemill contract generate", tmp_path)
    before = content(tmp_path)
    for command in ("stream parcels --domain post", "view parcels_by_day --stream parcels --window day --by kind",
                    "model fct_daily_parcels --from stg_parcels", "suite parcels --stream parcels"):  # fmt: skip
        installed.run(f"tidemill new {command}", tmp_path)
    assert {path for path, digest in before.items() if content(tmp_path)[path] != digest} == {
        "dbt_project/models/staging/staging_filtered.sql"
    }
    installed.run("tidemill contract generate --check", tmp_path)
    assert "fine    parcels_by_day: one row a window_start, kind" in installed.run("tidemill view check", tmp_path)


def test_an_upgrade_changes_none_of_its_files(installed: Installed, work: Path) -> None:
    if installed.wheel is None:
        pytest.skip("no wheel can be built without network here")
    project, before = work / "shop", content(work / "shop")
    newer = installed.folder / "newer"
    ignored = shutil.ignore_patterns("__pycache__", "target", "logs")
    for name in BUILT_FROM:
        shutil.copytree(ROOT / name, newer / name, ignore=ignored)
    for name in ("README.md", "LICENSE", ".sqlfluff"):
        shutil.copyfile(ROOT / name, newer / name)
    for name in ("pyproject.toml", "tidemill/__init__.py"):
        text = (ROOT / name).read_text(encoding="utf-8")
        text, times = re.subn(r'^((?:__)?version(?:__)?) = ".*"$', r'\1 = "99.0.0"', text, flags=re.MULTILINE)
        (newer / name).write_text(text, encoding="utf-8")
        assert times == 1
    # What a newer init makes is not what this one made.
    for template in (newer / "tidemill" / "templates").rglob("*.tmpl"):
        template.write_text(template.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    wheel = build_wheel(newer, installed.folder / "newer-dist")
    assert wheel is not None
    site = next((installed.folder / "environment").glob("lib/python*/site-packages"))
    install(site, wheel)
    assert "99.0.0" in installed.run("tidemill --version", project)
    installed.run("make check", project)
    installed.run("make test ARGS=tests/test_page_views.py", project)
    installed.run("tidemill init . --force", project)
    assert content(project) == before
