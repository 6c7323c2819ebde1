"""`tidemill init` and `new`: what they refuse, in one line, before anything is written."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tidemill.cli import main
from tidemill.cli.init import FILTERED

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Runs a command in an empty folder; gives exit code, stdout and stderr."""
    monkeypatch.delenv("TIDEMILL_PROJECT", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("init",), 2, "Missing argument 'DIR'"),
        (("init", "shop", "--stream", "Page Views"), 1, "such as page_views"),
        (("init", "shop", "--stream", "select"), 1, "is a word of SQL"),
        (("init", "shop", "--domain", "json"), 1, "choose another one with --domain"),
        (("init", "shop", "--stream", "alerts"), 1, "every project has a model alerts"),
        (("new", "stream", "payments"), 1, "no Tidemill project in"),
    ],
)
def test_what_cannot_be_is_refused(
    command: Command, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    got, out, err = command(*arguments)
    assert (got, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_somebodys(command: Command, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / ".git").mkdir()
    (tmp_path / "shop" / "README.md").write_text("mine")
    code, _, err = command("init", "shop")
    assert code == 1
    assert err == (
        "tidemill: shop is not empty (README.md): name a new folder, or add --force; no file that is there is changed\n"
    )
    assert content(tmp_path / "shop") == {"README.md": b"mine"}
    (tmp_path / "file").touch()
    assert "is a file" in command("init", "file")[2]


def test_a_repository_that_has_just_begun_is_empty(command: Command, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    code, out, err = command("init", ".")
    assert (code, err) == (0, "")
    assert "cd " not in out
    assert (tmp_path / "proto" / "payments" / "v1" / "payment.proto").is_file()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that no test changes."""
    shop = tmp_path_factory.mktemp("made") / "shop"
    assert main(("init", str(shop))) == 0
    return shop


def test_all_that_is_made_is_told(command: Command, tmp_path: Path, made: Path) -> None:
    code, out, err = command("init", "deep/shop", "--json")
    said = json.loads(out)
    assert (code, err, said["kept"]) == (0, "", [])
    assert said["project"] == str(tmp_path / "deep" / "shop")
    assert next(iter(said["next"])) == "cd deep/shop"
    assert sorted(said["made"]) == sorted(content(tmp_path / "deep" / "shop"))
    assert content(tmp_path / "deep" / "shop") == content(made), "the same everywhere"


def test_a_command_to_type_next_is_one_for_the_shell(command: Command) -> None:
    code, out, _ = command("init", "my shop's", "--json")
    first = next(iter(json.loads(out)["next"]))
    assert (code, shlex.split(first)) == (0, ["cd", "my shop's"])


class TestInAProject:
    @pytest.fixture(autouse=True)
    def project(self, command: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        del command
        shop = Path(shutil.copytree(made, tmp_path / "shop"))
        monkeypatch.chdir(shop / "proto")
        return shop

    def test_init_again_makes_only_what_is_missing(self, command: Command, project: Path) -> None:
        (project / "Makefile").write_text("mine")
        (project / "dags" / "daily.py").unlink()
        before = content(project)
        code, _, err = command("init", str(project))
        assert code == 1
        assert "is a Tidemill project already: `tidemill new` adds to it" in err
        assert content(project) == before
        code, out, _ = command("init", str(project), "--force", "--json")
        said = json.loads(out)
        assert (code, said["made"]) == (0, ["dags/daily.py"])
        assert "Makefile" in said["kept"]
        assert content(project) | {"dags/daily.py": b""} == before | {"dags/daily.py": b""}

    def test_a_stream_is_added_once(self, command: Command, project: Path) -> None:
        before = content(project)
        code, out, _ = command("new", "stream", "page_views", "--domain", "web_shop", "--json")
        said = json.loads(out)
        after = content(project)
        assert code == 0
        assert sorted(said["made"]) == sorted(after.keys() - before.keys())
        assert said["changed"] == [FILTERED]
        assert {path for path in before if before[path] != after[path]} == {FILTERED}
        assert after[FILTERED].startswith(before[FILTERED])
        assert "proto/web_shop/v1/page_view.proto" in after
        assert "web_shop/v1/page_view_pb2.py" in after
        assert "dbt_project/models/sources/page_views.yml" in after
        code, _, err = command("new", "stream", "page_views")
        assert (code, err) == (1, "tidemill: there is a stream page_views already: proto/web_shop/v1/page_view.proto\n")
        assert content(project) == after

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("view", "x", "--stream", "nowhere"), "there is no stream nowhere: --stream takes one of: payments"),
            (
                ("view", "x", "--stream", "payments", "--by", "colour"),
                "--by takes a column of payments: event_id, kind",
            ),
            (("view", "x", "--stream", "payments", "--by", "happened_at"), "--by takes a column"),
            (("view", "payments", "--stream", "payments"), "the warehouse has a payments already"),
            (("view", "payments_by_minute", "--stream", "payments"), "the warehouse has a payments_by_minute already"),
            (("stream", "stg_payments"), "the warehouse has a stg_payments already"),
            (("model", "refunds"), "which layer is refunds of?"),
            (
                ("model", "fct_refunds", "--from", "nowhere"),
                "there is no model nowhere; --from takes one of: alerts, ",
            ),
            (("model", "fct_daily_payments"), "the warehouse has a fct_daily_payments already"),
            (("suite", "x"), "what is it about?"),
            (("suite", "x", "--stream", "payments", "--model", "stg_payments"), "what is it about?"),
            (("suite", "x", "--model", "nowhere"), "there is no model nowhere; --model takes one of"),
            (("suite", "x", "--stream", "nowhere"), "there is no stream nowhere"),
            (("suite", "payments", "--stream", "payments"), "suites/payments.py is there already: choose another name"),
            (("suite", "X-y", "--stream", "payments"), "such as x_y"),
        ],
    )
    def test_what_cannot_be_added_is_refused(
        self, command: Command, project: Path, arguments: list[str], said: str
    ) -> None:
        before = content(project)
        code, out, err = command("new", *arguments)
        assert code in {1, 2}
        assert out == ""
        assert said in err
        assert err.count("\n") == 1
        assert content(project) == before

    def test_the_demo_is_of_another_project(self, command: Command, project: Path) -> None:
        code, _, err = command("demo")
        assert (code, err.count("\n")) == (1, 1)
        assert f"{project} has no stream order_lines: the demo is the retail project's own" in err

    def test_suites_are_what_the_day_loads(self, command: Command, project: Path) -> None:
        from quality.suite_files import load_suites

        assert command("new", "model", "int_payments")[0] == 0
        assert command("new", "model", "fct_payments")[0] == 0
        for name, about in (
            ("a", "--stream=payments"),
            ("b", "--model=int_payments"),
            ("fct_payments", "--model=fct_payments"),
        ):
            assert command("new", "suite", name, about)[0] == 0
        found = load_suites(project / "suites")
        assert [suite.name for suite in found.sources] == ["source_a", "source_payments"]
        assert [suite.name for suite in found.marts] == ["marts_b", "marts_fct_payments", "marts_fct_daily_payments"]
