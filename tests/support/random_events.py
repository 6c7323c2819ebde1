"""Random events of a stream with a column of every plain type, and the seeds that random models join."""

from __future__ import annotations

import datetime as dt
import math
import random
from decimal import Decimal
from typing import Any

import pyarrow as pa

START = dt.datetime(2011, 12, 5, 8, 0, tzinfo=dt.UTC)
SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("quantity", pa.int64()),
        pa.field("small", pa.int32()),
        pa.field("unit_price", pa.decimal128(12, 3)),
        pa.field("amount", pa.decimal128(38, 6)),
        pa.field("weight", pa.float64()),
        pa.field("ratio", pa.float32()),
        pa.field("gift", pa.bool_()),
        pa.field("invoiced_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("paid_at", pa.timestamp("us", tz="UTC")),
        pa.field("customer_id", pa.int64()),
        pa.field("country", pa.string()),
        pa.field("note", pa.string()),
    ]
)
SEEDS = {
    "countries": (
        {"country": "varchar", "region": "varchar", "Tax Rate": "decimal(6,3)", "rank": "integer"},
        # Some keys come twice, one is NULL (an empty field), and the odd texts are those of the events.
        (
            "country,region,Tax Rate,rank\n"
            "France,Europe,19.600,1\n"
            "France,Union,20.000,2\n"
            "Île,Europe,0.000,3\n"
            '"a\'b""c",,5.500,4\n'
            "日本,Asia,10.000,\n"
            ",Nowhere,-1.000,6\n"
            ",Nowhere,,7\n"
            "Peru,America,18.000,8\n"
        ),
    ),
    # Of each country one row, so that an event stays one row.
    "rates": (
        {"country": "varchar", "rate": "decimal(6,3)", "zone": "varchar"},
        ("country,rate,zone\nFrance,1.000,a\nPeru,-4.250,b\nÎle,,\n日本,0.007,b\n,9.000,none\n"),
    ),
    "customers": (
        {"customer_id": "bigint", "segment": "varchar", "since": "date", "weight": "double", "active": "boolean"},
        (
            "customer_id,segment,since,weight,active\n"
            "1,new,2011-01-31,0.5,true\n"
            "2,old,1999-12-31,-0.0,false\n"
            "2,old,2000-02-29,1e300,true\n"
            "40,,,2.25,\n"
            ",none,2011-12-05,,true\n"
            "9223372036854775807,largest,,0.1,false\n"
        ),
    ),
}
"""Seeds by name: their columns' types, and their CSV."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_COUNTRIES = [
    None,
    "",
    "France",
    "france",
    "FRANCE ",
    "Île",
    "I\u0302le",
    "-",
    "3:a",
    "a'b\"c",
    "\n",
    " ",
    "日本",
    "NULL",
]
_NOTES = [
    None, "", "0:", "-", "7", " 12 ", "2011-12-05", "1e3", "nan", "true", "it''s", "x" * 3000, "ü" * 70, "a:b\\c\t\r\n",
    "🎉", "n\0ul", "%_", "{}", "[1, 2]", "'", '"', "\u0301", "ZZZ", "-0.0", "9223372036854775808",
]  # fmt: skip
_WEIGHTS = [None, 0.0, -0.0, math.nan, math.inf, -math.inf, 1.5, 0.1, -2.25, 1e300, -1e300, 5e-324, 2.0**53, 1e-9]
_RATIOS = [None, 0.0, -0.0, math.nan, math.inf, 1.5, -0.25, 2.0**-149, 3.0e38]
_QUANTITIES = [None, 0, 1, -1, 7, 12, INT64_MAX, INT64_MIN, INT64_MAX - 1, 2**53 + 1]
_SMALLS = [None, 0, 1, -1, 2**31 - 1, -(2**31), 100]
_PRICES = [None, "0.000", "-1.500", "2.500", "0.001", "999999999.999", "-999999999.999"]
_AMOUNTS = [None, "0.000000", "-0.000001", "1.000000", "123456789012.345678", "-5.250000"]
_LIMITS = ["99999999999999999999999999999999.999999", "-99999999999999999999999999999999.999999"]
_TIMES = [
    None, START, START.replace(year=1), START.replace(year=9999, month=12, day=31, hour=23, minute=59),
    dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC),
]  # fmt: skip


class RandomEvents:
    """Makes events; one in ten repeats an earlier one.

    tame: no values at the limits of their types, so that hardly any model's arithmetic fails on them.
    """

    def __init__(self, rng: random.Random, *, tame: bool) -> None:
        self._rng = rng
        self._tame = tame
        self._made: list[dict[str, Any]] = []

    def batch(self, size: int) -> list[dict[str, Any]]:
        """So many events in the order of arrival."""
        return [self._event() for _ in range(size)]

    def _event(self) -> dict[str, Any]:
        rng = self._rng
        if self._made and rng.random() < 0.1:
            return rng.choice(self._made)
        odd = rng.random() < 0.3  # of one event most values are plain, or most are not
        event = {
            "event_id": f"e{len(self._made)}",
            "quantity": self._one_of(_QUANTITIES[: 6 if self._tame else None], rng.randint(-3, 20), odd=odd),
            "small": self._one_of(_SMALLS, rng.randint(0, 5), odd=odd),
            "unit_price": _decimal(self._one_of(_PRICES, f"{rng.randint(-500, 5000) / 1000:.3f}", odd=odd)),
            "amount": _decimal(self._one_of(_AMOUNTS, f"{rng.randint(-500, 5000) / 100:.6f}", odd=odd)),
            "weight": self._one_of(
                _WEIGHTS, rng.choice([rng.random(), rng.gauss(0, 100), float(rng.randint(0, 4))]), odd=odd
            ),
            "ratio": self._one_of(_RATIOS, rng.randint(0, 8) / 8, odd=odd),
            "gift": self._one_of([None], rng.random() < 0.5, odd=odd),
            "invoiced_at": self._time(),
            "paid_at": self._one_of(_TIMES[: 2 if self._tame else None], self._time(), odd=odd),
            "customer_id": self._one_of([None, INT64_MAX], rng.choice([1, 2, 3, 40, 500]), odd=odd),
            "country": self._one_of(_COUNTRIES, rng.choice(["France", "Peru", "Île"]), odd=odd),
            "note": self._one_of(_NOTES, rng.choice(["a", "b", "c", "1", "2"]), odd=odd),
        }
        if not self._tame and rng.random() < 0.01:
            event["amount"] = Decimal(rng.choice(_LIMITS))
        self._made.append(event)
        return event

    def _one_of(self, rare: list[Any], usual: Any, *, odd: bool) -> Any:
        return self._rng.choice(rare) if self._rng.random() < (0.6 if odd else 0.05) else usual

    def _time(self) -> dt.datetime:
        """Most are of ten minutes; some lie exactly on a window's border, some a day behind, and few anywhere."""
        rng = self._rng
        chance = rng.random()
        if chance < 0.02 and not self._tame:
            return rng.choice([time for time in _TIMES if time is not None])
        late = dt.timedelta(days=rng.choice([0, 0, 0, 0, 1, 1, 2]))
        if chance < 0.2:
            return START + dt.timedelta(minutes=rng.choice([-480, -1, 0, 1, 5, 960])) - late
        return START + dt.timedelta(seconds=rng.randrange(600), microseconds=rng.randrange(10**6)) - late


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
