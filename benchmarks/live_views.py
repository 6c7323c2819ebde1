"""The live views that are measured, as SQL over the stream `order_lines`."""

from __future__ import annotations

from pathlib import Path

_EVENTS = '"warehouse"."events"."order_lines"'


def _by(*groups: str) -> str:
    """Lines, units and revenue by some columns."""
    columns = ["count(*) AS lines", "sum(quantity) AS units", "sum(quantity * unit_price) AS revenue"]
    return f"SELECT {', '.join([*groups, *columns])} FROM {_EVENTS} WHERE quantity > 0 GROUP BY ALL"


def _window(width: str) -> str:
    return f"time_bucket(interval '{width}', invoiced_at) AS window_start"


BY_MINUTE = _by(_window("1 minute"), "country")
BY_CUSTOMER = _by("customer_id")

ALIKE = {
    "by_1_minute": BY_MINUTE,
    "by_2_minutes": _by(_window("2 minutes"), "country"),
    "by_3_minutes": _by(_window("3 minutes"), "country"),
    "by_5_minutes": _by(_window("5 minutes"), "country"),
    "by_10_minutes": _by(_window("10 minutes"), "country"),
    "by_hour": _by(_window("1 hour"), "country"),
    "by_article": _by("stock_code"),
    "by_country": _by("country"),
}
"""Eight views of one stream: the first is the one that is replayed alone; together they need one more column."""


def over(parquet: Path, view: str) -> str:
    """The same query over a folder of Parquet files."""
    return view.replace(_EVENTS, f"read_parquet('{parquet}/*.parquet')")
