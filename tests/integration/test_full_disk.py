"""A disk that is full, for real: a small tmpfs under a running service. Needs root, to mount it."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import tidemill
from retail.v1 import order_line_pb2
from tidemill.v1 import append_pb2, append_pb2_grpc

AT = dt.datetime(2011, 12, 5, 8, 0, tzinfo=dt.UTC)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """32 MB mounted as the folder in which the `ingest` service keeps its data."""
    folder = tmp_path / "data"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=32m", "tidemill-test", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here: it needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def service(small_disk: Path, ingest: Any) -> Any:
    """The service on the small disk: `ingest` starts in the folder, so it is mounted first."""
    assert ingest.data == small_disk
    return ingest


def order_line(number: int) -> order_line_pb2.OrderLine:
    """One with text that does not compress: what is refused must be larger than the room in a file's last page."""
    return order_line_pb2.OrderLine(
        event_id=f"e{number}", invoice_no="536365", stock_code="A", quantity=number + 1, unit_price="1.000",
        invoiced_at=AT, country="UK", description=random.Random(number).randbytes(100).hex(),
    )  # fmt: skip


def fill(disk: Path) -> Path:
    """Take all the space that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))
    return filler


def append_once(address: str, rows: list[order_line_pb2.OrderLine]) -> append_pb2.AppendResponse:
    with grpc.insecure_channel(address) as channel:
        messages = [row.SerializeToString() for row in rows]
        request = append_pb2.AppendRequest(stream="order_lines", proto=append_pb2.ProtoRows(messages=messages))
        return append_pb2_grpc.AppendServiceStub(channel).AppendOnce(request, timeout=30)


def test_a_full_disk_refuses_appends_lets_readers_read_and_heals_by_itself(service: Any, small_disk: Path) -> None:
    with tidemill.connect(service.address) as tm:
        stream = tm.stream("order_lines")
        before = [stream.send(order_line(number)) for number in range(1_000)]
        assert [ack.result(30).offset for ack in before] == list(range(1_000))

        filler = fill(small_disk)
        with pytest.raises(grpc.RpcError) as refused:
            append_once(
                service.address,
                [order_line(number) for number in range(5_000, 5_500)],
            )
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "can't be written: No space left on device" in refused.value.details()
        waiting = [stream.send(order_line(number)) for number in range(1_000, 2_000)]

        assert [row.event_id for row in stream.read(from_offset=0, limit=1_000)] == [f"e{n}" for n in range(1_000)]
        assert stream.status().durable_offset == 1_000
        assert not any(ack.done() for ack in waiting)

        filler.unlink()
        # Nobody does anything: the SDK sends again what was not acknowledged.
        assert [ack.result(60).offset for ack in waiting] == list(range(1_000, 2_000))
        counts = stream.status().counts
        assert (counts.appended, counts.received, counts.sent) == (2_000, 2_000, 2_000)
        view = tm.view("sales_by_minute").query(after=waiting[-1].result()).to_arrow()
        assert sum(view.column("lines").to_pylist()) == 2_000
        ids = [row.event_id for row in stream.read(from_offset=0, limit=2_000)]
    service.kill()
    service.start()
    with tidemill.connect(service.address) as tm:
        assert [row.event_id for row in tm.stream("order_lines").read(from_offset=0, limit=2_000)] == ids
