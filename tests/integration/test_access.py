"""A service with TLS and keys, as clients meet it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from integration.conftest import ROOT, IngestProcess, live_manifest

import tidemill
from ingest_service.access.key import split_key
from ingest_service.rpc import auth
from tidemill.client.channel import open_aio_channel, open_channel
from tidemill.v1 import append_pb2, append_pb2_grpc, streams_pb2, streams_pb2_grpc, views_pb2, views_pb2_grpc

EVENT = {
    "event_id": "e1", "invoice_no": "536365", "stock_code": "85123A", "quantity": 6, "unit_price": "2.55",
    "invoiced_at": "2026-03-04T08:26:00Z", "country": "United Kingdom",
}  # fmt: skip


def cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`tidemill` as people run it."""
    return subprocess.run(
        [sys.executable, "-c", "import sys; from tidemill.cli import main; sys.exit(main())", *arguments],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


class Secured(IngestProcess):
    """A service with TLS, and who may talk to it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.ca, self.cert, self.key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.issue()
        super().__init__(
            folder, live_manifest(folder), "--tls-cert", str(self.cert), "--tls-key", str(self.key), *options
        )
        self.data.mkdir()

    def issue(self) -> bytes:
        """A certificate for the service; its serial number's bytes."""
        issued = self.authority.issue_cert("localhost", "127.0.0.1")
        new_key, new_cert = self.folder / "new.key", self.folder / "new.pem"
        issued.private_key_pem.write_to_path(new_key)
        new_key.chmod(0o600)
        new_key.replace(self.key)
        issued.cert_chain_pems[0].write_to_path(new_cert)
        new_cert.replace(self.cert)
        return issued.cert_chain_pems[0].bytes()

    def create_key(self, name: str, *streams: str, allow: str) -> str:
        given = [f"--stream={each}" for each in streams] + [f"--allow={each}" for each in allow.split()]
        done = cli("key", "create", name, *given, "--data", str(self.data))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def connect(self, api_key: str | None) -> tidemill.Client:
        return tidemill.connect(self.address, api_key=api_key, tls=self.ca, wait_s=20)

    def channel(self, api_key: str | None) -> grpc.Channel:
        return open_channel(self.address, tidemill.Credentials(api_key=api_key, ca=self.ca))


@pytest.fixture(scope="module")
def secured(tmp_path_factory) -> Secured:
    process = Secured(tmp_path_factory.mktemp("secured"))
    process.writer = process.create_key("writer", "order_lines", allow="write")
    process.reader = process.create_key("reader", "order_lines", allow="read")
    process.admin = process.create_key("admin", "*", allow="read write admin")
    process.stranger = process.create_key("stranger", "payments", allow="read write admin")
    process.start()
    yield process
    process.stop()


def refusal(call) -> tuple[str, str]:
    with pytest.raises(tidemill.ServiceError) as caught:
        call()
    assert isinstance(caught.value, tidemill.AccessDenied), caught.value
    assert not caught.value.retryable
    return caught.value.reason, str(caught.value)


def test_without_a_key_nothing_is_told(secured):
    with secured.connect(None) as tm:
        for call in (tm.streams, tm.views, lambda: tm.stream_status("order_lines")):
            assert refusal(call)[0] == "UNAUTHENTICATED"
    for wrong in ("tm_0123456789ab_nonsense", secured.writer[:-2], "password"):
        with secured.connect(wrong) as tm:
            reason, said = refusal(tm.streams)
            assert reason == "UNAUTHENTICATED"
            assert wrong not in said


def test_a_key_does_what_it_allows_and_no_more(secured):
    with secured.connect(secured.writer) as tm:
        ack = tm.stream("order_lines").send(EVENT).result(20)
        assert tm.stream_status("order_lines").durable_offset > ack.offset
        reason, said = refusal(lambda: tm.quarantine("order_lines"))
        assert reason == "PERMISSION_DENIED"
        assert "does not allow read on stream 'order_lines'" in said
        assert refusal(lambda: tm.export("order_lines"))[0] == "PERMISSION_DENIED"
        assert tm.views() == []
    with secured.connect(secured.reader) as tm:
        assert tm.quarantine("order_lines").total == 0
        assert [view.view for view in tm.views()] == ["sales_by_minute"]
        assert len(tm.view("sales_by_minute").query(after=ack)) == 1
        with pytest.raises(tidemill.AccessDenied) as caught:
            tm.stream("order_lines").send(EVENT).result(20)
        assert caught.value.metadata == {"needs": "write"}
    with secured.connect(secured.admin) as tm:
        assert tm.export("order_lines").lake_offset == 1


def test_what_a_key_may_not_see_does_not_exist_for_it(secured):
    with secured.connect(secured.stranger) as tm:
        assert tm.streams() == []
        assert tm.views() == []
        with pytest.raises(tidemill.NotFound, match="the live views are: none"):
            tm.view("sales_by_minute").query()
        for stream in ("order_lines", "made_up"):
            reason, said = refusal(lambda name=stream: tm.stream(name))
            assert reason == "PERMISSION_DENIED"
        assert "order_lines" not in said


def test_health_is_open_and_reflection_is_not(secured):
    with secured.channel(None) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 1
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        with pytest.raises(grpc.RpcError) as caught:
            list(reflect(iter([request]), timeout=10))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with secured.channel(secured.stranger) as channel:
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        (answer,) = reflect(iter([request]), timeout=10)
        named = {service.name for service in answer.list_services_response.service}
    assert {"tidemill.v1.AppendService", "grpc.health.v1.Health"} <= named


def test_calls_that_do_not_exist_say_so_only_to_those_with_a_key(secured):
    for key, code in ((None, grpc.StatusCode.UNAUTHENTICATED), (secured.reader, grpc.StatusCode.UNIMPLEMENTED)):
        with secured.channel(key) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/tidemill.v1.StreamService/DropStream")(b"", timeout=10)
        assert caught.value.code() is code


def test_every_call_of_the_api_has_its_right():
    files = {module.DESCRIPTOR for module in (append_pb2, streams_pb2, views_pb2)}
    from tidemill.v1 import read_pb2

    methods = {
        f"/{service.full_name}/{method.name}"
        for file in (*files, read_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert methods == {name for name in auth.RIGHTS if name.startswith("/tidemill.v1.")}


def test_asyncio_channels_carry_the_key_too(secured):
    import asyncio

    async def offsets() -> list[int]:
        credentials = tidemill.Credentials(api_key=secured.admin, ca=secured.ca)
        async with open_aio_channel(secured.address, credentials) as channel:
            streams = streams_pb2_grpc.StreamServiceStub(channel)
            response = await streams.ListStreams(streams_pb2.ListStreamsRequest(), timeout=10)
            append = append_pb2_grpc.AppendServiceStub(channel).Append(timeout=10)
            await append.write(append_pb2.AppendRequest(stream="order_lines", proto=append_pb2.ProtoRows()))
            await append.done_writing()
            answers = [answer.durable_offset async for answer in append]
            views = await views_pb2_grpc.ViewServiceStub(channel).ListViews(views_pb2.ListViewsRequest(), timeout=10)
            assert len(views.views) == 1
            assert "order_lines" in [each.stream for each in response.streams]
            return answers

    assert len(asyncio.run(offsets())) == 1


def test_a_revoked_key_ends_the_calls_that_run(secured):
    secret = secured.create_key("brief", "order_lines", allow="write")
    ended = threading.Event()
    with secured.channel(secret) as channel:
        request = append_pb2.AppendRequest(stream="order_lines", proto=append_pb2.ProtoRows())

        def requests():
            yield request
            ended.wait(30)

        call = append_pb2_grpc.AppendServiceStub(channel).Append(requests())
        # The new key counts at once: the call is answered.
        next(call)
        assert cli("key", "revoke", "brief", "--data", str(secured.data)).returncode == 0
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        ended.set()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "revoked or has expired" in caught.value.details()
    with secured.connect(secret) as tm:
        assert refusal(tm.streams)[0] == "UNAUTHENTICATED"
    text = secured.log.read_text()
    assert "brief" in text
    for key in (secret, secured.writer, secured.reader, secured.admin):
        assert split_key(key)[1] not in text


def test_the_command_line_takes_credentials_from_files_and_environment(secured, tmp_path):
    file = tmp_path / "key"
    file.write_text(secured.reader + "\n")
    address = ("--address", secured.address)
    done = cli("--tls-ca", str(secured.ca), "--api-key-file", str(file), "stream", "list", "--json", *address)
    assert '"stream": "order_lines"' in done.stdout, done.stderr
    done = cli("stream", "list", *address, TIDEMILL_API_KEY=secured.reader, TIDEMILL_TLS_CA=str(secured.ca))
    assert "order_lines" in done.stdout, done.stderr
    done = cli("stream", "list", *address, TIDEMILL_TLS_CA=str(secured.ca))
    assert done.returncode == 1
    assert "expected an API key" in done.stderr
    done = cli("stream", "list", *address)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert cli("--tls-ca", "/nowhere", "stream", "list").returncode == 2


def test_another_authority_is_not_trusted(secured, tmp_path):
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with (
        tidemill.connect(secured.address, api_key=secured.reader, tls=other) as tm,
        pytest.raises(tidemill.ServiceUnavailable, match="no secure connection"),
    ):
        tm.streams()


def test_a_new_certificate_is_used_without_a_restart(secured):
    import ssl

    host, _, port = secured.address.rpartition(":")
    before = ssl.get_server_certificate((host, int(port)))
    new = secured.issue().decode()
    after = ssl.get_server_certificate((host, int(port)))
    assert before.split() != after.split()
    assert after.split() == new.split()
    # One that can't be used changes nothing.
    secured.cert.write_text("no certificate")
    assert ssl.get_server_certificate((host, int(port))).split() == new.split()
    assert "can't be used" in secured.log.read_text()
    secured.issue()
    with secured.connect(secured.reader) as tm:
        assert len(tm.streams()) == 1


def test_clients_need_a_certificate_where_it_is_asked_for(tmp_path):
    authority = trustme.CA()
    ca = tmp_path / "clients.pem"
    authority.cert_pem.write_to_path(ca)
    process = Secured(tmp_path, "--tls-client-ca", str(ca))
    issued = authority.issue_cert("client.example")
    cert, key = tmp_path / "client.pem", tmp_path / "client.key"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    process.start()
    try:
        mine = tidemill.Credentials(ca=process.ca, cert=cert, key=key)
        with tidemill.connect(process.address, credentials=mine, wait_s=20) as tm:
            assert "order_lines" in [each.stream for each in tm.streams()]
        with tidemill.connect(process.address, tls=process.ca) as tm, pytest.raises(tidemill.ServiceUnavailable):
            tm.streams()
    finally:
        process.stop()
    assert "open: whoever reaches" in process.log.read_text()


def test_a_service_for_other_machines_does_not_start_open(tmp_path):
    command = [sys.executable, "-m", "ingest_service", "--data", str(tmp_path), "--proto", "proto"]
    done = subprocess.run(
        [*command, "--listen", "0.0.0.0:0"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "no certificate" in done.stderr
    assert "--allow-open-network" in done.stderr


def test_reading_takes_the_right_to_read_for_as_long_as_it_goes_on(secured):
    passing = secured.create_key("passing", "order_lines", allow="read")
    with (
        secured.connect(secured.admin) as tm,
        secured.connect(passing) as reader,
        secured.connect(secured.writer) as no,
    ):
        tm.stream("order_lines").send({**EVENT, "event_id": "to-be-read"}).result(20)
        with pytest.raises(tidemill.AccessDenied, match="does not allow read on stream 'order_lines'"):
            next(no.stream("order_lines").read())
        following = reader.stream("order_lines").read(follow=True)
        assert next(following).invoice_no == "536365"
        revoked = cli("key", "revoke", split_key(passing)[0], "--data", str(secured.data))
        assert revoked.returncode == 0, revoked.stderr
        with pytest.raises(tidemill.AccessDenied, match="revoked or has expired"):
            list(following)
