"""What a version needs that stays readable is never deleted; everything else is, once it is old enough."""

from __future__ import annotations

import datetime as dt
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from support.logs import SetClock
from support.object_store import object_store
from unit.lake.test_exporter import offsets

from ingest_service.errors import StorageError
from ingest_service.lake import ExportSettings, LakeExporter, WholeLog, vacuum
from ingest_service.log import Log

Fill = Callable[..., int]
DAY_S = 86_400
FIRST = dt.date(2011, 12, 5)


@pytest.fixture
def exporter(log: Log, uri: str) -> LakeExporter:
    made = LakeExporter(log, "things", uri, settings=ExportSettings(rows_per_commit=100))
    made.ensure()
    return made


def data_files(uri: str) -> set[str]:
    return {str(path.relative_to(uri)) for path in Path(uri).rglob("*.parquet") if "_delta_log" not in path.parts}


def grow(fill: Fill, exporter: LakeExporter, commits: int = 3) -> int:
    """Some commits of 30 rows on three dates; the version before they are compacted."""
    for _ in range(commits):
        fill(30)
        exporter.export()
    version = exporter.state().version
    exporter.compact_all()
    return version


def age(uri: str, days: float, up_to_version: int | None = None) -> None:
    """Make everything, or the Delta log up to a version, so much older."""
    for path in Path(uri).rglob("*"):
        digits = path.name[:20]
        if up_to_version is None or (digits.isdigit() and int(digits) <= up_to_version):
            at = path.stat().st_mtime - days * DAY_S
            os.utime(path, (at, at))


def test_only_what_is_kept_can_be_read_afterwards(log: Log, fill: Fill, uri: str, exporter: LakeExporter) -> None:
    versions = [grow(fill, exporter) for _ in range(4)]
    kept, gone = versions[1], [versions[0], versions[2], versions[3]]
    rows = {version: offsets(uri, version) for version in versions}
    unneeded = {file for version in gone for file in DeltaTable(uri, version=version).file_uris()}
    unneeded -= set(DeltaTable(uri, version=kept).file_uris()) | set(DeltaTable(uri).file_uris())
    done = exporter.vacuum([kept], 0)
    assert done.deleted_files >= len(unneeded) > 0
    assert done.freed_bytes > 0
    assert not [file for file in unneeded if Path(file).exists()]
    assert offsets(uri, kept) == rows[kept]
    assert offsets(uri) == list(range(log.durable_offset))
    needed = set(DeltaTable(uri, version=kept).file_uris()) | set(DeltaTable(uri).file_uris())
    assert {str(Path(uri, file)) for file in data_files(uri)} == needed
    assert (done.files, done.kept_files) == (3, len(needed) - 3)
    again = exporter.vacuum([kept], 0)
    assert (again.deleted_files, again.freed_bytes) == (0, 0)
    assert exporter.vacuum([], 0).kept_files == 0
    fill(20)
    assert exporter.export().offset == log.durable_offset == len(offsets(uri))


def test_random_pins_stay_readable(log: Log, fill: Fill, uri: str, exporter: LakeExporter) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    pins: dict[int, list[int]] = {}
    for _ in range(25):
        fill(chance.randrange(1, 40))
        version = exporter.export().version
        if chance.random() < 0.4:
            pins[version] = offsets(uri)
        if chance.random() < 0.3:
            exporter.compact_all([FIRST + dt.timedelta(days=chance.randrange(3))])
        if chance.random() < 0.3:
            dropped = [pin for pin in pins if chance.random() < 0.3]
            for pin in dropped:
                del pins[pin]
            assert exporter.vacuum(pins, 0).missing == ()
        for pin, rows in pins.items():
            assert offsets(uri, pin) == rows, f"seed {seed}, version {pin}"
    assert offsets(uri) == list(range(log.durable_offset))


def test_young_versions_stay_and_old_ones_go(fill: Fill, uri: str, exporter: LakeExporter) -> None:
    old = grow(fill, exporter)
    age(uri, 8)
    young = grow(fill, exporter)
    assert exporter.vacuum([], 10 * DAY_S).deleted_files == 0
    seven_days_ago = exporter.vacuum([], 7 * DAY_S)
    assert seven_days_ago.deleted_files > 0
    # What was the present version seven days ago stays: the one that the compaction made.
    for version in (old + 3, young, young + 1):
        assert offsets(uri, version) == list(range(offsets(uri, version)[-1] + 1))
    with pytest.raises(Exception, match="No files found"):
        offsets(uri, old)


def test_files_that_no_commit_names_go_when_they_are_old(fill: Fill, uri: str, exporter: LakeExporter) -> None:
    """An export that was killed leaves such; so does a compaction."""
    grow(fill, exporter)
    orphan = Path(uri, f"event_date={FIRST}", "part-00000-killed.zstd.parquet")
    orphan.write_bytes(b"half")
    half = Path(uri, "_delta_log", "_commit_0b1f.json.tmp")
    half.write_bytes(b"{")
    exporter.vacuum([], DAY_S)
    assert orphan.exists()
    assert half.exists()
    for path in (orphan, half):
        os.utime(path, (0, 0))
    done = exporter.vacuum([], DAY_S)
    assert (done.deleted_files, done.deleted_log_files, done.freed_bytes) == (1, 1, 5)


def test_log_entries_before_all_that_stay_go(log: Log, fill: Fill, uri: str, exporter: LakeExporter) -> None:
    for _ in range(120):
        fill(1, appends=1)
        exporter.export()
    kept = 70
    rows = offsets(uri, kept)
    done = exporter.vacuum([kept], 0)
    entries = sorted(path.name for path in Path(uri, "_delta_log").iterdir() if path.name[0].isdigit())
    first = int(entries[0][:20])
    assert 0 < first <= kept
    assert done.deleted_log_files >= 49
    assert offsets(uri, kept) == rows
    with pytest.raises(DeltaError):
        DeltaTable(uri, version=first - 1)
    assert exporter.vacuum([kept, 3, 9_999], 0).missing == (3, 9_999)
    assert LakeExporter(log, "things", uri).ensure().offset == 120
    # Delta does not clean up by itself from now on, however old an entry is.
    age(uri, 400)
    for _ in range(60):
        fill(1, appends=1)
        exporter.export()
    assert offsets(uri, kept) == rows


def test_a_damaged_table_loses_nothing_more(fill: Fill, uri: str, exporter: LakeExporter) -> None:
    grow(fill, exporter)
    before = data_files(uri)
    lost = Path(DeltaTable(uri).file_uris()[0])
    content = lost.read_bytes()
    lost.unlink()
    with pytest.raises(StorageError, match=r"could not be vacuumed: event_date=.* is missing, and 0 others; restore"):
        exporter.vacuum([], 0)
    lost.write_bytes(content)
    assert data_files(uri) == before
    DeltaTable(uri).delete(f"event_date = '{FIRST}'")
    with pytest.raises(StorageError, match="reaches to offset 90, but has 60 rows: nothing of it is deleted"):
        exporter.vacuum([], 0)
    assert before <= data_files(uri)


def test_what_stays_is_on_disk_before_anything_is_deleted(log: Log, fill: Fill, uri: str) -> None:
    seen: list[set[str]] = []
    exporter = LakeExporter(log, "things", uri, sync=lambda: seen.append(data_files(uri)))
    grow(fill, exporter)
    before = data_files(uri)
    exporter.vacuum([], 0)
    assert seen == [before]
    assert data_files(uri) < before
    exporter.vacuum([], 0)
    assert len(seen) == 1


def test_a_folder_may_have_any_name(log: Log, fill: Fill, tmp_path: Path) -> None:
    uri = str(tmp_path / "a lake, 100% ours" / "things")
    exporter = LakeExporter(log, "things", uri)
    grow(fill, exporter)
    assert exporter.vacuum([], 0).deleted_files > 0
    assert DeltaTable(uri).to_pyarrow_table().num_rows == 90


def test_a_table_in_an_object_store_is_vacuumed_by_a_process_of_its_own(
    log: Log, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_store() as store:
        options = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.port}", "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "conditional_put": "etag",
        }  # fmt: skip
        uri = "s3://bucket/lake/things"
        store.put("bucket/lake/.keep", b"")
        exporter = LakeExporter(log, "things", uri, storage_options=options)
        kept = grow(fill, exporter) - 1
        before = set(DeltaTable(uri, version=kept, storage_options=options).file_uris())
        done = exporter.vacuum([kept, 99], 0)
        assert (done.deleted_files, done.files, done.kept_files, done.missing) == (3, 3, 6, (99,))
        assert len(store.names("bucket/lake/things/event_date")) == 9
        there = {f"s3://{path}" for path in store.objects}
        assert before < there
        fill(20)
        assert exporter.export().offset == 110
        store.read_only = True
        with pytest.raises(StorageError, match=r"could not be vacuumed: (?s:.*)AccessDenied") as raised:
            exporter.vacuum([], 0)
        assert "Traceback" not in str(raised.value)
        store.read_only = False
        monkeypatch.setattr(vacuum, "TIMEOUT_S", 0.001)
        with pytest.raises(StorageError, match="it took longer than"):
            exporter.vacuum([], 0)


def test_compacted_are_past_dates_in_several_small_files(set_log: tuple[Log, SetClock], uri: str) -> None:
    from unit.lake.conftest import rows

    from ingest_service.log import Append

    log, clock = set_log
    exporter = LakeExporter(log, "things", uri, clock=clock)
    for first in (0, 30):
        log.append(Append(rows(first, 30, 3), 30)).result(30)
        exporter.export()
    # The clock is at the second of the three dates.
    clock.us = int(dt.datetime(2011, 12, 6, 12, tzinfo=dt.UTC).timestamp() * 1e6)
    assert exporter.compact_all() == [FIRST]
    assert exporter.compact_all() == []
    second, third = FIRST + dt.timedelta(days=1), FIRST + dt.timedelta(days=2)
    assert exporter.compact_all([third]) == [third]
    assert exporter.compact_all([dt.date(1999, 1, 1)]) == []
    assert exporter.compact_all([FIRST, second, third]) == [second]


def test_readers_of_old_rows_go_on_in_another_version(log: Log, fill: Fill, uri: str, exporter: LakeExporter) -> None:
    grow(fill, exporter)
    reader = WholeLog(log, uri)
    snapshot = reader.snapshot(10)
    grow(fill, exporter)
    exporter.vacuum([], 0)
    assert snapshot.version < reader.snapshot(10, other_than=snapshot).version
