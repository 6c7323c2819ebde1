"""What is generated from proto/ is what is in the project, and it says so when it is not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ingest_service.contracts import Contract, load_contracts
from ingest_service.contracts.codegen import differences, generate, main
from ingest_service.contracts.dbt_sources import dbt_source


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Path:
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(repo / "proto", root / "proto")
    assert main(["--root", str(root)]) == 0
    return root


def test_the_project_is_up_to_date(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(repo), "--check"]) == 0, capsys.readouterr().out


def test_generating_again_gives_the_same(repo: Path) -> None:
    assert generate(repo / "proto") == generate(repo / "proto")


def test_check_names_what_differs_and_writing_mends_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stub, source = project / "retail/v1/order_line_pb2.py", project / "dbt_project/models/sources/order_lines.yml"
    stub.write_text("edited", encoding="utf-8")
    stale = source.with_name("gone.yml")
    source.rename(stale)
    (project / "retail/v1/gone_pb2.pyi").touch()
    (project / "retail/v1/own.py").touch()
    assert main(["--root", str(project), "--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "dbt_project/models/sources/gone.yml: no longer generated from proto/",
        "dbt_project/models/sources/order_lines.yml: missing",
        "retail/v1/gone_pb2.pyi: no longer generated from proto/",
        "retail/v1/order_line_pb2.py: differs from what proto/ gives",
        "What is generated from proto/ is out of date: run `make proto` and commit what it changes.",
    ]
    assert main(["--root", str(project)]) == 0
    assert main(["--root", str(project), "--check"]) == 0
    assert not stale.exists()
    assert (project / "retail/v1/own.py").exists()


def test_what_others_made_stays(project: Path) -> None:
    """A package may hold more than our stubs: its own __init__, and stubs made from elsewhere."""
    init, other = project / "retail/__init__.py", project / "retail/vendor/bank_pb2.py"
    before = init.read_text(encoding="utf-8")
    init.write_text('"""Ours."""\n', encoding="utf-8")
    other.parent.mkdir()
    other.write_text("# source: bank.proto\n", encoding="utf-8")
    stale = project / "retail/v0/order_line_pb2.py"
    stale.parent.mkdir()
    stale.write_text("# source: retail/v0/order_line.proto\n", encoding="utf-8")
    assert differences(project, generate(project / "proto")) == {
        "retail/v0/order_line_pb2.py": "no longer generated from proto/"
    }
    assert main(["--root", str(project)]) == 0
    assert init.read_text(encoding="utf-8") == '"""Ours."""\n'
    assert other.exists()
    assert not stale.exists()
    init.write_text(before, encoding="utf-8")


def test_a_program_is_told_what_changed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "retail/v1/order_line_pb2.pyi").unlink()
    assert main(["--root", str(project), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["changes"] == {"retail/v1/order_line_pb2.pyi": "missing"}
    assert main(["--root", str(project / "retail"), "--json"]) == 1
    assert "proto" in json.loads(capsys.readouterr().out)["problem"]


def test_a_wrong_contract_stops_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "proto").mkdir()
    (tmp_path / "proto" / "bad.proto").write_text('syntax = "proto3"; message A { strin b = 1; }', encoding="utf-8")
    assert main(["--root", str(tmp_path)]) == 1
    assert 'Nothing was generated: bad.proto:1:32: "strin" is not defined.' in capsys.readouterr().out
    assert main(["--root", str(tmp_path / "nowhere"), "--check"]) == 1


def test_event_stubs_need_protobuf_alone(project: Path) -> None:
    """A light client has no protovalidate: neither its file nor Tidemill's options may be asked for."""
    program = """
import sys, datetime
from retail.v1 import order_line_pb2
line = order_line_pb2.OrderLine(event_id="r1", invoiced_at=datetime.datetime(2011, 12, 5, tzinfo=datetime.timezone.utc))
assert order_line_pb2.OrderLine.FromString(line.SerializeToString()) == line and not line.HasField("customer_id")
print(sorted(name for name in sys.modules if name.split(".")[0] in ("buf", "protovalidate", "tidemill", "pyarrow")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=project, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_dbt_source_says_what_the_contract_says(contract: Contract) -> None:
    document = yaml.safe_load(dbt_source(contract))
    (source,) = document["sources"]
    (table,) = source["tables"]
    assert (source["name"], table["name"]) == ("events", "order_lines")
    assert table["config"] == {
        "event_time": "invoiced_at",
        "loaded_at_field": "_append_time",
        "meta": {"plugin": "lake", "stream": "order_lines", "contract_version": 1},
    }
    types = {column["name"]: column["data_type"] for column in table["columns"]}
    assert list(types)[:9] == contract.schema.names
    assert list(types)[9:] == ["_partition", "_offset", "_append_time", "event_date"]
    assert types["unit_price"] == "DECIMAL(12,3)"
    assert types["invoiced_at"] == types["_append_time"] == "TIMESTAMP WITH TIME ZONE"
    assert all(column["description"] for column in table["columns"])
    rules = {column["name"]: column.get("config", {}).get("meta", {}).get("rules") for column in table["columns"]}
    assert rules["event_id"] == {"not_null": True, "min_len": 1, "max_len": 64, "unique": True}
    assert rules["quantity"] == {"not_null": True, "gte": -1_000_000, "lte": 1_000_000, "not_in": [0]}
    assert rules["description"] == {"max_len": 200}
    assert rules["_offset"] is None


def test_no_comment_breaks_a_dbt_source(write_protos: Callable[..., Path], proto_text: Callable[..., str]) -> None:
    text = """// It's "quoted": {{ jinja }} # and %more
    //   - over \\ two lines
    message T { option (tidemill.v1.stream) = { name: "t" event_time: "at" }; google.protobuf.Timestamp at = 1; }"""
    contract = load_contracts(write_protos(t=proto_text(text))).contracts["t"]
    table = yaml.safe_load(dbt_source(contract))["sources"][0]["tables"][0]
    assert table["description"] == r"""It's "quoted": {{ jinja }} # and %more - over \ two lines"""
    assert table["columns"][0]["description"] == "at of the event; the contract has no comment on it."
