"""From messages to rows and back: what is read is what was sent."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from support import every_kind

from ingest_service.contracts import Contract, Encoder, Intake
from ingest_service.contracts.contract import message_class

SEED = random.randrange(1 << 32)


@pytest.fixture
def every(load: Callable[..., Any]) -> Contract:
    loaded = load(every=every_kind.proto())
    assert loaded.problems == ()
    contract: Contract = loaded.contracts["every_kind"]
    return contract


def test_every_kind_of_field_comes_back_as_it_was_sent(every: Contract, now_us: int) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    message = message_class(every.descriptor())
    events = [every_kind.event(message, number, chance, now_us) for number in range(500)]
    rows = Intake(every).from_proto([each.SerializeToString() for each in events], now_us)
    assert [(row.rule, row.field, row.message) for row in rows.quarantined] == []
    encoder = Encoder(every)
    for part in (rows.rows, rows.rows.slice(100, 50), rows.rows.slice(500)):
        first = 100 if part.num_rows == 50 else 0
        for sent, data in zip(events[first:], encoder.encode(part).to_pylist(), strict=False):
            assert repr(message.FromString(data)) == repr(sent)
        assert len(encoder.encode(part)) == part.num_rows


def test_values_come_in_the_precision_of_the_log(
    order_line: Any, contract: Contract, intake: Intake, now_us: int
) -> None:
    sent = order_line(unit_price="2.5")
    sent.invoiced_at.nanos = 123_456_789
    rows = intake.from_proto([sent.SerializeToString()], now_us).rows
    read = type(sent).FromString(Encoder(contract).encode(rows)[0].as_py())
    assert read.unit_price == "2.500"
    assert read.invoiced_at.nanos == 123_456_000


@pytest.mark.parametrize("columns", [["quantity"], ["country", "event_id"], []])
def test_fields_of_missing_columns_stay_unset(
    columns: list[str], order_line: Any, contract: Contract, intake: Intake, now_us: int
) -> None:
    sent = order_line()
    rows = intake.from_proto([sent.SerializeToString()] * 2, now_us).rows
    read = Encoder(contract).encode(rows.select(columns)).to_pylist()
    assert len(read) == 2
    for data in read:
        assert {field.name for field, _ in type(sent).FromString(data).ListFields()} == set(columns)


def test_a_row_from_before_a_field_was_added_has_nothing_there(every: Contract, now_us: int) -> None:
    message = message_class(every.descriptor())
    sent = message(id="a", amount="0", whole="0", price="0")
    sent.at.FromMicroseconds(now_us)
    row = Intake(every).from_proto([sent.SerializeToString()], now_us).rows
    newer = ["many_int32", "by_string", "inner", "inners", "maybe_double", "span", "a_text", "inner_by"]
    columns = [pa.nulls(1, field.type) if field.name in newer else row.column(field.name) for field in row.schema]
    older = pa.RecordBatch.from_arrays(columns, names=row.schema.names)
    read = message.FromString(Encoder(every).encode(older)[0].as_py())
    assert {field.name for field, _ in read.ListFields()} & set(newer) == set()
    assert read.id == "a"


def test_small_decimals_are_written_without_an_exponent(load: Callable[..., Any], proto_text: Any, now_us: int) -> None:
    body = """message Tiny { option (tidemill.v1.stream) = { name: "tiny" event_time: "at" };
      google.protobuf.Timestamp at = 1;
      string x = 2 [(tidemill.v1.field).decimal = {precision: 38 scale: 38}];
      string y = 3 [(tidemill.v1.field).decimal = {precision: 10 scale: 7}]; }"""
    contract = load(tiny=proto_text(body)).contracts["tiny"]
    message = message_class(contract.descriptor())
    cases = [("0", "0"), ("-0." + "0" * 37 + "1", "-0.0000001"), ("0." + "9" * 38, "-999.9999999"), ("-.5", "12")]
    sent = []
    for x, y in cases:
        each = message(x=x, y=y)
        each.at.FromMicroseconds(now_us)
        sent.append(each.SerializeToString())
    rows = Intake(contract).from_proto(sent, now_us).rows
    read = [message.FromString(data) for data in Encoder(contract).encode(rows).to_pylist()]
    assert [each.x for each in read] == ["0." + "0" * 38, "-0." + "0" * 37 + "1", "0." + "9" * 38, "-0.5" + "0" * 37]
    assert [each.y for each in read] == ["0.0000000", "-0.0000001", "-999.9999999", "12.0000000"]
