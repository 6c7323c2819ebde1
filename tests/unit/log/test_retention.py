"""Retention: what may go, what must stay, and that a crash at any step of it loses nothing."""

import datetime as dt
from pathlib import Path

import pytest
from support.logs import NOON_US, SCHEMA, SetClock, append, batch, ids_in

from ingest_service.data.folder import hold_segments
from ingest_service.errors import BadRequest, LogDamaged, OffsetDropped
from ingest_service.log import Append, Log, LogSettings, QuarantinedRow, Retention, RetentionHold, Verdict
from ingest_service.log.files import OsFiles
from ingest_service.log.quarantine_index import replays_of
from ingest_service.log.retention import expired
from ingest_service.log.segment import SegmentName
from ingest_service.log.segments import SegmentInfo

DAY_S = 86_400
DATE = dt.date(2026, 3, 4)
BOUNDS = {"segment_bytes": 3000, "dedup_age_s": 60, "retain_age_s": 3 * DAY_S, "quarantine_age_s": 30 * DAY_S}


def retention(log: Log, tmp_path: Path, clock: SetClock, *, lake_offset=None, files=None, **bounds: int) -> Retention:
    settings = LogSettings(**(BOUNDS | bounds))
    lake = log.durable_offset if lake_offset is None else lake_offset
    hold = RetentionHold(tmp_path / "HOLD")
    return Retention(
        log, tmp_path / "log", lambda: lake, hold, settings=settings, clock=clock, files=files, sync=lambda: None
    )


def fill(log: Log, clock: SetClock, days: int = 5, per_day: int = 6) -> None:
    """Some segments a day, each day with quarantined rows, counted from the log's end on."""
    for day in range(days):
        for i in range(per_day):
            at = log.durable_offset
            bad = (QuarantinedRow(40, "rule", "f", "m", b"bad %d" % at),) if i % 3 == 0 else ()
            ids = [str(at + k) for k in range(40)]
            log.append(Append(batch(ids), 40 + len(bad), bad, "", 0, 0)).result()
        if day % 2:
            log.seal(DATE + dt.timedelta(days=day), DATE + dt.timedelta(days=day), force=True)
        clock.us += DAY_S * 1_000_000


def segment_files(tmp_path: Path) -> list[int]:
    return sorted(SegmentName.parse(path.name).number for path in (tmp_path / "log").glob("*.seg"))


def test_old_segments_go_and_everything_else_stays(open_log, tmp_path, clock):
    log = open_log(**BOUNDS)
    log.append(append(["first"], producer="p", sequence=0, sent=1)).result()
    fill(log, clock)
    before = log.counts(), log.seals(), log.quarantine.newest(1000), log.watermark_us
    rows = ids_in(log)
    assert log.start_offset == 0
    dropped = retention(log, tmp_path, clock).run()
    assert dropped.segments >= 3
    assert dropped.size_bytes > 3000 * dropped.segments
    start = log.start_offset
    assert 0 < start < log.durable_offset
    for log_ in (log, None):
        log = log_ or open_log(**BOUNDS)
        assert log.start_offset == start
        assert (log.counts(), log.seals(), log.quarantine.newest(1000), log.watermark_us) == before
        assert ids_in(log, start) == rows[start:]
        with pytest.raises(OffsetDropped, match=f"keeps rows from offset {start} on, came {start - 1}"):
            log.reader(start - 1)
        assert segment_files(tmp_path) == [info.name.number for info in log.segments]
        assert log.append(append(["first"], producer="p", sequence=0, sent=1)).result().replayed
        log.close()


def test_quarantined_rows_of_dropped_segments_are_replayed_once(open_log, tmp_path, clock):
    log = open_log(**BOUNDS)
    fill(log, clock)
    kept = log.quarantine.newest(1000)
    early, late = kept[0], kept[1]
    result = log.replay(batch(["r1"]), replays_of([early.row_id]))
    assert result.rows_appended == 1
    while log.segments[-1].name.number < 40:
        log.append(append([f"more {log.durable_offset + k}" for k in range(40)])).result()
    assert retention(log, tmp_path, clock).run().segments
    assert min(int(row.row_id.partition("-")[0]) for row in kept[1:]) < log.start_segment
    for reopened in (False, True):
        if reopened:
            log.close()
            log = open_log(**BOUNDS)
        assert log.quarantine.newest(1000) == kept[1:]
        assert log.quarantine.by_id([late.row_id]) == [late]
        with pytest.raises(BadRequest, match="replayed, or expired"):
            log.replay(batch(["r1 again"]), replays_of([early.row_id]))
    assert log.replay(batch(["r2"]), replays_of([late.row_id])).rows_appended == 1
    log.close()
    log = open_log(**BOUNDS)
    assert log.quarantine.newest(1000) == kept[2:]
    with pytest.raises(BadRequest, match="replayed, or expired"):
        log.replay(batch(["r2 again"]), replays_of([late.row_id]))
    counts = log.counts()
    assert counts.received == counts.appended + counts.duplicate + counts.quarantined
    assert counts.quarantined == len(kept) - 2


def test_quarantined_rows_expire_with_their_files(open_log, tmp_path, clock):
    log = open_log(**BOUNDS)
    fill(log, clock)
    keeper = retention(log, tmp_path, clock)
    keeper.run()
    kept = list((tmp_path / "log").glob("*.quarantine"))
    assert kept
    before = log.counts()
    expiring = retention(log, tmp_path, clock, quarantine_age_s=2 * DAY_S)
    expiring.run()
    left = log.quarantine.newest(1000)
    assert left
    assert all(clock.us - row.append_time_us <= 2 * DAY_S * 1_000_000 for row in left)
    assert not list((tmp_path / "log").glob("*.quarantine"))
    log.close()
    log = open_log(**BOUNDS)
    retention(log, tmp_path, clock, quarantine_age_s=2 * DAY_S).run()
    assert log.quarantine.newest(1000) == left
    assert log.quarantine.waiting == len(left)
    # They were refused, and that stays counted.
    assert log.counts() == before


def test_nothing_goes_while_a_backup_holds_the_segments(open_log, tmp_path, clock):
    log = open_log(**BOUNDS)
    fill(log, clock)
    files = segment_files(tmp_path)
    with hold_segments(tmp_path), hold_segments(tmp_path):
        assert retention(log, tmp_path, clock).run().segments == 0
        assert segment_files(tmp_path) == files
    assert retention(log, tmp_path, clock).run().segments > 0


def test_what_is_not_in_the_lake_stays(open_log, tmp_path, clock):
    log = open_log(**BOUNDS)
    fill(log, clock)
    second = log.segments[1].name.base_offset
    assert retention(log, tmp_path, clock, lake_offset=0).run().segments == 0
    assert retention(log, tmp_path, clock, lake_offset=second - 1).run().segments == 0
    assert retention(log, tmp_path, clock, lake_offset=second).run().segments == 1
    assert log.start_offset == second


def test_what_the_dedup_window_needs_stays(open_log, tmp_path, clock):
    bounds = BOUNDS | {"dedup_age_s": 100 * DAY_S, "dedup_ids_max": 500}
    log = open_log(**bounds)
    fill(log, clock)
    retention(log, tmp_path, clock, **bounds).run()
    assert 0 < log.start_offset <= log.durable_offset - 500
    last = [str(log.durable_offset - 1 - k) for k in range(500)]
    log.close()
    log = open_log(**bounds)
    assert log.duplicates(batch(last)) == 500


def test_a_reader_that_retention_overtakes_is_told(open_log, tmp_path, clock):
    log = open_log(**BOUNDS, tail_bytes=0)
    fill(log, clock)
    started, late = log.reader(0), log.reader(0)
    reached = [started.read(1, 0)[-1].next_offset]
    retention(log, tmp_path, clock).run()
    # The segment that it is in stays open for it; it must not step over what follows.
    with pytest.raises(OffsetDropped) as caught:
        reached.extend(entries[-1].next_offset for entries in iter(lambda: started.read(1, 0), []))
    assert reached[-1] < caught.value.start_offset == log.start_offset
    with pytest.raises(OffsetDropped):
        late.read(1, 0)
    started.close()
    late.close()


def test_a_reader_from_the_start_meets_the_seals_that_stand_there(open_log, tmp_path, clock):
    log = open_log(**BOUNDS, retain_bytes=1)
    for _ in range(12):
        log.append(append([str(log.durable_offset + k) for k in range(60)])).result()
        log.seal(DATE, DATE, force=True)
    clock.us += 10 * DAY_S * 1_000_000
    retention(log, tmp_path, clock).run()
    assert log.start_offset not in {seal.seal_offset for seal in log.seals()}


class _Crash(Exception):
    pass


class CrashingFiles(OsFiles):
    """Stops at the n-th operation that changes the folder."""

    def __init__(self, left: int) -> None:
        self.left = left

    def _step(self) -> None:
        if self.left == 0:
            raise _Crash
        self.left -= 1

    def replace(self, path: Path, data: bytes) -> None:
        self._step()
        super().replace(path, data)

    def remove(self, path: Path) -> None:
        self._step()
        super().remove(path)


def test_a_crash_at_any_step_loses_nothing(open_log, tmp_path, clock):
    log = open_log(**BOUNDS)
    fill(log, clock)
    kept, counts, rows = log.quarantine.newest(1000), log.counts(), ids_in(log)
    step, crashed = 0, True
    while crashed:
        files = CrashingFiles(step)
        try:
            # A crash stops the process; here the log's thread goes on, and is closed before the next start.
            log_files = CrashingFiles(10**9)
            crashed = False
            log.quarantine._files = files
            retention(log, tmp_path, clock, files=files).run()
        except _Crash:
            crashed = True
        log.close()
        log = open_log(log_files, **BOUNDS)
        assert log.quarantine.newest(1000) == kept, step
        assert log.counts() == counts, step
        assert ids_in(log, log.start_offset) == rows[log.start_offset :], step
        assert segment_files(tmp_path) == [info.name.number for info in log.segments], step
        step += 1
    assert step > 3
    assert log.start_offset > 0


def test_a_segment_that_is_missing_is_not_taken_for_a_dropped_one(open_log, tmp_path, clock):
    log = open_log(**BOUNDS)
    fill(log, clock)
    retention(log, tmp_path, clock).run()
    first = log.segments[0].name
    log.close()
    path = tmp_path / "log" / str(first)
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(LogDamaged, match=f"{first} is missing|predecessor, number {first.number}, is missing"):
        open_log(**BOUNDS)
    path.write_bytes(kept)
    for snapshot in (tmp_path / "log").glob("*.snapshot"):
        snapshot.unlink()
    with pytest.raises(LogDamaged, match="no snapshot can be read"):
        open_log(**BOUNDS)


def test_where_a_log_begins_is_read_or_refused(open_log, tmp_path):
    open_log(**BOUNDS).close()
    (tmp_path / "log" / "start.json").write_bytes(b"\0\0")
    with pytest.raises(LogDamaged, match="can't be understood"):
        open_log(**BOUNDS)


def infos(sizes: list[int], began_s: list[int]) -> list[SegmentInfo]:
    return [
        SegmentInfo(SegmentName(100 * i, i + 1), SCHEMA, size, NOON_US + s * 1_000_000)
        for i, (size, s) in enumerate(zip(sizes, began_s, strict=True))
    ]


@pytest.mark.parametrize(
    ("needed_from", "lake_offset", "age_s", "bytes_", "expected"),
    [
        (99, 999, 0, 0, 0),
        (99, 999, 1000, 0, 0),
        (99, 999, 70, 0, 0),
        (99, 999, 69, 0, 1),
        (99, 999, 1, 0, 3),
        (99, 999, 0, 1, 3),
        (99, 999, 0, 40, 0),
        (99, 999, 0, 39, 1),
        (99, 999, 0, 30, 1),
        (3, 999, 1, 0, 2),
        (99, 199, 1, 0, 1),
        (99, 200, 1, 0, 2),
        (99, 99, 1, 1, 0),
    ],
)
def test_what_is_too_old_or_too_much(needed_from, lake_offset, age_s, bytes_, expected):
    segments = infos([10, 10, 10, 10], [0, 10, 20, 30])
    settings = LogSettings(retain_age_s=age_s, retain_bytes=bytes_)
    now_us = NOON_US + 80_000_000
    assert expired(segments, needed_from, lake_offset, now_us, settings) == expected


def test_a_replayed_row_of_a_sealed_date_is_late_and_a_known_id_is_a_duplicate(open_log):
    log = open_log()
    bad = tuple(QuarantinedRow(i, "rule", "f", "m", b"%d" % i) for i in range(3))
    log.append(Append(batch([]), 3, bad, "p", 0, 3)).result()
    log.append(append(["known"])).result()
    log.seal(DATE, DATE, force=True)
    ids = [row.row_id for row in log.quarantine.newest(10)]
    assert log.duplicates(batch(["known", "new"])) == 1
    result = log.replay(batch(["known", "new"]), replays_of(ids[:2]))
    assert [(v.index, v.verdict) for v in result.verdicts] == [(0, Verdict.DUPLICATE), (1, Verdict.LATE)]
    assert [row.row_id for row in log.quarantine.newest(10)] == ids[2:]
    for log_ in (log, None):
        log = log_ or open_log()
        assert [row.replayed for row in log.quarantine.by_id(ids)] == [True, True, False]
        counts = log.counts()
        assert (counts.received, counts.appended, counts.duplicate, counts.quarantined) == (4, 2, 1, 1)
        assert counts.sent == 3
        log.close()
