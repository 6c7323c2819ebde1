"""Dict events: what they become, and what is said of those that fit no message."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from retail.v1 import order_line_pb2
from tidemill.client.contract import Contract
from tidemill.client.encode import DictEncoder
from tidemill.errors import BadEvent

GOOD: dict[str, Any] = {
    "event_id": "a-1",
    "invoice_no": "536365",
    "stock_code": "85123A",
    "quantity": 6,
    "unit_price": Decimal("2.55"),
    "invoiced_at": dt.datetime(2010, 12, 1, 8, 26, 0, 123456, tzinfo=dt.UTC),
    "country": "United Kingdom",
}


@pytest.fixture(scope="module")
def encoder(order_lines: Contract) -> DictEncoder:
    return DictEncoder(order_lines.message, order_lines.decimals)


def encoded(encoder: DictEncoder, **changes: Any) -> order_line_pb2.OrderLine:
    return order_line_pb2.OrderLine.FromString(encoder.encode({**GOOD, **changes}))


def test_a_dict_becomes_the_contracts_message(encoder: DictEncoder) -> None:
    message = encoded(encoder, customer_id=17850, description=None)
    assert (message.invoice_no, message.quantity, message.unit_price) == ("536365", 6, "2.55")
    assert message.invoiced_at.ToDatetime(tzinfo=dt.UTC) == GOOD["invoiced_at"]
    assert message.customer_id == 17850
    assert not message.HasField("description")


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (Decimal("1E+3"), "1000"),
        (Decimal("-0.001"), "-0.001"),
        (7, "7"),
        ("2.550", "2.550"),
        (Decimal("1E-3"), "0.001"),
    ],
)
def test_money_is_exact(encoder: DictEncoder, price: object, text: str) -> None:
    assert encoded(encoder, unit_price=price).unit_price == text


@pytest.mark.parametrize(
    "moment",
    [
        dt.datetime(2011, 7, 1, 9, 0, tzinfo=ZoneInfo("Europe/London")),
        dt.datetime(2011, 7, 1, 8, 0, tzinfo=dt.UTC),
        "2011-07-01T08:00:00Z",
        "2011-07-01 10:00:00+02:00",
    ],
)
def test_times_are_moments(encoder: DictEncoder, moment: object) -> None:
    assert encoded(encoder, invoiced_at=moment).invoiced_at.seconds == 1309507200


def test_times_before_1970_are_exact(encoder: DictEncoder) -> None:
    stamp = encoded(encoder, invoiced_at=dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC)).invoiced_at
    assert (stamp.seconds, stamp.nanos) == (-1, 999_999_000)


def test_numpy_integers_are_integers(encoder: DictEncoder) -> None:
    assert encoded(encoder, quantity=np.int32(-4)).quantity == -4


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        (
            {"invoice": "1"},
            "invoice",
            r"no field 'invoice'.*did you mean 'invoice_no'.*the fields are: country, .*unit_price",
        ),
        ({"zzz": 1}, "zzz", "no field 'zzz'; the fields are"),
        ({"quantity": "6"}, "quantity", "field 'quantity': expected an int, came str '6'"),
        ({"quantity": 6.0}, "quantity", "expected an int, came float"),
        ({"quantity": True}, "quantity", "expected an int, came bool"),
        ({"quantity": 1 << 63}, "quantity", "expected an int from"),
        ({"unit_price": 2.55}, "unit_price", r"float 2.55; a float is not exact: give Decimal\('2.55'\)"),
        ({"unit_price": Decimal("NaN")}, "unit_price", "finite"),
        ({"country": b"UK"}, "country", "expected a str, came bytes"),
        ({"invoiced_at": dt.datetime(2011, 7, 1)}, "invoiced_at", "with a time zone.*say which zone"),  # noqa: DTZ001
        ({"invoiced_at": dt.date(2011, 7, 1)}, "invoiced_at", "expected a datetime with a time zone, came date"),
        ({"invoiced_at": "yesterday"}, "invoiced_at", "expected a time such as"),
        ({"invoiced_at": "2011-07-01T08:00:00"}, "invoiced_at", "say which zone"),
    ],
)
def test_what_does_not_fit_is_named(encoder: DictEncoder, change: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(BadEvent, match=said) as raised:
        encoder.encode({**GOOD, **change})
    assert raised.value.field == field
    assert not raised.value.retryable
    assert "\n" not in str(raised.value)


def test_the_contract_is_read_from_its_descriptors(order_lines: Contract) -> None:
    assert order_lines.decimals == {"unit_price": (12, 3)}
    assert (order_lines.event_id, order_lines.event_time) == ("event_id", "invoiced_at")
    assert order_lines.required == {
        "event_id", "invoice_no", "stock_code", "quantity", "unit_price", "invoiced_at", "country",
    }  # fmt: skip
    # A class of its own: it lives beside the user's generated one.
    assert order_lines.message is not order_line_pb2.OrderLine
    assert order_lines.message.DESCRIPTOR.full_name == order_line_pb2.OrderLine.DESCRIPTOR.full_name
