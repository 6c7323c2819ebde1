"""Appends: offsets, resends, duplicates, late rows, quarantine, counts."""

import datetime as dt

import pytest
from support.logs import NOON_US, append, batch, ids_in

from ingest_service.errors import BadRequest, NotComplete, Overloaded, ProducerError, StorageError
from ingest_service.log import Append, QuarantinedRow, Seal, Verdict

DAY_US = 86_400_000_000
DATE = dt.date(2026, 3, 4)


def test_offsets_are_dense_and_order_is_kept(open_log):
    log = open_log()
    first = log.append(append(["a", "b"])).result()
    second = log.append(append(["c"])).result()
    assert (first.base_offset, first.rows_appended, first.durable_offset) == (0, 2, 2)
    assert (second.base_offset, second.rows_appended, second.durable_offset) == (2, 1, 3)
    assert ids_in(log) == ["a", "b", "c"]
    assert ids_in(log, 1) == ["b", "c"]
    assert ids_in(log, 3) == []


def test_many_appends_in_flight_share_frames_and_keep_their_order(open_log):
    log = open_log()
    futures = [log.append(append([f"{i}"], producer="p", sequence=i, sent=i + 1)) for i in range(500)]
    assert [future.result().base_offset for future in futures] == list(range(500))
    assert ids_in(log) == [str(i) for i in range(500)]
    counts = log.counts()
    assert counts.sent == counts.received == counts.appended == 500


@pytest.mark.parametrize("reopened", [False, True])
def test_a_resent_batch_gets_its_first_response_again(open_log, reopened):
    log = open_log()
    first = log.append(append(["a", "a", "b"], producer="p", sequence=0, sent=3)).result()
    log.append(append(["c"], producer="p", sequence=1, sent=4)).result()
    if reopened:
        log.close()
        log = open_log()
    again = log.append(append(["a", "a", "b"], producer="p", sequence=0, sent=3)).result()
    assert again.replayed
    assert (again.base_offset, again.rows_appended, again.verdicts) == (0, 2, first.verdicts)
    assert ids_in(log) == ["a", "b", "c"]
    assert log.counts().received == 4


def test_a_batch_resent_while_its_first_is_in_flight_is_taken_once(open_log):
    log = open_log()
    futures = [log.append(append(["a"], producer="p", sequence=0)) for _ in range(20)]
    results = [future.result() for future in futures]
    assert [result.base_offset for result in results] == [0] * 20
    assert sum(not result.replayed for result in results) == 1
    assert log.durable_offset == 1


def test_a_gap_is_refused_with_the_expected_sequence(open_log):
    log = open_log()
    log.append(append(["a"], producer="p", sequence=0)).result()
    with pytest.raises(ProducerError, match="expected sequence 1, came 3") as caught:
        log.append(append(["b"], producer="p", sequence=3)).result()
    assert caught.value.expected_sequence == 1
    with pytest.raises(ProducerError, match="unknown or expired") as caught:
        log.append(append(["b"], producer="q", sequence=1)).result()
    assert caught.value.expected_sequence is None
    assert ids_in(log) == ["a"]


def test_producers_over_the_bound_or_past_expiry_are_forgotten_and_then_refused(open_log, clock):
    log = open_log(producers_max=2, producer_expiry_s=60)
    for name in "pqr":
        log.append(append([name], producer=name, sequence=0)).result()
    with pytest.raises(ProducerError, match="unknown or expired"):
        log.append(append(["x"], producer="p", sequence=1)).result()
    clock.us += 61_000_000
    log.append(append(["y"], producer="s", sequence=0)).result()
    with pytest.raises(ProducerError, match="unknown or expired"):
        log.append(append(["z"], producer="r", sequence=1)).result()


@pytest.mark.parametrize("reopened", [False, True])
def test_a_row_with_an_id_seen_before_is_not_appended(open_log, reopened):
    log = open_log()
    log.append(append(["a", "b"])).result()
    if reopened:
        log.close()
        log = open_log()
    result = log.append(append(["c", "a", "c", "d"])).result()
    assert (result.base_offset, result.rows_appended) == (2, 2)
    assert [(v.index, v.verdict) for v in result.verdicts] == [(1, Verdict.DUPLICATE), (2, Verdict.DUPLICATE)]
    assert ids_in(log) == ["a", "b", "c", "d"]
    counts = log.counts()
    assert (counts.received, counts.appended, counts.duplicate) == (6, 4, 2)


def test_the_dedup_window_ends_by_number_and_by_age(open_log, clock):
    log = open_log(dedup_ids_max=2, dedup_age_s=60)
    for each in ["a", "b", "c"]:
        log.append(append([each])).result()
    log.append(append(["d"])).result()
    assert log.append(append(["a"])).result().rows_appended == 1
    clock.us += 61_000_000
    assert log.append(append(["d", "a"])).result().rows_appended == 2


def test_a_duplicate_does_not_enter_the_window(open_log, clock):
    log = open_log(dedup_age_s=60)
    log.append(append(["a"])).result()
    clock.us += 40_000_000
    assert log.append(append(["a"])).result().rows_appended == 0
    clock.us += 30_000_000
    # 70 s after the row that was appended, 30 s after its duplicate.
    assert log.append(append(["a"])).result().rows_appended == 1


def test_quarantined_rows_are_kept_with_their_neighbours(open_log):
    log = open_log()
    bad = (QuarantinedRow(0, "string.min_len", "event_id", "too short", b"x"), QuarantinedRow(2, "r", "f", "m", b"y"))
    sent = Append(batch(["a", "a", "b"]), 5, bad, "p", 0, 5)
    result = log.append(sent).result()
    assert result.rows_appended == 2
    assert [(v.index, v.verdict.name) for v in result.verdicts] == [
        (0, "QUARANTINED"),
        (2, "QUARANTINED"),
        (3, "DUPLICATE"),
    ]
    for log_ in (log, None):
        log = log_ or open_log()
        kept = log.quarantine.newest(10)
        assert [(each.producer_id, each.sequence, each.row) for each in kept] == [("p", 0, bad[0]), ("p", 0, bad[1])]
        assert log.quarantine.newest(1) == log.quarantine.by_id([kept[1].row_id]) == [kept[1]]
        counts = log.counts()
        assert counts.received == counts.appended + counts.duplicate + counts.quarantined == 5
        log.close()


def test_an_append_without_a_good_row_still_has_its_place(open_log):
    log = open_log()
    bad = (QuarantinedRow(0, "r", "f", "m", b"x"),)
    assert log.append(Append(batch([]), 1, bad, "p", 0, 1)).result().rows_appended == 0
    assert log.append(Append(batch([]), 1, bad, "p", 0, 1)).result().replayed
    assert log.append(Append(batch([]), 0, (), "p", 1, 1)).result().rows_appended == 0
    log.close()
    log = open_log()
    assert log.append(append(["a"], producer="p", sequence=2, sent=2)).result().base_offset == 0
    assert log.counts().sent == 2


def test_rows_of_a_sealed_date_are_late_from_the_seal_on(open_log):
    log = open_log()
    log.append(append(["a", "b"])).result()
    seal = log.seal(DATE, DATE, force=True)
    assert (seal.first_date, seal.seal_offset) == (DATE, 2)
    result = log.append(append(["c", "d"], at_us=[NOON_US + DAY_US, NOON_US])).result()
    assert [(v.index, v.verdict) for v in result.verdicts] == [(1, Verdict.LATE)]
    assert result.rows_appended == 2
    log.close()
    log = open_log()
    assert log.append(append(["e"])).result().verdicts[0].verdict is Verdict.LATE
    assert log.counts().late == 2
    reader = log.reader(0)
    kinds = [entry.seal_offset if isinstance(entry, Seal) else (entry.base_offset, entry.next_offset)
             for entry in reader.read(100, 0)]  # fmt: skip
    reader.close()
    assert kinds == [(0, 2), 2, (2, 5)]


def test_a_reader_from_a_seals_offset_meets_the_seal(open_log):
    log = open_log()
    log.append(append(["a"])).result()
    log.seal(DATE, DATE, force=True)
    log.append(append(["b"])).result()
    for offset, expected in [(0, 1), (1, 1), (2, 0)]:
        reader = log.reader(offset)
        assert sum(isinstance(entry, Seal) for entry in reader.read(100, 0)) == expected
        reader.close()


def test_sealing_waits_for_the_watermark_unless_forced(open_log, clock):
    log = open_log()
    with pytest.raises(NotComplete, match="no event yet"):
        log.seal(DATE, DATE, force=False)
    log.append(append(["a"])).result()
    with pytest.raises(NotComplete, match="2026-03-04 is not complete"):
        log.seal(DATE, DATE, force=False)
    # The watermark passes the date's end once an event is an hour (the out-of-orderness) into the next day.
    clock.us = NOON_US + DAY_US // 2 + 3_600_000_000
    log.append(append(["b"], at_us=clock.us - 1)).result()
    with pytest.raises(NotComplete):
        log.seal(DATE, DATE, force=False)
    log.append(append(["c"], at_us=clock.us)).result()
    assert log.seal(DATE, DATE, force=False).seal_offset == 3


def test_the_watermark_of_an_idle_stream_follows_the_clock_and_never_passes_it(open_log, clock):
    log = open_log(idle_after_s=60)
    log.append(append(["a"], at_us=NOON_US + 240_000_000)).result()
    assert log.watermark_us == NOON_US - 3_600_000_000
    clock.us += 61_000_000
    assert log.watermark_us == clock.us - 3_600_000_000


def test_a_range_of_dates_is_sealed_as_one(open_log):
    log = open_log()
    log.append(append(["a"])).result()
    log.seal(DATE, DATE + dt.timedelta(days=2), force=True)
    result = log.append(append(["b", "c"], at_us=[NOON_US + 2 * DAY_US, NOON_US + 3 * DAY_US])).result()
    assert [v.index for v in result.verdicts] == [0]
    with pytest.raises(BadRequest, match="first and a last date"):
        log.seal(DATE, DATE - dt.timedelta(days=1), force=True)


def test_too_much_waiting_is_refused(open_log):
    log = open_log(queue_appends_max=1)
    refused = 0
    futures = []
    for i in range(1000):
        try:
            futures.append(log.append(append([f"{i}"])))
        except Overloaded:
            refused += 1
    taken = [future.result() for future in futures]
    assert refused
    assert log.durable_offset == len(taken) == 1000 - refused


def test_a_closed_log_says_so(open_log):
    log = open_log()
    future = log.append(append(["a"]))
    log.close()
    assert future.result().durable_offset == 1
    with pytest.raises(StorageError, match="being closed"):
        log.append(append(["b"]))


def test_append_time_never_goes_back(open_log, clock):
    log = open_log()
    log.append(append(["a"])).result()
    clock.us -= 5_000_000
    log.append(append(["b"])).result()
    reader = log.reader(0)
    times = reader.read(10, 0)[0].batch.column("_append_time").cast("int64").to_pylist()
    reader.close()
    assert times == [NOON_US, NOON_US]
