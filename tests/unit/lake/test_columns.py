"""A changed contract's columns reach the lake; the rows before are null in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from ingest_service.errors import StorageError
from ingest_service.lake import LakeExporter
from ingest_service.log import Append, Log
from tidemill.lake import lake_files, lake_query

Fill = Callable[..., int]


def widen(log: Log) -> pa.Schema:
    """Puts a contract in force that has a new column in the middle."""
    schema = log.spec.schema
    wider = pa.schema([schema.field(0), pa.field("shop", pa.string()), *(schema.field(i) for i in range(1, 4))])
    log.apply_spec(replace(log.spec, schema=wider, contract_version=2))
    return wider


def append_from(log: Log, shop: str, at: int) -> None:
    reader = log.reader(at)
    (rows,) = reader.read(1, 10)
    reader.close()
    batch = rows.batch.select(log.spec.schema.names).slice(0, 1)
    columns = [pa.array([shop]) if name == "shop" else batch.column(name) for name in batch.schema.names]
    log.append(Append(pa.RecordBatch.from_arrays(columns, schema=log.spec.schema), 1)).result(10)


def shops(uri: str) -> list[str | None]:
    table = DeltaTable(uri).to_pyarrow_table(columns=["_offset", "shop"]).sort_by("_offset")
    return table["shop"].to_pylist()


def test_new_columns_are_added_and_null_in_the_rows_before(log: Log, fill: Fill, uri: str) -> None:
    exporter = LakeExporter(log, "things", uri)
    fill(4)
    before = exporter.export()
    widen(log)
    exporter.take_columns()
    after = exporter.state()
    assert (after.offset, after.version) == (before.offset, before.version + 1)
    exporter.take_columns()
    assert exporter.state() == after
    append_from(log, "Leeds", 0)
    # Whoever reads a version from before sees what it had.
    assert "shop" not in DeltaTable(uri, version=before.version).schema().to_arrow().names
    assert exporter.export().offset == 5
    assert shops(uri) == [None, None, None, None, "Leeds"]
    assert LakeExporter(log, "things", uri).ensure().offset == 5


def test_an_export_adds_what_the_change_could_not(log: Log, fill: Fill, uri: str) -> None:
    """Rows from before the change that were not exported yet go with those from after it."""
    exporter = LakeExporter(log, "things", uri)
    fill(2)
    widen(log)
    append_from(log, "York", 0)
    exporter.export()
    assert shops(uri) == [None, None, "York"]


def test_a_restart_adds_them_too(log: Log, fill: Fill, uri: str) -> None:
    fill(2)
    LakeExporter(log, "things", uri).export()
    widen(log)
    assert LakeExporter(log, "things", uri).ensure().offset == 2
    assert shops(uri) == [None, None]


def test_files_of_both_shapes_are_compacted_and_read_as_one(log: Log, fill: Fill, uri: str) -> None:
    import duckdb

    exporter = LakeExporter(log, "things", uri)
    fill(3, days=1)
    exporter.export()
    widen(log)
    append_from(log, "Leeds", 0)
    exporter.export()
    columns = {"id": "VARCHAR", "shop": "VARCHAR", "_offset": "BIGINT", "event_date": "DATE"}
    expected = [("n0", None), ("n1", None), ("n2", None), ("n0", "Leeds")]

    def read() -> list[tuple[str, str | None]]:
        query = lake_query(lake_files(uri, None), columns, None)
        return duckdb.sql(f"select id, shop from ({query}) order by _offset").fetchall()

    assert read() == expected
    date = DeltaTable(uri).to_pyarrow_table()["event_date"][0].as_py()
    exporter.compact(date)
    assert len(lake_files(uri, None)) == 1
    assert read() == expected


def test_a_table_that_cannot_be_changed_leaves_the_change_to_the_next_export(
    log: Log, fill: Fill, uri: str, tmp_path: Path
) -> None:
    exporter = LakeExporter(log, "things", uri)
    fill(1)
    exporter.export()
    widen(log)
    commits = Path(uri, "_delta_log")
    away = tmp_path / "away"
    commits.rename(away)
    commits.write_text("in the way")
    with pytest.raises(StorageError, match="what is in the log is safe"):
        exporter.take_columns()
    commits.unlink()
    away.rename(commits)
    append_from(log, "Leeds", 0)
    exporter.export()
    assert shops(uri) == [None, "Leeds"]


def test_another_writers_columns_are_not_taken_for_the_contracts(log: Log, uri: str) -> None:
    from ingest_service.errors import ConfigError

    write_deltalake(uri, log.schema.append(pa.field("extra", pa.string())).empty_table())
    with pytest.raises(ConfigError, match="columns extra differ"):
        LakeExporter(log, "things", uri).ensure()
