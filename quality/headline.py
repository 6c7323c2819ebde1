"""The marts' headline of the published warehouse."""

# ruff: noqa: S608 - SQL is put together here: the one number is a constant.

from __future__ import annotations

from typing import Any

from quality.config import DayConfig
from quality.errors import RunWrong
from quality.publish import last_published

COUNTRIES_MAX = 5


def headline(config: DayConfig) -> dict[str, Any]:
    """Give orders, cancellations, customers, units, revenue and top countries of the dates published last.

    Amounts are Decimal: exact. Raises RunWrong before the first publication.
    """
    import duckdb

    published = last_published(config)
    if published is None:
        raise RunWrong(f"expected a published warehouse at {config.warehouse}; there is none. Run a day first")
    dates = [published["date"], published["last_date"]]
    with duckdb.connect(str(config.warehouse), read_only=True) as connection:
        sums = connection.execute(
            "select count(distinct invoice_no) filter (where not is_cancellation), "
            "count(distinct invoice_no) filter (where is_cancellation), count(*), "
            "coalesce(sum(quantity), 0)::bigint, coalesce(sum(line_amount), 0), count(distinct customer_id) "
            "from stg_order_lines where event_date between ?::date and ?::date",
            dates,
        ).fetchall()[0]
        countries = connection.execute(
            "select country, sum(revenue) as revenue, sum(orders)::bigint as orders from fct_daily_sales "
            f"where sales_date between ?::date and ?::date group by country order by revenue desc, country "
            f"limit {COUNTRIES_MAX}",
            dates,
        ).fetchall()
    orders, cancellations, lines, units, revenue, customers = sums
    return {
        "date": dates[0],
        "last_date": dates[1],
        "published_at": published["published_at"],
        "orders": orders,
        "cancellations": cancellations,
        "lines": lines,
        "units": units,
        "revenue": revenue,
        "customers": customers,
        "top_countries": [{"country": c, "revenue": r, "orders": o} for c, r, o in countries],
    }
