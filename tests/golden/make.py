"""Makes the golden data folder of this release: `python tests/golden/make.py` writes v1/ beside this file.

A later release must open it and find in it what `v1/expected.json` says. It is made once a format, by a real service on
a clock of its own; names of Parquet files and a few times in the lake differ from run to run, nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
from google.protobuf.json_format import MessageToDict

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import tidemill  # noqa: E402
from ingest_service.access.key import Right, new_key  # noqa: E402
from ingest_service.access.key_file import KeyFile  # noqa: E402
from ingest_service.app import Service, ServiceConfig  # noqa: E402
from ingest_service.contracts import load_contracts  # noqa: E402
from ingest_service.data.folder import HOLD_NAME, LOCK_NAME, DataFolder  # noqa: E402
from ingest_service.lake import LakeExporter  # noqa: E402
from ingest_service.log import Log, LogSettings  # noqa: E402
from ingest_service.log.retention import Retention, RetentionHold  # noqa: E402
from tidemill.v1 import append_pb2, append_pb2_grpc, streams_pb2, streams_pb2_grpc  # noqa: E402

STREAM = "payments"
DAY = dt.date(2026, 3, 4)
NOON_US = int(dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC).timestamp() * 1_000_000)
HOUR_US = 3_600_000_000
NEXT_DAY_US = NOON_US + 24 * HOUR_US
"""When the folder is looked at."""
SETTINGS = LogSettings(segment_bytes=9_000, dedup_ids_max=40, retain_bytes=1)
MODEL = """
select time_bucket(interval '1 hour', paid_at) as window_start, method, count(*) as payments, sum(amount) as amount
from "warehouse"."events"."payments"
group by all
"""


@dataclass
class SetClock:
    """A clock that stands until it is moved."""

    us: int = NOON_US

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return self.us / 1_000_000


class Producer:
    """Sends numbered batches by unary calls, as a client without an SDK would."""

    def __init__(self, address: str, name: str, *, key: str = "", rows_sent: int = 0, sequence: int = 0) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = append_pb2_grpc.AppendServiceStub(self._channel)
        self._metadata = [("authorization", f"Bearer {key}")] if key else []
        self.name, self.rows_sent, self.sequence = name, rows_sent, sequence

    def send(self, messages: list[bytes], *, again: bool = False) -> append_pb2.AppendResponse:
        """Send the next batch, or the last one once more."""
        if not again:
            self.rows_sent += len(messages)
            self.sequence += 1
        request = append_pb2.AppendRequest(
            stream=STREAM, producer_id=self.name, sequence=self.sequence - 1, rows_sent=self.rows_sent,
            proto=append_pb2.ProtoRows(messages=messages),
        )  # fmt: skip
        response: append_pb2.AppendResponse = self._stub.AppendOnce(request, metadata=self._metadata, timeout=30)
        return response

    def close(self) -> None:
        self._channel.close()


def payment(number: int, clock_us: int, **other: Any) -> dict[str, Any]:
    """A payment whose values follow from its number."""
    at = dt.datetime.fromtimestamp((clock_us - number % 90 * 60_000_000) / 1_000_000, dt.UTC)
    event = {
        "payment_id": f"p{number}", "amount": str(Decimal(number * 101) / 100), "paid_at": at,
        "method": 1 + number % 2, "reference": f"r{number}", "refunded": number % 3 == 0, "rate": number / 7,
        "signature": bytes([number % 256, 255]), "tags": ["new", "old"][: number % 3], "articles": {"tea": number},
        "till": {"shop": f"shop {number % 4}"}, "took": dt.timedelta(microseconds=number),
    }  # fmt: skip
    optional = {
        "customer_id": -number,
        "nickname": f"n{number}",
        "card" if number % 4 else "account": str(number),
    }
    event |= optional if number % 2 else {}
    if event.get("account"):
        event["account"] = number
    return event | other


@contextlib.contextmanager
def served(data: Path, contract: int, clock: SetClock) -> Iterator[str]:
    """The service on a free port of this machine; its address."""
    manifest = data / "live" / "manifest.json"
    config = ServiceConfig(
        data=data, proto=HERE / "contracts" / f"v{contract}", manifest=manifest, port=0, export_interval_s=0,
        http=None, log=SETTINGS,
    )  # fmt: skip
    service = Service(config, clock)
    address: Future[str] = Future()
    stop: Future[Any] = Future()

    async def run() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.set_result(lambda: loop.call_soon_threadsafe(stopping.set))
        await service.run(address.set_result, stopping)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        yield address.result(30)
    finally:
        stop.result(30)()
        thread.join()
        service.close()


def make(data: Path) -> str:
    """Make the folder; the text of its one API key."""
    clock = SetClock()
    data.mkdir(parents=True)
    _write_manifest(data / "live" / "manifest.json")
    with served(data, 1, clock) as address:
        _first_days(address, clock)
    with served(data, 2, clock) as address:
        _under_the_second_contract(address, clock)
    _tidy_up(data, clock)
    with served(data, 2, clock) as address, tidemill.connect(address) as tm:
        # Behind what the lake has.
        stream = tm.stream(STREAM)
        producer = Producer(address, "till-3", sequence=3, rows_sent=30)
        clock.us += HOUR_US
        producer.send([stream.serialize(payment(number, clock.us)) for number in range(230, 240)])
        producer.close()
        _settle(tm)
    keys = KeyFile(data)
    made_at = dt.datetime.fromtimestamp(clock.us / 1_000_000, dt.UTC)
    key, text = new_key("golden", frozenset({STREAM}), frozenset(Right), made_at, None)
    with keys.changing() as kept:
        kept.append(key)
    for name in (LOCK_NAME, HOLD_NAME, "keys.json.lock"):
        (data / name).unlink(missing_ok=True)
    return text


def _first_days(address: str, clock: SetClock) -> None:
    with tidemill.connect(address) as tm:
        stream = tm.stream(STREAM)
        first, second = Producer(address, "till-1"), Producer(address, "till-2")

        def batch(numbers: range, **other: Any) -> list[bytes]:
            return [stream.serialize(payment(number, clock.us, **other)) for number in numbers]

        for start in range(0, 100, 10):
            (first if start % 20 else second).send(batch(range(start, start + 10)))
            clock.us += 60_000_000
        broken = batch(range(104, 106), reference="far too long")
        first.send([*batch(range(100, 104)), *broken, *batch(range(106, 110))])
        first.send(batch(range(110, 111), method=0))
        twice = batch(range(96, 104))
        second.send(twice)
        second.send(twice, again=True)
        clock.us += 13 * HOUR_US
        first.send(batch(range(111, 121)))
        tm.seal(STREAM, DAY, force=True)
        second.send([stream.serialize(payment(number, NOON_US)) for number in range(121, 130)])
        tm.export(STREAM)
        for start in range(130, 200, 10):
            first.send(batch(range(start, start + 10)))
        tm.export(STREAM)
        for producer in (first, second):
            producer.close()
        _settle(tm)


def _under_the_second_contract(address: str, clock: SetClock) -> None:
    with tidemill.connect(address) as tm, grpc.insecure_channel(address) as channel:
        stream = tm.stream(STREAM)
        streams = streams_pb2_grpc.StreamServiceStub(channel)
        producer = Producer(address, "till-3")
        clock.us += HOUR_US
        producer.send([stream.serialize(payment(n, clock.us, note=f"note {n}")) for n in range(200, 220)])
        # Of the three in quarantine two keep this contract.
        streams.ReplayQuarantine(streams_pb2.ReplayQuarantineRequest(stream=STREAM), timeout=30)
        producer.send([stream.serialize(payment(n, clock.us, amount="1.005")) for n in range(220, 222)])
        producer.send([stream.serialize(payment(n, clock.us)) for n in range(222, 230)])
        producer.close()
        tm.seal(STREAM, DAY, force=True)
        tm.export(STREAM)
        _settle(tm)


def _settle(tm: tidemill.Client) -> None:
    tm.view("payments_by_hour").query(after=tm.stream_status(STREAM).durable_offset)


def _tidy_up(data: Path, clock: SetClock) -> None:
    """Compact the first day, and drop the segments that are too many."""
    folder = DataFolder(data)
    place = data / "log" / STREAM / "0"
    contract = load_contracts(HERE / "contracts" / "v2").contracts[STREAM]
    log = Log.open(place, contract.log_spec(), clock=clock, settings=SETTINGS)
    lake = LakeExporter(log, STREAM, folder.lake_uri(STREAM))
    lake.ensure()
    lake.compact(DAY)
    hold = RetentionHold(data / HOLD_NAME)
    retention = Retention(log, place, lambda: lake.state().offset, hold, settings=SETTINGS, clock=clock)
    assert retention.run().segments
    log.close()


def _write_manifest(path: Path) -> None:
    path.parent.mkdir(parents=True)
    source = {"name": STREAM, "relation_name": '"warehouse"."events"."payments"', "meta": {"stream": STREAM}}
    model = {
        "resource_type": "model", "name": "payments_by_hour", "tags": ["live"], "raw_code": MODEL,
        "original_file_path": "models/live/payments_by_hour.sql", "compiled_code": MODEL,
        "config": {"materialized": "incremental", "incremental_strategy": "microbatch"},
    }  # fmt: skip
    path.write_text(json.dumps({"nodes": {"model.m": model}, "sources": {"source.s": source}}))


def observe(address: str, key: str) -> dict[str, Any]:
    """Everything that a client can see of the folder, as JSON has it."""
    with tidemill.connect(address, api_key=key) as tm, grpc.insecure_channel(address) as channel:
        stream = tm.stream(STREAM)
        status = tm.stream_status(STREAM)
        read = pa.Table.from_batches(stream.read_arrow(from_offset=0))
        states = {name: stream.producer_state(name) for name in ("till-1", "till-2", "till-3", "till-9")}
        seen = {
            "contract": stream.contract.version,
            "durable_offset": status.durable_offset,
            "lake_offset": status.lake_offset,
            "counts": status.counts,
            "seals": status.seals,
            "producers": {name: (state.next_sequence, state.rows_sent) for name, state in states.items()},
            "quarantine": _quarantine(channel, key),
            "view": sorted(tm.view("payments_by_hour").query(after=status.durable_offset).rows(), key=str),
            "sealed": tm.view("payments_by_hour").sealed(DAY, DAY, status.seals[0].seal_offset).to_pylist(),
            "columns": {field.name: field.type for field in read.schema},
            "rows": [list(row.values()) for row in read.to_pylist()],
        }
    return {name: _plain(value) for name, value in seen.items()}


def _quarantine(channel: grpc.Channel, key: str) -> list[dict[str, Any]]:
    request = streams_pb2.ListQuarantineRequest(stream=STREAM, limit=100)
    stub = streams_pb2_grpc.StreamServiceStub(channel)
    listed = stub.ListQuarantine(request, metadata=[("authorization", f"Bearer {key}")], timeout=30)
    return [MessageToDict(row, preserving_proto_field_name=True) for row in listed.rows]


def _plain(value: Any) -> Any:
    """A value as JSON has it: exact, and told apart."""
    if isinstance(value, bytes):
        return value.hex()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def as_text(expected: dict[str, Any]) -> str:
    """JSON with a line for each row, so that a difference can be seen."""
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in expected["rows"])
    rest = json.dumps({name: value for name, value in expected.items() if name != "rows"}, indent=1)
    return f'{rest[:-2]},\n "rows": [\n{rows}\n]\n}}\n'


def _forget_where(data: Path) -> None:
    """Take the folder's own path out of the lake's first commit: it is only a note there, and of one machine."""
    commit = data / "lake" / STREAM / "_delta_log" / f"{0:020d}.json"
    commit.write_text(commit.read_text().replace(data.absolute().as_uri(), "file:///data"))


if __name__ == "__main__":
    target = HERE / "v1"
    shutil.rmtree(target, ignore_errors=True)
    secret = make(target / "data")
    _forget_where(target / "data")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "data"
        shutil.copytree(target / "data", copy)
        with served(copy, 2, SetClock(NEXT_DAY_US)) as listening:
            expected = {"api_key": secret, **observe(listening, secret)}
    (target / "expected.json").write_text(as_text(expected))
