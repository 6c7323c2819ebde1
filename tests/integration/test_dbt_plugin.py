"""The dbt plugin on real Delta tables, without dbt: what a source reads, and with which columns."""

import dataclasses
import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import yaml
from dbt.adapters.duckdb.credentials import DuckDBCredentials
from dbt.adapters.duckdb.utils import SourceConfig
from deltalake import DeltaTable, write_deltalake
from support.lakes import COLUMNS, payments

from tidemill.dbt_plugin import PINS_VARIABLE, Plugin
from tidemill.lake import LakeError, lake_files, lake_query, source_tables

TYPES = [(name, kind) for name, kind in COLUMNS.items()]


def write_source(project: Path, columns: dict[str, str]) -> None:
    folder = project / "models" / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    table = {
        "name": "payments",
        "config": {"event_time": "at", "meta": {"plugin": "lake", "stream": "payments"}},
        "columns": [{"name": name, "data_type": kind} for name, kind in columns.items()],
    }
    (folder / "payments.yml").write_text(yaml.safe_dump({"version": 2, "sources": [{"name": "e", "tables": [table]}]}))


Load = Callable[..., Any]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads stream `payments` as dbt would; `pin` is what run.json says of it."""
    write_source(tmp_path, COLUMNS)
    monkeypatch.delenv(PINS_VARIABLE, raising=False)
    with duckdb.connect(":memory:") as connection:

        def load_source(pin: dict[str, Any] | None = None, meta: dict[str, Any] | None = None) -> Any:
            if pin is not None:
                (tmp_path / "run.json").write_text(json.dumps({"streams": {"payments": pin}}))
                monkeypatch.setenv(PINS_VARIABLE, str(tmp_path / "run.json"))
            plugin = Plugin("lake", {"data": str(tmp_path / "data"), "project": str(tmp_path)})
            plugin.configure_connection(connection)
            return plugin.load(SourceConfig("payments", "payments", "e", "w", meta or {"stream": "payments"}, []))

        yield load_source


@pytest.fixture
def lake(tmp_path: Path) -> str:
    """Version 0 has offsets 0 to 3, version 1 offsets 0 to 5."""
    uri = str(tmp_path / "data" / "lake" / "payments")
    write_deltalake(uri, payments(0, [4, 5, 5, 5]), partition_by=["event_date"])
    write_deltalake(uri, payments(4, [5, 6]), mode="append")
    return uri


def columns(relation: Any) -> list[tuple[str, str]]:
    return [(name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True)]


def offsets(relation: Any) -> list[int]:
    return [row[0] for row in relation.project("_offset").order("_offset").fetchall()]


def test_without_pins_a_source_is_the_latest_lake_whole(load: Load, lake: str):
    relation = load()
    assert columns(relation) == TYPES
    assert offsets(relation) == [0, 1, 2, 3, 4, 5]
    assert relation.filter("_offset = 4").project(
        "event_date, amount::varchar, strftime(\"at\", '%H:%M')"
    ).fetchall() == [(dt.date(2011, 12, 5), "1.500", "08:26")]


@pytest.mark.parametrize(
    ("version", "seal_offset", "expected"),
    [
        (1, 6, [0, 1, 2, 3, 4, 5]),
        (1, 4, [0, 1, 2, 3]),
        (0, 4, [0, 1, 2, 3]),
        (0, 6, [0, 1, 2, 3]),
        (1, 1, [0]),
        (1, 0, []),
    ],
)
def test_pinned_a_source_is_one_version_below_one_offset(
    load: Load, lake: str, version: int, seal_offset: int, expected: list[int]
):
    write_deltalake(lake, payments(6, [7, 7]), mode="append")
    relation = load({"lake_uri": lake, "lake_version": version, "seal_offset": seal_offset})
    assert offsets(relation) == expected
    assert columns(relation) == TYPES


def test_compaction_changes_the_files_and_not_the_rows(load: Load, lake: str):
    DeltaTable(lake).optimize.compact()
    assert DeltaTable(lake).version() == 2
    for version in (1, 2):
        assert offsets(load({"lake_uri": lake, "lake_version": version, "seal_offset": 5})) == [0, 1, 2, 3, 4]


def test_no_table_and_a_table_without_rows_are_empty_with_the_right_columns(load: Load, tmp_path: Path):
    assert (offsets(load()), columns(load())) == ([], TYPES)
    uri = str(tmp_path / "data" / "lake" / "payments")
    write_deltalake(uri, payments(0, []), partition_by=["event_date"])
    assert lake_files(uri, 0) == []
    assert (offsets(load()), columns(load())) == ([], TYPES)
    pinned = load({"lake_uri": uri, "lake_version": 0, "seal_offset": 5})
    assert (offsets(pinned), columns(pinned)) == ([], TYPES)


@pytest.mark.parametrize("new_first", [False, True])
def test_a_column_that_older_files_lack_is_null_there(load: Load, tmp_path: Path, new_first: bool):
    uri = str(tmp_path / "data" / "lake" / "payments")
    old, new = payments(0, [4]), payments(1, [5]).append_column("note", pa.array(["hello"]))
    for table in (new, old) if new_first else (old, new):
        write_deltalake(uri, table, mode="append", partition_by=["event_date"], schema_mode="merge")
    write_source(tmp_path, {**COLUMNS, "note": "VARCHAR", "score": "DOUBLE"})
    relation = load()
    assert columns(relation) == [*TYPES, ("note", "VARCHAR"), ("score", "DOUBLE")]
    assert relation.project("_offset, note, score").order("_offset").fetchall() == [(0, None, None), (1, "hello", None)]


def test_the_columns_are_those_of_the_generated_source(load: Load):
    project = Path(__file__).parents[2] / "dbt_project"
    declared = source_tables(project / "models" / "sources")["order_lines"]
    with duckdb.connect(":memory:") as connection:
        relation = connection.sql(lake_query([], declared, None))
        assert columns(relation) == list(declared.items())


def test_a_folder_may_have_any_name(tmp_path: Path):
    uri = str(tmp_path / "a folder, 100% ours" / "payments")
    write_deltalake(uri, payments(0, [4, 5]), partition_by=["event_date"])
    with duckdb.connect(":memory:") as connection:
        assert offsets(connection.sql(lake_query(lake_files(uri, 0), COLUMNS, None))) == [0, 1]


def test_other_files_of_the_folder_are_not_read(load: Load, lake: str):
    stray = Path(lake) / "event_date=2011-12-05" / "stray.parquet"
    duckdb.sql("select 99::bigint as _offset").write_parquet(str(stray))
    assert 99 not in offsets(load())


def test_a_version_that_is_not_there_is_named(load: Load, lake: str):
    with pytest.raises(LakeError, match=r"payments at version 9; Delta says"):
        load({"lake_uri": lake, "lake_version": 9, "seal_offset": 4})
    with pytest.raises(LakeError, match=r"version 0; found no Delta table there"):
        load({"lake_uri": lake + "_moved", "lake_version": 0, "seal_offset": 4})


def test_what_is_not_described_is_named(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(LakeError, match=r"meta\.stream .*, found None"):
        load(meta={"other": 1})
    with pytest.raises(LakeError, match=r"meta\.stream is 'unknown'"):
        load(meta={"stream": "unknown"})
    monkeypatch.setenv(PINS_VARIABLE, str(tmp_path / "nowhere.json"))
    with pytest.raises(LakeError, match=r"expected a run\.json"):
        load()
    (tmp_path / "run.json").write_text(json.dumps({"streams": {"orders": {}}}))
    monkeypatch.setenv(PINS_VARIABLE, str(tmp_path / "run.json"))
    with pytest.raises(LakeError, match=r"'payments' is not pinned \(pinned: orders\)"):
        load()
    (tmp_path / "models" / "sources" / "payments.yml").write_text(
        "sources: [{name: e, tables: [{name: p, columns: 3}]}]"
    )
    with pytest.raises(LakeError, match=r"no source|meta\.stream is 'payments'"):
        load()


def test_names_are_quoted_and_the_warehouse_folder_is_made(tmp_path: Path):
    with duckdb.connect(":memory:") as connection:
        name = 'a "quoted" name'
        assert connection.sql(lake_query([], {name: "INTEGER"}, None)).columns == [name]
    credentials = DuckDBCredentials(
        database="warehouse", schema="main", path=str(tmp_path / "a" / "b" / "warehouse.duckdb")
    )
    Plugin("lake", {}).update_connection_config(credentials, {})
    assert (tmp_path / "a" / "b").is_dir()


def test_reading_uses_files_and_row_groups_of_the_wanted_date_alone(load: Load, lake: str):
    relation = load()
    plan = relation.filter("event_date = date '2011-12-06'").explain()
    assert "Scanning Files: 1/" in plan, plan


def test_fields_of_the_pin_are_those_of_the_run_record():
    from quality.run import Pin

    assert {"lake_uri", "lake_version", "seal_offset"} <= {field.name for field in dataclasses.fields(Pin)}
