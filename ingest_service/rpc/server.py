"""The gRPC server: which services it has, how large messages may be, and how it stops."""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ingest_service.access import TlsFiles
from ingest_service.errors import ConfigError
from ingest_service.rpc.append import AppendServicer
from ingest_service.rpc.auth import Guard
from ingest_service.rpc.read import ReadServicer
from ingest_service.rpc.streams import StreamServicer
from ingest_service.rpc.views import ViewServicer
from tidemill.v1 import (
    append_pb2,
    read_pb2,
    streams_pb2,
    streams_pb2_grpc,
    views_pb2,
    views_pb2_grpc,
)

MESSAGE_BYTES_MAX = 64 << 20
CALLS_PER_CONNECTION_MAX = 2_000
"""Calls that one connection may have at a time; more wait at the client."""
METADATA_BYTES_MAX = 16 << 10
READ_AHEAD_BYTES = 1 << 20
"""Bytes of a call that the service's network side holds while nobody reads them."""
STOP_GRACE_S = 2.0
"""How long calls may go on once the server is stopping; the SDK resends what was not acknowledged."""

_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # What is read ahead of a call that waits for its turn. gRPC would let it grow by what the network could carry.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", READ_AHEAD_BYTES),
    # Without this a second service on the same port would silently take half of the calls.
    ("grpc.so_reuseport", 0),
    # A client that is gone without a word is noticed within a minute and a half.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # One that pings more often than every 10 s loses its connection after two strikes.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.max_concurrent_streams", CALLS_PER_CONNECTION_MAX),
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
]
_SERVICES = [
    append_pb2.DESCRIPTOR.services_by_name["AppendService"].full_name,
    read_pb2.DESCRIPTOR.services_by_name["ReadService"].full_name,
    streams_pb2.DESCRIPTOR.services_by_name["StreamService"].full_name,
    views_pb2.DESCRIPTOR.services_by_name["ViewService"].full_name,
]


class Server:
    """A gRPC server on one address. Use it from one event loop.

    guard: who may make which call; None: anyone any. tls: the files of TLS; None: plain text.
    """

    def __init__(
        self,
        append: AppendServicer,
        reads: ReadServicer,
        streams: StreamServicer,
        views: ViewServicer,
        *,
        guard: Guard | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self._guard = guard or Guard(None)
        self._tls = tls
        self._watching: asyncio.Task[None] | None = None
        self._server = grpc.aio.server(options=_OPTIONS, interceptors=[self._guard])
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server.add_generic_rpc_handlers((append.handler(),))
        streams_pb2_grpc.add_StreamServiceServicer_to_server(streams, self._server)  # type: ignore[no-untyped-call]
        views_pb2_grpc.add_ViewServiceServicer_to_server(views, self._server)  # type: ignore[no-untyped-call]
        self._reads, self._views = reads, views
        self._server.add_generic_rpc_handlers((reads.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self._server)

    async def start(self, host: str, port: int) -> int:
        """Listen and answer; the port, which is a free one where 0 was asked for.

        Raises:
            ConfigError: the address can't be listened on.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._tls is None:
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, self._tls.credentials())
        except RuntimeError:
            bound = 0
        if not bound:
            raise ConfigError(
                f"can't listen on {address}: the port is in use or the address is not this machine's. Stop what uses "
                "it, or choose another with --listen HOST:PORT (port 0: a free one)"
            )
        await self._server.start()
        self._watching = asyncio.create_task(self._guard.watch(), name="watch-keys")
        for name in ("", *_SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return int(bound)

    async def stop(self) -> None:
        """Refuse new calls, let running ones end for STOP_GRACE_S, then cut them."""
        await self._health.enter_graceful_shutdown()
        self._reads.stop()
        self._views.stop()
        await self._server.stop(STOP_GRACE_S)
        if self._watching is not None:
            self._watching.cancel()
