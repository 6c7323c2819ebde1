"""What a service bears: nonsense in any amount, and producers that are too fast."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import grpc
import psutil
import pyarrow as pa
import pytest
from integration.conftest import ROOT, IngestProcess
from integration.test_access import EVENT

import tidemill
from ingest_service.rpc import auth
from tidemill.client.status_details import read_details
from tidemill.v1 import append_pb2, streams_pb2

APPEND = "/tidemill.v1.AppendService/Append"
APPEND_ONCE = "/tidemill.v1.AppendService/AppendOnce"
UNARY = [name for name in auth.RIGHTS if name.startswith("/tidemill.v1.") and name not in (APPEND,)]
CLEAR = {
    grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.FAILED_PRECONDITION,
}  # fmt: skip
MEMORY_MIB_MAX = 1024
"""What docs/security.md states."""


class Nonsense:
    """Malformed requests, by a seed: a method and the bytes to send."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        table = pa.table({"event_id": ["a", "b"], "quantity": pa.array([1, 2], pa.int32())})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        self.arrow = sink.getvalue().to_pybytes()

    def request(self) -> tuple[str, bytes]:
        rng = self.rng
        match rng.randrange(9):
            case 0:
                return rng.choice([*UNARY, APPEND]), b"\xff" + rng.randbytes(rng.randrange(60))
            case 1:  # a field whose length is larger than all memory
                return rng.choice([*UNARY, APPEND]), b"\x0a" + b"\xff\xff\xff\xff\x0f" + rng.randbytes(9)
            case 2:  # a message of another kind
                wrong = streams_pb2.SealDateRequest(stream="order_lines", date="2026-13-45", force=True)
                return "/tidemill.v1.StreamService/SealDate", wrong.SerializeToString()
            case 3:
                return rng.choice([APPEND, APPEND_ONCE]), self._append(arrow=rng.randbytes(rng.randrange(1, 300)))
            case 4:  # another schema
                return rng.choice([APPEND, APPEND_ONCE]), self._append(arrow=self.arrow)
            case 5:  # Arrow with a bit turned, or cut off
                damaged = bytearray(self.arrow)
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
                cut = rng.choice([len(damaged), rng.randrange(len(damaged))])
                return APPEND_ONCE, self._append(arrow=bytes(damaged[:cut]))
            case 6:
                return rng.choice([APPEND, APPEND_ONCE]), self._append(stream=f"no-{rng.random()}", arrow=b"x")
            case 7:  # neither of the two kinds of rows
                return rng.choice([APPEND, APPEND_ONCE]), self._append()
            case _:  # a sequence that does not follow
                rows = append_pb2.ProtoRows(messages=[rng.randbytes(20)])
                return APPEND_ONCE, self._append(proto=rows, producer_id="p", sequence=rng.randrange(1, 1 << 40))

    def _append(self, stream: str = "order_lines", **fields: object) -> bytes:
        return append_pb2.AppendRequest(stream=stream, **fields).SerializeToString()


async def send_all(address: str, nonsense: Nonsense, count: int) -> Counter[str]:
    """Send so many, a few at a time over a few connections; what came back, by code and reason."""
    told: Counter[str] = Counter()
    unclear: list[object] = []
    left = count

    async def sender() -> None:
        nonlocal left
        async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            while left > 0:
                left -= 1
                method, data = nonsense.request()
                try:
                    if method == APPEND:
                        async for _ in channel.stream_stream(method)(iter([data]), timeout=60):
                            pass
                    else:
                        await channel.unary_unary(method)(data, timeout=60)
                    told["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    reason = read_details(error.trailing_metadata()).reason
                    told[f"{error.code().name} {reason}"] += 1
                    if error.code() not in CLEAR or not reason:
                        unclear.append((method, data, error.code(), error.details()))

    await asyncio.gather(*(sender() for _ in range(8)))
    assert not unclear, unclear[:3]
    return told


def memory_mib(process: IngestProcess) -> int:
    return int(psutil.Process(process.pid).memory_info().rss) >> 20


@pytest.mark.parametrize(
    "count", [pytest.param(6_000, id="some"), pytest.param(100_000, id="many", marks=pytest.mark.soak)]
)
def test_nonsense_gets_a_clear_status_and_nothing_grows(ingest, count):
    seed = int(os.environ.get("TIDEMILL_TEST_SEED") or random.randrange(1 << 32))
    print("seed", seed)
    nonsense = Nonsense(seed)
    # What grows once (pools, caches) has grown after these.
    asyncio.run(send_all(ingest.address, nonsense, 2_000))
    before, log_before = memory_mib(ingest), ingest.log.stat().st_size
    told = asyncio.run(send_all(ingest.address, nonsense, count))
    grown = memory_mib(ingest) - before
    print(told, f"grown {grown} MiB")
    # A call whose bytes happen to be an empty request of ListStreams or ListViews is answered; hardly any is.
    assert told["OK"] < count / 20
    assert {key.partition(" ")[0] for key in told} >= {"INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE"}
    assert grown < 32, f"memory grew by {grown} MiB"
    assert ingest.log.stat().st_size - log_before < 10_000, "nonsense fills the log of the service"
    with tidemill.connect(ingest.address) as tm:
        assert tm.stream("order_lines").send(EVENT).result(20).offset == 0


def test_nonsense_below_grpc_is_cut_off(ingest):
    seed = int(os.environ.get("TIDEMILL_TEST_SEED") or random.randrange(1 << 32))
    print("seed", seed)
    rng = random.Random(seed)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    for _ in range(300):
        with socket.create_connection(("127.0.0.1", ingest.port), timeout=20) as connection:
            # Headers and data frames of random lengths and content, some of them torn off in the middle.
            frame = rng.randbytes(3) + bytes([rng.randrange(10)]) + rng.randbytes(5) + rng.randbytes(rng.randrange(200))
            connection.sendall(rng.choice([b"", preface, preface + settings]) + frame)
    with tidemill.connect(ingest.address) as tm:
        assert tm.stream("order_lines").send(EVENT).result(20).offset == 0


def test_a_message_that_is_too_large_is_refused_and_not_sent_again(ingest):
    with tidemill.connect(ingest.address) as tm, grpc.insecure_channel(ingest.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(APPEND_ONCE)(bytes((64 << 20) + 1), timeout=60)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert isinstance(tidemill_error(caught.value), tidemill.RequestRefused)
        assert tm.streams()


def tidemill_error(error: grpc.RpcError) -> tidemill.ServiceError:
    from tidemill.client.status import to_error

    return to_error(error, "here")


SLOW_DISK = """
import sys, time
from ingest_service.log import files

sync = files._OsHandle.sync

def slow(self):
    time.sleep(0.4)
    sync(self)

files._OsHandle.sync = slow
from ingest_service.__main__ import main

sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A service whose disk takes its time: address and process id."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_DISK, "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    yield process.stdout.readline().split()[-1], process.pid
    process.kill()
    process.wait()
    process.stdout.close()


def test_memory_is_bounded_under_producers_that_are_too_fast(slow):
    address, pid = slow
    stop = time.monotonic() + 8
    told: Counter[str] = Counter()
    retries: list[float] = []
    with tidemill.connect(address) as tm:
        stream = tm.stream("order_lines")
        rows = [stream.serialize({**EVENT, "event_id": f"{i}", "description": "x" * 200}) for i in range(16_000)]
    request = append_pb2.AppendRequest(stream="order_lines", proto=append_pb2.ProtoRows(messages=rows))
    data = request.SerializeToString()
    assert 3 << 20 < len(data) < 8 << 20

    def produce() -> None:
        """One that knows no flow control of its own: it sends again at once, whatever it is told."""
        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            while time.monotonic() < stop:
                try:
                    for _ in channel.stream_stream(APPEND)(repeat(data), timeout=max(0.1, stop - time.monotonic())):
                        told["acknowledged"] += 1
                except grpc.RpcError as error:
                    told[error.code().name] += 1
                    if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                        retries.append(read_details(error.trailing_metadata()).retry_after_s)

    producers = [threading.Thread(target=produce) for _ in range(24)]
    for each in producers:
        each.start()
    process = psutil.Process(pid)
    peak = 0
    while any(each.is_alive() for each in producers):
        peak = max(peak, process.memory_info().rss >> 20)
        producers[0].join(0.02)
    print(told, f"peak {peak} MiB")
    assert set(told) <= {"acknowledged", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
    assert told["acknowledged"] > 0
    assert all(seconds > 0 for seconds in retries), "a refusal says when to come again"
    assert peak < MEMORY_MIB_MAX
    with tidemill.connect(address) as tm:
        assert tm.stream("order_lines").send(EVENT).result(30)
