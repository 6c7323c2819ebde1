"""The SDK's entrance: a client of one service."""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from google.protobuf import descriptor_pb2

from tidemill.client.ack import Rejected
from tidemill.client.applied import AppliedContract, AppliedView, to_applied
from tidemill.client.channel import Connection
from tidemill.client.credentials import Credentials
from tidemill.client.delivery import open_producer
from tidemill.client.models import (
    Export,
    LakeUpkeep,
    Quarantine,
    Replay,
    Seal,
    StreamStatus,
    ViewStatus,
    to_lake_upkeep,
    to_quarantine,
    to_seal,
    to_stream_status,
)
from tidemill.client.options import ProducerOptions
from tidemill.client.outbox import Outbox
from tidemill.client.outbox_file import OutboxFile
from tidemill.client.producer import Producer
from tidemill.client.stream import Stream
from tidemill.client.view import View, apply_views, list_views
from tidemill.errors import ClientClosed, TidemillError
from tidemill.v1 import streams_pb2, streams_pb2_grpc

DEFAULT_ADDRESS = "localhost:7433"
"""Where a service listens unless it is told otherwise."""


class Client:
    """A client of one service; made by `connect`. Thread-safe. As a context manager it closes itself, flushing."""

    def __init__(self, connection: Connection, options: ProducerOptions, outbox: OutboxFile | None = None) -> None:
        self._connection = connection
        self._options = options
        self._outbox = outbox
        self._streams: list[Stream | Producer] = []
        self._by_name: dict[str, Stream] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._service = connection.stub(streams_pb2_grpc.StreamServiceStub)

    @property
    def address(self) -> str:
        """The service's address."""
        return self._connection.address

    @property
    def outbox(self) -> Outbox | None:
        """The outbox given to `connect`."""
        return None if self._outbox is None else Outbox(self._outbox)

    def stream(
        self,
        name: str,
        *,
        on_rejected: Callable[[Rejected], None] | None = None,
        options: ProducerOptions | None = None,
        producer_id: str | None = None,
    ) -> Stream:
        """The stream of that name, with its contract from the service; raises NotFound.

        on_rejected: called for every quarantined row, in the producer's thread: be quick. Without it the log warns.
        options: how to batch and retry, instead of the client's. producer_id: go on as this producer, from where the
        service knows it to be (`Stream.resumed`); a failure then closes the stream. Not with an outbox, which keeps ids
        of its own. Asked for again without any of them, the same object comes.
        """
        if producer_id is not None and self._outbox is not None:
            raise TidemillError("expected either a producer_id or an outbox, which keeps producer ids of its own")
        plain = on_rejected is None and options is None and producer_id is None
        with self._lock:
            if self._closed:
                raise ClientClosed(f"the client of {self.address} is closed")
            if plain and name in self._by_name:
                return self._by_name[name]
        stream = Stream(self._connection, name, options or self._options, on_rejected, self._outbox, producer_id)
        with self._lock:
            if plain:
                # Another thread may have been faster.
                stream = self._by_name.setdefault(name, stream)
            if stream not in self._streams:
                self._streams.append(stream)
        return stream

    def view(self, name: str) -> View:
        """The live view of that name; whether it exists shows at the first query."""
        return View(self._connection, name, self._options.retry_for_s)

    def streams(self) -> list[StreamStatus]:
        """All streams, by name."""
        response = self._connection.call(self._service.ListStreams, streams_pb2.ListStreamsRequest())
        return [to_stream_status(status) for status in response.streams]

    def stream_status(self, name: str) -> StreamStatus:
        """Where a stream is now; raises NotFound."""
        response = self._connection.call(self._service.GetStream, streams_pb2.GetStreamRequest(stream=name))
        return to_stream_status(response.status)

    def views(self) -> list[ViewStatus]:
        """All live views, by name."""
        return list_views(self._connection)

    def seal(
        self,
        stream: str,
        date: dt.date,
        last_date: dt.date | None = None,
        *,
        force: bool = False,
        timeout_s: float = 60,
    ) -> Seal:
        """Seal a date (UTC), or the dates up to `last_date` as one; its rows that come from then on are late.

        Raises RequestRefused while the watermark has not passed the dates' end, unless `force`.
        """
        request = streams_pb2.SealDateRequest(
            stream=stream, date=str(date), last_date=str(last_date) if last_date else "", force=force
        )
        return to_seal(self._connection.call(self._service.SealDate, request, timeout_s).seal)

    def export(self, stream: str, up_to: int = 0, *, timeout_s: float = 600) -> Export:
        """Bring the stream's lake table up to an offset (0: all that is durable); returns when it is there."""
        request = streams_pb2.ExportLakeRequest(stream=stream, up_to_offset=up_to)
        response = self._connection.call(self._service.ExportLake, request, timeout_s)
        return Export(response.lake_version, response.lake_offset, response.lake_uri)

    def maintain_lake(
        self,
        stream: str,
        *,
        dates: Collection[dt.date] = (),
        compact_only: bool = False,
        keep_versions: Collection[int] = (),
        min_age_s: int | None = None,
        timeout_s: float = 3600,
    ) -> LakeUpkeep:
        """Compact dates of the stream's lake table and, unless `compact_only`, delete the files that nobody needs.

        dates: UTC; without any, every date before today that is in several small files. keep_versions: these stay
        readable, beside the present one, and beside each that was the present one in the last `min_age_s` seconds
        (7 days unless told). What is sent and exported meanwhile is not held up for longer than a date takes.
        """
        request = streams_pb2.MaintainLakeRequest(
            stream=stream,
            dates=[str(date) for date in dates],
            compact_only=compact_only,
            keep_versions=keep_versions,
            min_age_s=min_age_s,
        )
        return to_lake_upkeep(self._connection.call(self._service.MaintainLake, request, timeout_s))

    def quarantine(self, stream: str, limit: int = 100, *, ids: Sequence[str] = ()) -> Quarantine:
        """The newest rows of the stream that broke its contract, or those of `ids`, replayed or not.

        Raises RequestRefused for an id that there is not, or that is no longer kept.
        """
        request = streams_pb2.ListQuarantineRequest(stream=stream, limit=limit, ids=ids)
        return to_quarantine(self._connection.call(self._service.ListQuarantine, request))

    def replay_quarantine(
        self, stream: str, ids: Sequence[str] = (), *, check_only: bool = False, timeout_s: float = 600
    ) -> Replay:
        """Append the quarantined rows that keep the contract now, each once; those of `ids`, or all that wait.

        check_only: say what would become of them; append nothing. A call that was cut off may be made again.
        Raises RequestRefused for an id that there is not, or that is no longer kept.
        """
        request = streams_pb2.ReplayQuarantineRequest(stream=stream, ids=ids, check_only=check_only)
        done = self._connection.call(self._service.ReplayQuarantine, request, timeout_s)
        return Replay(done.checked, done.appended, done.duplicate, done.still_broken, done.after_offset)

    def apply_contract(
        self, descriptors: bytes, message_type: str = "", *, check_only: bool = False, timeout_s: float = 60
    ) -> list[AppliedContract]:
        """Compare a changed contract with the one in force and, unless `check_only`, put it in force.

        descriptors: a serialized FileDescriptorSet: the contract's .proto file and all that it imports, imports first.
        message_type: its message's full name; empty: every contract that the last file declares.
        Raises RequestRefused when a change breaks something (its `violations` say what), unless `check_only`.
        """
        request = streams_pb2.ApplyContractRequest(
            descriptors=descriptor_pb2.FileDescriptorSet.FromString(descriptors),
            message_type=message_type,
            check_only=check_only,
        )
        response = self._connection.call(self._service.ApplyContract, request, timeout_s)
        return [to_applied(contract) for contract in response.contracts]

    def apply_views(self, manifest: bytes, *, check_only: bool = False, timeout_s: float = 120) -> list[AppliedView]:
        """Make a manifest's models the live views, also after a restart, or say what that would do (`check_only`).

        manifest: dbt's, with the compiled SQL of its live models; `tidemill view apply` makes one. Views that it does
        not have end; a model that can't be a live view is REFUSED, with the reason, and stops no other.
        Raises RequestRefused for what is no such manifest.
        """
        return apply_views(self._connection, manifest, check_only, timeout_s)

    def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Wait until the service answers; raises ServiceUnavailable."""
        self._connection.wait_ready(timeout_s)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything sent over this client is acknowledged; raises as `Stream.flush` does.

        With an outbox also what earlier programs left in it, of streams too that this one does not use.
        """
        self._take_up_unclaimed()
        for stream in list(self._streams):
            stream.flush(timeout)

    def _take_up_unclaimed(self) -> None:
        if self._outbox is None:
            return
        with self._lock:
            for name in self._outbox.unclaimed():
                self._streams.append(open_producer(self._connection, name, self._options, outbox=self._outbox))

    def close(self, timeout: float | None = None) -> None:
        """Flush all streams, then close the connection. Raises the first failure, after everything is closed."""
        if not self._closed:
            self._take_up_unclaimed()
        with self._lock:
            self._closed = True
            streams, self._streams = self._streams, []
        first: BaseException | None = None
        for stream in streams:
            try:
                stream.close(timeout)
            except Exception as error:  # noqa: BLE001 - every stream is closed before the first error is raised
                first = first or error
        self._connection.close()
        if self._outbox is not None:
            self._outbox.close()
        if first is not None:
            raise first

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # After Ctrl-C nobody waits for a service that may be gone.
            self.close(timeout=5.0 if kind is not None else None)
        except Exception:
            if error is None:
                raise


def connect(
    address: str = DEFAULT_ADDRESS,
    *,
    timeout_s: float = 10.0,
    wait_s: float = 0.0,
    options: ProducerOptions | None = None,
    outbox: Path | str | None = None,
    api_key: str | None = None,
    tls: bool | str | os.PathLike[str] | None = None,
    credentials: Credentials | None = None,
) -> Client:
    """A client of the service at `address` ("host:port"; "https://host:port" asks for TLS).

    timeout_s: how long a question to the service may take, in seconds. wait_s: how long to wait for a service that
    does not answer yet; 0: the first call fails at once. options: how streams batch and retry.
    outbox: a file (made when missing) that keeps events from `send` to their ack: they survive this program's crash,
    and the next one that opens it sends them. One program at a time.
    api_key: as `tidemill key create` printed it. tls: True trusts the authorities that this machine trusts, a path
    those of that PEM file; False goes without. credentials: all of it, and a client certificate, in one object.
    What is not given comes from the environment (TIDEMILL_API_KEY_FILE, TIDEMILL_TLS_CA and so on).
    Raises TidemillError for an address without a port and for credentials that can't be used, ServiceUnavailable
    after `wait_s`, OutboxError for an outbox that can't be opened or that another program has open.
    """
    connection = Connection(address, timeout_s, credentials or Credentials.chosen(api_key, tls))
    try:
        if wait_s > 0:
            connection.wait_ready(wait_s)
        return Client(connection, options or ProducerOptions(), None if outbox is None else OutboxFile(outbox))
    except BaseException:
        connection.close()
        raise
