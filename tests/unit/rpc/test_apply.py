"""Putting a changed contract in force: its steps, when one of them fails, and several changes at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest_service.contracts import Contract, ContractStore, load_contracts
from ingest_service.contracts.contract import message_class
from ingest_service.errors import ContractError, IncompatibleContract, StorageError
from ingest_service.lake import LakeExporter, WholeLog
from ingest_service.log import Append, Log
from ingest_service.log.files import OsFiles
from ingest_service.rpc.parts import StreamParts

NOW_US = 1_700_000_000_000_000
TEXT = """syntax = "proto3";
package shop.v1;
import "buf/validate/validate.proto";
import "google/protobuf/timestamp.proto";
import "tidemill/v1/options.proto";
message Thing {
  option (tidemill.v1.stream) = { name: "things" event_time: "at" version: %d };
  google.protobuf.Timestamp at = 1;
  int64 n = 2 [(buf.validate.field).int64.lt = %d];
  %s
}
"""


def contract(folder: Path, version: int, limit: int = 100, more: str = "") -> Contract:
    (folder / "proto").mkdir(exist_ok=True)
    (folder / "proto" / "things.proto").write_text(TEXT % (version, limit, more), encoding="utf-8")
    return load_contracts(folder / "proto").contracts["things"]


class FailingFiles(OsFiles):
    """A disk that is full while `full` is set."""

    full = False

    def replace(self, path: Path, data: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().replace(path, data)


@pytest.fixture
def files() -> FailingFiles:
    return FailingFiles()


@pytest.fixture
def parts(tmp_path: Path, files: FailingFiles) -> Iterator[StreamParts]:
    first = contract(tmp_path, 1)
    store = ContractStore(tmp_path / "contracts", files)
    store.keep(first)
    log = Log.open(tmp_path / "log", first.log_spec())
    uri = str(tmp_path / "lake" / "things")
    lake = LakeExporter(log, "things", uri)
    lake.ensure()
    yield StreamParts(first, log, lake, WholeLog(log, uri), store)
    log.close()


def send(parts: StreamParts, n: int, **fields: Any) -> int:
    """Rows appended of one event."""
    message = message_class(parts.contract.descriptor())(n=n, **fields)
    message.at.FromMicroseconds(NOW_US)
    checked = parts.intake.from_proto([message.SerializeToString()], NOW_US)
    return parts.log.append(Append(checked.rows, 1, checked.quarantined)).result(30).rows_appended


def test_a_change_reaches_every_part(parts: StreamParts, tmp_path: Path) -> None:
    assert send(parts, 150) == 0
    changed = contract(tmp_path, 2, 200, "optional string shop = 3;")
    assert parts.apply(changed) is True
    assert send(parts, 150, shop="Leeds") == 1
    assert parts.contract is changed
    assert "shop" in parts.log.schema.names
    assert parts.lake.export().offset == 1
    assert ContractStore(tmp_path / "contracts").in_force("things") == changed
    assert parts.apply(changed) is False


def test_a_batch_checked_before_a_change_is_appended_behind_it(parts: StreamParts, tmp_path: Path) -> None:
    before = parts.intake
    message = message_class(parts.contract.descriptor())(n=1)
    message.at.FromMicroseconds(NOW_US)
    checked = before.from_proto([message.SerializeToString()], NOW_US)
    parts.apply(contract(tmp_path, 2, more="optional string shop = 3;"))
    assert parts.log.append(Append(checked.rows, 1)).result(30).rows_appended == 1
    reader = parts.log.reader(0)
    (rows,) = reader.read(10, 10)
    reader.close()
    assert rows.batch["shop"].to_pylist() == [None]


def test_a_change_that_breaks_something_changes_nothing(parts: StreamParts, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleContract, match=r"n: rule int64\.range: lt 100 → lt 50"):
        parts.apply(contract(tmp_path, 2, 50))
    assert (parts.contract.version, send(parts, 70)) == (1, 1)
    assert ContractStore(tmp_path / "contracts").versions("things") == [1]


def test_a_change_that_can_not_be_kept_changes_nothing(parts: StreamParts, tmp_path: Path, files: FailingFiles) -> None:
    changed = contract(tmp_path, 2, 200)
    files.full = True
    with pytest.raises(StorageError, match="the one before stays in force"):
        parts.apply(changed)
    assert (parts.contract.version, send(parts, 150), parts.log.spec.contract_version) == (1, 0, 1)
    files.full = False
    assert parts.apply(changed) is True
    assert send(parts, 150) == 1


def test_a_lake_that_fails_does_not_hold_the_change_up(parts: StreamParts, tmp_path: Path) -> None:
    commits = tmp_path / "lake" / "things" / "_delta_log"
    away = commits.rename(tmp_path / "away")
    commits.write_text("in the way")
    assert parts.apply(contract(tmp_path, 2, more="optional string shop = 3;")) is True
    assert send(parts, 1, shop="Leeds") == 1
    commits.unlink()
    away.rename(commits)
    assert parts.lake.export().offset == 1


def test_a_stopped_stream_takes_events_again_once_its_contract_is_right(parts: StreamParts, tmp_path: Path) -> None:
    parts.refusal = ContractError("things.proto:9: it is wrong", "things")
    assert parts.error == "things.proto:9: it is wrong"
    for _ in range(3):
        with pytest.raises(ContractError, match="it is wrong"):
            send(parts, 1)
    # Nothing has changed but the file, which is right again.
    assert parts.apply(contract(tmp_path, 1)) is True
    assert (parts.error, send(parts, 1)) == ("", 1)


def test_of_two_changes_at_once_one_is_late(parts: StreamParts, tmp_path: Path) -> None:
    """Both are compatible with the first contract, but not with one another: exactly one gets through."""
    both = [contract(tmp_path, 2, more=f"optional string {name} = 3;") for name in ("shop", "till")]
    start = threading.Barrier(2)
    outcomes: dict[str, object] = {}

    def apply(changed: Contract) -> None:
        name = changed.columns[-1].name
        start.wait(30)
        try:
            outcomes[name] = parts.apply(changed)
        except IncompatibleContract as error:
            outcomes[name] = error

    threads = [threading.Thread(target=apply, args=(changed,)) for changed in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    (winner,) = [name for name, outcome in outcomes.items() if outcome is True]
    assert len(outcomes) == 2
    assert parts.contract.columns[-1].name == parts.log.schema.names[2] == winner
