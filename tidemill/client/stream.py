"""A stream, as its producers use it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from tidemill.client.ack import Ack, Batch, Rejected, TableAck
from tidemill.client.channel import Connection
from tidemill.client.contract import Contract, contract_of
from tidemill.client.counts import SendCounts
from tidemill.client.delivery import ProducerState, ask_producer_state, open_producer
from tidemill.client.encode import DictEncoder
from tidemill.client.models import StreamStatus, to_stream_status
from tidemill.client.options import ProducerOptions
from tidemill.client.outbox_file import OutboxFile
from tidemill.client.read import Reading, Unpack, messages, record_batches
from tidemill.client.read_progress import ReadProgress
from tidemill.errors import BadEvent, ServiceUnavailable
from tidemill.v1 import read_pb2_grpc, streams_pb2, streams_pb2_grpc

if TYPE_CHECKING:
    import pyarrow as pa

Event = Message | Mapping[str, object]
"""An event: a message of the contract (the stream's own class, or your generated one), or a dict."""


class Stream:
    """Sends events to one stream; made by `Client.stream`. Thread-safe: rows keep the order of the calls."""

    def __init__(
        self,
        connection: Connection,
        name: str,
        options: ProducerOptions,
        on_rejected: Callable[[Rejected], None] | None = None,
        outbox: OutboxFile | None = None,
        producer_id: str | None = None,
    ) -> None:
        self._connection = connection
        self._service = connection.stub(streams_pb2_grpc.StreamServiceStub)
        self._contract = contract_of(self._ask_contract(name, outbox))
        self._options = options
        self._encoder = DictEncoder(self._contract.message, self._contract.decimals)
        # Classes whose messages are taken as they are; found out once a class.
        self._classes: set[type] = {self._contract.message}
        self._schema: pa.Schema | None = None
        self._resumed = None if producer_id is None else ask_producer_state(connection, name, producer_id)
        self._producer = open_producer(connection, name, options, on_rejected, outbox, self._resumed)
        self.send_serialized = self._producer.add

    def _ask_contract(self, name: str, outbox: OutboxFile | None) -> streams_pb2.GetStreamResponse:
        """The contract from the service or, while that is away, as the outbox remembers it."""
        try:
            response: streams_pb2.GetStreamResponse = self._connection.call(
                self._service.GetStream, streams_pb2.GetStreamRequest(stream=name)
            )
        except ServiceUnavailable:
            kept = None if outbox is None else outbox.contract(name)
            if kept is None:
                raise
            return streams_pb2.GetStreamResponse.FromString(kept)
        if outbox is not None:
            slim = streams_pb2.GetStreamResponse()
            slim.CopyFrom(response)
            # What changes with every event is no part of the contract.
            slim.status.Clear()
            slim.status.stream, slim.status.contract_version = name, response.status.contract_version
            outbox.keep_contract(name, slim.SerializeToString(deterministic=True))
        return response

    @property
    def name(self) -> str:
        """The stream's name."""
        return self._contract.stream

    @property
    def contract(self) -> Contract:
        """The contract as the service had it when this object was made."""
        return self._contract

    @property
    def message(self) -> type[Any]:
        """The class of the stream's events: `lines.send(lines.message(invoice_no="536365", ...))`."""
        return self._contract.message

    @property
    def schema(self) -> pa.Schema:
        """The contract's columns as an Arrow schema. Needs pyarrow."""
        if self._schema is None:
            from tidemill.client.table import contract_columns

            self._schema = contract_columns(self._contract.arrow_schema)
        return self._schema

    @property
    def resumed(self) -> ProducerState | None:
        """Where the producer was when this object went on as it (`producer_id`); None for a new producer."""
        return self._resumed

    def producer_state(self, producer_id: str) -> ProducerState:
        """What the service knows of a producer id: "where was I?"."""
        return ask_producer_state(self._connection, self.name, producer_id)

    send_serialized: Callable[[bytes], Ack]
    """Send one event that is serialized already; the service checks it."""

    def send(self, event: Event) -> Ack:
        """Send one event; returns at once, or blocks while too much is unacknowledged.

        Raises BadEvent, without sending, when a dict does not fit the contract's message or a message is of another
        type; ClientClosed after close().
        """
        if type(event) in self._classes:
            return self._producer.add(event.SerializeToString())  # type: ignore[union-attr]
        return self._producer.add(self.serialize(event))

    def serialize(self, event: Event) -> bytes:
        """The event as it would be sent; raises BadEvent."""
        if isinstance(event, Mapping):
            return self._encoder.encode(event)
        if isinstance(event, Message):
            if event.DESCRIPTOR.full_name == self._contract.message_type:
                self._classes.add(type(event))
                return event.SerializeToString()
            came = event.DESCRIPTOR.full_name
        else:
            came = f"a {type(event).__name__}"
        raise BadEvent(f"stream {self.name!r} takes {self._contract.message_type} or a dict, came {came}")

    def send_many(self, events: Sequence[bytes]) -> TableAck:
        """Send serialized events together: the least work for a producer that has them ready."""
        options, stream = self._options, self.name
        sent = []
        for start in range(0, len(events), options.batch_rows):
            for chunk in _by_bytes(list(events[start : start + options.batch_rows]), options.batch_bytes):
                batch = Batch(stream)
                batch.messages = chunk
                batch.first_index = start
                start += len(chunk)  # noqa: PLW2901 - the next chunk of this slice begins there
                self._producer.add_batch(batch)
                sent.append(batch)
        return TableAck(stream, sent)

    def send_table(self, table: object) -> TableAck:
        """Send all rows of an Arrow table, batch or reader, of a pandas or polars frame, or of an iterator of batches.

        Columns are matched by name and cast to the contract's types where nothing is lost. A reader or iterator is
        read as fast as its rows are acknowledged: memory stays bounded. Raises BadTable; slices before the one that
        does not fit have been sent then.
        """
        from tidemill.client.table import ipc_bytes, slices

        contract, options = self._contract, self._options
        sent: list[Batch] = []
        rows = 0
        for part in slices(table, self.schema, contract.required, options.table_rows, options.table_bytes):
            batch = Batch(self.name, arrow=ipc_bytes(part), rows=part.num_rows)
            batch.first_index = rows
            rows += part.num_rows
            self._producer.add_batch(batch)
            sent.append(batch)
        return TableAck(self.name, sent)

    def read(
        self,
        *,
        from_offset: int | None = None,
        from_time: dt.datetime | None = None,
        from_end: bool = False,
        follow: bool = False,
        columns: Sequence[str] = (),
        limit: int = 0,
    ) -> Reading[Any]:
        """The stream's rows as messages of its class (`message`), in the order of their offsets.

        from_offset, from_time, from_end: begin at this offset, at the first row appended at that time or later, or
            behind the last row; by default at the first one. What the log no longer keeps comes from the lake.
        follow: go on with rows as they become durable; otherwise end where the stream ends now.
        columns: only these fields are set, the others stay at their defaults. limit: rows at the most; 0: all.

        Raises BadQuery at once; RequestRefused for an unknown column or an offset beyond the end, and
        ServiceUnavailable, when iterated over.
        """
        where = ReadProgress(
            self.name, from_offset=from_offset, from_time=from_time, from_end=from_end, follow=follow, columns=columns,
            limit=limit,
        )  # fmt: skip
        return self._reading(where, messages(self._contract.message))

    def read_arrow(
        self,
        *,
        from_offset: int | None = None,
        from_time: dt.datetime | None = None,
        from_end: bool = False,
        follow: bool = False,
        columns: Sequence[str] = (),
        limit: int = 0,
    ) -> Reading[pa.RecordBatch]:
        """The same rows as Arrow record batches, with `_partition`, `_offset`, `_append_time` and `event_date`.

        columns: only these, in this order. Needs pyarrow. The faster way for many rows.
        """
        where = ReadProgress(
            self.name, from_offset=from_offset, from_time=from_time, from_end=from_end, follow=follow, columns=columns,
            limit=limit, arrow=True,
        )  # fmt: skip
        return self._reading(where, record_batches())

    def _reading(self, where: ReadProgress, unpack: Unpack[Any]) -> Reading[Any]:
        read = self._connection.stub(read_pb2_grpc.ReadServiceStub).Read
        return Reading(read, where, unpack, self._connection.address, self._options.retry_for_s)

    def counts(self) -> SendCounts:
        """What this object has sent so far, and what came of it."""
        return self._producer.counts()

    def flush(self, timeout: float | None = None) -> SendCounts:
        """Wait until everything sent so far is acknowledged.

        Raises the first failure to deliver that no ack has told yet, and WaitTimeout after `timeout` seconds.
        Quarantined rows are no failure here: they are counted, and told to `on_rejected`.
        """
        return self._producer.flush(timeout)

    def status(self) -> StreamStatus:
        """Where the stream is now."""
        request = streams_pb2.GetStreamRequest(stream=self.name)
        return to_stream_status(self._connection.call(self._service.GetStream, request).status)

    def close(self, timeout: float | None = None) -> None:
        """Flush, then stop sending; raises as `flush` does."""
        self._producer.close(timeout)


def _by_bytes(messages: list[bytes], bytes_max: int) -> list[list[bytes]]:
    """The messages in chunks of `bytes_max` at the most (one message at the least)."""
    if sum(map(len, messages)) <= bytes_max or len(messages) == 1:
        return [messages]
    middle = len(messages) // 2
    return _by_bytes(messages[:middle], bytes_max) + _by_bytes(messages[middle:], bytes_max)
