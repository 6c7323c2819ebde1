"""The gRPC channels to a service, and unary calls over one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, Protocol, TypeVar

import grpc

from tidemill.client.api_key import KeySender, aio_key_senders
from tidemill.client.credentials import Credentials, read_file
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
    ("grpc.max_reconnect_backoff_ms", 500),
    # How long an attempt to connect may take, despite its name: TCP, TLS and the first frame, also over a far link.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    # Channels to one address share nothing: closing one leaves the others alone.
    ("grpc.use_local_subchannel_pool", 1),
]

_Response_co = TypeVar("_Response_co", covariant=True)
_Response = TypeVar("_Response")


class _Unary(Protocol[_Response_co]):
    def __call__(self, request: Any, /, *, timeout: float | None = None) -> _Response_co: ...


def check_address(address: str) -> str:
    """The address as gRPC wants it; raises TidemillError for one without a port."""
    host, colon, port = address.removeprefix("http://").removeprefix("https://").rstrip("/").rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise TidemillError(f"expected an address such as localhost:7433, came {address!r}")
    return f"{host}:{port}"


def open_channel(address: str, credentials: Credentials | None = None) -> grpc.Channel:
    """A channel that opens by itself at the first call; https:// in front of the address asks for TLS.

    credentials: None takes those of the environment.
    Raises TidemillError for an address without a port, a file that can't be read, and a key that would cross the
    network in plain text.
    """
    target, known = _checked(address, credentials)
    if known.secure:
        channel = grpc.secure_channel(target, _tls(known), options=_OPTIONS)
    else:
        channel = grpc.insecure_channel(target, options=_OPTIONS)
    if known.api_key is None:
        return channel
    return grpc.intercept_channel(channel, KeySender(known.api_key))


def open_aio_channel(address: str, credentials: Credentials | None = None) -> grpc.aio.Channel:
    """The same for asyncio; to be called in the event loop that uses it."""
    target, known = _checked(address, credentials)
    senders = [] if known.api_key is None else aio_key_senders(known.api_key)
    if known.secure:
        return grpc.aio.secure_channel(target, _tls(known), options=_OPTIONS, interceptors=senders)
    return grpc.aio.insecure_channel(target, options=_OPTIONS, interceptors=senders)


def _checked(address: str, credentials: Credentials | None) -> tuple[str, Credentials]:
    target = check_address(address)
    known = Credentials.from_environment() if credentials is None else credentials
    if address.startswith("https://"):
        known = replace(known, tls=True)
    if known.api_key is not None and not (known.secure or known.plaintext_key or _is_loopback(target)):
        raise TidemillError(
            f"the API key would cross the network to {target} in plain text: give TLS (TIDEMILL_TLS_CA, or tls=…), or "
            "say TIDEMILL_PLAINTEXT_KEY=1 where the network itself is closed"
        )
    return target, known


def _is_loopback(target: str) -> bool:
    host = target.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(credentials: Credentials) -> grpc.ChannelCredentials:
    own = (("TLS certificate", credentials.cert), ("TLS key", credentials.key))
    certificate, key = (None if file is None else read_file(name, file) for name, file in own)
    ca = None if credentials.ca is None else read_file("TLS authority", credentials.ca)
    return grpc.ssl_channel_credentials(ca, key, certificate)


class Connection:
    """A channel to one service; opens by itself at the first call. Thread-safe."""

    def __init__(self, address: str, timeout_s: float, credentials: Credentials | None = None) -> None:
        self.address = check_address(address)
        self.timeout_s = timeout_s
        self.channel = open_channel(address, credentials)

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
