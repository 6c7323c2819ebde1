"""The service itself, in this process, with a contract of every kind of field."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import every_kind

from ingest_service.app import Service, ServiceConfig
from ingest_service.contracts.contract import message_class
from ingest_service.log import LogSettings
from ingest_service.rpc.parts import StreamParts
from tidemill.testing import _served
from tidemill.v1 import append_pb2, append_pb2_grpc, read_pb2, read_pb2_grpc

STREAM = "every_kind"


@dataclass
class Served:
    """A service that answers: what it is made of, and stubs of it."""

    parts: StreamParts
    address: str
    channel: grpc.Channel

    @property
    def message(self) -> Any:
        return message_class(self.parts.contract.descriptor())

    def read(self, **request: Any) -> Any:
        """A Read call, as an iterator of responses."""
        return read_pb2_grpc.ReadServiceStub(self.channel).Read(read_pb2.ReadRequest(stream=STREAM, **request))

    def append(self, events: list[Any]) -> append_pb2.AppendResponse:
        """Append events at once; every one has to be appended."""
        rows = append_pb2.ProtoRows(messages=[event.SerializeToString() for event in events])
        response = append_pb2_grpc.AppendServiceStub(self.channel).AppendOnce(
            append_pb2.AppendRequest(stream=STREAM, proto=rows)
        )
        assert response.rows_appended == len(events), response.verdicts[:1]
        return response

    def fill(self, count: int, seed: int = 1, **fields: Any) -> list[Any]:
        """Append random events; what was appended."""
        chance = random.Random(seed)
        first = self.parts.log.durable_offset
        made = [every_kind.event(self.message, first + i, chance, 1_700_000_000_000_000) for i in range(count)]
        for each in made:
            for name, value in fields.items():
                setattr(each, name, value)
        for start in range(0, count, 100):
            self.append(made[start : start + 100])
        return made


@contextmanager
def serving(folder: Path, log: LogSettings | None = None) -> Iterator[Served]:
    """The service in that folder, which answers until the block ends."""
    proto = folder / "proto"
    if not proto.exists():
        proto.mkdir()
        (proto / "every.proto").write_text(every_kind.proto(), encoding="utf-8")
    config = ServiceConfig(data=folder / "data", proto=proto, port=0, export_interval_s=0, log=log or LogSettings())
    with closing(Service(config)) as service:
        options = [("grpc.max_receive_message_length", -1)]
        with _served(service) as address, grpc.insecure_channel(address, options) as channel:
            yield Served(service._streams[STREAM], address, channel)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as served:
        yield served
