"""Reading the databases of a data folder: the live views' store (SQLite) and the published warehouse (DuckDB)."""

# ruff: noqa: S608 - SQL is put together here: names are quoted.

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb

from ingest_service.data.report import Progress, Report, ViewChecked

_BUSY_S = 10.0


def check_live_store(path: Path, report: Report, progress: Progress) -> None:
    """Every page of the live views' store, and how far each view is, at one moment."""
    if not path.is_file():
        return
    size = path.stat().st_size
    try:
        # Read-only, by URI: no other process is held up, and no file is made where there is none.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as connection:
            found = [row[0] for row in connection.execute("pragma integrity_check(20)")]
            for problem in found if found != ["ok"] else []:
                report.damaged(path, problem)
            rows = connection.execute("select view, stream, next_offset from tidemill_views order by view").fetchall()
    except sqlite3.DatabaseError as error:
        report.damaged(path, f"SQLite says: {error}")
        return
    report.views += [ViewChecked(*row) for row in rows]
    report.other.append("live store")
    progress(size)


def check_warehouse(path: Path, report: Report, progress: Progress) -> None:
    """Every block of the published warehouse: DuckDB checks a block's checksum when it reads it."""
    if not path.is_file():
        return
    size = path.stat().st_size
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            tables = connection.execute("select schema_name, table_name from duckdb_tables() where not internal")
            for schema, table in tables.fetchall():
                connection.execute(f"select bit_xor(hash(t)) from {_quoted(schema)}.{_quoted(table)} as t").fetchall()
    except duckdb.Error as error:
        report.damaged(path, f"DuckDB says: {' '.join(str(error).split())}")
        return
    report.other.append("warehouse")
    progress(size)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
