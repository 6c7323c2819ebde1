"""The outbox: what `send` returned for survives a crash and is delivered once, whatever became of the answers."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tidemill import errors
from tidemill.client.ack import Batch
from tidemill.client.channel import Connection
from tidemill.client.options import ProducerOptions
from tidemill.client.outbox import Outbox
from tidemill.client.outbox_file import OutboxFile
from tidemill.client.storing import StoringProducer
from tidemill.v1 import append_pb2, append_pb2_grpc

Make = Callable[..., StoringProducer]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "till.outbox"


@pytest.fixture
def make(service: Any, path: Path) -> Iterator[Make]:
    """Makes producers, each with the outbox opened anew: `crash` takes the outbox away from the one before."""
    made: list[tuple[StoringProducer, OutboxFile, Connection]] = []

    def make(on_rejected: Any = None, **options: Any) -> StoringProducer:
        connection = Connection(f"127.0.0.1:{service.port}", 5.0)
        stub = append_pb2_grpc.AppendServiceStub(connection.channel)
        outbox = OutboxFile(path)

        def state_of(producer_id: str) -> append_pb2.GetProducerStateResponse:
            expected = service.expected.get(producer_id)
            return append_pb2.GetProducerStateResponse(known=expected is not None, next_sequence=expected or 0)

        producer = StoringProducer(
            "numbers", connection.address, stub.Append, ProducerOptions(**options), on_rejected,
            outbox=outbox, state_of=state_of,
        )  # fmt: skip
        made.append((producer, outbox, connection))
        return producer

    yield make
    service.gate.set()
    for producer, outbox, connection in made:
        with contextlib.suppress(errors.TidemillError):
            producer.close(5)
        outbox.close()
        connection.close()


def crash(producer: StoringProducer) -> None:
    """The program is gone: nothing more leaves, nothing more is written to the outbox, its lock is free."""
    producer._open_call = lambda requests: iter(())  # type: ignore[assignment, return-value]
    while (call := producer._call) is not None:
        call.cancel()
    producer._outbox.close()


def numbers(first: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


def stored(path: Path) -> list[tuple[str, int, int, str | None]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("select producer_id, sequence, rows, error from batch order by id").fetchall()


def test_what_was_sent_is_on_disk_before_it_leaves(service: Any, make: Make, path: Path) -> None:
    service.gate.clear()
    producer = make()
    for message in numbers(0, 5):
        producer.add(message)
    crash(producer)
    assert [rows for _, _, rows, _ in stored(path)] == [1] * 5
    assert [sequence for _, sequence, _, _ in stored(path)] == list(range(5))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_an_acknowledged_batch_leaves_the_outbox(service: Any, make: Make, path: Path) -> None:
    producer = make()
    for message in numbers(0, 30):
        producer.add(message)
    producer.close(20)
    assert producer._outbox.pending_rows() == 0
    producer._outbox.close()
    assert stored(path) == []
    assert service.messages() == numbers(0, 30)


def test_the_next_start_sends_what_was_left_first_and_in_order(service: Any, make: Make) -> None:
    service.gate.clear()
    before = make()
    for message in numbers(0, 20):
        before.add(message)
    crash(before)
    service.gate.set()
    after = make()
    after.add(b"20").result(20)
    after.flush(20)
    assert service.messages() == numbers(0, 21)
    assert after.counts().acknowledged == 21


def test_what_was_taken_but_not_answered_is_not_taken_twice(service: Any, make: Make) -> None:
    take = service._take
    taken = threading.Event()

    def take_and_say_nothing(request: Any, context: grpc.ServicerContext) -> Any:
        take(request, context)
        taken.set()
        context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")

    service._take = take_and_say_nothing
    before = make()
    before.add(b"0")
    assert taken.wait(20)
    crash(before)
    service._take = take
    after = make()
    after.flush(20)
    assert service.messages() == [b"0"]
    assert after._outbox.pending_rows() == 0


def test_batches_that_were_taken_long_ago_are_done(service: Any, make: Make) -> None:
    """The service knows that it took them, but remembers the answer no more."""
    service.gate.clear()
    before = make()
    for message in numbers(0, 3):
        before.add(message)
    producer_id = before._queue.producer_id
    crash(before)
    service.expected[producer_id] = 2
    service.gate.set()
    after = make()
    after.flush(20)
    assert service.messages() == [b"2"]
    assert Outbox(after._outbox).set_aside() == ()
    assert after._outbox.pending_rows() == 0


def test_batches_of_a_forgotten_producer_are_set_aside_and_said(
    service: Any, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    before = make()
    before.add(b"0").result(20)
    service.gate.clear()
    before.add(b"1")
    crash(before)
    service.expected.clear()
    service.gate.set()
    after = make()
    with pytest.raises(errors.OutOfSequence):
        after.flush(20)
    after.add(b"2").result(20)
    assert service.messages() == [b"0", b"2"]
    (kept,) = Outbox(after._outbox).set_aside()
    assert (kept.stream, kept.rows, kept.events) == ("numbers", 1, (b"1",))
    assert "expected sequence 0, came 1" in kept.error
    assert "set aside in the outbox" in caplog.text
    Outbox(after._outbox).discard(kept)
    assert Outbox(after._outbox).set_aside() == ()
    assert after._outbox.set_aside_bytes == 0


def test_a_refused_batch_is_set_aside_and_those_behind_it_keep_their_order(
    service: Any, make: Make, path: Path
) -> None:
    bad = {b"3", b"7"}
    service.before = lambda request, call: (
        grpc.StatusCode.INVALID_ARGUMENT if bad & set(request.proto.messages) else None
    )
    producer = make()
    acks = [producer.add(message) for message in numbers(0, 10)]
    for ack, message in zip(acks, numbers(0, 10), strict=True):
        with pytest.raises(errors.RequestRefused) if message in bad else contextlib.nullcontext():
            ack.result(20)
    producer.flush(20)
    assert service.messages() == [message for message in numbers(0, 10) if message not in bad]
    assert service.taken[-1].rows_sent == 8
    assert [kept.events for kept in Outbox(producer._outbox).set_aside()] == [(b"3",), (b"7",)]


def test_renumbered_batches_are_renumbered_on_disk(service: Any, make: Make, path: Path) -> None:
    service.gate.clear()
    producer = make()
    for message in numbers(0, 4):
        producer.add(message)
    refused = threading.Event()

    def refuse(request: Any, call: int) -> grpc.StatusCode | None:
        if request.proto.messages == [b"0"]:
            return grpc.StatusCode.INVALID_ARGUMENT
        refused.set()
        service.gate.clear()
        return grpc.StatusCode.UNAVAILABLE

    service.before = refuse
    service.gate.set()
    assert refused.wait(20)
    crash(producer)
    assert [(sequence, error is None) for _, sequence, _, error in stored(path)] == [
        (0, False), (0, True), (1, True), (2, True),
    ]  # fmt: skip


def test_sending_is_never_given_up(service: Any, make: Make) -> None:
    codes = iter([grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED, *[grpc.StatusCode.INTERNAL] * 7])
    service.before = lambda request, call: next(codes, None)
    producer = make(retry_for_s=0)
    assert producer.add(b"0").result(30).offset == 0
    assert service.messages() == [b"0"]


def test_closing_leaves_the_rest_to_the_next_start(
    service: Any, make: Make, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service.gate.clear()
    producer = make(retry_for_s=0.1)
    ack = producer.add(b"0")
    producer.close()
    assert "1 row(s) stay in the outbox" in caplog.text
    with pytest.raises(errors.ClientClosed):
        ack.result(0)
    producer._outbox.close()
    assert [error for *_, error in stored(path)] == [None]
    service.gate.set()
    make().flush(20)
    assert service.messages() == [b"0"]


def test_many_senders_share_an_fsync(service: Any, make: Make, path: Path) -> None:
    producer = make()
    adding, transactions = producer._outbox.add, []

    def add(batches: list[Batch]) -> None:
        transactions.append(sum(batch.rows for batch in batches))
        adding(batches)

    producer._outbox.add = add  # type: ignore[method-assign]
    ready = threading.Barrier(16)

    def send(first: int) -> None:
        ready.wait()
        for number in range(first, first + 50):
            producer.add(b"%d" % number)

    threads = [threading.Thread(target=send, args=(50 * each,)) for each in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    producer.flush(20)
    assert sum(transactions) == 800
    assert len(transactions) < 800
    assert sorted(service.messages()) == sorted(numbers(0, 800))
    of_one = [message for message in service.messages() if 100 <= int(message) < 150]
    assert of_one == numbers(100, 50)


def test_a_file_that_cannot_be_written_takes_nothing(
    service: Any, make: Make, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = make()
    producer.add(b"0").result(20)
    producer._outbox._db.execute(f"pragma max_page_count={os.stat(path).st_size // 4096 + 1}")
    with pytest.raises(errors.OutboxError, match="full"):
        producer.add(b"x" * 200_000)
    producer._outbox._db.execute("pragma max_page_count=1000000")
    assert producer.add(b"1").result(20).offset == 1
    assert service.messages() == [b"0", b"1"]
    assert [request.sequence for request in service.taken] == [0, 1]
    assert service.taken[-1].rows_sent == 2
    assert producer.counts().sent == 2


@pytest.mark.parametrize("when_full", ["raise", "block"])
def test_a_full_outbox_refuses_or_waits(service: Any, make: Make, when_full: str) -> None:
    service.gate.clear()
    producer = make(in_flight_rows=3, when_full=when_full)
    sent = []

    def send() -> None:
        for message in numbers(0, 10):
            sent.append(producer.add(message))

    if when_full == "raise":
        with pytest.raises(errors.SendBufferFull) as raised:
            send()
        assert raised.value.retryable
        assert len(sent) == 4
        service.gate.set()
        assert [ack.result(20).offset for ack in sent] == [0, 1, 2, 3]
        return
    thread = threading.Thread(target=send)
    thread.start()
    while producer._outbox.pending_rows() < 4:
        assert thread.is_alive()
    thread.join(0.1)
    assert thread.is_alive()
    assert producer._outbox.pending_rows() == 4
    service.gate.set()
    thread.join(20)
    assert [ack.result(20).offset for ack in sent] == list(range(10))


def test_a_batch_larger_than_the_bound_is_delivered(service: Any, make: Make) -> None:
    producer = make(in_flight_rows=1, in_flight_bytes=10)
    batch = Batch("numbers")
    batch.messages = numbers(0, 50)
    producer.add_batch(batch)
    assert batch.wait(20).rows_appended == 50


def test_one_at_a_time_has_it_open(path: Path) -> None:
    outbox = OutboxFile(path)
    with pytest.raises(errors.OutboxError, match=f"in use by process {os.getpid()}") as raised:
        OutboxFile(path)
    assert raised.value.path == str(path)
    code = f"import sys; from tidemill.client.outbox_file import OutboxFile; OutboxFile({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "OutboxError" in done.stderr
    assert f"in use by process {os.getpid()}" in done.stderr
    outbox.close()
    OutboxFile(path).close()


def test_what_is_no_outbox_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"this is no database, and longer than its head\n" * 100)
    with pytest.raises(errors.OutboxError, match="not a database"):
        OutboxFile(text)
    newer = tmp_path / "newer"
    with contextlib.closing(sqlite3.connect(newer)) as db:
        db.execute("pragma user_version=7")
    with pytest.raises(errors.OutboxError, match="expected format 1, found 7"):
        OutboxFile(newer)
    with pytest.raises(errors.OutboxError, match="can't be opened"):
        OutboxFile(tmp_path)
