"""Arrow batches: which columns and types are taken, which values quarantine their row, and that nothing crashes."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ingest_service.contracts import Contract, Intake, IntakeLimits, load_contracts
from ingest_service.errors import BadRequest

Ipc = Callable[..., bytes]
UTC = pa.timestamp("us", tz="UTC")
COUNT = 3
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
AT = dt.datetime(2011, 12, 9, 11, 0, tzinfo=dt.UTC)

COLUMNS: dict[str, pa.Array] = {
    "event_id": pa.array(["a", "b", "c"]),
    "invoice_no": pa.array(["536365", "C536366", "536367"]),
    "stock_code": pa.array(["85123A", "POST", "M"]),
    "description": pa.array(["lamp", None, ""]),
    "quantity": pa.array([1, -2, 3], pa.int64()),
    "unit_price": pa.array(["1.25", "0", "-11062.060"]),
    "invoiced_at": pa.array([AT] * COUNT, UTC),
    "customer_id": pa.array([17850, None, 1], pa.int64()),
    "country": pa.array(["France", "EIRE", "Unspecified"]),
}


def table(**columns: pa.Array | None) -> pa.Table:
    """A good batch; keywords replace columns or add them, None takes one away."""
    return pa.table({name: values for name, values in (COLUMNS | columns).items() if values is not None})


def test_columns_are_matched_by_name_in_any_order(intake: Intake, ipc: Ipc, now_us: int) -> None:
    checked = intake.from_arrow(ipc(table().select(list(reversed(COLUMNS)))), now_us)
    assert checked.quarantined == ()
    assert checked.rows.schema == intake.contract.schema
    assert checked.rows.to_pylist()[2] == {
        "event_id": "c", "invoice_no": "536367", "stock_code": "M", "description": "", "quantity": 3,
        "unit_price": Decimal("-11062.060"), "invoiced_at": AT, "customer_id": 1, "country": "Unspecified",
    }  # fmt: skip


def test_missing_nullable_columns_become_null(intake: Intake, ipc: Ipc, now_us: int) -> None:
    checked = intake.from_arrow(ipc(table(customer_id=None, description=None)), now_us)
    assert checked.rows["customer_id"].null_count == checked.rows["description"].null_count == COUNT
    assert checked.rows.schema == intake.contract.schema


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("quantity", pa.array([1, 2, 3], pa.int8()), [1, 2, 3]),
        ("quantity", pa.array([1, 2, 3], pa.uint64()), [1, 2, 3]),
        ("quantity", pa.array([1.0, 2.0, -3.0]), [1, 2, -3]),
        ("quantity", pa.array([Decimal("1.0"), Decimal(2), Decimal(3)], pa.decimal128(5, 1)), [1, 2, 3]),
        ("unit_price", pa.array([1, 0, -7], pa.int16()), [Decimal(1), Decimal(0), Decimal(-7)]),
        ("unit_price", pa.array([Decimal("1.5")] * 3, pa.decimal128(38, 10)), [Decimal("1.5")] * 3),
        ("unit_price", pa.array([Decimal("1.5")] * 3, pa.decimal256(76, 20)), [Decimal("1.5")] * 3),
        ("unit_price", pa.array(["1.5", "2", "3"], pa.large_string()), [Decimal("1.5"), Decimal(2), Decimal(3)]),
        ("country", pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        ("country", pa.array(["a", "b", "a"], pa.large_string()), ["a", "b", "a"]),
        ("customer_id", pa.nulls(3), [None] * 3),
        ("customer_id", pa.array([1, None, 1]).dictionary_encode(), [1, None, 1]),
        ("invoiced_at", pa.array([0, 1, -1], pa.timestamp("s", "Asia/Tokyo")),
         [EPOCH, EPOCH + dt.timedelta(seconds=1), EPOCH - dt.timedelta(seconds=1)]),
        ("invoiced_at", pa.array([1999, 1000, -1], pa.timestamp("ns", "No/Such_Zone")),
         [EPOCH + dt.timedelta(microseconds=1)] * 2 + [EPOCH - dt.timedelta(microseconds=1)]),
    ],
)  # fmt: skip
def test_types_that_lose_nothing_are_cast(
    intake: Intake, ipc: Ipc, now_us: int, column: str, values: pa.Array, expected: list[Any]
) -> None:
    checked = intake.from_arrow(ipc(table(**{column: values})), now_us)
    assert checked.quarantined == ()
    assert checked.rows[column].to_pylist() == expected
    assert checked.rows.schema == intake.contract.schema


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"quantity": None}, "column 'quantity' is missing: expected int64"),
        (
            {"colour": pa.array(["a"] * 3)},
            "column 'colour' is unknown: the columns of stream 'order_lines' are",
        ),
        ({"_offset": pa.array([1] * 3)}, "column '_offset' is unknown"),
        (
            {"unit_price": pa.array([1.5] * 3)},
            r"column 'unit_price': expected decimal128\(12, 3\), came double; a float is",
        ),
        ({"invoiced_at": pa.array([AT.replace(tzinfo=None)] * 3)}, "came timestamp.us.; a time without a zone"),
        (
            {"invoiced_at": pa.array(["2011-12-09T11:00:00Z"] * 3)},
            "column 'invoiced_at': expected timestamp.*came string",
        ),
        ({"invoiced_at": pa.array([dt.date(2011, 12, 9)] * 3)}, "came date32"),
        ({"quantity": pa.array(["1"] * 3)}, "column 'quantity': expected int64, came string"),
        ({"quantity": pa.array([True] * 3)}, "came bool"),
        ({"country": pa.array([1] * 3)}, "column 'country': expected string, came int64"),
        ({"country": pa.array([b"a"] * 3)}, "came binary"),
        ({"country": pa.array([["a"]] * 3)}, "came list"),
        ({"country": pa.array(["a"] * 3, pa.string_view())}, "came string_view; cast the column"),
        ({"country": pa.array([1] * 3).dictionary_encode()}, "came dictionary"),
    ],
)
def test_what_can_never_fit_is_refused_by_column(
    intake: Intake, ipc: Ipc, now_us: int, columns: dict[str, pa.Array], expected: str
) -> None:
    with pytest.raises(BadRequest, match=expected):
        intake.from_arrow(ipc(table(**columns)), now_us)


@pytest.mark.parametrize(
    ("column", "values", "rule", "message"),
    [
        ("quantity", pa.array([1, 2**63, 3], pa.uint64()), "tidemill.type", "expected int64, came 9223372036854775808"),
        ("quantity", pa.array([1, 2.5, 3]), "tidemill.type", "expected int64, came 2.5"),
        ("quantity", pa.array([1, float("nan"), 3]), "tidemill.type", "expected int64, came nan"),
        ("quantity", pa.array([1, None, 3], pa.int64()), "tidemill.null", "expected int64, came nothing"),
        ("country", pa.array(["a", None, "c"]), "tidemill.null", "expected string, came nothing"),
        ("event_id", pa.array(["a", None, "c"]), "string.min_len", "must be at least 1 characters, came ''"),
        ("invoiced_at", pa.array([AT, None, AT], UTC), "required", "value is required, came nothing"),
        ("unit_price", pa.array(["1", "1.2345", "2"]), "tidemill.decimal", "at most 3 after it, came '1.2345'"),
        ("unit_price", pa.array(["1", None, "2"]), "tidemill.null", "expected decimal128(12, 3), came nothing"),
        ("unit_price", pa.array([Decimal("1.0000"), Decimal("1.2345"), Decimal(2)], pa.decimal128(9, 4)),
         "tidemill.type", "expected decimal128(12, 3), came 1.2345"),
        ("unit_price", pa.array([1, 10**9, 2]), "tidemill.type", "expected decimal128(12, 3), came 1000000000"),
        ("invoiced_at", pa.array([0, 2**60, 0], pa.timestamp("s", "UTC")), "tidemill.type", "1152921504606846976 s"),
        ("invoiced_at", pa.array([0, 2**62, 0], UTC), "tidemill.timestamp", "to 9999, came 4611686018427387904 us"),
        ("quantity", pa.array([1, 0, 3]), "int64.not_in", "must not be in list [0], came 0"),
        ("customer_id", pa.array([1, -1, None]), "int64.gt", "must be greater than 0, came -1"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_quarantines_its_row_only(
    intake: Intake, ipc: Ipc, now_us: int, column: str, values: pa.Array, rule: str, message: str
) -> None:
    checked = intake.from_arrow(ipc(table(**{column: values})), now_us)
    assert [(row.index, row.rule, row.field) for row in checked.quarantined] == [(1, rule, column)]
    assert message in checked.quarantined[0].message
    assert checked.rows["event_id"].to_pylist() == ["a", "c"]
    assert checked.row_count == COUNT


def test_the_payload_is_the_row_as_sent(intake: Intake, ipc: Ipc, now_us: int) -> None:
    sent = table(
        quantity=pa.array([1, float("inf"), 3]),
        unit_price=pa.array([Decimal("1.50")] * 3, pa.decimal128(9, 2)),
        invoiced_at=pa.array([0, 1_000_000_001, 0], pa.timestamp("ns", "Asia/Tokyo")),
        country=pa.array(["ä"] * 3).dictionary_encode(),
    )
    payload = intake.from_arrow(ipc(sent), now_us).quarantined[0].payload
    assert json.loads(payload) == {
        "event_id": "b", "invoice_no": "C536366", "stock_code": "POST", "description": None, "quantity": "inf",
        "unit_price": "1.50", "invoiced_at": "1970-01-01T00:00:01.000000001Z", "customer_id": None, "country": "ä",
    }  # fmt: skip


def test_many_bad_values_are_all_found(intake: Intake, ipc: Ipc, now_us: int) -> None:
    count = 5_000
    sent = pa.table({name: pc.take(values, pa.array([0] * count)) for name, values in COLUMNS.items()})
    quantities = pa.array([0.5 if index % 3 else 1.0 for index in range(count)])
    checked = intake.from_arrow(ipc(sent.set_column(4, "quantity", quantities).combine_chunks()), now_us)
    assert [row.index for row in checked.quarantined] == [index for index in range(count) if index % 3]
    assert {row.rule for row in checked.quarantined} == {"tidemill.type"}


def test_rules_about_the_text_of_a_decimal_hold_for_decimal_columns(
    write_protos: Callable[..., Any], proto_text: Callable[..., str], ipc: Ipc, now_us: int
) -> None:
    text = """message T { option (tidemill.v1.stream) = { name: "t" event_time: "at" };
      google.protobuf.Timestamp at = 1;
      string n = 2 [(tidemill.v1.field).decimal = { precision: 12 scale: 9 },
                    (buf.validate.field).string.pattern = '^[0-9.]+$']; }"""
    intake = Intake(load_contracts(write_protos(t=proto_text(text))).contracts["t"])
    numbers = [Decimal("0.000000001"), Decimal("0E-9"), Decimal("-1"), *[Decimal(1)] * 40]
    sent = pa.table({"at": pa.array([0] * 43, UTC), "n": pa.array(numbers, pa.decimal128(12, 9))})
    checked = intake.from_arrow(ipc(sent), now_us)
    assert [(row.index, row.rule) for row in checked.quarantined] == [(2, "string.pattern")]


def test_unsigned_columns_come_back_as_the_lake_has_them(
    write_protos: Callable[..., Any], proto_text: Callable[..., str], ipc: Ipc, now_us: int
) -> None:
    text = """message T { option (tidemill.v1.stream) = { name: "t" event_time: "at" };
      google.protobuf.Timestamp at = 1; uint64 n = 2; uint32 m = 3; float f = 4; bytes b = 5; }"""
    intake = Intake(load_contracts(write_protos(t=proto_text(text))).contracts["t"])
    columns = {
        "at": pa.array([0] * 3, UTC),
        "n": pa.array([Decimal(2**64 - 1), Decimal(0), Decimal(-1)], pa.decimal128(20, 0)),
        "m": pa.array([2**32 - 1, 0, 2**32], pa.int64()),
        "f": pa.array([1.5, 1e300, 1.5]),
        "b": pa.array([b"\xff"] * 3, pa.large_binary()),
    }
    checked = intake.from_arrow(ipc(pa.table(columns)), now_us)
    assert [(row.index, row.field, row.rule) for row in checked.quarantined] == [
        (1, "f", "tidemill.type"),
        (2, "n", "tidemill.type"),
    ]
    assert checked.rows.drop_columns("at").to_pylist() == [
        {"n": Decimal(2**64 - 1), "m": 2**32 - 1, "f": 1.5, "b": b"\xff"}
    ]


def test_no_batch_is_an_empty_batch_and_two_are_refused(intake: Intake, ipc: Ipc, now_us: int) -> None:
    empty = intake.from_arrow(ipc(table().slice(0, 0)), now_us)
    assert (empty.rows.num_rows, empty.row_count, empty.quarantined) == (0, 0, ())
    two = pa.concat_tables([table(), table()])
    with pytest.raises(BadRequest, match="expected one record batch"):
        intake.from_arrow(ipc(two), now_us)


def test_a_column_that_comes_twice_is_refused(intake: Intake, ipc: Ipc, now_us: int) -> None:
    twice = table().append_column("quantity", COLUMNS["quantity"])
    with pytest.raises(BadRequest, match="column 'quantity' came 2 times"):
        intake.from_arrow(ipc(twice), now_us)


def test_limits_are_on_rows_and_on_bytes_once_decompressed(contract: Contract, ipc: Ipc, now_us: int) -> None:
    with pytest.raises(BadRequest, match="expected at most 2 rows in a batch, came 3"):
        Intake(contract, IntakeLimits(max_rows=2)).from_arrow(ipc(table()), now_us)
    small = Intake(contract, IntakeLimits(max_bytes=1_000_000))
    bomb = ipc(table(description=pa.array(["x" * 10**6, "y" * 10**6, None])), compression="zstd")
    assert len(bomb) < 10_000
    with pytest.raises(BadRequest, match="expected at most 1000000 bytes in a batch once decompressed, came 2"):
        small.from_arrow(bomb, now_us)
    alike = pa.DictionaryArray.from_arrays(pa.array([0, 0, 0]), pa.array(["x" * 400_000]))
    with pytest.raises(BadRequest, match="column 'description': expected at most 1000000 bytes, came 1200000 once"):
        small.from_arrow(ipc(table(description=alike)), now_us)
    for compression in ("lz4", "zstd", None):
        assert small.from_arrow(ipc(table(), compression=compression), now_us).rows.num_rows == COUNT


@pytest.mark.parametrize("sent", [b"", b"\0" * 100, b"PAR1", b"\xff\xff\xff\xff" * 10])
def test_what_is_no_arrow_stream_is_refused(intake: Intake, now_us: int, sent: bytes) -> None:
    with pytest.raises(BadRequest, match="expected an Arrow IPC stream"):
        intake.from_arrow(sent, now_us)


def test_damaged_streams_never_crash(intake: Intake, ipc: Ipc, now_us: int) -> None:
    """Bits flipped and ends cut: refused, quarantined, or rows that are sound Arrow."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    dictionary = table(country=pa.array(["a", "b", "a"]).dictionary_encode())
    originals = [ipc(table()), ipc(table(), compression="zstd"), ipc(table(), compression="lz4"), ipc(dictionary)]
    refused = 0
    for _ in range(3_000):
        damaged = bytearray(chance.choice(originals))
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.1:
            del damaged[chance.randrange(len(damaged)) :]
        try:
            checked = intake.from_arrow(bytes(damaged), now_us)
        except BadRequest:
            refused += 1
            continue
        checked.rows.validate(full=True)
        assert checked.rows.schema == intake.contract.schema
        assert checked.rows.num_rows + len(checked.quarantined) == checked.row_count
    assert refused > 300
