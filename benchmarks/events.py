"""The events that benchmarks send: order lines, as messages, as bytes and as a table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

import tidemill

_AT = dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC)
DESCRIPTION = "WHITE HANGING HEART T-LIGHT HOLDER"


def messages(stream: tidemill.Stream, count: int, name: str) -> Iterator[object]:
    """Valid order lines; their ids begin with `name`."""
    message = stream.message
    for i in range(count):
        yield message(
            event_id=f"{name}-{i:08d}", invoice_no="536365", stock_code=f"{i % 4000:05d}", description=DESCRIPTION,
            quantity=i % 12 + 1, unit_price="2.550", invoiced_at=_AT, customer_id=17850, country="United Kingdom",
        )  # fmt: skip


def serialized(stream: tidemill.Stream, count: int, name: str) -> list[bytes]:
    """The same as serialized messages."""
    return [message.SerializeToString() for message in messages(stream, count, name)]  # type: ignore[attr-defined]


def table(count: int, name: str) -> pa.Table:
    """The same as a table."""
    index = pa.array(range(count), pa.int64())
    ids = pc.binary_join_element_wise(name, pc.utf8_lpad(index.cast(pa.string()), 8, "0"), "-")
    codes = pc.utf8_lpad(_remainder(index, 4000).cast(pa.string()), 5, "0")
    return pa.table(
        {
            "event_id": ids,
            "invoice_no": pa.repeat("536365", count),
            "stock_code": codes,
            "description": pa.repeat(DESCRIPTION, count),
            "quantity": pc.add(_remainder(index, 12), 1),
            "unit_price": pa.repeat("2.550", count),
            "invoiced_at": pa.repeat(pa.scalar(_AT, pa.timestamp("us", tz="UTC")), count),
            "customer_id": pa.repeat(17850, count),
            "country": pa.repeat("United Kingdom", count),
        }
    )


def _remainder(index: pa.Array, divisor: int) -> pa.Array:
    return pc.subtract(index, pc.multiply(pc.divide(index, divisor), divisor))
