"""Lists, maps, messages, oneofs, wrappers and durations: through log, lake and DuckDB, and back to the message sent."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import yaml

from ingest_service.contracts import Contract, Encoder, Intake, load_contracts
from ingest_service.contracts.contract import message_class
from ingest_service.contracts.dbt_sources import dbt_source, duckdb_type
from ingest_service.errors import BadRequest
from ingest_service.lake.exporter import LakeExporter
from ingest_service.log import Append, Log
from tests.support.orders import ORDER
from tidemill.lake import lake_files, lake_query

Ipc = Callable[..., bytes]
MANY = 40
"""Rows enough for the kernels to be used."""


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory, proto_text: Callable[..., str]) -> Contract:
    root: Path = tmp_path_factory.mktemp("proto")
    (root / "order.proto").write_text(proto_text(ORDER), encoding="utf-8")
    loaded = load_contracts(root)
    assert loaded.problems == ()
    return loaded.contracts["orders"]


@pytest.fixture(scope="module")
def make(order: Contract, now_us: int) -> Callable[..., Any]:
    message = message_class(order.descriptor())
    ids = iter(range(10**9))

    def make(**fields: Any) -> Any:
        row: Any = message(id=f"o{next(ids)}", **fields)
        row.at.FromMicroseconds(now_us)
        return row

    return make


def full(make: Callable[..., Any]) -> Any:
    """An order with something of everything."""
    line = {"sku": "a", "price": "1.500", "pieces": 2**32 - 1, "packed_at": [{"seconds": 5, "nanos": 1000}]}
    gift = {"sku": "b", "price": "-0.001", "wrapping": {"kind": 7, "takes": {"seconds": -1, "nanos": -1000}}}
    return make(
        cash={"kind": 1, "select": "x"},
        points={"value": 0},
        credit={"value": 2**64 - 1},
        note={"value": ""},
        express={"value": False},
        numbers=[1, 0, -1],
        tags=["a", "", "ü"],
        big=[2**64 - 1, 0],
        kinds=[1, 9],
        lines=[line | {"codes": {"x": 2**64 - 1, "": 0}}, gift, {"sku": "c", "price": "0.000", "card": ""}],
        best=gift,
        took={"seconds": 3_600, "nanos": 1000},
        laps=[{"seconds": -2, "nanos": -5000}, {}],
        labels={"a": "b", "": ""},
        by_shelf={-1: line, 2: gift},
        flags={True: 1, False: 9},
        extra={"type_url": "t/x", "value": b"\xff"},
        amounts=["0.00000001", "-1.50000000"],
        blobs=[b"", b"\0\xff"],
        measures=[{"value": -0.5}, {"value": 0.0}],
    )


def orders(make: Callable[..., Any]) -> list[Any]:
    """Full ones, empty ones, and some with one member of the oneof each."""
    some = [make(account=""), make(token=2**64 - 1), make(cash={}), make(best={"sku": "b", "price": "0.000"})]
    return [full(make), make(), *some, *(full(make) for _ in range(MANY))]


def test_every_kind_has_its_type(order: Contract) -> None:
    types = {field.name: duckdb_type(field.type) for field in order.schema}
    line = (
        'STRUCT("sku" VARCHAR, "pieces" BIGINT, "packed_at" TIMESTAMP WITH TIME ZONE[], '
        '"codes" MAP(VARCHAR, DECIMAL(20,0)), "card" VARCHAR, '
        '"wrapping" STRUCT("kind" INTEGER, "takes" BIGINT, "select" VARCHAR), "price" DECIMAL(12,3))'
    )
    assert types["best"] == line
    assert types["lines"] == f"{line}[]"
    assert types["by_shelf"] == f"MAP(INTEGER, {line})"
    assert [types[name] for name in ("token", "points", "credit", "note", "express", "took", "laps", "flags")] == [
        "DECIMAL(20,0)", "BIGINT", "DECIMAL(20,0)", "VARCHAR", "BOOLEAN", "BIGINT", "BIGINT[]", "MAP(BOOLEAN, INTEGER)",
    ]  # fmt: skip
    assert [field.name for field in order.schema if not field.nullable] == ["at", "id"]
    assert [column.name for column in order.columns if column.personal] == [
        *("cash", "lines", "best", "by_shelf", "wrappings")
    ]
    columns = yaml.safe_load(dbt_source(order))["sources"][0]["tables"][0]["columns"]
    assert next(each for each in columns if each["name"] == "took")["description"] == (
        "How long it took. In microseconds."
    )


def test_a_row_is_the_same_everywhere(order: Contract, make: Callable[..., Any], now_us: int, tmp_path: Path) -> None:
    """protobuf → log → Delta → DuckDB → protobuf: nothing is lost on the way, and both describe the same types."""
    sent = orders(make)
    checked = Intake(order).from_proto([row.SerializeToString() for row in sent], now_us)
    assert checked.quarantined == ()
    log = Log.open(tmp_path / "log", order.log_spec())
    try:
        log.append(Append(checked.rows, checked.row_count)).result(timeout=30)
        exporter = LakeExporter(log, "orders", str(tmp_path / "lake"))
        exporter.export()
        entries = log.reader(0).read(max_rows=1_000, timeout_s=10)
    finally:
        log.close()
    from_log = pa.Table.from_batches([entry.batch for entry in entries])
    columns = {field.name: duckdb_type(field.type) for field in log.schema}
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    query = lake_query(lake_files(str(tmp_path / "lake"), None), columns, None)
    assert connection.sql(f"describe {query}").fetchall() == connection.sql("describe from from_log").fetchall()
    empty = lake_query([], columns, None)
    assert connection.sql(f"describe {empty}").fetchall() == connection.sql("describe from from_log").fetchall()
    from_lake = connection.sql(f"select * from ({query}) order by _offset").to_arrow_table().select(order.schema.names)
    for rows in (from_log.select(order.schema.names), from_lake.cast(order.schema)):
        (batch,) = rows.combine_chunks().to_batches()
        back = [type(sent[0]).FromString(each) for each in Encoder(order).encode(batch).to_pylist()]
        assert back == sent


def test_the_log_recovers_rows_of_every_kind(
    order: Contract, make: Callable[..., Any], now_us: int, tmp_path: Path
) -> None:
    rows = Intake(order).from_proto([row.SerializeToString() for row in orders(make)], now_us).rows
    log = Log.open(tmp_path, order.log_spec())
    log.append(Append(rows, rows.num_rows)).result(timeout=30)
    log.close()
    again = Log.open(tmp_path, order.log_spec())
    try:
        (entry,) = again.reader(0).read(max_rows=1_000, timeout_s=10)
    finally:
        again.close()
    assert entry.batch.select(order.schema.names).to_pylist() == rows.to_pylist()


def test_a_table_gives_the_rows_that_messages_give(
    order: Contract, make: Callable[..., Any], ipc: Ipc, now_us: int
) -> None:
    """As the contract's own types (what a reader of the log has), and as protobuf's."""
    intake = Intake(order)
    sent = [row.SerializeToString() for row in orders(make)]
    wanted = intake.from_proto(sent, now_us).rows
    as_wire, _ = intake._decoder.decode(sent)
    for table in (wanted, as_wire):
        checked = intake.from_arrow(ipc(table), now_us)
        assert checked.quarantined == ()
        assert checked.rows.to_pylist() == wanted.to_pylist()
        assert checked.rows.schema == order.schema


LINE = {"sku": "a", "price": "1.5"}


def arrow(now_us: int, **columns: Any) -> pa.Table:
    count = len(next(iter(columns.values())))
    ids = pa.array([f"o{index}" for index in range(count)])
    at = pa.array([now_us] * count, pa.timestamp("us", "UTC"))
    return pa.table({"at": at, "id": ids, **columns})


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("tags", pa.array([["a"], None, []], pa.large_list(pa.large_string())), [["a"], [], []]),
        ("tags", pa.array([["a", "b"], None], pa.list_(pa.string(), 2)), [["a", "b"], []]),
        ("tags", pa.nulls(2), [[], []]),
        ("tags", pa.array([["a", "b", "a"]]).cast(pa.list_(pa.dictionary(pa.int32(), pa.string()))), [["a", "b", "a"]]),
        ("numbers", pa.array([[1.0, 2.0]]), [[1, 2]]),
        ("big", pa.array([[Decimal(2**64 - 1)]], pa.list_(pa.decimal128(20, 0))), [[Decimal(2**64 - 1)]]),
        ("labels", pa.array([[("a", "b")], None], pa.map_(pa.string(), pa.string())), [[("a", "b")], []]),
        ("labels", pa.array([[{"value": "b", "key": "a"}], []]), [[("a", "b")], []]),
        ("took", pa.array([1, -1, None], pa.duration("s")), [1_000_000, -1_000_000, None]),
        ("took", pa.array([1_999, -1_999], pa.duration("ns")), [1, -1]),
        ("took", pa.array([7], pa.int64()), [7]),
        ("amounts", pa.array([[Decimal("0.00000001"), Decimal(1)]]), [[Decimal("0.00000001"), Decimal(1)]]),
        ("points", pa.array([0, None], pa.int8()), [0, None]),
        ("extra", pa.array([{"type_url": "t", "value": b"x"}, None]), [{"type_url": "t", "value": b"x"}, None]),
    ],
)
def test_types_that_lose_nothing_are_cast(
    order: Contract, ipc: Ipc, now_us: int, column: str, values: pa.Array, expected: list[Any]
) -> None:
    checked = Intake(order).from_arrow(ipc(arrow(now_us, **{column: values})), now_us)
    assert checked.quarantined == ()
    assert checked.rows[column].to_pylist() == expected


def test_absent_lists_are_empty_and_absent_values_null(order: Contract, ipc: Ipc, now_us: int) -> None:
    checked = Intake(order).from_arrow(ipc(arrow(now_us, lines=pa.array([[LINE]]))), now_us)
    (row,) = checked.rows.to_pylist()
    assert (row["tags"], row["labels"], row["by_shelf"]) == ([], [], [])
    assert (row["best"], row["took"], row["points"], row["account"]) == (None, None, None, None)
    assert row["lines"] == [
        {"sku": "a", "pieces": None, "packed_at": [], "codes": [], "card": None, "wrapping": None,
         "price": Decimal("1.500")}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("tags", pa.array(["a"]), "column 'tags': expected list<element: string>, came string; send a list"),
        ("tags", pa.array([[1]]), r"column 'tags\[\]': expected string, came int64"),
        ("lines", pa.array([LINE]), "column 'lines': expected list.*send a list"),
        ("best", pa.array([[LINE]]), "column 'best': expected struct.*send a struct with the message's fields"),
        ("best", pa.array([LINE | {"colour": 1}]), "column 'best' came with a field 'colour', which is unknown"),
        ("best", pa.array([{"sku": "a"}]), r"column 'best.price' is missing: expected decimal128\(12, 3\)"),
        ("lines", pa.array([[LINE | {"price": 1.5}]]), r"column 'lines\[\].price': .*a float is not exact"),
        ("labels", pa.array([["a"]]), "column 'labels': expected map.*a list of structs of `key` and `value`"),
        ("labels", pa.array([[{"key": "a"}]]), "a list of structs of `key` and `value`"),
        ("took", pa.array([1.5]), "column 'took': expected int64, came double"),
        ("amounts", pa.array([[Decimal(100)]], pa.list_(pa.decimal128(5, -2))), "expected a scale of 0 to the"),
        ("laps", pa.array([["1s"]]), r"column 'laps\[\]': expected int64, came string"),
    ],
)
def test_what_can_never_fit_is_refused_by_place(
    order: Contract, ipc: Ipc, now_us: int, column: str, values: pa.Array, expected: str
) -> None:
    with pytest.raises(BadRequest, match=expected):
        Intake(order).from_arrow(ipc(arrow(now_us, **{column: values})), now_us)


@pytest.mark.parametrize(
    ("column", "values", "rule", "field", "message"),
    [
        ("tags", [["a"], ["b", None], []], "tidemill.null", "tags[]", "expected string, came nothing"),
        ("numbers", [[1], [0.5, 2], []], "tidemill.type", "numbers[]", "expected int32, came 0.5"),
        ("best", [None, {"sku": None, "price": "1"}, LINE], "tidemill.null", "best.sku", "came nothing"),
        ("best", [None, {"sku": "", "price": "1"}, LINE], "string.min_len", "best.sku", "came ''"),
        ("lines", [[LINE], [LINE, None], []], "tidemill.null", "lines[]", "came nothing"),
        ("lines", [[LINE], [LINE, {"sku": "", "price": "1"}], []], "string.min_len", "lines[1].sku", "came ''"),
        ("lines", [[LINE], [{"sku": "a", "price": "x"}], []], "tidemill.decimal", "lines",
         'expected in lines[].price a decimal number as text, such as "-1.5"'),
        ("lines", [[LINE], [LINE | {"packed_at": [dt.datetime(1, 1, 1, tzinfo=dt.UTC), None]}], []], "tidemill.null",
         "lines[].packed_at[]", "came nothing"),
        ("lines", [[LINE], [LINE | {"card": "a", "wrapping": {"kind": 1, "select": ""}}], []], "tidemill.oneof",
         "lines", "expected in lines[] at most one of card, wrapping, came"),
        ("labels", [[], [{"key": "a", "value": "b"}, {"key": "a", "value": "c"}], []], "tidemill.map_key", "labels",
         "expected each key once, came"),
        ("labels", [[{"key": "a", "value": "b"}], [{"key": None, "value": "b"}], []], "tidemill.null", "labels[].key",
         "expected string, came nothing"),
        ("took", [0, 315_576_000_000_000_001, 1], "tidemill.duration", "took", "came 315576000000000001 us"),
        ("took", pa.array([0, 2**63, 1], pa.uint64()), "tidemill.type", "took", "came 9223372036854775808"),
        ("tags", [[], ["a"] * 6, []], "repeated.max_items", "tags", "must contain no more than 5 item"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_quarantines_its_row(
    order: Contract, ipc: Ipc, now_us: int, column: str, values: list[Any], rule: str, field: str, message: str
) -> None:
    values = values if isinstance(values, pa.Array) else pa.array(values)
    for count in (1, MANY):
        # Few rows, and so many that kernels are used.
        sent = arrow(now_us, **{column: pa.array([values[0], values[1], *[values[2]] * count])})
        checked = Intake(order).from_arrow(ipc(sent), now_us)
        assert [(row.index, row.rule, row.field) for row in checked.quarantined] == [(1, rule, field)]
        assert message in checked.quarantined[0].message
        assert checked.rows.num_rows == count + 1
        assert json.loads(checked.quarantined[0].payload)["id"] == "o1"


def test_times_and_durations_within_are_checked(order: Contract, make: Callable[..., Any], now_us: int) -> None:
    late = make(lines=[{**LINE, "packed_at": [{"seconds": 253_402_300_800}]}])
    long = make(laps=[{"seconds": 1}, {"seconds": -315_576_000_001}])
    longer = make(cash={"takes": {"seconds": 2**62}})
    sent = [row.SerializeToString() for row in [late, long, longer, *orders(make)]]
    quarantined = Intake(order).from_proto(sent, now_us).quarantined
    assert [(row.index, row.rule, row.field) for row in quarantined] == [
        (0, "tidemill.timestamp", "lines"),
        (1, "tidemill.duration", "laps"),
        (2, "tidemill.duration", "cash"),
    ]
    assert quarantined[0].message.startswith("expected in lines[].packed_at[] a time in the years 1 to 9999, came [{")


def test_what_no_protobuf_library_writes_is_quarantined(order: Contract, make: Callable[..., Any], now_us: int) -> None:
    """Two members of a oneof, one key twice, a key without its value: legal on the wire, and nothing that a row has."""
    first, second = make(account="a", labels={"k": "1"}), make(token=1)
    two_members = first.SerializeToString() + second.SerializeToString()
    two_keys = first.SerializeToString() + make(labels={"k": "2"}).SerializeToString()
    no_value = make().SerializeToString() + b"\xca\x01\x02\x08\x03"
    merged = make(best=LINE).SerializeToString() + make(best={"pieces": 3}).SerializeToString()
    checked = Intake(order).from_proto(
        [two_members, two_keys, no_value, merged, *[first.SerializeToString()] * MANY], now_us
    )
    assert [(row.index, row.rule, row.field, row.message) for row in checked.quarantined] == [
        (0, "tidemill.oneof", "account", "expected at most one of account, cash, token, came 'a'"),
        (1, "tidemill.map_key", "labels",
         'expected each key once, came [{"key": "k", "value": "1"}, {"key": "k", "value": "2"}]'),
        (2, "tidemill.null", "wrappings", 'expected a value for each key, came [{"key": 3, "value": null}]'),
    ]  # fmt: skip
    assert checked.rows["best"][0].as_py()["pieces"] == 3


def test_a_quarantined_row_of_a_table_can_be_sent_again(order: Contract, ipc: Ipc, now_us: int) -> None:
    """Its payload is JSON that the same contract takes, once what was wrong is right."""
    sent = arrow(
        now_us,
        lines=pa.array([[LINE | {"sku": ""}]]),
        labels=pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string())),
        took=pa.array([1_500], pa.duration("ms")),
        big=pa.array([[2**62]], pa.list_(pa.uint64())),
    )
    (row,) = Intake(order).from_arrow(ipc(sent), now_us).quarantined
    again = json.loads(row.payload)
    assert (row.rule, again["took"], again["labels"]) == (
        "string.min_len",
        1_500_000,
        [{"key": "a", "value": "b"}],
    )
    again["lines"][0]["sku"] = "a"
    again["at"] = dt.datetime.fromisoformat(again["at"])
    checked = Intake(order).from_arrow(ipc(pa.Table.from_pylist([again])), now_us)
    assert checked.quarantined == ()
    assert checked.rows["lines"][0].as_py()[0]["price"] == Decimal("1.500")


def test_damaged_streams_never_crash(order: Contract, make: Callable[..., Any], ipc: Ipc, now_us: int) -> None:
    """Bits flipped and ends cut: refused, quarantined, or rows that are sound Arrow."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    intake = Intake(order)
    sent = [row.SerializeToString() for row in orders(make)[:6]]
    as_wire, _ = intake._decoder.decode(sent)
    originals = [ipc(as_wire), ipc(intake.from_proto(sent, now_us).rows, compression="lz4")]
    for _ in range(600):
        damaged = bytearray(chance.choice(originals))
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        try:
            checked = intake.from_arrow(bytes(damaged), now_us)
        except BadRequest:
            continue
        checked.rows.validate(full=True)
        assert checked.rows.schema == order.schema
        assert checked.rows.num_rows + len(checked.quarantined) == checked.row_count


def test_random_bytes_never_crash(order: Contract, make: Callable[..., Any], now_us: int) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    intake = Intake(order)
    good = full(make).SerializeToString()
    for _ in range(30):
        sent = []
        for _ in range(MANY):
            damaged = bytearray(good)
            for _ in range(chance.randrange(4)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            sent.append(bytes(damaged))
        checked = intake.from_proto(sent, now_us)
        assert checked.rows.num_rows + len(checked.quarantined) == checked.row_count == len(sent)
        checked.rows.validate(full=True)
        assert checked.rows.schema == order.schema
