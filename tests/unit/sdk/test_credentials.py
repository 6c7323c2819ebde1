"""Credentials come from arguments and environment, go where they are safe, and are never shown."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

import tidemill
from tidemill.client.channel import check_address, open_aio_channel, open_channel
from tidemill.client.credentials import Credentials

KEY = "tm_0123456789ab_secret-of-many-bits"


def test_a_key_is_never_shown():
    assert "secret" not in repr(Credentials(api_key=KEY))
    assert "secret" not in str(Credentials(api_key=KEY, tls=True))


def test_the_environment_names_files(tmp_path):
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    found = Credentials.from_environment(
        {
            "TIDEMILL_API_KEY_FILE": str(file),
            "TIDEMILL_TLS_CA": "ca.pem",
            "TIDEMILL_TLS_CERT": "c",
            "TIDEMILL_TLS_KEY": "k",
        }
    )
    assert found == Credentials(api_key=KEY, ca=Path("ca.pem"), cert=Path("c"), key=Path("k"))
    assert found.secure
    assert Credentials.from_environment({}) == Credentials()
    assert not Credentials().secure
    assert Credentials.from_environment({"TIDEMILL_TLS": "1"}).secure
    both = {"TIDEMILL_API_KEY": "tm_a_b", "TIDEMILL_API_KEY_FILE": "/nowhere"}
    assert Credentials.from_environment(both).api_key == "tm_a_b"


def test_what_is_given_comes_before_the_environment(monkeypatch):
    monkeypatch.setenv("TIDEMILL_API_KEY", "tm_of_environment")
    monkeypatch.setenv("TIDEMILL_TLS_CA", "environment.pem")
    assert Credentials.chosen(None, None) == Credentials(api_key="tm_of_environment", ca=Path("environment.pem"))
    assert Credentials.chosen(KEY, "own.pem") == Credentials(api_key=KEY, ca=Path("own.pem"))
    assert not Credentials.chosen(None, tls=False).secure


@pytest.mark.parametrize("api_key", ["", "two\nlines", "ключ", "\x00"])
def test_what_can_be_no_key_is_refused_without_showing_it(api_key):
    with pytest.raises(tidemill.TidemillError, match="expected an API key") as caught:
        Credentials(api_key=api_key)
    assert not api_key or api_key not in str(caught.value)


def test_a_certificate_needs_its_key():
    with pytest.raises(tidemill.TidemillError, match="cert is given without key"):
        Credentials(cert=Path("c"))
    with pytest.raises(tidemill.TidemillError, match="key is given without cert"):
        Credentials(key=Path("k"))


def test_files_that_are_missing_are_named(tmp_path):
    missing = tmp_path / "missing.pem"
    with pytest.raises(tidemill.TidemillError, match=f"TLS authority: the file {missing}"):
        open_channel("localhost:1", Credentials(ca=missing))
    with pytest.raises(tidemill.TidemillError, match="TIDEMILL_API_KEY_FILE"):
        Credentials.from_environment({"TIDEMILL_API_KEY_FILE": str(missing)})


@pytest.mark.parametrize("address", ["ingest.example:7433", "10.0.0.1:7433", "localhost.example:7433", "0.0.0.0:7433"])
def test_a_key_does_not_cross_the_network_in_plain_text(address):
    with pytest.raises(tidemill.TidemillError, match="in plain text") as caught:
        tidemill.connect(address, api_key=KEY)
    assert "secret" not in str(caught.value)
    for allowed in (Credentials(api_key=KEY, tls=True), Credentials(api_key=KEY, plaintext_key=True)):
        open_channel(address, allowed).close()
    open_channel(f"https://{address}", Credentials(api_key=KEY)).close()


def test_addresses_may_have_a_scheme():
    assert check_address("https://ingest.example:7433/") == "ingest.example:7433"
    assert check_address("http://localhost:7433") == "localhost:7433"


@pytest.fixture
def echo():
    """A server that answers each kind of call with the `authorization` that it came with; gives its address."""

    def of(context: grpc.ServicerContext) -> bytes:
        return dict(context.invocation_metadata()).get("authorization", "").encode()

    handlers = {
        "UU": grpc.unary_unary_rpc_method_handler(lambda request, context: of(context)),
        "US": grpc.unary_stream_rpc_method_handler(lambda request, context: iter([of(context)])),
        "SU": grpc.stream_unary_rpc_method_handler(lambda requests, context: of(context)),
        "SS": grpc.stream_stream_rpc_method_handler(lambda requests, context: iter([of(context)])),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


@pytest.mark.parametrize("api_key", [KEY, None])
def test_every_kind_of_call_carries_the_key(echo, api_key):
    expected = f"Bearer {KEY}".encode() if api_key else b""
    with open_channel(echo, Credentials(api_key=api_key)) as channel:
        told = [
            channel.unary_unary("/t/UU")(b"", timeout=10),
            *channel.unary_stream("/t/US")(b"", timeout=10),
            channel.stream_unary("/t/SU")(iter([b""]), timeout=10),
            *channel.stream_stream("/t/SS")(iter([b""]), timeout=10),
        ]
    assert told == [expected] * 4

    async def asked() -> list[bytes]:
        async with open_aio_channel(echo, Credentials(api_key=api_key)) as channel:
            return [
                await channel.unary_unary("/t/UU")(b"", timeout=10),
                *[each async for each in channel.unary_stream("/t/US")(b"", timeout=10)],
                await channel.stream_unary("/t/SU")(iter([b""]), timeout=10),
                *[each async for each in channel.stream_stream("/t/SS")(iter([b""]), timeout=10)],
            ]

    assert asyncio.run(asked()) == [expected] * 4
