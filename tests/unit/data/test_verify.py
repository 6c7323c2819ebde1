"""`verify` says what is damaged, where, and nothing else."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from support.logs import SPEC
from unit.data.conftest import Running

from ingest_service.data.__main__ import main
from ingest_service.data.folder import DataFolder
from ingest_service.data.verify import verify
from ingest_service.errors import ConfigError
from ingest_service.log import Log
from tidemill.cli import main as cli


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 0x10]))


def damages(folder: DataFolder) -> list[tuple[str, int | None, str]]:
    return [(Path(each.path).name, each.position, each.problem) for each in verify(folder).damages]


def test_a_sound_folder(folder: DataFolder, running: Running) -> None:
    report = verify(folder)
    assert report.damages == []
    assert report.notes == []
    (log,) = report.logs
    assert (log.stream, log.rows, log.next_offset) == (SPEC.stream, 300, 300)
    assert log.segments == len(running.segments()) > 3
    assert log.bytes == sum(path.stat().st_size for path in running.segments())
    (lake,) = report.lakes
    assert (lake.rows, lake.offset, lake.files) == (200, 200, 3)
    assert [(view.view, view.offset) for view in report.views] == [("sales", 250)]
    assert report.other == ["live store", "warehouse"]


def test_it_works_while_rows_come_in(running: Running) -> None:
    done = threading.Event()

    def send() -> None:
        while not done.is_set():
            running.send(10)
            running.lake.export()

    sender = threading.Thread(target=send)
    sender.start()
    try:
        for _ in range(5):
            report = verify(running.folder)
            assert report.damages == []
            assert report.logs[0].rows >= 300
    finally:
        done.set()
        sender.join()


def test_a_flipped_bit_anywhere_in_a_segment_is_found(folder: DataFolder, running: Running) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    for _ in range(25):
        path = chance.choice(running.segments())
        position = chance.randrange(path.stat().st_size)
        flip(path, position)
        (first, *_) = damages(folder)
        assert first[0] == path.name, f"seed {seed}"
        assert first[1] is not None, f"seed {seed}"
        assert first[1] <= position, f"seed {seed}"
        flip(path, position)
    assert damages(folder) == []


def test_every_damage_is_told_not_only_the_first(folder: DataFolder, running: Running) -> None:
    paths = running.segments()[:3]
    for path in paths:
        flip(path, path.stat().st_size // 2)
    assert [name for name, _, _ in damages(folder)] == [path.name for path in paths]


def test_a_segment_that_is_missing(folder: DataFolder, running: Running) -> None:
    running.segments()[1].unlink()
    assert any("predecessor, number 2, is missing" in problem for _, _, problem in damages(folder))


def test_the_first_segment_missing(folder: DataFolder, running: Running) -> None:
    running.segments()[0].unlink()
    assert any("predecessor, number 1, is missing" in problem for _, _, problem in damages(folder))


def test_the_last_segment_missing_or_cut(folder: DataFolder, running: Running) -> None:
    last = running.segments()[-1]
    kept = last.read_bytes()
    with last.open("r+b") as file:
        file.truncate(len(kept) - 1)
    assert any(name == last.name for name, _, _ in damages(folder))
    last.unlink()
    assert any("which was durable; it is missing" in problem for _, _, problem in damages(folder))


def test_a_write_that_was_never_acknowledged_is_no_damage(folder: DataFolder, running: Running) -> None:
    with running.segments()[-1].open("ab") as file:
        file.write(b"TMF1\x40\x00\x00\x00torn")
    report = verify(folder)
    assert report.ok
    assert "12 bytes" in report.notes[0]


def test_a_segment_of_another_stream(folder: DataFolder, running: Running, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Log.open(other, SPEC.__class__("others", SPEC.schema, 1, "at", "event_id", 0)).close()
    shutil.move(running.log_folder, folder.root / "log" / "moved")
    (folder.root / "log" / "others").mkdir()
    shutil.move(folder.root / "log" / "moved", folder.root / "log" / "others" / "0")
    assert any("belongs elsewhere" in problem for _, _, problem in damages(folder))


@pytest.mark.parametrize("what", ["missing", "short", "flipped", "rows doubled"])
def test_a_lake_file_that_is_wrong(folder: DataFolder, what: str) -> None:
    first, second, *_ = sorted(Path(folder.lake_uri(SPEC.stream)).rglob("*.parquet"))
    if what == "missing":
        first.unlink()
    elif what == "short":
        first.write_bytes(first.read_bytes()[:-1])
    elif what == "flipped":
        content = bytearray(first.read_bytes())
        content[4:40] = bytes(36)  # the first page's header
        first.write_bytes(content)
    else:
        second.write_bytes(first.read_bytes())
    found = damages(folder)
    assert {name for name, _, _ in found} <= {first.name, second.name, SPEC.stream}
    assert found


def test_a_lake_ahead_of_the_log(folder: DataFolder, running: Running) -> None:
    shutil.rmtree(running.log_folder)
    Log.open(running.log_folder, SPEC).close()
    problems = [problem for _, _, problem in damages(folder)]
    assert any("covers offset 250" in problem for problem in problems)
    assert any("reaches to offset 200, the log ends at 0" in problem for problem in problems)


def test_a_damaged_live_store_and_warehouse(folder: DataFolder) -> None:
    folder.live_store.write_bytes(b"x" * 8192)
    content = bytearray(folder.warehouse.read_bytes())
    at = content.find(b"tidetide")
    middle = at if at > 0 else len(content) // 2
    content[middle : middle + 64] = b"?" * 64
    folder.warehouse.write_bytes(content)
    assert [name for name, _, _ in damages(folder)] == ["live.sqlite", "warehouse.duckdb"]


def test_an_index_of_the_live_store_that_misses_rows(folder: DataFolder) -> None:
    with closing(sqlite3.connect(folder.live_store, isolation_level=None)) as connection:
        connection.execute("create table t (a text)")
        connection.execute("create index i on t (a)")
        connection.execute("insert into t values ('x')")
        connection.execute("pragma writable_schema = on")
        connection.execute("delete from sqlite_schema where name = 'i'")
    assert any(name == "live.sqlite" for name, _, _ in damages(folder))


def test_a_log_whose_first_segments_were_dropped(running: Running) -> None:
    assert running.drop(2) == 2
    report = verify(running.folder)
    assert report.damages == []
    (log,) = report.logs
    assert log.next_offset - log.start_offset == log.rows < 300
    # The lake is behind the snapshot, at it, and ahead of it: its rows of each date are those that the log had.
    for _ in range(3):
        running.lake.export()
        assert verify(running.folder).damages == []
        running.send(40, days=3)
    running.log.close()
    assert verify(running.folder).damages == []


def test_what_a_log_keeps_of_dropped_segments_is_checked(running: Running) -> None:
    assert running.drop(2) == 2
    running.log.close()
    snapshots = sorted(running.log_folder.glob("*.snapshot"))
    assert len(snapshots) == 2
    for path in snapshots:
        flip(path, path.stat().st_size // 2)
    names = [name for name, _, _ in damages(running.folder)]
    assert names[:2] == [path.name for path in reversed(snapshots)]
    assert any("no snapshot can be read" in problem for _, _, problem in damages(running.folder))
    for path in snapshots:
        flip(path, path.stat().st_size // 2)
    (running.log_folder / "start.json").write_text("{")
    assert any(name == "start.json" for name, _, _ in damages(running.folder))
    (running.log_folder / "start.json").unlink()
    assert any("predecessor, number 2, is missing" in problem for _, _, problem in damages(running.folder))


def test_the_quarantined_rows_of_dropped_segments_are_checked(running: Running) -> None:
    running.quarantine(3)
    segments = len(running.segments())
    while len(running.segments()) < segments + 2:
        running.send(10)
    running.lake.export()
    running.drop(segments)
    (kept,) = running.log_folder.glob("*.quarantine")
    assert verify(running.folder).damages == []
    flip(kept, kept.stat().st_size // 2)
    assert [name for name, _, _ in damages(running.folder)] == [kept.name]


def test_a_snapshot_of_rows_that_are_gone(folder: DataFolder, running: Running) -> None:
    first, *others = running.segments()
    for path in [*others, running.log_folder / "durable.json"]:
        path.unlink()
    assert any("it knows of rows behind" in problem for _, _, problem in damages(folder))
    assert first.exists()


def test_no_data_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is none at"):
        DataFolder.existing(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="no data folder of Tidemill"):
        DataFolder.existing(tmp_path)
    (tmp_path / "FORMAT").write_text("99\n")
    with pytest.raises(ConfigError, match="expected format 1"):
        DataFolder.existing(tmp_path)


@pytest.mark.parametrize("command", [["verify"], ["usage"], ["backup", "vault"]])
def test_a_wrong_folder_is_one_line(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--data", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == (
        f"tidemill: --data: expected a data folder, there is none at {tmp_path / 'none'}. Name it with --data\n"
    )


def test_the_command_line_passes_on_what_the_tool_says(
    folder: DataFolder, running: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli(["data", "verify", "--data", str(folder.root), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["ok"] is True
    running.segments()[0].unlink()
    assert cli(["data", "verify", "--data", str(folder.root)]) == 1
    out, err = capfd.readouterr()
    assert "is missing" in out
    assert err == ""


def test_the_command_names_file_and_byte(
    folder: DataFolder, running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--data", str(folder.root)]) == 0
    assert "nothing is damaged" in capsys.readouterr().out
    path = running.segments()[0]
    flip(path, path.stat().st_size - 1)
    assert main(["verify", "--data", str(folder.root)]) == 1
    out = capsys.readouterr().out
    assert f"damaged: {path} at byte " in out
    assert "expected checksum" in out
    assert "1 damage found" in out
