"""Published warehouses as the daily run leaves them, without a run."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow as pa


def publish(
    file: Path,
    tables: Mapping[str, pa.Table],
    reconciled: Mapping[tuple[str, dt.date], tuple[int, str]],
    *,
    with_definition: bool = True,
) -> None:
    """Write a warehouse with these tables, and put it in the published one's place.

    reconciled: seal offset and definition, by view and date; with_definition: whether the file says the latter.
    """
    work = file.with_suffix(".work")
    work.parent.mkdir(parents=True, exist_ok=True)
    work.unlink(missing_ok=True)
    definition = ", definition_hash varchar" if with_definition else ""
    with duckdb.connect(str(work)) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute("create table tidemill_published (run_id varchar, published_at timestamptz)")
        connection.execute("insert into tidemill_published values ('run', now())")
        columns = f"view varchar, date date, run_id varchar, seal_offset bigint{definition}"
        connection.execute(f"create table tidemill_reconciled ({columns})")
        for (view, date), (offset, by) in reconciled.items():
            values = [view, date, "run", offset, by][: 5 if with_definition else 4]
            connection.execute(f"insert into tidemill_reconciled values ({', '.join('?' * len(values))})", values)
        for name, table in tables.items():
            connection.register("rows_of", table)
            connection.execute(f"create table {name} as select * from rows_of")
        connection.execute("checkpoint")
    work.replace(file)
