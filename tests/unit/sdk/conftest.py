"""A scripted service: a real gRPC server whose answers a test decides."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from google.protobuf import descriptor_pb2

from ingest_service.contracts import load_contracts
from ingest_service.log.records import with_system_columns
from tidemill.client.contract import Contract, contract_of
from tidemill.client.table import contract_columns
from tidemill.v1 import append_pb2, append_pb2_grpc, streams_pb2

Answer = append_pb2.AppendResponse | grpc.StatusCode


@dataclass
class ScriptedService(append_pb2_grpc.AppendServiceServicer):
    """Keeps what it takes, exactly once, as the real one does; `before` may refuse a request with a status."""

    before: Callable[[append_pb2.AppendRequest, int], grpc.StatusCode | None] = lambda request, call: None
    gate: threading.Event = field(default_factory=threading.Event)
    taken: list[append_pb2.AppendRequest] = field(default_factory=list)
    requests: list[append_pb2.AppendRequest] = field(default_factory=list)
    calls: int = 0
    verdicts: Callable[[int, bytes], append_pb2.RowVerdict | None] = lambda index, message: None

    def __post_init__(self) -> None:
        self.gate.set()
        self.expected: dict[str, int] = {}
        self.responses: dict[tuple[str, int], append_pb2.AppendResponse] = {}
        self.offset = 0

    def Append(
        self, request_iterator: Iterator[append_pb2.AppendRequest], context: grpc.ServicerContext
    ) -> Iterator[append_pb2.AppendResponse]:
        self.calls += 1
        call = self.calls
        for request in request_iterator:
            self.gate.wait(20)
            self.requests.append(request)
            status = self.before(request, call)
            if status is not None:
                context.abort(status, f"scripted {status.name}")
            yield self._take(request, context)

    def _take(self, request: append_pb2.AppendRequest, context: grpc.ServicerContext) -> append_pb2.AppendResponse:
        key = (request.producer_id, request.sequence)
        if key in self.responses:
            replayed = append_pb2.AppendResponse()
            replayed.CopyFrom(self.responses[key])
            replayed.replayed = True
            return replayed
        expected = self.expected.get(request.producer_id, 0)
        if request.sequence != expected:
            context.abort(grpc.StatusCode.OUT_OF_RANGE, f"expected sequence {expected}, came {request.sequence}")
        self.expected[request.producer_id] = expected + 1
        self.taken.append(request)
        response = append_pb2.AppendResponse(sequence=request.sequence, base_offset=self.offset)
        for index, message in enumerate(request.proto.messages):
            verdict = self.verdicts(index, message)
            if verdict is not None:
                response.verdicts.add(
                    index=index, verdict=verdict.verdict, rule=verdict.rule, field=verdict.field, message="why"
                )
        appended = len(request.proto.messages) - sum(v.verdict != append_pb2.VERDICT_LATE for v in response.verdicts)
        self.offset += appended
        response.rows_appended = appended
        response.durable_offset = self.offset
        self.responses[key] = response
        return response

    def messages(self) -> list[bytes]:
        return [message for request in self.taken for message in request.proto.messages]


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    service = ScriptedService()
    server = grpc.server(ThreadPoolExecutor(8))
    append_pb2_grpc.add_AppendServiceServicer_to_server(service, server)
    service.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service
    service.gate.set()
    server.stop(0).wait()


@pytest.fixture(scope="session")
def order_lines() -> Contract:
    """The contract of order_lines, as a service would tell it."""
    contract = load_contracts(Path(__file__).parents[3] / "proto").contracts["order_lines"]
    return contract_of(
        streams_pb2.GetStreamResponse(
            status=streams_pb2.StreamStatus(stream="order_lines", contract_version=1),
            message_type=contract.message_type,
            descriptors=descriptor_pb2.FileDescriptorSet.FromString(contract.descriptor_set),
            arrow_schema=with_system_columns(contract.schema).serialize().to_pybytes(),
        )
    )


@pytest.fixture(scope="session")
def schema(order_lines: Contract) -> pa.Schema:
    return contract_columns(order_lines.arrow_schema)
