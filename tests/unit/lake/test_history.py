"""Rows that the log no longer keeps, from the lake: the same rows, in the same order."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from support.cut_log import CutLog
from unit.lake.conftest import FIRST, SPEC, rows

from ingest_service.errors import StorageError
from ingest_service.lake import ExportSettings, LakeExporter, WholeLog
from ingest_service.lake import history as history_module
from ingest_service.lake.snapshot import LakeSnapshot
from ingest_service.log import Append, Log, Seal

SEED = random.randrange(1 << 32)


@pytest.fixture
def exported(log: Log, fill: Callable[..., int], uri: str) -> LakeExporter:
    """A log of 9,000 rows over three days, in the lake in commits of 1,000."""
    exporter = LakeExporter(log, "things", uri, settings=ExportSettings(rows_per_commit=1000))
    for _ in range(9):
        fill(1000, appends=4)
    exporter.export()
    return exporter


def everything(reader: Any, rows_max: int = 700) -> tuple[pa.Table, list[Seal]]:
    """All that a reader gives: its rows, and its seals, each checked to stand where it belongs."""
    batches, seals, at = [], [], None
    while entries := reader.read(rows_max, 0):
        for entry in entries:
            if isinstance(entry, Seal):
                assert at is None or entry.seal_offset == at
                seals.append(entry)
            else:
                assert at is None or entry.base_offset == at
                at = entry.next_offset
                batches.append(entry.batch)
    reader.close()
    return pa.Table.from_batches(batches), seals


def test_the_lake_gives_the_same_rows_as_the_log(log: Log, exported: LakeExporter, uri: str) -> None:
    whole = WholeLog(CutLog(log, log.durable_offset), uri)
    for offset in (0, 1, 999, 1000, 4321, 8999):
        expected, _ = everything(log.reader(offset))
        found, _ = everything(whole.reader(offset))
        assert found.schema.equals(expected.schema, check_metadata=True)
        assert found.equals(expected), offset


def test_it_goes_on_in_the_log_where_the_lake_need_not_be_asked(log: Log, exported: LakeExporter, uri: str) -> None:
    rows_after = rows(9000, 500, 3)
    log.append(Append(rows_after, 500)).result(10)
    whole = WholeLog(CutLog(log, 5000), uri)
    found, _ = everything(whole.reader(0))
    assert found.equals(everything(log.reader(0))[0])
    assert found.num_rows == 9500


def test_retention_may_overtake_a_reader(log: Log, exported: LakeExporter, uri: str) -> None:
    cut = CutLog(log)
    whole = WholeLog(cut, uri)
    reader = whole.reader(0)
    found = []
    for start in (0, 3000, 3500, 9000):
        cut.start_offset = start
        found += [entry.batch for entry in reader.read(1000, 0)]
    found += everything(reader)[0].to_batches()
    assert pa.Table.from_batches(found).equals(everything(log.reader(0))[0])


@pytest.mark.parametrize("start", [0, 1500, 2000, 2001, 4000])
def test_seals_stand_at_their_offsets_and_come_once(log: Log, fill: Any, uri: str, start: int) -> None:
    exporter = LakeExporter(log, "things", uri)
    seals = []
    for day in range(4):
        fill(1000)
        seals.append(log.seal(FIRST.date(), FIRST.date() + dt.timedelta(days=day), force=True))
        if day == 1:
            seals.append(log.seal(FIRST.date(), FIRST.date(), force=True))
    exporter.export()
    whole = WholeLog(CutLog(log, start), uri)
    for offset in (0, 999, 1000, 1001, 2000, 3999, 4000):
        reader = whole.reader(offset)
        if offset < 4000:
            found, told = everything(reader)
            assert found.num_rows == 4000 - offset
        else:
            told = reader.read(1, 0)
        assert told == [seal for seal in seals if seal.seal_offset >= offset], offset


def test_dates_that_were_compacted_are_read_alike(log: Log, exported: LakeExporter, uri: str) -> None:
    for day in range(3):
        exported.compact(FIRST.date() + dt.timedelta(days=day))
    assert len(LakeSnapshot(uri, "things").files) == 3
    found, _ = everything(WholeLog(CutLog(log, 9000), uri).reader(0))
    assert found.equals(everything(log.reader(0))[0])


def test_files_whose_rows_are_in_no_order_are_read_alike(log: Log, exported: LakeExporter, uri: str) -> None:
    # What a user's own OPTIMIZE does: files one after another, in any order.
    DeltaTable(uri).optimize.compact()
    found, _ = everything(WholeLog(CutLog(log, 9000), uri).reader(17), rows_max=100)
    assert found.equals(everything(log.reader(17))[0])


def test_more_files_than_may_be_open_overlap(log: Log, fill: Any, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "OPEN_MAX", 3)
    monkeypatch.setattr(history_module, "SMALL_BYTES", 100)
    monkeypatch.setattr(history_module, "MERGE_BYTES", 20_000)
    fill(6000, days=20)
    LakeExporter(log, "things", uri).export()
    reader = WholeLog(CutLog(log, 6000), uri).reader(0)
    opened = 0
    batches = []
    while entries := reader.read(500, 0):
        batches += [entry.batch for entry in entries]
        assert reader._history is not None
        opened = max(opened, sum(cursor.open_bytes > 0 for cursor in reader._history._open))
    assert opened == 3
    assert pa.Table.from_batches(batches).equals(everything(log.reader(0))[0])


def test_a_version_that_was_vacuumed_meanwhile_is_left_for_the_newest(
    log: Log, exported: LakeExporter, uri: str
) -> None:
    reader = WholeLog(CutLog(log, 9000), uri).reader(0)
    found = [entry.batch for entry in reader.read(10, 0)]
    for day in range(3):
        exported.compact(FIRST.date() + dt.timedelta(days=day))
    removed = DeltaTable(uri).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert len(removed) == 27
    found += everything(reader)[0].to_batches()
    assert pa.Table.from_batches(found).equals(everything(log.reader(0))[0])


def test_a_row_that_the_lake_lacks_is_never_skipped(log: Log, exported: LakeExporter, uri: str) -> None:
    DeltaTable(uri).delete("_offset = 1234")
    reader = WholeLog(CutLog(log, 9000), uri).reader(1000)
    with pytest.raises(StorageError, match=r"expected each of the rows .* once, row 1234 is missing"):
        everything(reader)


def test_a_row_that_is_in_no_lake_and_no_log_is_told(log: Log, exported: LakeExporter, uri: str) -> None:
    log.append(Append(rows(9000, 10, 3), 10)).result(10)
    with pytest.raises(StorageError, match="row 9000 is neither in the log, which begins at 9010, nor in the lake"):
        WholeLog(CutLog(log, 9010), uri).reader(9000).read(1, 0)


def test_columns_are_those_asked_for(log: Log, exported: LakeExporter, uri: str) -> None:
    names = ["event_date", "_offset", "price"]
    found, _ = everything(WholeLog(CutLog(log, 4500), uri).reader(10, names))
    assert found.equals(everything(log.reader(10))[0].select(names))


def test_a_column_that_is_newer_than_the_file_is_null(log: Log, exported: LakeExporter, uri: str) -> None:
    schema = log.schema.insert(4, pa.field("added", pa.list_(pa.string())))
    snapshot = LakeSnapshot(uri, "things")
    reader = history_module.HistoryReader(snapshot, schema, SPEC.event_time, 0, schema.names)
    found = reader.read(10)
    assert found is not None
    assert found.batch.schema.equals(schema)
    assert found.batch.column("added").null_count == 10


@pytest.mark.parametrize("start", [0, 1000, 1700, 3000])
@pytest.mark.parametrize("kept", [True, False], ids=["statistics", "none"])
def test_a_time_is_found_in_log_and_lake(set_log: Any, uri: str, start: int, kept: bool) -> None:
    log, clock = set_log
    if not kept:
        properties = {"delta.dataSkippingStatsColumns": "id"}
        DeltaTable.create(uri, log.schema, partition_by=["event_date"], configuration=properties)
    exporter = LakeExporter(log, "things", uri, settings=ExportSettings(rows_per_commit=700))
    times = []
    for number in range(30):
        clock.us += 1_500
        times.append(clock.us)
        log.append(Append(rows(100 * number, 100, 3), 100)).result(10)
        if number % 10 == 9:
            exporter.export()
    assert ("min._offset" in pa.table(DeltaTable(uri).get_add_actions(flatten=True)).schema.names) is kept
    whole = WholeLog(CutLog(log, start), uri)
    for number, time in enumerate(times):
        assert [whole.offset_at(time + us) for us in (-1, 0, 1)] == [100 * number, 100 * number, 100 * number + 100]
    assert whole.offset_at(0) == 0
    assert whole.offset_at(times[-1] + 10**9) == 3000


def test_any_place_any_size_any_layout(log: Log, uri: str, fill: Any) -> None:
    """Random commits, dates, compactions, starts and reads; SEED is printed where it fails."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    for _ in range(12):
        fill(chance.randrange(1, 900), days=chance.randrange(1, 9), appends=chance.randrange(1, 4))
        settings = ExportSettings(rows_per_commit=chance.choice([50, 300, 1000]))
        exporter = LakeExporter(log, "things", uri, settings=settings)
        exporter.export()
        if chance.random() < 0.3:
            exporter.compact(FIRST.date() + dt.timedelta(days=chance.randrange(9)))
    expected, _ = everything(log.reader(0))
    for _ in range(10):
        offset = chance.randrange(log.durable_offset)
        whole = WholeLog(CutLog(log, chance.randrange(log.durable_offset + 1)), uri)
        found, _ = everything(whole.reader(offset), chance.choice([1, 37, 500, 100_000]) if offset > 5000 else 333)
        assert found.equals(expected.slice(offset))


def test_files_of_a_wide_contract_are_found_by_their_statistics(tmp_path: Path) -> None:
    fields = [pa.field(f"c{number}", pa.int64()) for number in range(40)]
    schema = pa.schema([pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False), *fields])
    log = Log.open(tmp_path / "log", replace(SPEC, schema=schema))
    batch = pa.RecordBatch.from_pylist([{"at": FIRST, "c39": number} for number in range(10)], schema=schema)
    log.append(Append(batch, 10)).result(10)
    LakeExporter(log, "things", str(tmp_path / "lake")).export()
    log.close()
    actions = pa.table(DeltaTable(str(tmp_path / "lake")).get_add_actions(flatten=True)).to_pylist()
    assert [(file["min._offset"], file["max._offset"]) for file in actions] == [(0, 9)]
