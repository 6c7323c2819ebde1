"""Makes an audited work copy the warehouse that readers open, by one atomic rename.

    1. the copy is the published file of when the run began to build, still: nobody has published since
    2. what readers cannot use is dropped: views over the run's lake version
    3. the publication is written into it, in the tables below
    4. checkpoint, close: the file stands alone, without a write-ahead log
    5. fsync the file, put it among the versions, point the published name to it (see `quality.versions`)

Readers that have the old file open keep it. Published twice by the same run, the second time does nothing.

    tidemill_published    a row a publication: run, dates, pins, when
    tidemill_reconciled   a row a view and date: the run and the seal offset at which live and batch were equal, and by
                          which definition of the view; `another` where it was built by another one since
    tidemill_dates        a row a stream and date: the seal offset it was published with, and its rows below that
"""

# ruff: noqa: S608 - SQL is put together here: names are quoted, numbers are numbers.

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from quality.config import DayConfig
from quality.errors import PublishConflict, RunWrong
from quality.files import copy_file, replace_durably, write_atomically
from quality.lake import pinned_lake
from quality.run import Pin, Run
from quality.versions import is_in_place, put_in_place
from tidemill.lake import identifier

_TABLES = """
create table if not exists tidemill_published (
    run_id varchar not null,
    first_date date not null,
    last_date date not null,
    streams json not null,
    built_at timestamptz not null,
    published_at timestamptz not null
);
create table if not exists tidemill_reconciled (
    view varchar not null,
    date date not null,
    run_id varchar not null,
    seal_offset bigint not null
);
alter table tidemill_reconciled add column if not exists definition_hash varchar;
create table if not exists tidemill_dates (
    stream varchar not null,
    date date not null,
    run_id varchar not null,
    seal_offset bigint not null,
    rows bigint not null
)
"""


ANOTHER = "another"
"""In place of a definition's hash in tidemill_reconciled: the date agreed, but by another one it was built since."""


def take_copy(config: DayConfig, run_id: str, *, empty: bool = False) -> None:
    """Make the run's work copy: the published warehouse as it is now, or an empty one before the first publication.

    empty: an empty one in any case. `base.json` beside it says which publication it comes from, and when it was taken.
    Raises RunWrong when the published file is lost: an empty copy would be published without the dates before.
    """
    import duckdb

    if config.warehouse.is_symlink() and not config.warehouse.exists():
        raise RunWrong(
            f"expected the published warehouse {config.warehouse.resolve()}, to which {config.warehouse} leads; it is "
            "gone. Put it back, or the one of a backup; or remove the link, and run all dates again"
        )
    remove_copy(config, run_id)
    work = config.work_copy(run_id)
    work.parent.mkdir(parents=True)
    if config.warehouse.exists() and not empty:
        copy_file(config.warehouse, work)
    with duckdb.connect(str(work)) as connection:
        connection.execute(_TABLES)
        base = _last_publication(connection)
    content = {"publication": base, "taken_at": dt.datetime.now(dt.UTC).isoformat()}
    write_atomically(_base_file(config, run_id), json.dumps(content))


def remove_copy(config: DayConfig, run_id: str) -> None:
    """Remove the run's work copy, where there is one: its space is needed, or it is no longer."""
    shutil.rmtree(config.work_copy(run_id).parent, ignore_errors=True)


def drop_published_copy(config: DayConfig, run_id: str) -> None:
    """Remove the run's work copy where it is the published file: the run was killed right after it had published."""
    if is_in_place(config, config.work_copy(run_id)):
        remove_copy(config, run_id)


def has_copy(config: DayConfig, run_id: str) -> bool:
    """Whether the run has a work copy that was taken whole."""
    return config.work_copy(run_id).exists() and _base_file(config, run_id).exists()


def is_overtaken(config: DayConfig, run_id: str) -> bool:
    """Whether another run has published since the run's copy was taken."""
    base = json.loads(_base_file(config, run_id).read_text(encoding="utf-8"))
    return bool(base["publication"] != _current(config))


def publish(config: DayConfig, run: Run) -> dict[str, Any]:
    """Publish the run's work copy; give run, dates, when, the file, and late: stream → date → rows taken in by it.

    Raises PublishConflict when another run has published since the copy was taken, RunWrong when there is no copy.
    """
    import duckdb

    work = config.work_copy(run.run_id)
    drop_published_copy(config, run.run_id)
    if not work.exists():
        published = published_by(config, run.run_id)
        if published is None:
            raise RunWrong(f"run {run.run_id}: expected its work copy {work}; there is none. Run build again")
        return published
    base = json.loads(_base_file(config, run.run_id).read_text(encoding="utf-8"))
    _check_base(config, run, base["publication"])  # 1
    dates = _rows_by_date(config, run)
    with duckdb.connect(str(work)) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(_TABLES)
        _drop_lake_views(connection)  # 2
        late = _taken_late(config, dates)
        _mark_redefined(connection, run)  # 3
        _replace(connection, "tidemill_reconciled", "view", _reconciled(run))
        _replace(connection, "tidemill_dates", "stream", dates)
        at = _time_of_publication(connection)
        connection.execute("delete from tidemill_published where run_id = ?", [run.run_id])
        connection.execute(
            "insert into tidemill_published values (?, ?, ?, ?, ?, ?)",
            [run.run_id, run.date, run.last_date, _streams(config, run), base["taken_at"], at],
        )
        connection.execute("checkpoint")  # 4
    put_in_place(config, work, run.run_id)  # 5
    remove_copy(config, run.run_id)
    result = published_by(config, run.run_id)
    assert result is not None, "the publication was written before the rename"
    return {**result, "late": late}


def keep(config: DayConfig, run: Run) -> dict[str, Any]:
    """Keep the work copy of a run as of another one in the run's folder: it is compared, never published."""
    import duckdb

    work, kept = config.work_copy(run.run_id), config.run_folder(run.run_id) / config.warehouse.name
    if work.exists():
        with duckdb.connect(str(work)) as connection:
            _drop_lake_views(connection)
            connection.execute("checkpoint")
        replace_durably(work, kept)
        remove_copy(config, run.run_id)
    if not kept.exists():
        raise RunWrong(f"run {run.run_id}: expected its work copy {work}; there is none. Run build again")
    return {
        "run_id": run.run_id,
        "date": run.date,
        "last_date": run.last_date,
        "published": False,
        "note": f"as of run {run.options.as_of}: not published",
        "warehouse": str(kept),
        "size_bytes": kept.stat().st_size,
    }


def published_pins(config: DayConfig) -> dict[str, Pin]:
    """Give the pins of the published warehouse, by stream; none before the first publication."""
    rows = _ask(config, "select streams from tidemill_published order by published_at desc limit 1")
    pins = json.loads(rows[0][0]) if rows else {}
    # An older release kept two of the fields.
    return {name: Pin(**{"lake_uri": _own_lake(config, name), **pin, "fresh": False}) for name, pin in pins.items()}


def is_stale(config: DayConfig, run: Run) -> bool:
    """Whether the published warehouse has been built from more of a stream than the run has pinned."""
    published = published_pins(config)
    return any(name in published and pin.seal_offset < published[name].seal_offset for name, pin in run.streams.items())


def published_by(config: DayConfig, run_id: str) -> dict[str, Any] | None:
    """Give a run's publication, or None when it has not published."""
    return _published(config, run_id)


def last_published(config: DayConfig) -> dict[str, Any] | None:
    """Give the last publication of the published warehouse, or None before the first."""
    return _published(config, None)


def publications(config: DayConfig) -> list[dict[str, Any]]:
    """Give every publication, the last one first: run_id, first_date, last_date, published_at."""
    rows = _ask(
        config,
        "select run_id, first_date, last_date, published_at from tidemill_published order by published_at desc",
    )
    return [
        {"run_id": run, "first_date": str(first), "last_date": str(last), "published_at": at.isoformat()}
        for run, first, last, at in rows
    ]


def published_dates(config: DayConfig) -> list[tuple[str, dt.date, str, int, int]]:
    """Give stream, date, run, seal offset and rows below it, for every date as it was last published."""
    found = _ask(config, "select stream, date, run_id, seal_offset, rows from tidemill_dates order by all")
    return [(str(stream), date, str(run), int(offset), int(rows)) for stream, date, run, offset, rows in found]


def agreed(config: DayConfig, view: str) -> dict[dt.date, int]:
    """Give date → the seal offset at which live and batch were found equal last, for the dates of a view."""
    return dict(_ask(config, "select date, seal_offset from tidemill_reconciled where view = ?", [view]))


def _base_file(config: DayConfig, run_id: str) -> Path:
    return config.work_copy(run_id).with_name("base.json")


def _check_base(config: DayConfig, run: Run, base: str) -> None:
    current = _current(config)
    if current != base:
        raise PublishConflict(
            f"run {run.run_id}: its copy was made from publication {base or 'none'}, but {current or 'none'} is "
            "published now. Run build again, and the stages after it: what the other run published would be lost"
        )


def _current(config: DayConfig) -> str:
    """Name the publication that readers see; empty before the first."""
    import duckdb

    if not config.warehouse.exists():
        return ""
    with duckdb.connect(str(config.warehouse), read_only=True) as connection:
        return _last_publication(connection)


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


def _rows_by_date(config: DayConfig, run: Run) -> list[tuple[str, str, str, int, int]]:
    """Count the rows of the run's dates below its seals, for each stream that it sealed."""
    found = []
    with pinned_lake(config, run) as connection:
        for stream, pin in run.fresh.items():
            counts = dict(
                connection.execute(
                    f"select cast(event_date as varchar), count(*) from {identifier(stream)} "
                    f"where _offset < {int(pin.seal_offset)} and event_date between ? and ? group by all",
                    [run.date, run.last_date],
                ).fetchall()
            )
            found += [
                (stream, str(date), run.run_id, pin.seal_offset, int(counts.get(str(date), 0))) for date in run.dates
            ]
    return found


def _taken_late(config: DayConfig, rows: Iterable[tuple[str, str, str, int, int]]) -> dict[str, dict[str, int]]:
    """Give stream → date → rows that the last publication of the date did not have: those that came late.

    Asked of the published file: the copy may say already what this run counted, if it was to be published before.
    """
    before = {(stream, str(date)): count for stream, date, _, _, count in published_dates(config)}
    late: dict[str, dict[str, int]] = {}
    for stream, date, _, _, count in rows:
        if (more := count - before.get((stream, date), count)) > 0:
            late.setdefault(stream, {})[date] = more
    return late


def _reconciled(run: Run) -> list[tuple[str, str, str, int, str | None]]:
    views = run.stages["reconcile"]["result"].get("views", {}) if "reconcile" in run.stages else {}
    return [
        (name, str(date), run.run_id, run.streams[view["stream"]].seal_offset, view.get("definition_hash"))
        for name, view in views.items()
        # Of a view that follows another definition than was built, batch has other rows than live: it is not read so.
        if view["compared"] and not view.get("explained")
        for date in run.dates
    ]


def _mark_redefined(connection: Any, run: Run) -> None:
    """Say of dates that agreed before, and are now built by another definition than live follows, that they are so.

    A view that is not built by day has been built anew for all dates.
    """
    views = run.stages["reconcile"]["result"].get("views", {}) if "reconcile" in run.stages else {}
    for name, view in views.items():
        if view.get("explained"):
            by_day = view.get("by_day") and not run.options.full_refresh
            of_dates, dates = (" and date between ? and ?", [run.date, run.last_date]) if by_day else ("", [])
            connection.execute(
                f"update tidemill_reconciled set definition_hash = ? where view = ?{of_dates}", [ANOTHER, name, *dates]
            )


def _time_of_publication(connection: Any) -> dt.datetime:
    """Give the time, later than any publication's before: the last one is found by it, and a clock may be set back."""
    row = connection.execute(
        "select greatest(now(), max(published_at) + interval 1 microsecond) from tidemill_published"
    ).fetchone()
    at: dt.datetime = row[0]
    return at


def _replace(connection: Any, table: str, key: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Put rows in the place of those of the same key and date, which they begin with.

    All at once: one after another takes half a minute for a year of some views.
    """
    import pyarrow as pa

    if not rows:
        return
    columns = [pa.array(column) for column in zip(*rows, strict=True)]
    connection.register("rows_now", pa.table(columns, [f"c{place}" for place in range(len(columns))]))
    try:
        same = f"{table}.{key} = n.c0 and {table}.date = cast(n.c1 as date)"
        connection.execute(f"delete from {table} using rows_now n where {same}")
        connection.execute(f"insert into {table} from rows_now")
    finally:
        connection.unregister("rows_now")


def _streams(config: DayConfig, run: Run) -> str:
    fields = ("seal_offset", "lake_uri", "lake_version", "lake_offset", "sealed_at")
    pins = {name: {field: getattr(pin, field) for field in fields} for name, pin in run.streams.items()}
    for name, pin in pins.items():
        # The lake of this data folder is found wherever that is: it may be moved, or restored elsewhere.
        if pin["lake_uri"] == _own_lake(config, name):
            del pin["lake_uri"]
    return json.dumps(pins)


def _own_lake(config: DayConfig, stream: str) -> str:
    return str(config.data / "lake" / stream)


def _ask(config: DayConfig, sql: str, values: Iterable[object] = ()) -> list[tuple[Any, ...]]:
    """Ask the published warehouse; nothing before the first publication, nor of a table that an older one lacks."""
    import duckdb

    if not config.warehouse.exists():
        return []
    with duckdb.connect(str(config.warehouse), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        try:
            rows: list[tuple[Any, ...]] = connection.execute(sql, list(values)).fetchall()
        except duckdb.CatalogException:
            return []
    return rows


def _published(config: DayConfig, run_id: str | None) -> dict[str, Any] | None:
    rows = _ask(
        config,
        "select run_id, first_date, last_date, published_at, (select max(last_date) from tidemill_published) "
        "from tidemill_published where run_id = coalesce(?, run_id) order by published_at desc limit 1",
        [run_id],
    )
    if not rows:
        return None
    run, first, last, published_at, last_date = rows[0]
    return {
        "run_id": run,
        "date": str(first),
        "last_date": str(last),
        "published_at": published_at.isoformat(),
        "last_published_date": str(last_date),
        "warehouse": str(config.warehouse),
        "size_bytes": config.warehouse.stat().st_size,
    }
