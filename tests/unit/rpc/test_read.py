"""The Read call against a service with a log, a lake and readers of all manners."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest
from support.cut_log import CutLog
from unit.rpc.conftest import STREAM, Served, serving

from ingest_service.contracts import load_contracts
from ingest_service.data.folder import HOLD_NAME
from ingest_service.log import LogSettings, Retention, RetentionHold
from ingest_service.rpc.read_responses import RESPONSE_BYTES_MAX
from ingest_service.rpc.server import STOP_GRACE_S
from tidemill.v1 import read_pb2, read_pb2_grpc

ARROW = read_pb2.READ_FORMAT_ARROW


def messages(served: Served, responses: Iterator[Any]) -> list[Any]:
    """The rows of the responses, each response checked to go on where the one before ended."""
    found: list[Any] = []
    at = None
    for response in responses:
        assert at is None or response.base_offset == at
        assert response.next_offset - response.base_offset == len(response.proto.messages)
        at = response.next_offset
        found += [served.message.FromString(data) for data in response.proto.messages]
    return found


def table(responses: Iterator[Any]) -> pa.Table:
    batches = []
    for response in responses:
        if response.arrow:
            with pa.ipc.open_stream(response.arrow) as reader:
                batches.append(reader.read_next_batch())
                assert batches[-1].num_rows == response.next_offset - response.base_offset
    return pa.Table.from_batches(batches)


def test_what_is_read_is_what_was_sent_from_log_and_lake_alike(served: Served) -> None:
    sent = served.fill(700)
    served.parts.lake.export()
    expected = table(served.read(format=ARROW))
    assert expected.schema.names == served.parts.log.schema.names
    for start in (0, 300, 700):
        served.parts.whole.log = CutLog(served.parts.log, start)
        assert [repr(row) for row in messages(served, served.read())] == [repr(row) for row in sent]
        found = table(served.read(format=ARROW))
        # Not by equals(): NaN is not equal to NaN.
        assert found.schema == expected.schema
        assert str(found.to_pylist()) == str(expected.to_pylist())


def test_places_to_begin_and_to_end(served: Served) -> None:
    sent = [row.id for row in served.fill(300)]

    def ids(**request: Any) -> list[str]:
        return [row.id for row in messages(served, served.read(**request))]

    assert ids(from_offset=299) == sent[299:]
    assert ids(from_offset=300) == ids(from_end=True) == []
    assert ids(from_offset=17, limit=5) == sent[17:22]
    assert ids(from_offset=290, limit=50) == sent[290:]
    assert ids(from_offset=10, limit=3, follow=True) == sent[10:13]
    time_us = table(served.read(from_offset=100, limit=1, format=ARROW, columns=["_append_time"]))[0].cast("int64")[0]
    request = read_pb2.ReadRequest()
    request.from_time.FromMicroseconds(time_us.as_py())
    assert ids(from_time=request.from_time) == sent[100:]
    request.from_time.FromMicroseconds(time_us.as_py() + 10**12)
    assert ids(from_time=request.from_time) == []


def test_the_first_response_says_where_the_reader_is(served: Served) -> None:
    served.fill(10)
    first = next(served.read(from_end=True, follow=True))
    assert (first.base_offset, first.next_offset, first.durable_offset) == (10, 10, 10)
    assert first.WhichOneof("rows") is None


def test_columns(served: Served) -> None:
    sent = served.fill(50)
    found = table(served.read(format=ARROW, columns=["event_date", "id", "_offset", "id"]))
    assert found.schema.names == ["event_date", "id", "_offset"]
    assert found["id"].to_pylist() == [row.id for row in sent]
    rows = messages(served, served.read(columns=["id", "_offset"]))
    assert [[field.name for field, _ in row.ListFields()] for row in rows] == [["id"]] * 50


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        ({"stream": "no"}, grpc.StatusCode.NOT_FOUND, "there is no stream 'no'"),
        ({"from_offset": 11}, grpc.StatusCode.INVALID_ARGUMENT, "expected at most 10, the durable offset; came 11"),
        ({"columns": ["id", "nope"]}, grpc.StatusCode.INVALID_ARGUMENT, "'nope' is unknown; the columns are: id, at,"),
    ],
)
def test_what_cannot_be_read_is_refused(served: Served, request_: Any, code: grpc.StatusCode, text: str) -> None:
    served.fill(10)
    call = read_pb2_grpc.ReadServiceStub(served.channel).Read(read_pb2.ReadRequest(**{"stream": STREAM, **request_}))
    with pytest.raises(grpc.RpcError) as raised:
        list(call)
    assert raised.value.code() is code
    assert text in raised.value.details()


@pytest.mark.parametrize("form", [read_pb2.READ_FORMAT_PROTO, ARROW])
def test_responses_are_bounded_however_large_the_rows_are(served: Served, form: Any) -> None:
    sizes = [10, 3_000_000, 900_000, 10, 10, 6_000_000, 200_000, 1_500_000, 2_500_000, 10] + [50_000] * 90
    rows = served.fill(100)[:0] or [served.message(id=f"big-{i}", amount="0", whole="0", price="0") for i in range(100)]
    for row, size in zip(rows, sizes, strict=True):
        row.at.FromSeconds(1_700_000_000)
        row.plain_string = "x" * size
    served.append(rows[:50])
    served.append(rows[50:])
    seen = []
    for response in served.read(from_offset=100, format=form):
        rows_in = response.next_offset - response.base_offset
        assert response.ByteSize() <= RESPONSE_BYTES_MAX or rows_in == 1
        seen += [rows_in]
    assert sum(seen) == 100


def test_rows_are_followed_as_they_become_durable(served: Served) -> None:
    served.fill(5)
    call = served.read(from_offset=3, follow=True)
    assert [next(call).next_offset for _ in range(2)] == [3, 5]
    for end in (6, 16):
        served.fill(end - served.parts.log.durable_offset)
        # A seal is no row: its reader does not hear of it.
        first = min(served.parts.log.counts().appended_by_date)
        served.parts.log.seal(first, first, force=True)
        response = next(call)
        assert (response.next_offset, response.durable_offset) == (end, end)
    call.cancel()


def test_a_follower_gets_the_columns_of_a_changed_contract(served: Served, tmp_path: Path) -> None:
    served.fill(2)
    call = served.read(from_end=True, follow=True, format=ARROW)
    next(call)
    file = tmp_path / "proto" / "every.proto"
    text = file.read_text().replace("string far = 5000;", "string far = 5000; optional string added = 5001;")
    file.write_text(text.replace('event_time: "at"', 'event_time: "at" version: 2'))
    assert served.parts.apply(load_contracts(tmp_path / "proto").contracts[STREAM])
    sent = served.fill(1, added="new")
    assert table(iter([next(call)]))["added"].to_pylist() == ["new"]
    assert [row.added for row in messages(served, served.read())] == ["", "", "new"]
    assert sent[0].added == "new"
    call.cancel()


def test_a_service_that_stops_tells_its_followers(tmp_path: Path) -> None:
    ended: list[grpc.RpcError] = []

    def follow(call: Any) -> None:
        try:
            next(call)
        except grpc.RpcError as error:
            ended.append(error)

    with serving(tmp_path) as served:
        # A channel that outlives the service: closing it would end the call first.
        channel = grpc.insecure_channel(served.address)
        call = read_pb2_grpc.ReadServiceStub(channel).Read(read_pb2.ReadRequest(stream=STREAM, follow=True))
        next(call)
        waiting = threading.Thread(target=follow, args=(call,))
        waiting.start()
        begun = time.monotonic()
    waiting.join(10)
    assert ended[0].code() is grpc.StatusCode.UNAVAILABLE
    assert "the service is stopping; read on from offset 0 later" in ended[0].details()
    assert time.monotonic() - begun < STOP_GRACE_S
    channel.close()


def open_files(folder: Path) -> list[str]:
    links = []
    for number in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue
    return [link for link in links if str(folder / "data" / "log") in link and link.endswith(".seg")]


def eventually(holds: Callable[[], bool]) -> None:
    """The service is told that a reader is gone by the network: when that is, no event here says."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_thousand_idle_followers_cost_no_threads_and_no_files(served: Served, tmp_path: Path) -> None:
    served.fill(100)
    files, threads = len(open_files(tmp_path)), threading.active_count()

    async def follow() -> list[int]:
        async with grpc.aio.insecure_channel(served.address) as channel:
            stub = read_pb2_grpc.ReadServiceStub(channel)
            request = read_pb2.ReadRequest(stream=STREAM, follow=True, from_end=True, columns=["id"])
            calls = [stub.Read(request) for _ in range(1000)]
            for call in calls:
                assert (await call.read()).next_offset == 100
            # Their log's thread, and the two that read.
            assert threading.active_count() <= threads + 3
            assert len(open_files(tmp_path)) == files
            begun = time.monotonic()
            await asyncio.to_thread(served.fill, 1)
            took = time.monotonic() - begun
            offsets = [(await call.read()).next_offset for call in calls]
            assert took < 5
            return offsets

    assert asyncio.run(follow()) == [101] * 1000
    # They have gone: nothing is left of them.
    watch = None
    for each in gc.get_objects():
        if type(each).__name__ == "_Watch" and each._log is served.parts.log:
            watch = each
    assert watch is not None
    eventually(lambda: not watch._waiting)


def test_a_reader_that_never_reads_holds_nothing_up_and_is_forgotten(served: Served, tmp_path: Path) -> None:
    served.fill(300, plain_string="x" * 100_000)
    files = len(open_files(tmp_path))
    calls = [served.read(follow=True) for _ in range(20)]
    begun = time.monotonic()
    for _ in range(3):
        served.fill(100, plain_string="x" * 100_000)
    assert time.monotonic() - begun < 30
    # Those that stall keep no file open.
    eventually(lambda: len(open_files(tmp_path)) == files)
    # One that reads after all gets every row.
    offsets = []
    for response in calls[0]:
        offsets.append((response.base_offset, response.next_offset))
        if response.next_offset == 600:
            break
    assert [start for start, _ in offsets[1:]] == [end for _, end in offsets[:-1]]
    for call in calls:
        call.cancel()


def test_rows_that_retention_has_dropped_are_read_all_the_same(tmp_path: Path) -> None:
    settings = LogSettings(segment_bytes=100_000, retain_bytes=1, dedup_ids_max=10)
    with serving(tmp_path, settings) as served:
        sent = [repr(row) for row in served.fill(1000)]
        log, lake = served.parts.log, served.parts.lake
        followed = served.read(follow=True)
        next(followed)
        lake.export()
        folder, hold = tmp_path / "data" / "log" / STREAM / "0", RetentionHold(tmp_path / "data" / HOLD_NAME)
        assert Retention(log, folder, lambda: lake.state().offset, hold, settings=settings).run().segments > 1
        assert 0 < log.start_offset < 1000
        assert [repr(row) for row in messages(served, served.read())] == sent
        sent += [repr(row) for row in served.fill(100, seed=2)]
        found: list[Any] = []
        while len(found) < 1100:
            found += messages(served, iter([next(followed)]))
        assert [repr(row) for row in found] == sent
        followed.cancel()
        request = read_pb2.ReadRequest()
        request.from_time.FromMicroseconds(1)
        assert len(messages(served, served.read(from_time=request.from_time))) == 1100
