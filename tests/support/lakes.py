"""Rows for lake tables: a small stream, `payments`, and a day of a shop, `order_lines`."""

import datetime as dt
import random
from decimal import Decimal

import pyarrow as pa

_STAMP = pa.timestamp("us", tz="UTC")

COLUMNS = {
    "event_id": "VARCHAR", "amount": "DECIMAL(12,3)", "at": "TIMESTAMP WITH TIME ZONE", "_partition": "INTEGER",
    "_offset": "BIGINT", "_append_time": "TIMESTAMP WITH TIME ZONE", "event_date": "DATE",
}  # fmt: skip


def payments(first_offset: int, days: list[int]) -> pa.Table:
    """One row a day given (of December 2011), offsets counting up."""
    times = [dt.datetime(2011, 12, day, 8, 26, tzinfo=dt.UTC) for day in days]
    return pa.table(
        {
            "event_id": pa.array([f"e{first_offset + i}" for i in range(len(days))]),
            "amount": pa.array([Decimal("1.500")] * len(days), pa.decimal128(12, 3)),
            "at": pa.array(times, _STAMP),
            "_partition": pa.array([0] * len(days), pa.int32()),
            "_offset": pa.array(range(first_offset, first_offset + len(days)), pa.int64()),
            "_append_time": pa.array(times, _STAMP),
            "event_date": pa.array([time.date() for time in times], pa.date32()),
        }
    )


ORDER_LINES = {
    "event_id": "VARCHAR", "invoice_no": "VARCHAR", "stock_code": "VARCHAR", "description": "VARCHAR",
    "quantity": "BIGINT", "unit_price": "DECIMAL(12,3)", "invoiced_at": "TIMESTAMP WITH TIME ZONE",
    "customer_id": "BIGINT", "country": "VARCHAR", "_partition": "INTEGER", "_offset": "BIGINT",
    "_append_time": "TIMESTAMP WITH TIME ZONE", "event_date": "DATE",
}  # fmt: skip


def order_lines(rows: int, days: list[int], first_offset: int = 0, seed: int = 1) -> pa.Table:
    """Lines of the given days of December 2011, with what is odd in the real set.

    Some lines have no customer, no description, a price of 0 or below; some invoices are cancellations or adjustments,
    or span two minutes; some customers have two countries.
    """
    chance = random.Random(seed)
    lines = []
    for i in range(first_offset, first_offset + rows):
        invoice = 536365 + i // 3
        kind = {0: "C", 1: "A"}.get(invoice % 20, "")
        at = dt.datetime(2011, 12, days[invoice % len(days)], 8 + invoice % 9, 26, 59, tzinfo=dt.UTC)
        at += dt.timedelta(seconds=i % 3 if invoice % 7 == 0 else 0)
        lines.append(
            {
                "event_id": f"e{i}",
                "invoice_no": f"{kind}{invoice}",
                "stock_code": chance.choice(["85123A", "85123a", "POST", "22423", "M"]),
                "description": chance.choice(["LANTERN", " LANTERN ", None]),
                "quantity": -2 if kind == "C" else chance.choice([1, 6, 12, -3]),
                "unit_price": Decimal(chance.choice(["2.550", "0.000", "4.250"]))
                if kind != "A"
                else Decimal("-11062.060"),
                "invoiced_at": at,
                "customer_id": None if invoice % 4 == 0 else 12346 + invoice % 5,
                "country": chance.choice(["United Kingdom", "France"]) if invoice % 11 == 0 else "United Kingdom",
                "_partition": 0,
                "_offset": i,
                "_append_time": at + dt.timedelta(seconds=1),
                "event_date": at.date(),
            }
        )
    fields = {"_partition": pa.int32(), "unit_price": pa.decimal128(12, 3), "event_date": pa.date32()}
    fields |= dict.fromkeys(("invoiced_at", "_append_time"), _STAMP)
    fields |= dict.fromkeys(("quantity", "customer_id", "_offset"), pa.int64())
    return pa.Table.from_pylist(
        lines, schema=pa.schema([(name, fields.get(name, pa.string())) for name in ORDER_LINES])
    )
