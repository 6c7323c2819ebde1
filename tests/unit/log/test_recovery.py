"""What a log makes of its files: torn ends are cut, damage below the durable offset stops it, faults lose nothing."""

import random
from pathlib import Path

import pyarrow as pa
import pytest
from support.faults import FailingFiles
from support.logs import NOON_US, SCHEMA, SPEC, append, ids_in

from ingest_service.errors import ContractError, LogDamaged, StorageError
from ingest_service.log import Log, LogSpec
from ingest_service.log import frame as frames
from ingest_service.log.frame import Kind
from ingest_service.log.segment import Head, SegmentName


def segments(log_folder: Path) -> list[Path]:
    return sorted(log_folder.glob("*.seg"), key=lambda path: SegmentName.parse(path.name).number)


def write_some(open_log, appends: int = 4) -> list[int]:
    """Appends of two rows; where the file's frames end, the head's first."""
    log = open_log()
    lengths = []
    for i in range(appends):
        log.append(append([f"{i}a", f"{i}b"], producer="p", sequence=i)).result()
        lengths.append(log.segments[-1].valid_end)
    file = log.open_segment(log.segments[0])
    lengths.insert(0, file.frame_at(0)[1])
    file.close()
    log.close()
    return lengths


def test_a_file_cut_anywhere_in_its_last_frame_keeps_all_frames_before(open_log, tmp_path):
    lengths = write_some(open_log)
    path = segments(tmp_path / "log")[0]
    (tmp_path / "log" / "durable.json").unlink()
    whole = path.read_bytes()
    for cut in range(lengths[-2], lengths[-1]):
        path.write_bytes(whole[:cut])
        log = open_log()
        assert log.durable_offset == 6
        assert log.append(append(["3a", "3b"], producer="p", sequence=3)).result().base_offset == 6
        assert ids_in(log) == ["0a", "0b", "1a", "1b", "2a", "2b", "3a", "3b"]
        log.close()
        (tmp_path / "log" / "durable.json").unlink()


def test_a_zero_filled_end_is_cut(open_log, tmp_path):
    lengths = write_some(open_log)
    path = segments(tmp_path / "log")[0]
    with path.open("ab") as file:
        file.write(bytes(5000))
    log = open_log()
    assert log.durable_offset == 8
    assert path.stat().st_size == lengths[-1]


def test_damage_below_the_durable_offset_stops_the_start(open_log, tmp_path):
    lengths = write_some(open_log)
    path = segments(tmp_path / "log")[0]
    whole = path.read_bytes()
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(60):
        position = chance.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[position] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(damaged))
        with pytest.raises(LogDamaged, match="is damaged at byte") as caught:
            open_log()
        assert caught.value.file == str(path)
        assert caught.value.position in [0, *lengths]
        assert caught.value.position <= position


def test_a_log_cut_below_its_durable_mark_does_not_start(open_log, tmp_path):
    lengths = write_some(open_log)
    path = segments(tmp_path / "log")[0]
    path.write_bytes(path.read_bytes()[: lengths[-2]])
    with pytest.raises(LogDamaged):
        # The cut leaves whole frames only: nothing but the mark knows of the last one.
        open_log()


def test_a_missing_segment_stops_the_start(open_log, tmp_path):
    log = open_log(segment_bytes=1)
    for i in range(3):
        log.append(append([f"{i}"])).result()
    log.close()
    files = segments(tmp_path / "log")
    assert len(files) == 3
    for missing, text in [
        (files[0], "predecessor, number 1, is missing"),
        (files[1], "predecessor, number 2, is missing"),
        (files[2], "is missing"),
    ]:
        kept = missing.read_bytes()
        missing.unlink()
        with pytest.raises(LogDamaged, match=text):
            open_log(segment_bytes=1)
        missing.write_bytes(kept)
    assert ids_in(open_log(segment_bytes=1)) == ["0", "1", "2"]


def test_a_segment_is_found_whatever_its_number():
    # A full disk uses up a number for each batch that is refused.
    for number in (1, 999_999, 1_000_000, 12_345_678):
        assert SegmentName.parse(str(SegmentName(7, number))) == SegmentName(7, number)


def test_what_segments_that_failed_to_begin_left_behind_is_removed(open_log, tmp_path):
    lengths = write_some(open_log)
    head = Head("payments", 1, 1, lengths[-1])
    begun = frames.encode(Kind.HEAD, 8, 0, NOON_US, head.table(), SCHEMA.serialize().to_pybytes())
    for number in (2, 3, 4):
        # Each got its head; then the folder could neither be synced nor rid of it.
        (tmp_path / "log" / str(SegmentName(8, number))).write_bytes(begun)
    log = open_log()
    assert [info.name.number for info in log.segments] == [1, 4]
    assert len(segments(tmp_path / "log")) == 2
    assert log.append(append(["x"])).result().base_offset == 8
    assert ids_in(log)[7:] == ["3b", "x"]


def test_a_segment_whose_head_never_became_durable_is_removed(open_log, tmp_path):
    write_some(open_log)
    stray = tmp_path / "log" / str(SegmentName(8, 2))
    stray.write_bytes(b"TMF1\x00\x00")
    log = open_log()
    assert log.durable_offset == 8
    assert not stray.exists()


@pytest.mark.parametrize("operation", ["create", "write", "short_write", "sync", "sync_folder"])
@pytest.mark.parametrize("after", range(6))
def test_a_failed_operation_is_told_and_the_batch_can_be_sent_again(open_log, operation, after):
    files = FailingFiles(**{operation: after})
    told = 0
    try:
        log = open_log(files, segment_bytes=2000)
    except StorageError:
        assert operation == "sync_folder"
        log = open_log(files, segment_bytes=2000)
    for i in range(8):
        for _ in range(2):
            try:
                result = log.append(append([f"{i}a", f"{i}b"], producer="p", sequence=i, sent=2 * i + 2)).result()
                break
            except StorageError as error:
                told += "No space left" in str(error)
        assert (result.base_offset, result.rows_appended, result.replayed) == (2 * i, 2, False)
    expected = [f"{i}{ab}" for i in range(8) for ab in "ab"]
    # Where the durable mark is what failed to be written, nobody needs to be told.
    assert told <= len(files.failed) <= 1
    assert ids_in(log) == expected
    counts = log.counts()
    log.close()
    again = open_log()
    assert ids_in(again) == expected
    assert again.counts() == counts
    assert counts.sent == counts.received == 16


def test_an_old_segment_gives_null_for_a_new_optional_column(open_log):
    write_some(open_log, 1)
    wider = pa.schema([*SCHEMA, pa.field("note", pa.string())])
    log = open_log(spec=LogSpec("payments", wider, 2, "at", "event_id", 3600))
    reader = log.reader(0)
    rows = reader.read(10, 0)[0].batch
    reader.close()
    assert rows.column("note").to_pylist() == [None, None]
    assert rows.schema.equals(log.schema)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (pa.schema([*SCHEMA, pa.field("note", pa.string(), nullable=False)]), "is new and not optional"),
        (pa.schema([SCHEMA.field(0), pa.field("amount", pa.string()), SCHEMA.field(2)]), "was int64 .* is string now"),
        (pa.schema([SCHEMA.field(0), SCHEMA.field(2)]), "'amount' was int64 .* is gone"),
    ],
)
def test_a_contract_that_the_log_does_not_fit_is_refused(open_log, schema, text):
    write_some(open_log, 1)
    with pytest.raises(ContractError, match=text):
        open_log(spec=LogSpec("payments", schema, 2, "at", "event_id", 3600))


def test_segments_are_read_across_their_borders(open_log):
    log = open_log(segment_bytes=3000, tail_bytes=0)
    for i in range(50):
        log.append(append([f"{i}-{k}" for k in range(7)])).result()
    assert len(log.segments) > 5
    expected = [f"{i}-{k}" for i in range(50) for k in range(7)]
    for offset in (0, 1, 6, 7, 100, 349, 350):
        assert ids_in(log, offset) == expected[offset:]
    log.close()
    assert ids_in(open_log(segment_bytes=3000), 13) == expected[13:]


def test_a_reader_waits_for_rows_and_gets_them_as_they_become_durable(open_log):
    log: Log = open_log()
    reader = log.reader(0)
    assert reader.read(10, 0) == []
    future = log.append(append(["a"]))
    found = []
    while not found:
        found = reader.read(10, 5)
    assert found[0].next_offset == future.result().durable_offset == 1
    reader.close()


def test_another_streams_segment_is_refused(open_log):
    write_some(open_log, 1)
    with pytest.raises(LogDamaged, match="expected stream 'refunds', found 'payments'"):
        open_log(spec=LogSpec("refunds", SPEC.schema, 1, "at", "event_id", 3600))
