"""The gRPC channel to a service, and unary calls over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import grpc

from tidemill.client.options import MESSAGE_BYTES_MAX
from tidemill.client.status import to_error
from tidemill.errors import ClientClosed, ServiceUnavailable, TidemillError

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # A dead peer is noticed after a minute and a half at the latest, also when nothing is sent.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A service that starts again is found at once, not after gRPC's own minutes of backoff.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Channels to one address share nothing: closing one leaves the others alone.
    ("grpc.use_local_subchannel_pool", 1),
]

_Response_co = TypeVar("_Response_co", covariant=True)
_Response = TypeVar("_Response")


class _Unary(Protocol[_Response_co]):
    def __call__(self, request: Any, /, *, timeout: float | None = None) -> _Response_co: ...


def check_address(address: str) -> str:
    """The address as gRPC wants it; raises TidemillError for one without a port."""
    host, colon, port = address.removeprefix("http://").rstrip("/").rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise TidemillError(f"expected an address such as localhost:7433, came {address!r}")
    return f"{host}:{port}"


class Connection:
    """A channel to one service; opens by itself at the first call. Thread-safe."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self.address = check_address(address)
        self.timeout_s = timeout_s
        self.channel = grpc.insecure_channel(self.address, options=_OPTIONS)

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the service answers; raises ServiceUnavailable after `timeout_s` seconds."""
        try:
            grpc.channel_ready_future(self.channel).result(timeout=timeout_s)
        except grpc.FutureTimeoutError:
            raise ServiceUnavailable(
                f"no service answers at {self.address} after {timeout_s:g} s; "
                f"start one with: tidemill serve --listen {self.address}",
                "UNAVAILABLE",
            ) from None

    def call(self, method: _Unary[_Response], request: object, timeout_s: float | None = None) -> _Response:
        """Make a unary call; its failure becomes the SDK's error."""
        try:
            return method(request, timeout=timeout_s or self.timeout_s)
        except grpc.RpcError as error:
            raise to_error(error, self.address) from None
        except ValueError as error:  # gRPC says so when the channel is closed
            raise ClientClosed(f"the client of {self.address} is closed") from error

    def stub(self, stub: Callable[[grpc.Channel], Any]) -> Any:
        """A generated stub over this channel."""
        return stub(self.channel)

    def close(self) -> None:
        """Close the channel; calls that run are cancelled."""
        self.channel.close()
