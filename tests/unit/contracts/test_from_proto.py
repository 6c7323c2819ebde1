"""Serialized messages: Tidemill's own rules, malformed bytes among good neighbours, and what the verdicts say."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from ingest_service.contracts import Contract, Intake, IntakeLimits, load_contracts
from ingest_service.contracts.contract import message_class
from ingest_service.errors import BadRequest
from ingest_service.log.records import QuarantinedRow

Make = Callable[..., Any]
MANY = 40
"""Rows enough for the kernels to be used."""


def check(intake: Intake, make: Make, now_us: int, **fields: Any) -> QuarantinedRow | None:
    """The verdict over one row, alone and among many neighbours: the same."""
    alone = intake.from_proto([make(**fields).SerializeToString()], now_us)
    among = intake.from_proto([make(**fields).SerializeToString(), *[make().SerializeToString()] * MANY], now_us)
    assert alone.quarantined == among.quarantined
    assert among.rows.num_rows == among.row_count - len(among.quarantined)
    return alone.quarantined[0] if alone.quarantined else None


def test_rows_have_the_contracts_schema_and_values(intake: Intake, order_line: Make, now_us: int) -> None:
    checked = intake.from_proto([order_line(description=None, customer_id=None).SerializeToString()], now_us)
    assert checked.rows.schema == intake.contract.schema
    assert checked.row_count == 1
    assert checked.rows.to_pylist() == [
        {
            "event_id": "r1",
            "invoice_no": "536365",
            "stock_code": "85123A",
            "description": None,
            "quantity": 6,
            "unit_price": Decimal("2.550"),
            "invoiced_at": dt.datetime(2011, 12, 9, 11, 0, tzinfo=dt.UTC),
            "customer_id": None,
            "country": "United Kingdom",
        }
    ]


def test_an_empty_batch(intake: Intake, now_us: int) -> None:
    checked = intake.from_proto([], now_us)
    assert (checked.rows.num_rows, checked.row_count, checked.quarantined) == (0, 0, ())
    assert checked.rows.schema == intake.contract.schema


@pytest.mark.parametrize(
    "price", ["0", "-0", "1", "1.5", "-1.234", "123456789.123", "-123456789.123", "000000001.000", "0.001"]
)
def test_decimals_that_fit(intake: Intake, order_line: Make, now_us: int, price: str) -> None:
    assert check(intake, order_line, now_us, unit_price=price) is None
    checked = intake.from_proto([order_line(unit_price=price).SerializeToString()], now_us)
    assert checked.rows["unit_price"][0].as_py() == Decimal(price)


@pytest.mark.parametrize(
    "price",
    [
        "",
        "-",
        ".",
        "1.",
        ".5",
        "+1",
        "1e3",
        "1,5",
        " 1",
        "1 ",
        "1\n",
        "NaN",
        "1.2345",
        "1234567890",
        "٣",
        "1" * 100_000,
    ],
)
def test_decimals_that_do_not(intake: Intake, order_line: Make, now_us: int, price: str) -> None:
    row = check(intake, order_line, now_us, unit_price=price)
    assert row is not None
    assert (row.rule, row.field) == ("tidemill.decimal", "unit_price")
    assert "at most 9 digits before the point and at most 3 after it, came '" in row.message
    assert len(row.message) < 300


@pytest.mark.parametrize(("precision", "scale"), [(1, 0), (1, 1), (38, 0), (38, 38), (38, 10), (5, 5), (20, 1)])
def test_every_precision_and_scale_at_its_edge(
    write_protos: Callable[..., Any], proto_text: Callable[..., str], now_us: int, precision: int, scale: int
) -> None:
    option = f"precision: {precision} scale: {scale}"
    text = f"""message T {{ option (tidemill.v1.stream) = {{ name: "t" event_time: "at" }};
      google.protobuf.Timestamp at = 1; string n = 2 [(tidemill.v1.field).decimal = {{ {option} }}]; }}"""
    contract = load_contracts(write_protos(t=proto_text(text))).contracts["t"]
    intake, message = Intake(contract), message_class(contract.descriptor())
    whole, point = "9" * (precision - scale), f".{'9' * scale}" if scale else ""
    good = [f"{sign}{whole}{point}" for sign in ("", "-")] + ["0"]
    bad = [f"9{whole or 0}{point}", f"{whole or 0}{point or '.'}9"]
    sent = []
    for value in [*good * MANY, *bad]:
        row: Any = message(n=value)
        row.at.FromMicroseconds(now_us)
        sent.append(row.SerializeToString())
    checked = intake.from_proto(sent, now_us)
    assert [row.rule for row in checked.quarantined] == ["tidemill.decimal"] * 2, checked.quarantined
    assert checked.rows["n"].to_pylist() == [Decimal(value) for value in good * MANY]


def test_the_future_begins_after_five_minutes(intake: Intake, order_line: Make, now_us: int) -> None:
    now = dt.datetime.fromtimestamp(now_us / 1e6, dt.UTC)
    edge = now + dt.timedelta(minutes=5)
    assert check(intake, order_line, now_us, invoiced_at=edge) is None
    row = check(intake, order_line, now_us, invoiced_at=edge + dt.timedelta(microseconds=1))
    assert row is not None
    assert (row.rule, row.field) == ("tidemill.future", "invoiced_at")
    assert row.message == ("expected a time at most 300 s after it is sent, came 2011-12-09T12:05:00.000001Z")
    near = Intake(intake.contract, IntakeLimits(future_us=0))
    row = check(near, order_line, now_us, invoiced_at=now + dt.timedelta(microseconds=1))
    assert row is not None
    assert row.rule == "tidemill.future"


@pytest.mark.parametrize("seconds", [-62_135_596_801, 253_402_300_800, 10**15, 2**63 - 1, -(2**63)])
def test_times_outside_the_calendar(intake: Intake, order_line: Make, now_us: int, seconds: int) -> None:
    line = order_line()
    line.invoiced_at.seconds = seconds
    checked = intake.from_proto([line.SerializeToString()], now_us)
    assert [(row.rule, row.field) for row in checked.quarantined] == [("tidemill.timestamp", "invoiced_at")]


def test_no_event_time(intake: Intake, order_line: Make, now_us: int) -> None:
    row = check(intake, order_line, now_us, invoiced_at=None)
    assert row is not None
    assert (row.rule, row.field, row.message) == ("required", "invoiced_at", "value is required, came nothing")


def test_event_time_and_id_are_asked_for_even_where_the_contract_does_not(
    write_protos: Callable[..., Any], proto_text: Callable[..., str], now_us: int
) -> None:
    text = """message T { option (tidemill.v1.stream) = { name: "t" event_time: "at" event_id: "id" };
      google.protobuf.Timestamp at = 1; optional string id = 2; }"""
    contract = load_contracts(write_protos(t=proto_text(text))).contracts["t"]
    intake, message = Intake(contract), message_class(contract.descriptor())
    rows: list[Any] = [message(id="1"), message(), message(id="")]
    rows[1].at.FromMicroseconds(now_us)
    rows[2].at.FromMicroseconds(now_us)
    checked = intake.from_proto([row.SerializeToString() for row in rows], now_us)
    assert [(row.rule, row.field, row.message) for row in checked.quarantined] == [
        ("tidemill.event_time", "at", "expected the time when the event happened, came nothing"),
        ("tidemill.event_id", "id", "expected an id that names the event, 1 character or more, came nothing"),
        ("tidemill.event_id", "id", "expected an id that names the event, 1 character or more, came ''"),
    ]


def test_one_verdict_a_row_the_first_in_field_order(intake: Intake, order_line: Make, now_us: int) -> None:
    row = check(intake, order_line, now_us, country="", unit_price="x", stock_code="")
    assert row is not None
    assert (row.rule, row.field, row.message) == (
        "string.min_len",
        "stock_code",
        "must be at least 1 characters, came ''",
    )
    row = check(intake, order_line, now_us, country="", unit_price="x")
    assert row is not None
    assert row.rule == "tidemill.decimal"


def test_long_values_are_cut_in_messages_not_in_payloads(intake: Intake, order_line: Make, now_us: int) -> None:
    line = order_line(country="x" * 10_000)
    row = intake.from_proto([line.SerializeToString()], now_us).quarantined[0]
    assert row.rule == "string.max_len"
    assert len(row.message) < 200
    assert row.message.endswith("x'…")
    assert row.payload == line.SerializeToString()


def test_malformed_bytes_leave_their_neighbours_alone(intake: Intake, order_line: Make, now_us: int) -> None:
    good = [order_line(event_id=f"r{index}").SerializeToString() for index in range(100)]
    sent = list(good)
    bad = {0: b"\xff", 50: b"\x0a\xff\xff", 51: b"\x0a\x02\xff\xfe", 102: b"\x3a\x05hello"}
    for index, payload in bad.items():
        sent.insert(index, payload)
    sent[70] = order_line(country="").SerializeToString()
    checked = intake.from_proto(sent, now_us)
    assert [row.index for row in checked.quarantined] == [0, 50, 51, 70, 102]
    assert [row.rule for row in checked.quarantined] == ["tidemill.malformed"] * 3 + [
        "string.min_len",
        "tidemill.malformed",
    ]
    assert all(row.payload == sent[row.index] for row in checked.quarantined)
    assert checked.rows.num_rows == 99
    assert "expected a serialized retail.v1.OrderLine" in checked.quarantined[0].message


def test_random_bytes_never_crash(intake: Intake, order_line: Make, now_us: int) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    good = order_line().SerializeToString()
    for _ in range(50):
        sent = []
        for _ in range(40):
            damaged = bytearray(good)
            for _ in range(chance.randrange(4)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            sent.append(
                bytes(damaged[: chance.randrange(len(damaged) + 1)]) if chance.random() < 0.3 else bytes(damaged)
            )
        sent.append(chance.randbytes(chance.randrange(60)))
        checked = intake.from_proto(sent, now_us)
        assert checked.rows.num_rows + len(checked.quarantined) == checked.row_count == len(sent)
        checked.rows.validate(full=True)


def test_a_batch_above_the_limit_is_refused(contract: Contract, order_line: Make, now_us: int) -> None:
    intake = Intake(contract, IntakeLimits(max_rows=2))
    message = order_line().SerializeToString()
    assert intake.from_proto([message] * 2, now_us).rows.num_rows == 2
    with pytest.raises(BadRequest, match="expected at most 2 rows in a batch, came 3"):
        intake.from_proto([message] * 3, now_us)


def test_many_threads_share_an_intake(intake: Intake, order_line: Make, now_us: int) -> None:
    def run(number: int) -> tuple[int, list[int]]:
        sent = [order_line(quantity=0 if index % 7 == number else 1).SerializeToString() for index in range(100)]
        checked = intake.from_proto(sent, now_us)
        return number, [row.index for row in checked.quarantined]

    with ThreadPoolExecutor(7) as pool:
        for number, rejected in pool.map(run, range(7)):
            assert rejected == list(range(number, 100, 7))
