"""Snapshots: the state from one and the frames after it is the state from all frames."""

import datetime as dt
import random
from pathlib import Path

import pytest
from support.faults import FailingFiles
from support.logs import NOON_US, SetClock, append, batch, ids_in

from ingest_service.errors import LogDamaged, StorageError
from ingest_service.log import Append, Log, QuarantinedRow
from ingest_service.log.files import OsFiles
from ingest_service.log.quarantine_index import replays_of
from ingest_service.log.segment import SegmentName
from ingest_service.log.snapshot import Place, read_snapshots, snapshot_places

DATE = dt.date(2026, 3, 4)


def live_a_little(log: Log, chance: random.Random, clock: SetClock) -> None:
    """Appends with duplicates, quarantined rows, replays of them, seals, late rows and time that passes."""
    for i in range(40):
        producer = chance.choice("pqr")
        known = log.producer_state(producer).result()
        good = [f"{producer}{chance.randrange(400)}" for _ in range(chance.randrange(5))]
        bad = tuple(QuarantinedRow(len(good) + k, "rule", "f", "m", b"x%d" % i) for k in range(chance.randrange(3)))
        at = NOON_US + chance.randrange(3) * 86_400_000_000
        sequence = known.last_sequence + 1 if known else 0
        log.append(Append(batch(good, at), len(good) + len(bad), bad, producer, sequence, 0)).result()
        clock.us += chance.randrange(30_000_000)
        if chance.random() < 0.05:
            log.seal(DATE, DATE, force=True)
        if bad and chance.random() < 0.3:
            row_id = log.quarantine.newest(1)[0].row_id
            log.replay(batch([f"replayed {row_id}"]), replays_of([row_id]))


def everything(log: Log) -> dict[str, object]:
    """All that a log knows; the dedup window by what it answers."""
    every_id = [f"{producer}{number}" for producer in "pqr" for number in range(400)]
    return {
        "state": log._state.pack(),
        "index": log._index.pack(),
        "segments": [(str(info.name), info.valid_end, info.begun_us) for info in log.segments],
        "counts": log.counts(),
        "seals": log.seals(),
        "quarantine": log.quarantine.newest(10_000),
        "rows": ids_in(log, log.start_offset),
        "duplicates": [log.duplicates(batch([each])) for each in every_id],
    }


def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


def remove_snapshots(path: Path) -> None:
    for snapshot in path.glob("*.snapshot"):
        snapshot.unlink()


@pytest.mark.parametrize("segment_bytes", [2000, 8000])
def test_state_from_a_snapshot_equals_that_from_all_frames(open_log, tmp_path, clock, segment_bytes):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    bounds = {"segment_bytes": segment_bytes, "dedup_ids_max": 60, "dedup_age_s": 900, "producers_max": 2}
    chance = random.Random(seed)
    for _ in range(3):
        log = open_log(**bounds)
        live_a_little(log, chance, clock)
        lived = everything(log)
        log.close()
        log = open_log(**bounds)
        assert everything(log) == lived
        log.close()
        assert snapshot_places(OsFiles(), folder(tmp_path))
        remove_snapshots(folder(tmp_path))
        log = open_log(**bounds)
        assert everything(log) == lived
        log.close()


class CountingFiles(OsFiles):
    """Counts the bytes read of each file."""

    def __init__(self) -> None:
        self.read: dict[str, int] = {}

    def open_read(self, path: Path):
        handle = super().open_read(path)
        inner = handle.read_at

        def read_at(position: int, size: int) -> bytes:
            data = inner(position, size)
            self.read[path.name] = self.read.get(path.name, 0) + len(data)
            return data

        handle.read_at = read_at  # type: ignore[method-assign]
        return handle


def fill(open_log, segments: int, **settings: int) -> Log:
    log = open_log(segment_bytes=20_000, **settings)
    while len(log.segments) < segments:
        log.append(append([f"{log.durable_offset + k}" for k in range(50)])).result()
    return log


def test_a_start_reads_only_what_comes_after_the_snapshot(open_log, clock):
    log = fill(open_log, 8, dedup_ids_max=10)
    log.close()
    files = CountingFiles()
    log = open_log(files, segment_bytes=20_000, dedup_ids_max=10)
    read = {name: size for name, size in files.read.items() if name.endswith(".seg")}
    # Of the closed segments only the heads; of one of them perhaps the end, for the dedup window.
    assert len(read) == 8
    assert sorted(read.values())[5] < 1500


def test_two_snapshots_are_kept_and_a_damaged_one_is_passed_over(open_log, tmp_path, clock):
    log = fill(open_log, 6)
    expected = log.counts(), ids_in(log)
    log.close()
    places = snapshot_places(OsFiles(), folder(tmp_path))
    assert [place.segment for place in places] == [6, 5]
    newest = folder(tmp_path) / str(places[0])
    newest.write_bytes(newest.read_bytes()[:-1])
    assert [each.place for each in read_snapshots(OsFiles(), folder(tmp_path), "payments")] == places[1:]
    assert [*read_snapshots(OsFiles(), folder(tmp_path), "refunds")] == []
    log = open_log(segment_bytes=20_000)
    assert (log.counts(), ids_in(log)) == expected


def test_a_snapshot_beyond_the_logs_end_proves_that_rows_are_gone(open_log, tmp_path):
    log = fill(open_log, 3)
    place = log.snapshot()
    log.close()
    (folder(tmp_path) / "durable.json").unlink()
    last = folder(tmp_path) / str(log.segments[-1].name)
    whole = last.read_bytes()
    last.write_bytes(whole[:-1])
    with pytest.raises(LogDamaged, match=rf"the file ends here; {place.position} bytes of it were durable"):
        open_log(segment_bytes=20_000)
    last.unlink()
    with pytest.raises(LogDamaged, match="is missing"):
        open_log(segment_bytes=20_000)


def test_a_segment_shorter_than_it_was_stops_the_start_although_a_snapshot_covers_it(open_log, tmp_path):
    log = fill(open_log, 4)
    log.close()
    first = min(folder(tmp_path).glob("*.seg"), key=lambda path: SegmentName.parse(path.name).number)
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(LogDamaged, match="is damaged at byte") as caught:
        open_log(segment_bytes=20_000)
    assert caught.value.file == str(first)


@pytest.mark.parametrize("operation", ["create", "sync", "write", "sync_folder"])
@pytest.mark.parametrize("after", [0, 1, 2, 3, 5])
def test_a_snapshot_that_cannot_be_written_holds_nothing_up(open_log, operation, after):
    files = FailingFiles(**{operation: 8 + after})
    log = open_log(files, segment_bytes=1200)
    failed = 0
    for i in range(16):
        try:
            log.append(append([f"{i}-{k}" for k in range(20)])).result()
        except Exception:
            failed += 1
    assert files.failed == [operation]
    rows = ids_in(log)
    log.close()
    assert ids_in(open_log(segment_bytes=1200)) == rows
    assert len(rows) == 20 * (16 - failed)


def test_a_snapshot_too_large_to_be_read_back_is_not_written(open_log, tmp_path, monkeypatch):
    log = fill(open_log, 3)
    log.snapshot()
    before = snapshot_places(OsFiles(), folder(tmp_path))
    log.append(append(["one more"])).result()
    monkeypatch.setattr("ingest_service.log.frame.FRAME_BYTES_MAX", 100)
    with pytest.raises(StorageError, match="expected at most 100 bytes"):
        log.snapshot()
    assert snapshot_places(OsFiles(), folder(tmp_path)) == before


def test_places_are_ordered_and_named_by_segment_and_position(tmp_path):
    for name in ("000002-000000000100.snapshot", "000010-000000000007.snapshot", "x.snapshot", "000002-1.snapshot.tmp"):
        (tmp_path / name).touch()
    assert snapshot_places(OsFiles(), tmp_path) == [Place(10, 7), Place(2, 100)]
