"""Errors as gRPC statuses, over a real call."""

import asyncio
from collections import Counter
from dataclasses import dataclass

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import tidemill.errors
from ingest_service import errors
from ingest_service.rpc.caller import CALL, Anyone, Call
from ingest_service.rpc.status import ANSWERS, answer_of, refuse
from tidemill.client.status import to_error
from tidemill.client.status_details import read_details


def call_that_ends_with(error: Exception) -> grpc.aio.AioRpcError:
    """What a client gets from a method that raises `error`."""

    async def run() -> grpc.aio.AioRpcError:
        async def method(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            await refuse(context, error)
            raise AssertionError("unreachable")

        server = grpc.aio.server()
        handler = grpc.method_handlers_generic_handler("t", {"M": grpc.unary_unary_rpc_method_handler(method)})
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary("/t/M")(b"")
                return caught.value
        finally:
            await server.stop(None)

    return asyncio.run(run())


def details(raised: grpc.aio.AioRpcError) -> dict[str, object]:
    status = status_pb2.Status.FromString(dict(raised.trailing_metadata())["grpc-status-details-bin"])
    assert status.code == raised.code().value[0]
    found = {}
    for detail in status.details:
        name = detail.type_url.rpartition(".")[2]
        found[name] = getattr(error_details_pb2, name).FromString(detail.value)
    return found


@dataclass
class Change:
    field: str
    message: str


class Incompatible(errors.ContractError):
    def __init__(self, changes: list[Change]) -> None:
        super().__init__("the contract can't take the place of the one in force")
        self.changes = changes


def test_overload_says_when_to_try_again():
    raised = call_that_ends_with(errors.Overloaded("too much waits", retry_after_ms=250))
    assert raised.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details(raised)["RetryInfo"].retry_delay.ToMilliseconds() == 250
    assert to_error(raised, "here").retry_after_s == 0.25


def test_fields_of_an_error_travel_as_metadata():
    raised = call_that_ends_with(errors.ProducerError("expected sequence 7, came 9", expected_sequence=7))
    info = details(raised)["ErrorInfo"]
    assert (info.reason, info.domain, dict(info.metadata)) == (
        "OUT_OF_SEQUENCE",
        "tidemill",
        {"expected_sequence": "7"},
    )
    error = to_error(raised, "here")
    assert isinstance(error, tidemill.errors.OutOfSequence)
    assert (error.reason, error.metadata, str(error)) == (
        "OUT_OF_SEQUENCE", {"expected_sequence": "7"}, "expected sequence 7, came 9",
    )  # fmt: skip


def test_what_is_absent_is_not_told():
    raised = call_that_ends_with(errors.ProducerError("never heard of", expected_sequence=None))
    assert dict(details(raised)["ErrorInfo"].metadata) == {}


def test_a_wrong_request_names_the_field():
    raised = call_that_ends_with(errors.BadRequest("date: expected a date", field="date"))
    (violation,) = details(raised)["BadRequest"].field_violations
    assert (violation.field, violation.description) == ("date", "date: expected a date")
    assert to_error(raised, "here").violations == (("date", "date: expected a date"),)


def test_every_change_is_a_violation_until_the_trailer_is_full():
    few = [Change("amount", "was int64, is string"), Change("at", "is gone")]
    raised = call_that_ends_with(Incompatible(few))
    assert raised.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert to_error(raised, "here").violations == tuple((each.field, each.message) for each in few)
    many = [Change(f"field_{number}", "é" * 500) for number in range(1000)]
    told = to_error(call_that_ends_with(Incompatible(many)), "here").violations
    assert len(told) > 3
    assert told[-1] == ("", f"and {1000 - len(told) + 1} more; ask with check_only for all of them")


def test_the_longest_text_still_arrives():
    raised = call_that_ends_with(errors.UnknownStream("é" * 5000, ["é" * 60] * 5000))
    assert raised.code() is grpc.StatusCode.NOT_FOUND
    assert raised.details().endswith("…")
    assert details(raised)["ErrorInfo"].reason == "UNKNOWN_STREAM"


def test_details_that_are_damaged_count_as_absent():
    assert read_details([("grpc-status-details-bin", b"\xff\xff\xff")]).reason == ""
    assert read_details(None).reason == ""


def test_an_unexpected_error_keeps_its_text_to_the_log(caplog):
    raised = call_that_ends_with(RuntimeError("password=hunter2"))
    assert raised.code() is grpc.StatusCode.INTERNAL
    assert "hunter2" not in raised.details() + str(details(raised))
    assert "hunter2" in caplog.text


def test_every_error_has_an_answer_of_its_own():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.IngestError)]
    at_start_up = {errors.IngestError, errors.ConfigError}
    for kind in set(kinds) - at_start_up:
        assert answer_of(kind.__new__(kind)).code is not grpc.StatusCode.INTERNAL, kind
    reasons = [answer.reason for answer in ANSWERS.values()]
    assert len(set(reasons)) == len(reasons)


def test_refusals_are_counted_by_reason():
    counts: Counter[str] = Counter()
    before = CALL.set(Call(Anyone(), counts))
    try:
        call_that_ends_with(errors.NotComplete("not yet"))
    finally:
        CALL.reset(before)
    # The server's tasks inherit the context that it was started in.
    assert counts == {"NOT_COMPLETE": 1}
