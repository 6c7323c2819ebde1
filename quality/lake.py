"""The lake as one run reads it: DuckDB connections that hold a view for each pinned stream."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quality.config import DayConfig
from quality.errors import LakeFailed, disk_full
from quality.run import Pin, Run
from tidemill.lake import EVENT_DATE, LakeError, identifier, lake_files, lake_query, source_tables

_DATE = re.compile(rf"{EVENT_DATE}=(\d{{4}}-\d\d-\d\d)")


def streams_of(config: DayConfig) -> dict[str, dict[str, str]]:
    """Give the streams that dbt's sources read, each with its columns (name → DuckDB type). Raises LakeFailed."""
    try:
        return source_tables(config.sources)
    except LakeError as error:
        raise LakeFailed(str(error)) from error


def pinned_query(config: DayConfig, stream: str, pin: Pin, below_offset: int) -> str:
    """Give the SQL that reads a stream's rows below an offset in its pinned version. Raises LakeFailed."""
    columns = streams_of(config).get(stream)
    if columns is None:
        raise LakeFailed(f"expected a source of stream {stream!r} in {config.sources}; found none. Run `make proto`")
    try:
        files = lake_files(pin.lake_uri, pin.lake_version) if below_offset else []
    except LakeError as error:
        raise LakeFailed(str(error)) from error
    return lake_query(files, columns, below_offset)


def lake_dates(run: Run) -> set[dt.date]:
    """Give every event date that has a file in the run's pinned versions. Raises LakeFailed."""
    found: set[dt.date] = set()
    for pin in run.streams.values():
        if pin.seal_offset:
            try:
                files = lake_files(pin.lake_uri, pin.lake_version)
            except LakeError as error:
                raise LakeFailed(str(error)) from error
            found |= {dt.date.fromisoformat(date) for file in files for date in _DATE.findall(file)}
    return found


@contextmanager
def pinned_lake(config: DayConfig, run: Run) -> Iterator[Any]:
    """Give a connection with a view per stream, over all that its pinned version holds up to its count of the log."""
    import duckdb

    with duckdb.connect(":memory:", config={"threads": 2}) as connection:
        connection.execute("set TimeZone = 'UTC'")
        for stream, pin in run.streams.items():
            below = max(pin.seal_offset, int(pin.counts.get("appended", 0)))
            connection.execute(f"create view {identifier(stream)} as {pinned_query(config, stream, pin, below)}")
        with reading_lake():
            yield connection


@contextmanager
def reading_lake() -> Iterator[None]:
    """Raise LakeFailed, which names the file, where DuckDB cannot read one of the lake's; a full disk stays one."""
    import duckdb

    try:
        yield
    except duckdb.IOException as error:
        if disk_full(error) is not None:
            raise
        raise LakeFailed(
            f"the lake cannot be read: {error}. A file that is lost was moved or deleted by hand"
        ) from error
