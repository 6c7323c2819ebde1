"""Replay: quarantined rows that keep the present contract are appended, each once, whatever way they came."""

import datetime as dt
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from support.logs import SetClock

from ingest_service.contracts import Contract, Intake
from ingest_service.contracts.contract import message_class
from ingest_service.contracts.json_rows import is_json, json_batch
from ingest_service.contracts.replay import Replay, replay
from ingest_service.errors import BadRequest
from ingest_service.log import Append, Log

NOON = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
NOW_US = int(NOON.timestamp()) * 1_000_000

BODY = """
message Reading {
  option (tidemill.v1.stream) = {name: "readings", event_time: "at", event_id: "id"};
  string id = 1;
  google.protobuf.Timestamp at = 2;
  int64 amount = 3 [(buf.validate.field).int64 = {RULE}];
  string price = 4 [(tidemill.v1.field).decimal = {precision: 9, scale: 2}];
  optional double weight = 5;
  optional bytes raw = 6;
  optional bool good = 7;
  repeated int64 several = 8;
  map<string, int64> named = 9;
  NEW
}
"""


@pytest.fixture
def contracts(tmp_path: Path, proto_text) -> tuple[Contract, Contract]:
    """The contract as it was, and as it is: amounts up to 1,000 instead of 10, and another field."""
    from ingest_service.contracts import load_contracts

    made = []
    for name, rule, new in (("old", "lte: 10", ""), ("new", "lte: 1000", "optional string note = 10;")):
        folder = tmp_path / name / "shop" / "v1"
        folder.mkdir(parents=True)
        (folder / "reading.proto").write_text(proto_text(BODY.replace("RULE", rule).replace("NEW", new)))
        loaded = load_contracts(tmp_path / name)
        assert loaded.problems == ()
        made.append(loaded.contracts["readings"])
    return made[0], made[1]


@pytest.fixture
def log(tmp_path: Path, contracts) -> Iterator[Log]:
    log = Log.open(tmp_path / "log", contracts[0].log_spec(), clock=SetClock(NOW_US))
    yield log
    log.close()


def messages(contract: Contract, amounts: list[int], prefix: str = "m") -> list[bytes]:
    message = message_class(contract.descriptor())
    return [
        message(id=f"{prefix}{i}", at=NOON, amount=amount, price="1.50", several=[1, 2], named={"a": 1})
        .SerializeToString()
        for i, amount in enumerate(amounts)
    ]  # fmt: skip


def table(contract: Contract, amounts: list[int]) -> bytes:
    rows = [
        {
            "id": f"t{i}", "at": NOON + dt.timedelta(microseconds=i), "amount": amount, "price": Decimal("2.25"),
            "weight": float("nan") if i % 2 else -0.5, "raw": b"\x00\xff", "good": True, "several": [3],
            "named": [("b", 2)],
        }
        for i, amount in enumerate(amounts)
    ]  # fmt: skip
    batch = pa.RecordBatch.from_pylist(rows, schema=contract.schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def send(log: Log, intake: Intake, *, proto: list[bytes] = (), arrow: bytes = b"") -> None:
    validated = intake.from_arrow(arrow, NOW_US) if arrow else intake.from_proto(list(proto), NOW_US)
    log.append(Append(validated.rows, validated.row_count, validated.quarantined)).result()


def rows_of(log: Log) -> list[dict]:
    reader = log.reader(0)
    try:
        return [row for entry in reader.read(1 << 20, 0) for row in entry.batch.to_pylist()]
    finally:
        reader.close()


def waiting(log: Log) -> list[str]:
    return [row.row_id for row in log.quarantine.newest(1000)]


def test_rows_that_keep_the_new_contract_are_appended_once(log, contracts):
    old, new = contracts
    send(log, Intake(old), proto=[*messages(old, [1, 50, 5000, 60]), b"\xff"])
    send(log, Intake(old), arrow=table(old, [70, 2, 8000, 80]))
    assert len(waiting(log)) == 7
    assert replay(log, Intake(old), [], check_only=False, now_us=NOW_US) == Replay(7, 0, 0, 7, 0)
    log.apply_spec(new.log_spec())
    intake = Intake(new)
    assert replay(log, intake, [], check_only=True, now_us=NOW_US) == Replay(7, 4, 0, 3, 0)
    assert replay(log, intake, [], check_only=False, now_us=NOW_US) == Replay(7, 4, 0, 3, 6)
    assert replay(log, intake, [], check_only=False, now_us=NOW_US) == Replay(3, 0, 0, 3, 0)
    rows = rows_of(log)
    assert [row["id"] for row in rows] == ["m0", "t1", "m1", "m3", "t0", "t3"]
    assert {row["note"] for row in rows} == {None}
    # As if it had been appended when it came, but for its offset and append time.
    came = next(row for row in rows if row["id"] == "t0")
    assert {name: came[name] for name in ("at", "price", "weight", "raw", "good", "several", "named")} == {
        "at": NOON, "price": Decimal("2.25"), "weight": -0.5, "raw": b"\x00\xff", "good": True, "several": [3],
        "named": [("b", 2)],
    }  # fmt: skip
    assert str(rows[-1]["weight"]) == "nan"
    counts = log.counts()
    assert (counts.received, counts.appended, counts.duplicate, counts.quarantined) == (9, 6, 0, 3)


def test_only_the_rows_asked_for_are_replayed(log, contracts):
    old, new = contracts
    send(log, Intake(old), proto=messages(old, [50, 51, 52]))
    ids = waiting(log)
    log.apply_spec(new.log_spec())
    assert replay(log, Intake(new), [ids[1]], check_only=False, now_us=NOW_US).appended == 1
    assert [row["amount"] for row in rows_of(log)] == [51]
    assert replay(log, Intake(new), [ids[1]], check_only=False, now_us=NOW_US) == Replay()
    with pytest.raises(BadRequest, match="there is no quarantined row 1-7-0"):
        replay(log, Intake(new), [ids[0], "1-7-0"], check_only=False, now_us=NOW_US)
    with pytest.raises(BadRequest, match="expected a quarantined row's id"):
        replay(log, Intake(new), ["x"], check_only=False, now_us=NOW_US)
    assert waiting(log) == [ids[0], ids[2]]


def test_a_row_whose_id_was_appended_meanwhile_is_a_duplicate_and_leaves_quarantine(log, contracts):
    old, new = contracts
    send(log, Intake(old), proto=messages(old, [50, 51]))
    log.apply_spec(new.log_spec())
    send(log, Intake(new), proto=messages(new, [7]))
    assert replay(log, Intake(new), [], check_only=True, now_us=NOW_US) == Replay(2, 1, 1, 0, 0)
    assert replay(log, Intake(new), [], check_only=False, now_us=NOW_US) == Replay(2, 1, 1, 0, 2)
    assert waiting(log) == []
    counts = log.counts()
    assert (counts.received, counts.appended, counts.duplicate, counts.quarantined) == (3, 2, 1, 0)


def test_two_replays_at_once_append_each_row_once(log, contracts, monkeypatch):
    monkeypatch.setattr("ingest_service.contracts.replay.ROWS_MAX", 7)
    old, new = contracts
    for batch in range(10):
        send(log, Intake(old), proto=messages(old, [50] * 10, f"b{batch}-"))
    log.apply_spec(new.log_spec())
    done: list[Replay] = []
    threads = [
        threading.Thread(
            target=lambda: done.append(replay(log, Intake(new), [], check_only=False, now_us=NOW_US))
        )
        for _ in range(4)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each.appended for each in done) == log.durable_offset == 100
    assert len({row["id"] for row in rows_of(log)}) == 100


def test_json_that_no_row_can_be_made_of_is_left_out(contracts):
    good = b'{"id": "a", "at": "2026-03-04T12:00:00.123456789Z", "amount": 1, "price": "1.50", "weight": "inf"}'
    bad = [
        b"{", b"{}{}", b'{"unknown": 1}', b'{"at": "7 s since 1970"}', b'{"amount": "x"}', b'{"amount": 1.5}',
        b'{"amount": 99999999999999999999}', b'{"raw": "xyz"}', b'{"price": "x"}', b'{"several": 1}',
        b'{"named": [1]}', b'{"id": 5}',
    ]  # fmt: skip
    stream, readable = json_batch([bad[0], good, *bad[1:]], contracts[1].schema)
    assert readable == [1]
    (row,) = pa.ipc.open_stream(stream).read_all().to_pylist()
    assert (row["id"], row["at"], row["weight"]) == ("a", NOON.replace(microsecond=123456), float("inf"))
    assert json_batch(bad, contracts[1].schema)[1] == []
    assert is_json(good)
    assert not any(is_json(message) for message in messages(contracts[0], [1]))
