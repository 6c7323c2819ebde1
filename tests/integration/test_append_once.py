"""One batch in one call, and what a producer may ask about itself; with the generated stubs, as any client would."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import grpc
import pytest

from retail.v1 import order_line_pb2
from tidemill.v1 import append_pb2, append_pb2_grpc

STREAM = "order_lines"


@pytest.fixture
def append(shared_ingest) -> Iterator[append_pb2_grpc.AppendServiceStub]:
    with grpc.insecure_channel(shared_ingest.address) as channel:
        yield append_pb2_grpc.AppendServiceStub(channel)


def order_line(event_id: str, quantity: int = 1) -> bytes:
    line = order_line_pb2.OrderLine(
        event_id=event_id, invoice_no="536365", stock_code="85123A", quantity=quantity, unit_price="2.550",
        country="United Kingdom",
    )  # fmt: skip
    line.invoiced_at.FromSeconds(1_772_582_400)
    return line.SerializeToString()


def request(*rows: bytes, producer: str = "", sequence: int = 0, rows_sent: int = 0) -> append_pb2.AppendRequest:
    return append_pb2.AppendRequest(
        stream=STREAM, producer_id=producer, sequence=sequence, rows_sent=rows_sent,
        proto=append_pb2.ProtoRows(messages=rows),
    )  # fmt: skip


def test_one_batch_in_one_call(append, event_id: Callable[[], str]) -> None:
    first = event_id()
    response = append.AppendOnce(request(order_line(first), b"\xff\xff", order_line(first)))
    assert response.rows_appended == 1
    assert response.durable_offset >= response.base_offset + 1
    assert [(v.index, v.verdict, v.rule) for v in response.verdicts] == [
        (1, append_pb2.VERDICT_QUARANTINED, "tidemill.malformed"),
        (2, append_pb2.VERDICT_DUPLICATE, "event_id"),
    ]


def test_a_resent_batch_gets_the_first_response_again(append, event_id: Callable[[], str]) -> None:
    producer = event_id()
    batch = request(order_line(event_id()), producer=producer, rows_sent=1)
    first = append.AppendOnce(batch)
    again = append.AppendOnce(batch)
    assert again.replayed
    assert not first.replayed
    again.replayed = False
    assert again == first


def test_a_gap_is_refused_with_the_sequence_expected(append, event_id: Callable[[], str]) -> None:
    producer = event_id()
    append.AppendOnce(request(order_line(event_id()), producer=producer))
    with pytest.raises(grpc.RpcError) as refused:
        append.AppendOnce(request(order_line(event_id()), producer=producer, sequence=3))
    assert refused.value.code() is grpc.StatusCode.OUT_OF_RANGE
    assert "expected sequence 1, came 3" in refused.value.details()


def test_a_producer_is_told_where_it_was(append, event_id: Callable[[], str]) -> None:
    producer = event_id()
    ask = append_pb2.GetProducerStateRequest(stream=STREAM, producer_id=producer)
    unknown = append.GetProducerState(ask)
    assert (unknown.known, unknown.next_sequence) == (False, 0)
    for sequence in range(3):
        acked = append.AppendOnce(
            request(order_line(event_id()), producer=producer, sequence=sequence, rows_sent=sequence + 1)
        )
    state = append.GetProducerState(ask)
    assert (state.known, state.next_sequence, state.rows_sent) == (True, 3, 3)
    assert state.last_response.replayed
    assert (state.last_response.sequence, state.last_response.base_offset) == (2, acked.base_offset)
    assert state.last_append_time.ToMicroseconds() > 0


@pytest.mark.parametrize(
    ("call", "code", "text"),
    [
        (lambda a: a.AppendOnce(append_pb2.AppendRequest(stream="nowhere")), "NOT_FOUND", "there is no stream"),
        (lambda a: a.AppendOnce(append_pb2.AppendRequest(stream=STREAM)), "INVALID_ARGUMENT", "without rows"),
        (lambda a: a.GetProducerState(append_pb2.GetProducerStateRequest(stream=STREAM)), "INVALID_ARGUMENT", "came none"),  # noqa: E501
    ],
)  # fmt: skip
def test_wrong_calls_are_told_so(append, call, code: str, text: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call(append)
    assert refused.value.code().name == code
    assert text in refused.value.details()
