"""The producer against a scripted service: order, exactly once, what each status leads to."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tidemill import errors
from tidemill.client.ack import Ack, Rejected, Verdict
from tidemill.client.channel import Connection
from tidemill.client.options import ProducerOptions
from tidemill.client.producer import Producer
from tidemill.client.queue import Numbering
from tidemill.v1 import append_pb2, append_pb2_grpc

Make = Callable[..., Producer]


@pytest.fixture
def make(service: Any) -> Iterator[Make]:
    connection = Connection(f"127.0.0.1:{service.port}", 5.0)
    stub = append_pb2_grpc.AppendServiceStub(connection.channel)
    made: list[Producer] = []

    def make(on_rejected: Callable[[Rejected], None] | None = None, **options: Any) -> Producer:
        made.append(
            Producer("numbers", connection.address, stub.Append, ProducerOptions(**options), on_rejected=on_rejected)
        )
        return made[-1]

    yield make
    for producer in made:
        with contextlib.suppress(errors.TidemillError):
            producer.close(5)
    connection.close()


def numbers(first: int, count: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


def results(acks: list[Ack]) -> list[object]:
    outcomes: list[object] = []
    for ack in acks:
        try:
            outcomes.append(ack.result(20).offset)
        except errors.TidemillError as error:
            outcomes.append(type(error))
    return outcomes


def test_rows_arrive_in_order_with_their_offsets(service: Any, make: Make) -> None:
    producer = make(batch_rows=7)
    acks = [producer.add(message) for message in numbers(0, 100)]
    assert results(acks) == list(range(100))
    assert service.messages() == numbers(0, 100)
    assert [request.sequence for request in service.taken] == list(range(len(service.taken)))
    assert service.taken[-1].rows_sent == 100
    assert len({request.producer_id for request in service.taken}) == 1


def test_a_lone_row_does_not_wait_for_others(service: Any, make: Make) -> None:
    producer = make(linger_ms=60_000)
    assert producer.add(b"0").result(20).offset == 0


def test_rows_gather_while_others_are_on_their_way(service: Any, make: Make) -> None:
    service.gate.clear()
    producer = make(linger_ms=60_000)
    acks = [producer.add(message) for message in numbers(0, 1)]
    while not service.calls:
        pass
    acks += [producer.add(message) for message in numbers(1, 500)]
    service.gate.set()
    assert results(acks) == list(range(501))
    assert len(service.taken) <= 3


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_a_broken_call_is_made_again_and_nothing_is_lost_or_doubled(
    service: Any, make: Make, code: grpc.StatusCode
) -> None:
    service.before = lambda request, call: code if call < 4 and request.sequence == call + 1 else None
    producer = make(batch_rows=3)
    acks = [producer.add(message) for message in numbers(0, 60)]
    assert results(acks) == list(range(60))
    assert service.messages() == numbers(0, 60)
    assert service.calls == 4


def test_a_batch_that_was_taken_but_not_answered_is_not_taken_twice(service: Any, make: Make) -> None:
    take, broken = service._take, []

    def take_and_break(request: append_pb2.AppendRequest, context: grpc.ServicerContext) -> append_pb2.AppendResponse:
        response: append_pb2.AppendResponse = take(request, context)
        if not broken:
            broken.append(True)
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        return response

    service._take = take_and_break
    acked = make().add(b"0").result(20)
    assert (acked.offset, acked.replayed) == (0, True)
    assert service.messages() == [b"0"]


def test_a_refused_batch_fails_alone(service: Any, make: Make) -> None:
    bad = {b"13", b"41"}
    service.before = lambda request, call: (
        grpc.StatusCode.INVALID_ARGUMENT if bad & set(request.proto.messages) else None
    )
    producer = make(batch_rows=1)
    acks = [producer.add(message) for message in numbers(0, 50)]
    outcomes = results(acks)
    assert [index for index, outcome in enumerate(outcomes) if outcome is errors.RequestRefused] == [13, 41]
    good = [message for message in numbers(0, 50) if message not in bad]
    assert service.messages() == good
    assert service.taken[-1].rows_sent == 48
    counts = producer.flush(5)
    assert (counts.sent, counts.appended, counts.failed) == (50, 48, 2)


def test_an_unknown_stream_fails_every_ack_at_once(service: Any, make: Make) -> None:
    service.before = lambda request, call: grpc.StatusCode.NOT_FOUND
    producer = make(batch_rows=2)
    assert set(results([producer.add(message) for message in numbers(0, 9)])) == {errors.NotFound}


def test_a_sequence_that_the_service_does_not_know_fails_what_may_have_been_taken(service: Any, make: Make) -> None:
    producer = make(batch_rows=1)
    assert producer.add(b"0").result(20).offset == 0
    service.expected.clear()  # the service has forgotten the producer
    # Never sent before: certainly not taken, so it goes on under a new name.
    assert producer.add(b"1").result(20).offset == 1
    assert service.messages() == [b"0", b"1"]
    assert service.taken[0].producer_id != service.taken[1].producer_id
    assert (service.taken[1].sequence, service.taken[1].rows_sent) == (0, 1)


def test_a_resent_batch_of_a_forgotten_producer_fails(service: Any, make: Make) -> None:
    producer = make(batch_rows=1)
    producer.add(b"0").result(20)

    def lose_then_forget(request: append_pb2.AppendRequest, call: int) -> grpc.StatusCode | None:
        if call > 1:
            service.expected.clear()
        return grpc.StatusCode.UNAVAILABLE if call == 1 else None

    service.before = lose_then_forget
    assert results([producer.add(b"1")]) == [errors.OutOfSequence]


def test_acks_fail_when_the_service_stays_away(service: Any, make: Make) -> None:
    service.before = lambda request, call: grpc.StatusCode.UNAVAILABLE
    producer = make(retry_for_s=0.2)
    ack = producer.add(b"0")
    with pytest.raises(errors.ServiceUnavailable, match="may or may not have been taken"):
        ack.result(20)
    service.before = lambda request, call: None
    assert producer.add(b"1").result(20).offset == 0
    assert (service.taken[0].sequence, service.taken[0].rows_sent) == (0, 1)


def test_flush_raises_a_failure_that_nobody_has_seen_and_only_once(service: Any, make: Make) -> None:
    service.before = lambda request, call: grpc.StatusCode.PERMISSION_DENIED
    producer = make()
    producer.add(b"0")
    with pytest.raises(errors.RequestRefused):
        producer.flush(20)
    assert producer.flush(20).failed == 1


def test_a_failure_that_an_ack_told_is_not_told_again(service: Any, make: Make) -> None:
    service.before = lambda request, call: grpc.StatusCode.PERMISSION_DENIED
    producer = make()
    assert results([producer.add(b"0")]) == [errors.AccessDenied]
    producer.close(20)


def test_send_blocks_while_too_much_is_unacknowledged(service: Any, make: Make) -> None:
    service.gate.clear()
    producer = make(batch_rows=10, in_flight_rows=50)
    added: list[Ack] = []
    sender = threading.Thread(target=lambda: added.extend(producer.add(message) for message in numbers(0, 200)))
    sender.start()
    # It blocks between 50 rows in closed batches and 60 with a full open one: the first batch leaves as soon as it can.
    while producer.counts().sent < 50:
        sender.join(0.001)
    sender.join(0.2)
    assert sender.is_alive()
    assert 50 <= producer.counts().sent <= 60
    service.gate.set()
    sender.join(20)
    assert results(added) == list(range(200))


def test_verdicts_reach_the_rows_they_are_about(service: Any, make: Make) -> None:
    verdicts = {
        b"2": append_pb2.RowVerdict(verdict=append_pb2.VERDICT_QUARANTINED, rule="int64.gt", field="quantity"),
        b"4": append_pb2.RowVerdict(verdict=append_pb2.VERDICT_DUPLICATE, rule="event_id", field="event_id"),
        b"6": append_pb2.RowVerdict(verdict=append_pb2.VERDICT_LATE),
    }
    service.verdicts = lambda index, message: verdicts.get(message)
    service.gate.clear()
    rejected: list[Rejected] = []
    producer = make(on_rejected=rejected.append, linger_ms=0)
    acks = [producer.add(message) for message in numbers(0, 8)]
    service.gate.set()
    assert results(acks) == [0, 1, errors.RowQuarantined, 2, None, 3, 4, 5]
    duplicate, late = acks[4].result(), acks[6].result()
    assert (duplicate.verdict, late.verdict) == (Verdict.DUPLICATE, Verdict.LATE)
    assert duplicate.after_offset >= 3
    assert [(row.rule, row.field, row.event) for row in rejected] == [("int64.gt", "quantity", b"2")]
    counts = producer.flush(20)
    assert (counts.appended, counts.quarantined, counts.duplicate, counts.late) == (6, 1, 1, 1)


def test_callbacks_are_called_before_and_after(service: Any, make: Make) -> None:
    called: list[int] = []
    done = threading.Event()
    ack = make().add(b"0")
    ack.add_done_callback(lambda ack: (called.append(1), done.set()))
    assert done.wait(20)
    ack.add_done_callback(lambda ack: called.append(2))
    assert called == [1, 2]


def test_a_failing_callback_harms_nobody(service: Any, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    quarantined = append_pb2.RowVerdict(verdict=append_pb2.VERDICT_QUARANTINED, rule="r", field="f")
    service.verdicts = lambda index, message: quarantined if message == b"0" else None

    def fail(row: Rejected) -> None:
        raise ValueError("the user's own mistake")

    producer = make(on_rejected=fail)
    assert results([producer.add(b"0"), producer.add(b"1")]) == [errors.RowQuarantined, 0]
    producer.flush(20)
    assert "the on_rejected callback failed" in caplog.text


def test_without_a_callback_the_log_says_what_was_quarantined(
    service: Any, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    quarantined = append_pb2.RowVerdict(verdict=append_pb2.VERDICT_QUARANTINED, rule="string.min_len", field="country")
    service.verdicts = lambda index, message: quarantined
    producer = make()
    producer.add(b"0")
    producer.flush(20)
    producer.close(20)
    assert "quarantined 1 row(s)" in caplog.text
    assert "string.min_len" in caplog.text


def test_nothing_can_be_sent_after_close(service: Any, make: Make) -> None:
    producer = make()
    ack = producer.add(b"0")
    producer.close(20)
    assert ack.done()
    with pytest.raises(errors.ClientClosed):
        producer.add(b"1")


def test_waiting_for_an_ack_has_an_end(service: Any, make: Make) -> None:
    service.gate.clear()
    ack = make().add(b"0")
    with pytest.raises(errors.WaitTimeout, match="still being sent"):
        ack.result(0.01)
    assert not ack.done()
    with pytest.raises(TimeoutError):
        ack.result(0)
    service.gate.set()


@pytest.mark.parametrize(("name", "value"), [("batch_rows", 0), ("retry_for_s", -1.0), ("batch_bytes", 1 << 40)])
def test_wrong_options_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        ProducerOptions(**{name: value})


def test_send_raises_when_full_if_asked_to(service: Any, make: Make) -> None:
    service.gate.clear()
    producer = make(batch_rows=10, in_flight_rows=50, when_full="raise")
    acks: list[Ack] = []

    def send() -> None:
        for message in numbers(0, 200):
            acks.append(producer.add(message))

    with pytest.raises(errors.SendBufferFull, match="in_flight_rows 50") as raised:
        send()
    assert raised.value.retryable
    assert 50 < len(acks) <= 60
    service.gate.set()
    assert results(acks) == list(range(len(acks)))
    assert producer.counts().sent == len(acks)
    assert producer.add(b"more").result(20).offset == len(acks)


def test_options_that_are_wrong_are_refused() -> None:
    for wrong, told in (
        ({"when_full": "drop"}, "when_full must be one of block, raise, not 'drop'"),
        ({"compression": "zip"}, "compression must be one of none, gzip, not 'zip'"),
        ({"batch_rows": 0}, "batch_rows must be at least 1, not 0"),
        ({"linger_ms": float("nan")}, "linger_ms must be at least 0"),
    ):
        with pytest.raises(ValueError, match=told):
            ProducerOptions(**wrong)  # type: ignore[arg-type]


def kept(service: Any, connection: Connection, next_sequence: int, rows_sent: int) -> Producer:
    stub = append_pb2_grpc.AppendServiceStub(connection.channel)
    start = Numbering("till-7", next_sequence, rows_sent)
    return Producer("numbers", connection.address, stub.Append, ProducerOptions(batch_rows=1), start=start)


@pytest.fixture
def connection(service: Any) -> Iterator[Connection]:
    connection = Connection(f"127.0.0.1:{service.port}", 5.0)
    yield connection
    connection.close()


def test_a_producer_whose_id_is_kept_counts_on(service: Any, connection: Connection) -> None:
    service.expected["till-7"] = 5
    producer = kept(service, connection, 5, 50)
    assert results([producer.add(message) for message in numbers(0, 3)]) == [0, 1, 2]
    assert [(r.producer_id, r.sequence, r.rows_sent) for r in service.taken] == [
        ("till-7", 5, 51), ("till-7", 6, 52), ("till-7", 7, 53),
    ]  # fmt: skip
    producer.close(5)


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE])
def test_a_producer_whose_id_is_kept_never_goes_on_under_another(
    service: Any, connection: Connection, code: grpc.StatusCode
) -> None:
    service.before = lambda request, call: code if b"1" in request.proto.messages else None
    producer = kept(service, connection, 0, 0)
    acks = [producer.add(message) for message in numbers(0, 2)]
    with pytest.raises(errors.ServiceError):
        acks[1].result(20)
    with pytest.raises(errors.ClientClosed):
        producer.add(b"2")
    assert {request.producer_id for request in service.requests} == {"till-7"}
    with contextlib.suppress(errors.TidemillError):
        producer.close(5)


def test_a_failing_callback_of_an_ack_stops_nothing(service: Any, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("not my day")

    producer = make()
    producer.add(b"row-0").add_done_callback(fails)
    producer.flush(5)
    ack = producer.add(b"row-1")
    assert ack.result(5).offset == 1
    assert "a callback of an ack failed" in caplog.text
