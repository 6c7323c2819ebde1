"""Versions of the published warehouse: a file each, and the link that readers open."""

import dataclasses
import os
import shutil
from pathlib import Path

import duckdb
import pytest

from quality import upkeep
from quality.config import DayConfig
from quality.files import copy_file
from quality.publish import last_published, publish, take_copy
from quality.run import Run
from quality.versions import REPLACED_MAX, REPLACED_S, is_in_place, replaced


def publish_value(config: DayConfig, run: Run, value: int) -> None:
    take_copy(config, run.run_id)
    with duckdb.connect(str(config.work_copy(run.run_id))) as connection:
        connection.execute(f"create or replace table fct as select {value} as x")
    publish(config, run)


def value(path: Path) -> int:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute("select x from fct").fetchall()[0][0]


def versions(config: DayConfig) -> list[Path]:
    return sorted((config.warehouse.parent / "versions").iterdir())


def test_each_publication_has_a_path_of_its_own_and_one_name(config: DayConfig, run: Run):
    publish_value(config, run, 1)
    first = config.warehouse.resolve()
    assert (first.name, first.parent.parent.name) == ("warehouse.duckdb", "versions")
    # The link is a relative one: the folder may be moved, or be mounted elsewhere.
    assert not config.warehouse.readlink().is_absolute()
    with duckdb.connect(str(config.warehouse), read_only=True) as held:
        publish_value(config, run, 2)
        assert (config.warehouse.resolve() != first, value(first), value(config.warehouse)) == (True, 1, 2)
        assert held.execute("select x from fct").fetchall() == [(1,)]
        assert held.execute("select current_database()").fetchall() == [("warehouse",)]


def test_who_resolved_the_link_before_a_publication_still_finds_the_file(config: DayConfig, run: Run):
    publish_value(config, run, 1)
    resolved = config.warehouse.resolve()
    for number in range(2, 2 + REPLACED_MAX):
        publish_value(config, run, number)
    assert value(resolved) == 1
    assert len(versions(config)) == 1 + REPLACED_MAX
    publish_value(config, run, 9)
    assert not resolved.exists()
    assert len(versions(config)) == 1 + REPLACED_MAX


def test_what_was_replaced_leaves_after_a_while_and_the_published_one_never(config: DayConfig, run: Run):
    publish_value(config, run, 1)
    publish_value(config, run, 2)
    now_s = versions(config)[0].stat().st_mtime
    assert replaced(config, now_s=now_s + REPLACED_S - 1) == []
    assert replaced(config, now_s=now_s + REPLACED_S + 1) == versions(config)[:1]
    result = upkeep.leftovers(config, now_s=now_s + REPLACED_S + 1)
    assert (result["removed"], result["freed_bytes"] > 0, len(versions(config))) == (1, True, 1)
    assert upkeep.leftovers(config, now_s=now_s * 2)["removed"] == 0
    assert value(config.warehouse) == 2


def test_a_file_of_the_name_is_replaced_by_the_link(config: DayConfig, run: Run):
    """As a backup restores it."""
    publish_value(config, run, 1)
    copy = config.warehouse.with_name("copy")
    copy_file(config.warehouse, copy)
    shutil.rmtree(config.warehouse.parent / "versions")
    copy.replace(config.warehouse)
    assert value(config.warehouse) == 1
    publish_value(config, dataclasses.replace(run, run_id="r2"), 2)
    assert (config.warehouse.is_symlink(), value(config.warehouse)) == (True, 2)


def test_a_run_killed_at_any_step_of_publishing_publishes_when_it_is_repeated(
    config: DayConfig, run: Run, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    publish_value(config, run, 1)
    steps = ((os, "link"), (Path, "symlink_to"), (Path, "replace"), (os, "utime"), (shutil, "rmtree"))
    for number, (owner, name) in enumerate(steps, 2):
        again = dataclasses.replace(run, run_id=f"r{number}")
        take_copy(config, again.run_id)
        with duckdb.connect(str(config.work_copy(again.run_id))) as connection:
            connection.execute(f"create or replace table fct as select {number} as x")
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, killed)
            with pytest.raises(Killed):
                publish(config, again)
        # Readers have the old one or the new one, and which does not change by itself.
        assert value(config.warehouse) == (number if name in {"utime", "rmtree"} else number - 1)
        assert is_in_place(config, config.work_copy(again.run_id)) == (name in {"utime", "rmtree"})
        assert publish(config, again)["run_id"] == f"r{number}"
        assert value(config.warehouse) == number
        assert last_published(config)["run_id"] == f"r{number}"
        assert not config.work_copy(again.run_id).exists()
