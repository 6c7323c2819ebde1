"""Plain DuckDB over the Parquet files: no service, no log, no state; what no live view can beat by much."""

from __future__ import annotations

import time

import duckdb


def seconds(query: str) -> tuple[float, int]:
    """How long DuckDB takes for a query over Parquet files, on all cores; and how many rows it gives."""
    with duckdb.connect() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        start = time.perf_counter()
        rows = duck.sql(query).to_arrow_table()
        return time.perf_counter() - start, rows.num_rows
