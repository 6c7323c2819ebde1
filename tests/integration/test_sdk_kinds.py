"""Lists, maps, messages, oneofs, wrappers and durations through the SDK: dicts and frames in, messages out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

import tidemill.testing
from tests.support.orders import ORDER_PROTO
from tidemill.errors import BadEvent

AT = dt.datetime(2011, 12, 5, 8, 26, tzinfo=dt.UTC)
LINE = {"sku": "a", "price": Decimal("1.5")}


@pytest.fixture(scope="module")
def tm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tidemill.Client]:
    proto = tmp_path_factory.mktemp("proto")
    (proto / "order.proto").write_text(ORDER_PROTO, encoding="utf-8")
    with tidemill.testing.service(proto) as client:
        yield client


def test_a_dict_of_every_kind_comes_back(tm: tidemill.Client) -> None:
    orders = tm.stream("orders")
    event: dict[str, Any] = {
        "id": "dict", "at": AT, "cash": {"kind": "KIND_ONE", "takes": dt.timedelta(seconds=-1.5)}, "points": 0,
        "credit": 2**64 - 1, "note": "", "express": False, "tags": ["a", ""], "lines": [LINE, LINE | {"pieces": 2}],
        "best": LINE, "took": dt.timedelta(hours=1), "laps": [dt.timedelta(0)], "labels": {"a": "b"},
        "by_shelf": {3: LINE}, "flags": {True: 1}, "amounts": [Decimal("0.00000001")], "measures": [1.5, 0],
    }  # fmt: skip
    ack = orders.send(event).result(20)
    (row,) = orders.read(from_offset=ack.offset, limit=1)
    assert row.WhichOneof("payer") == "cash"
    assert (row.cash.takes.seconds, row.cash.takes.nanos) == (-1, -500_000_000)
    assert (row.HasField("points"), row.points.value, row.credit.value) == (True, 0, 2**64 - 1)
    assert (row.HasField("note"), row.HasField("express"), row.HasField("account")) == (True, True, False)
    assert [(line.sku, line.price, line.HasField("pieces")) for line in row.lines] == [
        ("a", "1.500", False),
        ("a", "1.500", True),
    ]
    assert (row.by_shelf[3].price, dict(row.labels), list(row.tags)) == ("1.500", {"a": "b"}, ["a", ""])
    assert [each.value for each in row.measures] == [1.5, 0]
    assert (row.took.seconds, list(row.amounts)) == (3600, ["0.00000001"])


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("took", 5, "field 'took': expected a timedelta, came int 5"),
        ("points", "5", "field 'points': expected an int, came str '5'"),
        ("lines", [{"sku": "a", "price": 1.5}], r"field 'lines\[0\].price': .*a float is not exact"),
        ("lines", [{"colour": 1}], r"there is no field 'lines\[0\].colour'"),
    ],
)
def test_what_does_not_fit_is_said_by_place(tm: tidemill.Client, field: str, value: object, expected: str) -> None:
    with pytest.raises(BadEvent, match=expected):
        tm.stream("orders").send({"id": "bad", "at": AT, field: value})


def test_a_frame_of_lists_and_structs_comes_back(tm: tidemill.Client) -> None:
    orders = tm.stream("orders")
    frame = pl.DataFrame(
        {
            "id": ["frame"],
            "at": [AT],
            "tags": [["a", "b"]],
            "best": [{"sku": "a", "price": "1.5", "pieces": 3}],
            "took": [dt.timedelta(seconds=2)],
            "labels": [[{"key": "k", "value": "v"}]],
        },
        schema_overrides={"took": pl.Duration("ns")},
    )
    first = orders.status().durable_offset
    orders.send_table(frame).result(20)
    (batch,) = orders.read_arrow(from_offset=first, limit=1)
    (row,) = batch.to_pylist()
    assert (row["tags"], row["took"], row["labels"], row["lines"]) == (["a", "b"], 2_000_000, [("k", "v")], [])
    assert (row["best"]["price"], row["best"]["pieces"]) == (Decimal("1.500"), 3)
