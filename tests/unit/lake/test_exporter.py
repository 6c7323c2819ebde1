"""The lake holds exactly the log's rows below the offset that it names."""

from __future__ import annotations

import datetime as dt
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from ingest_service.errors import BadRequest, ConfigError, IngestError, StorageError
from ingest_service.lake import ExportSettings, LakeExporter, LakeState
from ingest_service.log import Log

Fill = Callable[..., int]
SMALL = ExportSettings(rows_per_commit=100, rows_waiting=50)


def files(uri: str) -> list[str]:
    return DeltaTable(uri).file_uris()


def offsets(uri: str, version: int | None = None) -> list[int]:
    """All offsets in the lake, sorted, as DuckDB reads them from the version's own files."""
    listed = DeltaTable(uri, version=version).file_uris()
    if not listed:
        return []
    found = duckdb.sql(f"select _offset from read_parquet({listed}) order by 1").fetchall()
    return [each for (each,) in found]


def test_ensure_makes_an_empty_table_with_all_columns(log: Log, uri: str) -> None:
    exporter = LakeExporter(log, "things", uri)
    assert exporter.ensure() == exporter.state() == LakeState(version=0, offset=0, uri=uri)
    table = DeltaTable(uri)
    assert pa.schema(table.schema().to_arrow()) == log.schema
    assert table.metadata().partition_columns == ["event_date"]
    assert table.metadata().configuration["delta.checkpointInterval"] == "50"
    assert exporter.ensure().version == 0


def test_rows_come_as_they_are_in_the_log_sorted_by_offset(log: Log, fill: Fill, uri: str) -> None:
    fill(500)
    state = LakeExporter(log, "things", uri).export()
    assert (state.version, state.offset) == (1, 500)
    table = DeltaTable(uri)
    logged = pa.Table.from_batches([entry.batch for entry in log.reader(0).read(10_000, 5)])  # type: ignore[union-attr]
    found = table.to_pyarrow_table().sort_by("_offset").select(log.schema.names).cast(log.schema)
    assert found.equals(logged)
    assert len(files(uri)) == 3
    for file in files(uri):
        read = pq.ParquetFile(file).read()["_offset"].to_pylist()
        assert read == sorted(read)


def test_only_what_is_new_is_exported(log: Log, fill: Fill, uri: str) -> None:
    exporter = LakeExporter(log, "things", uri)
    fill(100)
    first = exporter.export()
    assert exporter.export() == first
    fill(20)
    second = exporter.export()
    assert (second.version, second.offset) == (first.version + 1, 120)
    assert offsets(uri) == list(range(120))
    assert offsets(uri, first.version) == list(range(100))


def test_commits_are_bounded_and_reach_at_least_the_offset_asked_for(log: Log, fill: Fill, uri: str) -> None:
    for _ in range(50):
        fill(20, appends=1)
    exporter = LakeExporter(log, "things", uri, settings=SMALL)
    state = exporter.export(up_to=150)
    assert 150 <= state.offset < 1_000
    assert offsets(uri) == list(range(state.offset))
    assert exporter.export(up_to=10) == state
    assert exporter.export().offset == 1_000
    sizes = [pq.ParquetFile(file).metadata.num_rows for file in files(uri)]
    assert max(sizes) <= 100
    assert offsets(uri) == list(range(1_000))


def test_seals_in_between_take_no_offset(log: Log, fill: Fill, uri: str) -> None:
    exporter = LakeExporter(log, "things", uri)
    log.seal(dt.date(2011, 12, 1), dt.date(2011, 12, 1), force=True)
    fill(10)
    log.seal(dt.date(2011, 12, 5), dt.date(2011, 12, 5), force=True)
    fill(10)
    log.seal(dt.date(2011, 12, 5), dt.date(2011, 12, 7), force=True)
    assert exporter.export().offset == 20
    assert offsets(uri) == list(range(20))


def test_an_offset_beyond_the_log_is_refused(log: Log, fill: Fill, uri: str) -> None:
    fill(10)
    with pytest.raises(BadRequest, match="up to 10, its durable offset, came 11"):
        LakeExporter(log, "things", uri).export(up_to=11)


def test_two_exporters_double_nothing(log: Log, fill: Fill, uri: str) -> None:
    """Two services by mistake: each one's commits are conflicts to the other."""
    fill(1_000, appends=100)
    exporters = [LakeExporter(log, "things", uri, settings=SMALL) for _ in range(2)]
    for exporter in exporters:
        exporter.ensure()
    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(exporter.export) for exporter in exporters]
        for result in results:
            assert result.exception() is None or isinstance(result.exception(), StorageError)
    assert exporters[0].export().offset == 1_000
    assert offsets(uri) == list(range(1_000))


def test_another_writer_in_between_is_looked_at_anew(log: Log, fill: Fill, uri: str) -> None:
    exporter = LakeExporter(log, "things", uri)
    fill(30)
    exporter.export()
    DeltaTable(uri).optimize.compact()
    DeltaTable(uri).alter.set_table_properties({"delta.logRetentionDuration": "interval 60 days"})
    fill(30)
    assert exporter.export().offset == 60
    assert offsets(uri) == list(range(60))


def test_compacting_a_date_leaves_one_sorted_file_and_the_others_alone(log: Log, fill: Fill, uri: str) -> None:
    exporter = LakeExporter(log, "things", uri)
    for _ in range(4):
        fill(60)
        before = exporter.export()
    untouched = {file for file in files(uri) if "2011-12-05" not in file}
    after = exporter.compact(dt.date(2011, 12, 5))
    assert (after.version, after.offset) == (before.version + 1, before.offset)
    (compacted,) = set(files(uri)) - untouched
    read = pq.ParquetFile(compacted).read()["_offset"].to_pylist()
    assert read == sorted(read)
    assert len(read) == 80
    assert untouched < set(files(uri))
    assert offsets(uri) == offsets(uri, before.version) == list(range(240))
    assert exporter.compact(dt.date(2011, 12, 5)) == exporter.compact(dt.date(1999, 1, 1)) == after
    fill(3)
    assert exporter.export().offset == 243


def test_the_offset_outlives_checkpoints(log: Log, fill: Fill, uri: str) -> None:
    exporter = LakeExporter(log, "things", uri)
    for _ in range(55):
        fill(1, appends=1)
        exporter.export()
    assert list(Path(uri, "_delta_log").glob("*.checkpoint.parquet"))
    for old in Path(uri, "_delta_log").glob("000000000000000000[0-4]?.json"):
        old.unlink()
    assert LakeExporter(log, "things", uri).ensure().offset == 55


def test_a_table_of_another_contract_is_refused(log: Log, uri: str) -> None:
    write_deltalake(uri, pa.table({"id": ["a"], "price": [1.5]}))
    with pytest.raises(ConfigError, match=r"columns price, at, _partition.* differ \(expected id: string"):
        LakeExporter(log, "things", uri).ensure()


def test_a_lake_ahead_of_its_log_is_refused(log: Log, fill: Fill, uri: str, tmp_path: Path) -> None:
    fill(10)
    LakeExporter(log, "things", uri).export()
    other = Log.open(tmp_path / "other", log.spec)
    try:
        with pytest.raises(StorageError, match="reaches to offset 10, but the log of stream 'things' ends at 0"):
            LakeExporter(other, "things", uri).ensure()
    finally:
        other.close()


def test_the_background_follows_the_log_and_stops(log: Log, fill: Fill, uri: str) -> None:
    exporter = LakeExporter(log, "things", uri)
    exporter.start(interval_s=0.01)
    try:
        fill(200)
        wait_for(lambda: exporter.state().offset == 200)
        fill(50)
        wait_for(lambda: exporter.state().offset == 250)
        assert exporter.last_error is None
    finally:
        exporter.stop()
    fill(10)
    assert exporter.state().offset == 250
    assert exporter.export().offset == 260
    assert offsets(uri) == list(range(260))


def test_many_waiting_rows_do_not_wait_for_the_interval(log: Log, fill: Fill, uri: str) -> None:
    exporter = LakeExporter(log, "things", uri, settings=SMALL)
    exporter.start(interval_s=3_600)
    try:
        fill(60)
        wait_for(lambda: exporter.state().offset == 60)
    finally:
        exporter.stop()


def test_the_background_shows_its_error_and_goes_on(log: Log, fill: Fill, uri: str) -> None:
    exporter = LakeExporter(log, "things", uri)
    Path(uri).parent.mkdir(parents=True)
    Path(uri).touch()
    exporter.start(interval_s=0.01)
    try:
        fill(10)
        wait_for(lambda: isinstance(exporter.last_error, IngestError))
        assert "could not be opened" in str(exporter.last_error)
        Path(uri).unlink()
        wait_for(lambda: exporter.last_error is None)
        assert exporter.state().offset == 10
    finally:
        exporter.stop()


PROGRAM = """
import sys
from pathlib import Path
from ingest_service.lake import ExportSettings, LakeExporter
from ingest_service.log import Log
from tests_lake import SPEC
log = Log.open(Path(sys.argv[1]), SPEC)
print("exporting", flush=True)
LakeExporter(log, "things", sys.argv[2], settings=ExportSettings(rows_per_commit=20)).export()
print("done", flush=True)
"""


def test_killed_at_any_moment_nothing_is_lost_or_doubled(log: Log, fill: Fill, uri: str, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    count = fill(2_000, appends=200)
    log.close()
    (tmp_path / "tests_lake.py").write_bytes((Path(__file__).parent / "conftest.py").read_bytes())
    for _ in range(4):
        with exporting(tmp_path, uri) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "exporting\n"
            threading.Event().wait(chance.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
    with exporting(tmp_path, uri) as process:
        assert process.communicate(timeout=60)[0].endswith("done\n")
    assert offsets(uri) == list(range(count))


def exporting(tmp_path: Path, uri: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "log"), uri]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[3])])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def wait_for(condition: Callable[[], bool]) -> None:
    """The exporter's thread has no event to await: looks again until it is so, 30 s at the most."""
    pause = threading.Event()
    for _ in range(3_000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not become so within 30 s")
