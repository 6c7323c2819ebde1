"""Opens the producer that delivers a stream's events: with or without an outbox, new or going on where one was."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import grpc

from tidemill.client.ack import Rejected
from tidemill.client.channel import Connection
from tidemill.client.models import to_datetime
from tidemill.client.options import ProducerOptions
from tidemill.client.outbox_file import OutboxFile
from tidemill.client.producer import Producer
from tidemill.client.queue import Numbering
from tidemill.client.storing import StoringProducer
from tidemill.v1 import append_pb2, append_pb2_grpc

_COMPRESSION = {"none": None, "gzip": grpc.Compression.Gzip}


@dataclass(frozen=True, slots=True)
class ProducerState:
    """What the service knows of a producer id: where whoever goes on under that id begins.

    known: False when it never heard of the id, or has forgotten it; the rest is 0 then. next_sequence: the number of
    the next batch. rows_sent: how many rows the producer had sent, by its own count, when the last batch was appended.
    last_append_time: when that was, UTC. after_offset: a view that covers this offset has seen its rows.
    """

    producer_id: str
    known: bool
    next_sequence: int
    rows_sent: int
    last_append_time: dt.datetime | None
    after_offset: int


def ask_producer_state(connection: Connection, stream: str, producer_id: str) -> ProducerState:
    """Ask the service for a producer's state; raises NotFound for an unknown stream, ServiceError."""
    state = _ask(connection, stream, producer_id)
    last = state.last_response
    return ProducerState(
        producer_id=producer_id,
        known=state.known,
        next_sequence=state.next_sequence,
        rows_sent=state.rows_sent,
        last_append_time=to_datetime(state.last_append_time) if state.HasField("last_append_time") else None,
        after_offset=last.base_offset + last.rows_appended if last.rows_appended else last.durable_offset,
    )


def open_producer(
    connection: Connection,
    stream: str,
    options: ProducerOptions,
    on_rejected: Callable[[Rejected], None] | None = None,
    outbox: OutboxFile | None = None,
    state: ProducerState | None = None,
) -> Producer:
    """A producer for the stream.

    outbox: keeps batches there, and delivers first what earlier programs left in it. state: go on from there, under
    that producer id; not with an outbox, which keeps ids of its own.
    """
    stub = connection.stub(append_pb2_grpc.AppendServiceStub)
    # Interceptors know no None here: the argument is given only where something is compressed.
    compression = _COMPRESSION[options.compression]
    append = stub.Append if compression is None else partial(stub.Append, compression=compression)
    if outbox is not None:
        assert state is None
        asks = partial(_ask, connection, stream)
        return StoringProducer(stream, connection.address, append, options, on_rejected, outbox=outbox, state_of=asks)
    start = None if state is None else Numbering(state.producer_id, state.next_sequence, state.rows_sent)
    return Producer(stream, connection.address, append, options, on_rejected, start=start)


def _ask(connection: Connection, stream: str, producer_id: str) -> append_pb2.GetProducerStateResponse:
    stub = connection.stub(append_pb2_grpc.AppendServiceStub)
    request = append_pb2.GetProducerStateRequest(stream=stream, producer_id=producer_id)
    response: append_pb2.GetProducerStateResponse = connection.call(stub.GetProducerState, request)
    return response
