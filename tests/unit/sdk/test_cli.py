"""The command line without a service: help, exit codes, one line for every mistake."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import tidemill
from tidemill.cli import main

NOWHERE = ["--address", "{nowhere}"]


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address where surely nobody listens: the port is taken, and silent."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    path = tmp_path / "warehouse" / "warehouse.duckdb"
    path.parent.mkdir()
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "create table sales as select date '2011-12-05' as day, 57751.320::decimal(18,3) as revenue, null as note, "
            "timestamptz '2011-12-05 08:26:00+00' as at"
        )
    return tmp_path


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    commands = ("demo", "up", "serve", "status", "send", "simulate", "collect", "stream", "view", "quarantine", "sql")
    for command in commands:
        assert f"  {command} " in out
    assert "Exit codes" in out


@pytest.mark.parametrize(
    "command",
    [["send"], ["simulate"], ["collect", "host"], ["status"], ["stream", "list"], ["stream", "show"],
     ["view", "list"], ["view", "query"], ["quarantine", "list"], ["quarantine", "show"],
     ["quarantine", "replay"], ["sql"]],
)  # fmt: skip
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert tidemill.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["send"], 2, "Missing argument 'STREAM'"),
        (["send", "order_lines", "none.csv", *NOWHERE], 1, "no service answers at {nowhere} (connection refused)"),
        (["send", "order_lines", "a.csv", "--map", "x", *NOWHERE], 1, "expected FIELD=COLUMN"),
        (["status", *NOWHERE], 1, "start one with: tidemill serve --listen {nowhere}"),
        (["status", "--address", "localhost"], 1, "expected an address such as localhost:7433, came 'localhost'"),
        (["view", "query", "v", "--where", "nothing"], 2, "expected a condition such as country=France"),
        (["simulate", "--date", "2099-01-01"], 2, "--date must be before today"),
        (["simulate", "--date", "soon"], 2, "expected a date such as 2011-12-05, came 'soon'"),
        (["simulate", "--date", "yesterday", "--forever"], 2, "--forever has no end"),
        (["simulate", "--lines", "0"], 2, "'--lines'"),
        (["sql", "select 1", "--data", "nowhere"], 1, "no published warehouse at nowhere/warehouse/warehouse.duckdb"),
        (["sql", " "], 2, "there is no query"),
    ],
)
def test_a_mistake_is_one_line_and_a_code(
    arguments: list[str], code: int, said: str, nowhere: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.replace("{nowhere}", nowhere) for argument in arguments]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("tidemill: ")
    assert said.replace("{nowhere}", nowhere) in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_the_dates_are_told_as_far_as_they_are_known(
    tmp_path: Path, nowhere: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Path(__file__).resolve().parents[3]
    places = ["--data", str(tmp_path), "--project", str(project)]
    assert main(["day", "status", "--json", *places, "--address", nowhere]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tidemill: dates that are not published, and late rows, are not known now: ")
    assert captured.err.count("\n") == 1
    assert main(["day", "status", *places, "--address", "localhost"]) == 0
    assert "expected an address such as localhost:7433" in capsys.readouterr().err


def test_a_warehouse_that_cannot_be_read_is_told_in_a_line(
    tmp_path: Path, nowhere: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Path(__file__).resolve().parents[3]
    (tmp_path / "warehouse").mkdir()
    (tmp_path / "warehouse" / "warehouse.duckdb").write_bytes(b"no database" * 1000)
    places = ["--data", str(tmp_path), "--project", str(project), "--address", nowhere]
    assert main(["day", "status", *places]) == 1
    captured = capsys.readouterr()
    assert "not a valid DuckDB database file" in captured.err
    assert captured.err.count("\n") == 1


def test_the_upkeep_finds_the_projects_data_folder_from_anywhere_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for folder in ("proto", "dbt_project", "deep/below", ".tidemill/alerts"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "dbt_project" / "dbt_project.yml").write_text("name: small\n")
    old = tmp_path / ".tidemill" / "alerts" / "old.json"
    old.touch()
    os.utime(old, (0, 0))
    for name in ("TIDEMILL_DATA", "TIDEMILL_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path / "deep" / "below")
    # Nothing that lies there is taken for a module.
    Path("json.py").write_text("raise SystemExit('not me')")
    assert main(["data", "maintain", "alerts"]) == 0
    assert "alerts: 1 removed" in capfd.readouterr().out
    assert not old.exists()
    assert not Path(".tidemill").exists()


def test_sql_prints_a_table(warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "from sales", "--data", str(warehouse)]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["day", "revenue", "note", "at"]
    assert row.split() == ["2011-12-05", "57,751.320", "2011-12-05", "08:26:00Z"]


def test_sql_says_when_the_warehouse_was_published(warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with duckdb.connect(str(warehouse / "warehouse" / "warehouse.duckdb")) as connection:
        connection.execute(
            "create table tidemill_published as select unnest([timestamptz '2011-12-06 00:10:00+00', "
            "timestamptz '2011-12-07 01:10:02+01']) as published_at"
        )
    asked = ["sql", "select count(*) as n from sales", "--data", str(warehouse)]
    assert main(asked) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 rows, published 2011-12-07 00:10:02 UTC"
    assert main([*asked, "--json"]) == 0
    assert capsys.readouterr().out == '{"n": 1}\n'


def test_sql_prints_json_lines(warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "from sales", "--data", str(warehouse), "--json"]) == 0
    assert capsys.readouterr().out == (
        '{"day": "2011-12-05", "revenue": "57751.320", "note": null, "at": "2011-12-05T08:26:00+00:00"}\n'
    )


@pytest.mark.parametrize("query", ["select nothing from nowhere", "select", "insert into sales from sales"])
def test_sql_that_is_wrong_is_one_line(query: str, warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", query, "--data", str(warehouse)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_the_light_sdk_needs_only_grpc_and_protobuf() -> None:
    heavy = ["click", "duckdb", "numpy", "pandas", "pyarrow", "rich", "ingest_service", "dbt", "sqlglot"]
    code = (
        "import sys, tidemill; [getattr(tidemill, name) for name in tidemill.__all__]; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize(("library", "arguments"), [("click", "--help"), ("rich", "status"), ("duckdb", "sql 'x'")])
def test_a_missing_library_is_one_line(library: str, arguments: str) -> None:
    code = (
        f"import sys; sys.modules[{library!r}] = None\n"
        f"import shlex; from tidemill.cli import main; sys.exit(main(shlex.split({arguments!r})))"
    )
    done = run_python(code)
    assert done.returncode == 1
    assert done.stderr == f"tidemill: this needs {library}, which is not installed: pip install 'tidemill[cli]'\n"


def test_tables_without_pyarrow_say_what_to_install() -> None:
    done = run_python(
        "import sys; sys.modules['pyarrow'] = None\n"
        "from tidemill.client.table import import_pyarrow\n"
        "import tidemill\n"
        "try: import_pyarrow('send_table')\n"
        "except tidemill.MissingExtra as error: print(error)"
    )
    assert done.stdout == "send_table needs more than the light SDK: pip install 'tidemill[arrow]'\n"


def test_names_that_do_not_exist_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        tidemill.nothing  # noqa: B018
    assert set(dir(tidemill)) == set(tidemill.__all__)


def test_every_error_says_whether_a_retry_helps() -> None:
    retryable = {
        name
        for name in tidemill.__all__
        if isinstance(error := getattr(tidemill, name), type)
        and issubclass(error, tidemill.TidemillError)
        and error.retryable
    }
    assert retryable == {"SendBufferFull", "ServiceBusy", "ServiceUnavailable", "WaitTimeout"}
