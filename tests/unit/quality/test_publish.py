import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from quality.config import DayConfig
from quality.errors import PublishConflict, RunWrong
from quality.files import copy_file, replace_durably, write_atomically
from quality.publish import last_published, publish, published_pins, take_copy
from quality.run import Run
from tidemill.lake import lake_files


def work_on(config: DayConfig, run: Run, value: int) -> None:
    """What a run does between its copy and its publication."""
    take_copy(config, run.run_id)
    with duckdb.connect(str(config.work_copy(run.run_id))) as connection:
        connection.execute("create schema if not exists events")
        connection.execute("create or replace view events.payments as select 1 as x")
        connection.execute(f"create or replace table fct as select {value} as x")


def value(path: Path) -> int:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute("select x from fct").fetchall()[0][0]


def test_a_publication_replaces_the_file_that_readers_open(config: DayConfig, run: Run):
    assert last_published(config) is None
    work_on(config, run, 1)
    first = publish(config, run)
    assert (first["run_id"], first["date"], value(config.warehouse)) == ("r1", "2011-12-05", 1)
    other = dataclasses.replace(run, run_id="r2", date="2011-12-06", last_date="2011-12-06")
    work_on(config, other, 2)
    assert value(config.warehouse) == 1
    publish(config, other)
    assert value(config.warehouse) == 2
    assert last_published(config)["run_id"] == "r2"
    with duckdb.connect(str(config.warehouse), read_only=True) as connection:
        tables = connection.execute(
            "select table_schema, table_name from information_schema.tables order by all"
        ).fetchall()
        runs = connection.execute("select run_id, first_date::varchar from tidemill_published order by all").fetchall()
    # Nothing of the run is left in it: neither its views over the lake nor its note of where the copy came from.
    assert tables == [
        ("main", "fct"), ("main", "tidemill_dates"), ("main", "tidemill_published"), ("main", "tidemill_reconciled"),
    ]  # fmt: skip
    assert runs == [("r1", "2011-12-05"), ("r2", "2011-12-06")]
    assert sorted(os.listdir(config.warehouse.parent)) == ["versions", "warehouse.duckdb", "work"]
    assert os.listdir(config.warehouse.parent / "work") == []


def test_publishing_again_does_nothing(config: DayConfig, run: Run):
    work_on(config, run, 1)
    first = publish(config, run)
    before = config.warehouse.stat()
    assert {**publish(config, run), "late": {}} == first
    after = config.warehouse.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_run_built_again_is_one_publication(config: DayConfig, run: Run):
    for number in (1, 2):
        work_on(config, run, number)
        publish(config, run)
    with duckdb.connect(str(config.warehouse), read_only=True) as connection:
        assert connection.execute("select count(*) from tidemill_published").fetchall() == [(1,)]
    assert value(config.warehouse) == 2


READER = """
import duckdb, sys
with duckdb.connect(sys.argv[1], read_only=True) as reader:
    for line in sys.stdin:
        print(reader.execute("select x from fct").fetchall(), flush=True)
"""


def test_a_reader_keeps_the_old_file_while_a_new_one_is_published(config: DayConfig, run: Run):
    work_on(config, run, 1)
    publish(config, run)
    command = [sys.executable, "-c", READER, str(config.warehouse)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        print("read", file=reader.stdin, flush=True)
        assert reader.stdout.readline() == "[(1,)]\n"
        again = dataclasses.replace(run, run_id="r2")
        work_on(config, again, 2)
        publish(config, again)
        print("read", file=reader.stdin, flush=True)
        assert reader.stdout.readline() == "[(1,)]\n"
    assert reader.returncode == 0
    assert value(config.warehouse) == 2


def test_a_copy_that_another_run_overtook_is_not_published(config: DayConfig, run: Run):
    other = dataclasses.replace(run, run_id="r2")
    work_on(config, run, 1)
    work_on(config, other, 2)
    publish(config, other)
    with pytest.raises(PublishConflict, match=r"none, but r2 .* is published now. Run build again"):
        publish(config, run)
    assert value(config.warehouse) == 2
    work_on(config, run, 3)
    publish(config, run)
    assert value(config.warehouse) == 3


def test_without_a_copy_there_is_nothing_to_publish(config: DayConfig, run: Run):
    with pytest.raises(RunWrong, match="Run build again"):
        publish(config, run)


def test_a_published_file_that_is_lost_is_not_taken_for_none(config: DayConfig, run: Run):
    work_on(config, run, 1)
    publish(config, run)
    config.warehouse.resolve().unlink()
    with pytest.raises(RunWrong, match="it is gone"):
        take_copy(config, "next")
    config.warehouse.unlink()
    take_copy(config, "next")


def test_a_failed_replacement_leaves_the_published_file(config: DayConfig, run: Run, monkeypatch: pytest.MonkeyPatch):
    work_on(config, run, 1)
    publish(config, run)
    later = dataclasses.replace(run.streams["payments"], seal_offset=6)
    again = dataclasses.replace(run, run_id="r2", streams={"payments": later})
    work_on(config, again, 2)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            publish(config, again)
    assert value(config.warehouse) == 1
    assert last_published(config)["run_id"] == "r1"
    # Once there is space again, the stage is repeated and goes through; what came late is told as if it were the first.
    assert publish(config, again)["late"] == {"payments": {"2011-12-05": 1}}
    assert value(config.warehouse) == 2


def reconciled(run: Run, definition: str, *, explained: int = 0, by_day: bool = True, **changes: object) -> Run:
    """The run, with a comparison of its one view behind it."""
    view = {"stream": "payments", "compared": True, "explained": explained, "by_day": by_day}
    result = {"views": {"sales": {**view, "definition_hash": definition}}}
    return dataclasses.replace(run, stages={"reconcile": {"result": result}}, **changes)


def definitions(config: DayConfig) -> dict[str, str]:
    with duckdb.connect(str(config.warehouse), read_only=True) as connection:
        asked = "select date::varchar, definition_hash from tidemill_reconciled where view = 'sales'"
        return dict(connection.execute(asked).fetchall())


def test_a_date_that_is_built_by_another_definition_is_no_longer_one_that_agreed(config: DayConfig, run: Run):
    for date in ("2011-12-05", "2011-12-06"):
        of_date = reconciled(run, "old", date=date, last_date=date, run_id=f"of_{date}")
        work_on(config, of_date, 1)
        publish(config, of_date)
    assert definitions(config) == {"2011-12-05": "old", "2011-12-06": "old"}
    # Built by day, it has other rows of this run's date alone.
    work_on(config, run, 2)
    publish(config, reconciled(run, "old", explained=3))
    assert definitions(config) == {"2011-12-05": "another", "2011-12-06": "old"}
    work_on(config, run, 3)
    publish(config, reconciled(run, "new"))
    assert definitions(config) == {"2011-12-05": "new", "2011-12-06": "old"}
    work_on(config, run, 4)
    publish(config, reconciled(run, "new", explained=3, by_day=False))
    assert definitions(config) == {"2011-12-05": "another", "2011-12-06": "another"}


def test_the_last_publication_is_the_last_also_when_the_clock_was_set_back(config: DayConfig, run: Run):
    take_copy(config, "ahead")
    with duckdb.connect(str(config.work_copy("ahead"))) as connection:
        connection.execute(
            "insert into tidemill_published values "
            "('ahead', '2011-12-04', '2011-12-04', '{}', now(), timestamptz '2999-01-01 00:00:00+00')"
        )
    os.rename(config.work_copy("ahead"), config.warehouse)
    work_on(config, run, 1)
    assert publish(config, run)["published_at"] > "2999-01-01"
    assert last_published(config)["run_id"] == run.run_id
    assert published_pins(config)["payments"].seal_offset == run.streams["payments"].seal_offset


def test_the_pins_of_a_data_folder_that_was_moved_are_found_in_it(config: DayConfig, run: Run, tmp_path: Path):
    work_on(config, run, 1)
    publish(config, run)
    moved = dataclasses.replace(config, data=config.data.rename(tmp_path / "elsewhere"))
    pin = published_pins(moved)["payments"]
    assert pin.lake_uri == str(tmp_path / "elsewhere" / "lake" / "payments")
    assert lake_files(pin.lake_uri, pin.lake_version)


def test_files_are_replaced_whole(tmp_path: Path):
    target = tmp_path / "folder" / "a.txt"
    write_atomically(target, "one")
    write_atomically(target, "two ≠")
    copy_file(target, tmp_path / "copy" / "b.txt")
    assert (tmp_path / "copy" / "b.txt").read_text(encoding="utf-8") == "two ≠"
    replace_durably(tmp_path / "copy" / "b.txt", tmp_path / "c.txt")
    assert not (tmp_path / "copy" / "b.txt").exists()
    assert os.listdir(target.parent) == ["a.txt"]
