"""A backup is a sound data folder, taken while it is written; what is wrong with one is found before it is used."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from deltalake import DeltaTable
from support.logs import SPEC, ids_in
from unit.data.conftest import DAY_US, Running

from ingest_service.data import backup as backup_module
from ingest_service.data import copier
from ingest_service.data.__main__ import main
from ingest_service.data.backup import BackupMade, backup
from ingest_service.data.folder import DataFolder, lock_folder
from ingest_service.data.manifest import BackupDamaged, Manifest
from ingest_service.data.restore import restore
from ingest_service.data.verify import verify
from ingest_service.errors import ConfigError, StorageError
from ingest_service.log import Log


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    return tmp_path / "vault"


@pytest.fixture
def back_up(running: Running, vault: Path) -> Callable[[], BackupMade]:
    def make() -> BackupMade:
        # An hour later than everything so far, so that no file is too fresh to be trusted.
        running.clock.us = max(running.clock.us, int(max(
            path.stat().st_mtime for path in running.folder.root.rglob("*")) * 1e6)) + 3_600_000_000  # fmt: skip
        return backup(running.folder, vault, running.clock)

    return make


def restored_ids(folder: Path) -> list[str]:
    log = Log.open(folder / "log" / SPEC.stream / "0", SPEC)
    try:
        return ids_in(log)
    finally:
        log.close()


def test_there_and_back(running: Running, back_up: Callable[[], BackupMade], tmp_path: Path) -> None:
    made = back_up()
    assert made.streams[SPEC.stream].next_offset == 300
    assert made.streams[SPEC.stream].lake_offset == 200
    assert verify(DataFolder.existing(Path(made.path))).damages == []
    restored = restore(Path(made.path), tmp_path / "again", force=False)
    assert (restored.before, restored.next_offsets) == (None, {SPEC.stream: 300})
    report = verify(DataFolder.existing(tmp_path / "again"))
    assert report.damages == report.notes == []
    # The version itself, not a link to what the backup does not have.
    assert (DataFolder(tmp_path / "again").warehouse.is_symlink(), "warehouse" in report.other) == (False, True)
    assert restored_ids(tmp_path / "again") == [f"e{number}" for number in range(300)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "data", "vault"]


def test_a_backup_under_load_holds_every_invariant(
    running: Running, back_up: Callable[[], BackupMade], tmp_path: Path
) -> None:
    done = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            while not done.is_set():
                running.send(30, days=2)
                running.view_at(running.log.durable_offset)
                running.lake.export()
        except BaseException as error:
            failed.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for number in range(4):
            acknowledged = running.log.durable_offset
            stream = back_up().streams[SPEC.stream]
            assert stream.next_offset >= acknowledged
            target = tmp_path / f"again{number}"
            restore(tmp_path / "vault", target, force=False)
            report = verify(DataFolder.existing(target))
            assert report.damages == report.notes == []
            # Lake and view were behind, and are no further than the log: `verify` has looked.
            assert report.lakes[0].offset == stream.lake_offset >= 200
            assert report.views[0].offset >= 250
            assert restored_ids(target) == [f"e{number}" for number in range(stream.next_offset)]
    finally:
        done.set()
        worker.join()
    assert not failed


def test_the_second_links_to_what_the_first_has(
    running: Running, back_up: Callable[[], BackupMade], tmp_path: Path
) -> None:
    first = back_up()
    running.send(50)
    second = back_up()
    assert second.base == first.path
    assert first.bytes / 2 < second.linked_bytes < second.bytes
    names = [path.name for path in running.segments()[:-2]]
    for name in names:
        copies = [Path(made.path) / "log" / SPEC.stream / "0" / name for made in (first, second)]
        assert copies[0].stat().st_ino == copies[1].stat().st_ino
        assert copies[0].stat().st_ino != (running.log_folder / name).stat().st_ino
    # Each stands alone: the first may be removed.
    shutil.rmtree(first.path)
    restore(Path(second.path), tmp_path / "again", force=False)
    assert restored_ids(tmp_path / "again") == [f"e{number}" for number in range(350)]


def test_a_former_backup_that_is_damaged_is_in_nobodys_way(back_up: Callable[[], BackupMade], tmp_path: Path) -> None:
    (Path(back_up().path) / "manifest.json").write_text("{")
    made = back_up()
    assert (made.base, made.linked_bytes) == (None, 0)
    assert any("everything is copied" in note for note in made.notes)
    restore(Path(made.path), tmp_path / "again", force=False)


def test_a_log_whose_last_segment_cannot_be_read_is_not_backed_up_without_it(
    running: Running, back_up: Callable[[], BackupMade], vault: Path
) -> None:
    back_up()
    running.log.close()
    last = running.segments()[-1]
    last.write_bytes(b"?" * 20 + last.read_bytes()[20:])
    with pytest.raises(StorageError, match="the log's last segment can't be read"):
        back_up()
    assert len(backup_module.backups_in(vault)) == 1


def test_a_log_with_a_gap_is_backed_up_and_said_to_be_damaged(
    running: Running, back_up: Callable[[], BackupMade]
) -> None:
    running.segments()[1].unlink()
    assert any("predecessor, number 2, is missing" in note for note in back_up().notes)


def test_a_file_that_was_just_written_is_copied_again(running: Running, vault: Path) -> None:
    newest = int(max(path.stat().st_mtime for path in running.folder.root.rglob("*")) * 1e6)
    running.clock.us = newest
    backup(running.folder, vault, running.clock)
    running.clock.us = newest + DAY_US
    assert backup(running.folder, vault, running.clock).linked_bytes == 0


def test_the_lake_keeps_the_versions_that_runs_have_pinned(
    running: Running, back_up: Callable[[], BackupMade], tmp_path: Path
) -> None:
    uri = running.folder.lake_uri(SPEC.stream)
    pinned = DeltaTable(uri).version()
    running.lake.export()
    table = DeltaTable(uri)
    table.optimize.compact()
    back_up()
    restore(tmp_path / "vault", tmp_path / "again", force=False)
    copy = DataFolder(tmp_path / "again").lake_uri(SPEC.stream)
    assert DeltaTable(copy).to_pyarrow_table().num_rows == 300
    assert DeltaTable(copy, version=pinned).to_pyarrow_table().num_rows == 200


def test_a_commit_to_the_lake_during_the_copy_is_not_in_it(
    running: Running, back_up: Callable[[], BackupMade], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = backup_module.active_files

    def and_a_commit(table: DeltaTable) -> list[dict[str, object]]:
        found = real(table)
        running.lake.export()
        return found

    monkeypatch.setattr(backup_module, "active_files", and_a_commit)
    made = back_up()
    assert made.streams[SPEC.stream].lake_offset == 200
    assert running.lake.state().offset == 300
    assert verify(DataFolder.existing(Path(made.path))).lakes[0].rows == 200


def test_each_part_is_copied_before_those_it_must_not_be_ahead_of(
    running: Running, back_up: Callable[[], BackupMade]
) -> None:
    contract = running.folder.contracts / SPEC.stream / "1.binpb"
    contract.parent.mkdir(parents=True)
    contract.write_bytes(b"contract")
    order = ["live", "warehouse", "lake", "log", "contracts"]
    copied = [Path(file.path) for file in Manifest.read(Path(back_up().path)).files]
    assert list(dict.fromkeys(path.parts[0] for path in copied if len(path.parts) > 1)) == order
    # What is derived from segments may not know of more of them than there are.
    log = [path.suffix for path in copied if path.parts[0] == "log"]
    assert log == sorted(log, key=lambda suffix: suffix == ".seg")


def test_a_log_whose_first_segments_were_dropped(
    running: Running, back_up: Callable[[], BackupMade], tmp_path: Path
) -> None:
    running.lake.export()
    assert running.drop(3) == 3
    back_up()
    restore(tmp_path / "vault", tmp_path / "again", force=False)
    assert verify(DataFolder.existing(tmp_path / "again")).damages == []
    log = Log.open(tmp_path / "again" / "log" / SPEC.stream / "0", SPEC)
    assert (log.durable_offset, log.counts()) == (300, running.log.counts())
    log.close()


def test_segments_are_held_meanwhile(
    running: Running, back_up: Callable[[], BackupMade], monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[int] = []
    real = copier.copy_file

    def copy(*arguments: object) -> tuple[int, str]:
        dropped.append(running.drop(2))
        return real(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(copier, "copy_file", copy)
        made = back_up()
    assert set(dropped) == {0}
    assert running.drop(2) == 2
    assert verify(DataFolder.existing(Path(made.path))).logs[0].start_offset == 0


def test_a_backup_that_fails_leaves_nothing(
    running: Running, back_up: Callable[[], BackupMade], vault: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = back_up()

    def full(*_: object) -> tuple[int, str]:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(copier, "copy_file", full)
        running.send(10)
        with pytest.raises(StorageError, match="No space left on device"):
            back_up()
    # Nor does one that was killed: the next clears it away.
    (vault / "2026-01-01T00-00-00Z.unfinished" / "log").mkdir(parents=True)
    second = back_up()
    assert sorted(path.name for path in vault.iterdir() if path.is_dir()) == [
        Path(first.path).name, Path(second.path).name,
    ]  # fmt: skip


def test_where_a_backup_can_not_be(running: Running, vault: Path) -> None:
    with pytest.raises(ConfigError, match="outside of the data folder"):
        backup(running.folder, running.folder.root / "backups")
    vault.mkdir()
    with (vault / "LOCK").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another backup"):
            backup(running.folder, vault)


def test_what_is_not_there_is_said(running: Running, back_up: Callable[[], BackupMade]) -> None:
    running.folder.live_store.unlink()
    shutil.rmtree(running.folder.lake_root)
    notes = back_up().notes
    assert any("live store" in note for note in notes)
    assert any("no lake of payments" in note for note in notes)


def test_a_damaged_backup_is_not_restored(back_up: Callable[[], BackupMade], tmp_path: Path) -> None:
    made = Path(back_up().path)
    for path in [made / file.path for file in Manifest.read(made).files]:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(BackupDamaged, match=f"{path.name} is not what was backed up: expected .* checksum"):
            restore(made, tmp_path / "again", force=False)
        path.unlink()
        with pytest.raises(BackupDamaged, match="it is missing"):
            restore(made, tmp_path / "again", force=False)
        path.write_bytes(content)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "vault"]
    restore(made, tmp_path / "again", force=False)


def test_a_folder_without_a_manifest_is_no_backup(back_up: Callable[[], BackupMade], tmp_path: Path) -> None:
    made = Path(back_up().path)
    content = json.loads((made / "manifest.json").read_bytes())
    (made / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="there is none in"):
        restore(made, tmp_path / "again", force=False)
    with pytest.raises(ConfigError, match="there is none in"):
        restore(tmp_path / "vault", tmp_path / "again", force=False)
    for wrong, error in (
        (content | {"format": 2}, "expected a backup of format 1"),
        (content | {"data_format": "9"}, "data folder of format 9"),
        (content | {"files": [content["files"][0] | {"path": "../outside"}]}, "leads out of the backup"),
        ({}, "damaged"),
    ):
        (made / "manifest.json").write_text(json.dumps(wrong))
        with pytest.raises((ConfigError, BackupDamaged), match=error):
            restore(made, tmp_path / "again", force=False)


def test_a_folder_that_is_there_is_moved_aside_only_by_force(
    running: Running, back_up: Callable[[], BackupMade], tmp_path: Path
) -> None:
    back_up()
    target = running.folder.root
    with pytest.raises(ConfigError, match="is not empty"):
        restore(tmp_path / "vault", target, force=False)
    # The fixture holds the folder as a service does.
    with pytest.raises(ConfigError, match=f"in use .process {os.getpid()}"):
        restore(tmp_path / "vault", target, force=True)
    other = tmp_path / "other"
    with lock_folder(other):
        pass
    (other / "precious").write_text("keep me")
    restored = restore(tmp_path / "vault", other, force=True)
    assert restored.before is not None
    assert (Path(restored.before) / "precious").read_text() == "keep me"
    assert not (other / "precious").exists()
    assert restored_ids(other)[-1] == "e299"


def test_a_mounted_folder_keeps_its_place(
    back_up: Callable[[], BackupMade], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's volume: the folder itself can't be renamed, what is in it is exchanged."""
    back_up()
    volume = tmp_path / "volume"
    (volume / "lost+found").mkdir(parents=True)
    monkeypatch.setattr(Path, "is_mount", lambda path: path == volume)
    inode = volume.stat().st_ino
    assert restore(tmp_path / "vault", volume, force=False).before is None
    assert restored_ids(volume)[-1] == "e299"
    (volume / "precious").write_text("keep me")
    again = restore(tmp_path / "vault", volume, force=True)
    assert again.before is not None
    assert (Path(again.before) / "precious").read_text() == "keep me"
    assert volume.stat().st_ino == inode
    assert verify(DataFolder.existing(volume)).damages == []


def test_verify_holds_a_backup_to_its_manifest(back_up: Callable[[], BackupMade]) -> None:
    made = Path(back_up().path)
    files = sorted(path.relative_to(made) for path in made.rglob("*"))
    report = verify(DataFolder.existing(made))
    assert report.ok
    assert "the backup's checksums" in report.other
    assert sorted(path.relative_to(made) for path in made.rglob("*")) == files
    (made / "FORMAT").write_text("1 \n")
    assert [each.problem for each in verify(DataFolder.existing(made)).damages] == ["expected 2 bytes, found 3"]


def test_permissions_are_kept(running: Running, back_up: Callable[[], BackupMade], tmp_path: Path) -> None:
    running.folder.keys.write_text("{}")
    running.folder.keys.chmod(0o600)
    back_up()
    restore(tmp_path / "vault", tmp_path / "again", force=False)
    assert (tmp_path / "again" / "keys.json").stat().st_mode & 0o777 == 0o600


def test_the_live_store_is_copied_at_one_transaction(
    running: Running, back_up: Callable[[], BackupMade], tmp_path: Path
) -> None:
    with closing(sqlite3.connect(running.folder.live_store, isolation_level=None)) as writer:
        writer.execute("begin immediate")
        writer.execute("update tidemill_views set next_offset = 299")
        back_up()
        writer.execute("commit")
    restore(tmp_path / "vault", tmp_path / "again", force=False)
    assert verify(DataFolder(tmp_path / "again")).views[0].offset == 250


def test_the_commands(running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, vault, again = str(running.folder.root), str(tmp_path / "vault"), str(tmp_path / "again")
    assert main(["backup", "--data", data, "--json", vault]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["streams"]["payments"]["next_offset"] == 300
    assert main(["restore", "--data", again, vault]) == 0
    assert f"restored {made['path']} to {again}" in capsys.readouterr().out
    assert main(["restore", "--data", again, vault]) == 1
    assert "say --force" in capsys.readouterr().err
    assert main(["verify", "--data", again, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
