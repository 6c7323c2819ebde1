"""With which contract a stream starts, what is kept of it, and what an earlier revision says."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest_service.contracts import ContractStore, LoadedContracts, check, load_contracts, standings
from ingest_service.errors import ContractError, IncompatibleContract, StorageError
from ingest_service.log.files import OsFiles

Text = Callable[..., str]
Write = Callable[..., Path]

THINGS = """
// A thing.
message Thing {
  option (tidemill.v1.stream) = { name: "things" event_time: "at" version: %d };
  google.protobuf.Timestamp at = 1;
  // How many.
  int64 n = 2 [(buf.validate.field).int64.lt = %d];
  %s
}
"""


@pytest.fixture
def offer(write_protos: Write, proto_text: Text) -> Callable[..., LoadedContracts]:
    """The folder with one contract of a version, whose `n` is below `limit`; `more` fields in it."""

    def load(version: int = 1, limit: int = 100, more: str = "") -> LoadedContracts:
        return load_contracts(write_protos(things=proto_text(THINGS % (version, limit, more))))

    return load


@pytest.fixture
def store(tmp_path: Path) -> ContractStore:
    return ContractStore(tmp_path / "contracts")


def test_the_first_contract_is_taken_and_kept_with_its_comments(offer: Any, store: ContractStore) -> None:
    assert store.streams() == []
    assert store.in_force("things") is None
    standing = standings(offer(), store)["things"]
    assert standing.refusal is None
    assert standing.contract is not None
    store.keep(standing.contract)
    assert (store.streams(), store.versions("things")) == (["things"], [1])
    kept = store.in_force("things")
    assert kept is not None
    assert (kept.doc, kept.columns[1].doc, kept.content_hash) == (
        "A thing.",
        "How many.",
        standing.contract.content_hash,
    )
    assert kept == standing.contract


@pytest.fixture
def in_force(offer: Any, store: ContractStore) -> ContractStore:
    """Versions 1 and 3 were accepted; 3 is in force."""
    for version, limit in ((1, 100), (3, 200)):
        store.keep(offer(version, limit).contracts["things"])
    return store


def test_the_same_contract_goes_on(offer: Any, in_force: ContractStore) -> None:
    standing = standings(offer(3, 200), in_force)["things"]
    assert standing.refusal is None
    assert standing.contract == in_force.in_force("things")


def test_a_compatible_change_is_taken(offer: Any, in_force: ContractStore, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        standing = standings(offer(4, 300), in_force)["things"]
    assert standing.refusal is None
    assert standing.contract is not None
    assert standing.contract.version == 4
    assert "n: rule int64.range: lt 200 → lt 300, which is looser; version 3 → 4" in caplog.text
    # It is in force once the log has taken it.
    assert in_force.versions("things") == [1, 3]


@pytest.mark.parametrize(("version", "limit"), [(4, 150), (3, 300), (2, 300), (1, 200)])
def test_an_incompatible_change_stops_the_stream(offer: Any, in_force: ContractStore, version: int, limit: int) -> None:
    """A tighter rule; a version not counted up; one that was never in force; one that was, with other rules."""
    standing = standings(offer(version, limit), in_force)["things"]
    assert isinstance(standing.refusal, IncompatibleContract)
    assert standing.contract == in_force.in_force("things")
    assert len(standing.refusal.changes) == 1


def test_a_folder_that_is_behind_changes_nothing(
    offer: Any, in_force: ContractStore, caplog: pytest.LogCaptureFixture
) -> None:
    standing = standings(offer(1, 100), in_force)["things"]
    assert standing.refusal is None
    assert standing.contract == in_force.in_force("things")
    assert "version 3 is in force and stays" in caplog.text


def test_a_stream_without_a_file_goes_on(in_force: ContractStore) -> None:
    standing = standings(LoadedContracts({}, ()), in_force)["things"]
    assert (standing.refusal, standing.contract) == (None, in_force.in_force("things"))


@pytest.mark.parametrize("more", ["strin s = 3;", "string event_date = 3;"], ids=["does not compile", "is no contract"])
@pytest.mark.parametrize("known", [True, False])
def test_a_wrong_file_stops_its_stream(offer: Any, store: ContractStore, more: str, known: bool) -> None:
    if known:
        store.keep(offer().contracts["things"])
    found = standings(offer(2, 100, more), store)
    if more.startswith("strin ") and not known:
        # Nobody can tell which stream it would have been.
        assert found == {}
        return
    assert found["things"].contract == store.in_force("things")
    assert isinstance(found["things"].refusal, ContractError)
    assert str(found["things"].refusal).startswith("things.proto:")


def test_a_wrong_contract_spares_the_others_of_its_file(
    write_protos: Write, proto_text: Text, store: ContractStore
) -> None:
    def both(wrong: str) -> LoadedContracts:
        other = THINGS.replace("things", "others").replace("Thing ", "Other ")
        return load_contracts(write_protos(things=proto_text(THINGS % (1, 5, wrong) + other % (1, 5, ""))))

    for standing in standings(both(""), store).values():
        assert standing.contract is not None
        store.keep(standing.contract)
    found = standings(both("string event_date = 3;"), store)
    assert [(stream, each.refusal is None) for stream, each in found.items()] == [("others", True), ("things", False)]


def test_a_version_is_written_once(offer: Any, in_force: ContractStore, tmp_path: Path) -> None:
    file = tmp_path / "contracts" / "things" / "3.binpb"
    before = file.read_bytes()
    in_force.keep(offer(3, 250).contracts["things"])
    assert file.read_bytes() == before


def test_a_contract_that_can_not_be_kept_says_so(offer: Any, tmp_path: Path) -> None:
    class Full(OsFiles):
        def replace(self, path: Path, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left on device; the one before stays in force"):
        ContractStore(tmp_path / "contracts", Full()).keep(offer().contracts["things"])


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"\x0a\x00"])
def test_a_damaged_contract_stops_its_stream(
    offer: Any, in_force: ContractStore, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "contracts" / "things" / "3.binpb").write_bytes(content)
    standing = standings(offer(3, 200), in_force)["things"]
    assert standing.contract is None
    assert "3.binpb, the contract in force," in str(standing.refusal)
    assert "Restore it from a backup" in str(standing.refusal)


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def test_a_check_against_a_revision(
    offer: Any, proto_text: Text, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(revision: str) -> tuple[int, list[dict[str, Any]]]:
        code = check.main(["--proto", str(tmp_path / "proto"), "--against", revision])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    (tmp_path / "notes.txt").write_text("before there were contracts")
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "zero")
    offer()
    other = proto_text(THINGS % (1, 5, "")).replace("things", "others").replace("Thing ", "Other ")
    (tmp_path / "proto" / "others.proto").write_text(other)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")

    assert said("HEAD") == (0, [same("others"), same("things")])
    code, lines = said("HEAD~1")
    assert code == 0
    assert [(line["stream"], line["version_before"], line["changes"]) for line in lines] == [
        ("others", None, []), ("things", None, []),
    ]  # fmt: skip

    offer(2, 50, "optional string s = 3;")
    (tmp_path / "proto" / "others.proto").unlink()
    code, lines = said("main")
    assert code == 1
    assert [[(each["field"], each["compatible"]) for each in line["changes"]] for line in lines] == [
        [("", False)], [("n", False), ("s", True), ("", True)],
    ]  # fmt: skip

    (tmp_path / "proto" / "others.proto").write_text("message")
    code, lines = said("main")
    assert code == 1
    assert [sorted(line)[0] for line in lines] == ["file", "changes"]
    assert lines[0]["file"] == "others.proto"


def same(stream: str) -> dict[str, Any]:
    return {"stream": stream, "version_before": 1, "version": 1, "compatible": True, "changes": []}


def test_a_revision_that_is_none_is_named(offer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offer()
    arguments = ["--proto", str(tmp_path / "proto"), "--against"]
    # No repository, then no such revision, then one that looks like an option.
    assert check.main([*arguments, "HEAD"]) == 1
    git(tmp_path, "init", "-q")
    for revision in ("nowhere", "--output=x"):
        assert check.main([*arguments[:-1], f"--against={revision}"]) == 1
        assert f"git knows no revision {revision!r}" in capsys.readouterr().err
    assert check.main(["--proto", str(tmp_path / "none"), "--against", "HEAD"]) == 1
    assert "expected a folder with .proto files" in capsys.readouterr().err
