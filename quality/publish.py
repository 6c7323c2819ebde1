"""Makes an audited work copy the warehouse that readers open, by one atomic rename.

    1. the copy is the published file of when the run began to build, still: nobody has published since
    2. what readers cannot use is dropped: views over the run's lake version
    3. the publication is written into it, in table `tidemill_published`
    4. checkpoint, close: the file stands alone, without a write-ahead log
    5. fsync the file, rename it over the published one, fsync the folder

Readers that have the old file open keep it. Published twice by the same run, the second time does nothing.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

from quality.config import DayConfig
from quality.errors import PublishConflict, RunWrong
from quality.files import copy_file, replace_durably, write_atomically
from quality.run import Run
from tidemill.lake import identifier

_TABLE = """
create table if not exists tidemill_published (
    run_id varchar not null,
    first_date date not null,
    last_date date not null,
    streams json not null,
    built_at timestamptz not null,
    published_at timestamptz not null
)
"""


def take_copy(config: DayConfig, run_id: str) -> None:
    """Make the run's work copy: the published warehouse as it is now, or an empty one before the first publication.

    `base.json` beside it says which publication it comes from, and when it was taken.
    """
    import duckdb

    work = config.work_copy(run_id)
    shutil.rmtree(work.parent, ignore_errors=True)
    work.parent.mkdir(parents=True)
    if config.warehouse.exists():
        copy_file(config.warehouse, work)
    with duckdb.connect(str(work)) as connection:
        connection.execute(_TABLE)
        base = _last_publication(connection)
    content = {"publication": base, "taken_at": dt.datetime.now(dt.UTC).isoformat()}
    write_atomically(_base_file(config, run_id), json.dumps(content))


def publish(config: DayConfig, run: Run) -> dict[str, Any]:
    """Publish the run's work copy; give run, dates, when, and the file.

    Raises PublishConflict when another run has published since the copy was taken, RunWrong when there is no copy.
    """
    import duckdb

    work = config.work_copy(run.run_id)
    if not work.exists():
        published = _published(config.warehouse, run.run_id)
        if published is None:
            raise RunWrong(f"run {run.run_id}: expected its work copy {work}; there is none. Run build again")
        return published
    base = json.loads(_base_file(config, run.run_id).read_text(encoding="utf-8"))
    _check_base(config, run, base["publication"])  # 1
    with duckdb.connect(str(work)) as connection:
        connection.execute("set TimeZone = 'UTC'")
        _drop_lake_views(connection)  # 2
        connection.execute("delete from tidemill_published where run_id = ?", [run.run_id])
        connection.execute(  # 3
            "insert into tidemill_published values (?, ?, ?, ?, ?, now())",
            [run.run_id, run.date, run.last_date, _streams(run), base["taken_at"]],
        )
        connection.execute("checkpoint")  # 4
    replace_durably(work, config.warehouse)  # 5
    shutil.rmtree(work.parent)
    result = _published(config.warehouse, run.run_id)
    assert result is not None, "the publication was written before the rename"
    return result


def last_published(config: DayConfig) -> dict[str, Any] | None:
    """Give the last publication of the published warehouse, or None before the first."""
    return _published(config.warehouse, None)


def _base_file(config: DayConfig, run_id: str) -> Path:
    return config.work_copy(run_id).with_name("base.json")


def _check_base(config: DayConfig, run: Run, base: str) -> None:
    current = ""
    if config.warehouse.exists():
        import duckdb

        with duckdb.connect(str(config.warehouse), read_only=True) as connection:
            current = _last_publication(connection)
    if current != base:
        raise PublishConflict(
            f"run {run.run_id}: its copy was made from publication {base or 'none'}, but {current or 'none'} is "
            "published now. Run build again, and the stages after it: what the other run published would be lost"
        )


def _last_publication(connection: Any) -> str:
    rows = connection.execute(
        "select run_id || ' ' || epoch_us(published_at) from tidemill_published order by published_at desc limit 1"
    ).fetchall()
    return str(rows[0][0]) if rows else ""


def _drop_lake_views(connection: Any) -> None:
    """Drop the sources' schemas: their views name relations that exist only inside dbt's process."""
    schemas = connection.execute(
        "select distinct schema_name from duckdb_views() where not internal and database_name = current_database() "
        "and schema_name <> 'main'"
    ).fetchall()
    for (schema,) in schemas:
        connection.execute(f"drop schema {identifier(schema)} cascade")


def _streams(run: Run) -> str:
    return json.dumps(
        {name: {"seal_offset": pin.seal_offset, "lake_version": pin.lake_version} for name, pin in run.streams.items()}
    )


def _published(warehouse: Path, run_id: str | None) -> dict[str, Any] | None:
    import duckdb

    if not warehouse.exists():
        return None
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        rows = connection.execute(
            "select run_id, first_date, last_date, published_at from tidemill_published "
            "where run_id = coalesce(?, run_id) order by published_at desc limit 1",
            [run_id],
        ).fetchall()
    if not rows:
        return None
    run, first, last, published_at = rows[0]
    return {
        "run_id": run,
        "date": str(first),
        "last_date": str(last),
        "published_at": published_at.isoformat(),
        "warehouse": str(warehouse),
        "size_bytes": warehouse.stat().st_size,
    }
