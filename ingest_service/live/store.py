"""Where live views keep their rows: any database that SQLAlchemy and this file's two upserts know.

SQLite (WAL, readable by anyone while it is written) is the default; PostgreSQL takes the same path. What one
transaction writes (rows, states, checkpoint) is there as a whole or not at all.
"""

from __future__ import annotations

import datetime as dt
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from ingest_service.errors import ConfigError, StorageError
from ingest_service.live.description import ViewDescription
from ingest_service.live.statements import Statements
from ingest_service.live.tables import REBUILD, ViewTables, bookkeeping, checkpoints, reconciled, seals

_log = logging.getLogger(__name__)

_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_KEYS_AT_ONCE = 500  # bound parameters of one statement; SQLite's oldest limit is 999
_KEYS_ONE_BY_ONE = 5_000  # more of them may be found sooner by reading the table
_BUSY_MS = 10_000
_CACHE_KIB = 65_536  # for each connection that needs so much
NEVER_US = -(1 << 62)
"""A time before all others, in µs since 1970."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a view is: its rows are those of the log strictly below `offset`.

    event_time_max_us, append_time_max_us: the largest seen, in µs since 1970. watermark_us follows from both, and from
    the wall clock while the stream is idle. expired_before_us: windows that began before it have left the view.
    """

    offset: int = 0
    event_time_max_us: int | None = None
    append_time_max_us: int | None = None
    watermark_us: int | None = None
    expired_before_us: int | None = None


_SAVE = (
    sa.update(checkpoints)
    .where(
        checkpoints.c.view == sa.bindparam("name"),
        checkpoints.c.build == sa.bindparam("of_build"),
        checkpoints.c.next_offset == sa.bindparam("was"),
    )
    .values(
        {
            name: sa.bindparam(name)
            for name in ("next_offset", "event_time_max_us", "append_time_max_us", "watermark_us", "expired_before_us")
        }
    )
)


@dataclass(frozen=True, slots=True)
class StoredView:
    """A view as the store has it. model: JSON; build: names the rows as made from the first event on, once."""

    description: ViewDescription
    checkpoint: Checkpoint
    build: str
    model: str


class Store:
    """The database; thread-safe. Writers take turns, readers see the last committed transaction."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._writing = threading.Lock()  # SQLite has one writer; waiting here is fairer than its busy loop
        self._insert = _INSERTS[self.engine.dialect.name]
        self._statements: dict[sa.Table, Statements] = {}
        try:
            self._prepare()
        except StorageError as error:
            if not _is_damaged(error):
                raise
            self._set_aside()
            self._prepare()

    def _prepare(self) -> None:
        with self.write() as transaction:
            transaction.drop_older_format()
            bookkeeping.create_all(transaction.connection)

    def _set_aside(self) -> None:
        """Renames a damaged SQLite file: all that is in it can be made again from log and lake."""
        self.engine.dispose()
        file = Path(str(self.engine.url.database))
        aside = file.with_name(f"{file.name}.damaged-{time.time_ns()}")
        _log.error("the live views' store %s is damaged; it is kept as %s, and all views are rebuilt", file, aside.name)
        for suffix in ("-wal", "-shm", ""):
            part = file.with_name(file.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))

    @contextmanager
    def write(self) -> Iterator[WriteTransaction]:
        """A transaction that commits at the end of the block, and is undone when the block raises."""
        with self._writing, _as_storage_error(), self.engine.connect() as connection:
            connection.execution_options(tidemill_begin="BEGIN IMMEDIATE")
            with connection.begin():
                yield WriteTransaction(connection, self._insert, self._statements)

    @contextmanager
    def read(self) -> Iterator[ReadTransaction]:
        """One view on the database, unmoved by what is written meanwhile."""
        with _as_storage_error(), self.engine.connect() as connection:
            if self.engine.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield ReadTransaction(connection)

    def close(self) -> None:
        """Lets go of all connections."""
        self.engine.dispose()


class ReadTransaction:
    """Reads within one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection

    def load(self, table: str) -> StoredView | None:
        """What the store has under that name: a view's, or a view's with REBUILD behind it."""
        row = self.connection.execute(sa.select(checkpoints).where(checkpoints.c.view == table)).mappings().first()
        if row is None:
            return None
        at = Checkpoint(
            row["next_offset"],
            row["event_time_max_us"],
            row["append_time_max_us"],
            row["watermark_us"],
            row["expired_before_us"],
        )
        return StoredView(ViewDescription.from_json(row["description"]), at, row["build"], row["model"])

    def names(self) -> list[str]:
        """The views that the store has, those that are being rebuilt with REBUILD behind their names."""
        return list(self.connection.execute(sa.select(checkpoints.c.view)).scalars())

    def missing(self, tables: ViewTables) -> list[str]:
        """Which of a view's tables the database does not have."""
        inspector = sa.inspect(self.connection)
        return [table.name for table in tables.all if not inspector.has_table(table.name)]

    def count(self, table: str) -> int:
        """How many rows a table has."""
        return int(self.connection.execute(sa.select(sa.func.count()).select_from(sa.table(table))).scalar_one())

    def is_sealed(self, view: str, first: str, last: str, seal_offset: int) -> bool:
        """Whether the view has the copy that was made at that seal."""
        key = sa.and_(
            seals.c.view == view,
            seals.c.first_date == first,
            seals.c.last_date == last,
            seals.c.seal_offset == seal_offset,
        )
        return self.connection.execute(sa.select(seals.c.view).where(key)).first() is not None

    def reconciled(self, view: str) -> dict[str, int]:
        """The dates on which the view was found equal to batch, each with the seal at which it was."""
        statement = sa.select(reconciled.c.date, reconciled.c.seal_offset).where(reconciled.c.view == view)
        rows: list[Any] = list(self.connection.execute(statement))
        return {str(date): int(offset) for date, offset in rows}

    def window_dates(self, tables: ViewTables, *, before: str) -> list[tuple[str, int]]:
        """The dates below one on which windows begin, in order, each with the offset at which one last changed."""
        window = tables.visible.c[tables.description.window_column]
        date = sa.func.substr(window, 1, 10)
        statement = sa.select(date, sa.func.max(tables.visible.c["_changed"])).where(window < before)
        rows: list[Any] = list(self.connection.execute(statement.group_by(date).order_by(date)))
        return [(str(day), int(changed)) for day, changed in rows]


class WriteTransaction(ReadTransaction):
    """Reads and writes within one transaction."""

    def __init__(self, connection: sa.Connection, insert: Any, statements: dict[sa.Table, Statements]) -> None:
        super().__init__(connection)
        self._insert = insert
        self._known_statements = statements

    def _statements(self, tables: ViewTables) -> Statements:
        if tables.visible not in self._known_statements:
            self._known_statements[tables.visible] = Statements(tables, self._insert, self.connection.dialect)
        return self._known_statements[tables.visible]

    def drop_older_format(self) -> None:
        """Drops views whose tables are of an earlier format: they are made again from the first event on."""
        inspector = sa.inspect(self.connection)
        if not inspector.has_table(checkpoints.name):
            return
        if "build" not in {column["name"] for column in inspector.get_columns(checkpoints.name)}:
            for name in self.names():
                self._drop_tables(name)
            for table in (checkpoints, seals):
                table.drop(self.connection)

    def create(self, tables: ViewTables, model: str, build: str, expired_before_us: int | None = None) -> Checkpoint:
        """Makes a view's tables, empty, at offset 0; those that stand in their place are dropped."""
        self.drop(tables.name)
        tables.visible.metadata.create_all(self.connection, checkfirst=False)
        row = {"view": tables.name, "next_offset": 0, "model": model, "build": build}
        row |= {"expired_before_us": expired_before_us, **_described(tables.description)}
        self.connection.execute(sa.insert(checkpoints), [row])
        return Checkpoint(expired_before_us=expired_before_us)

    def describe(self, tables: ViewTables, model: str) -> None:
        """Keeps what has changed about a view beside its rows."""
        values = {"model": model, **_described(tables.description)}
        self.connection.execute(sa.update(checkpoints).where(checkpoints.c.view == tables.name).values(values))

    def drop(self, name: str) -> None:
        """Drops a view's tables, whatever definition they had, and forgets it."""
        self._drop_tables(name)
        for table in (checkpoints, seals):
            self.connection.execute(sa.delete(table).where(table.c.view == name))

    def _drop_tables(self, name: str) -> None:
        for suffix in ("", "__state", "__distinct", "__sealed"):
            sa.Table(name + suffix, sa.MetaData()).drop(self.connection, checkfirst=True)

    def forget_reconciled(self, view: str) -> None:
        """Forgets on which dates a view was found equal to batch."""
        self.connection.execute(sa.delete(reconciled).where(reconciled.c.view == view))

    def swap(self, view: str) -> None:
        """Puts a view's rebuilt tables in place of its old ones."""
        self.drop(view)
        quote = self.connection.dialect.identifier_preparer.quote
        for suffix in ("", "__state", "__distinct", "__sealed"):
            old, new = quote(view + REBUILD + suffix), quote(view + suffix)
            self.connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")
        for table in (checkpoints, seals):
            self.connection.execute(sa.update(table).where(table.c.view == view + REBUILD).values(view=view))

    def states(self, tables: ViewTables, keys: Sequence[str]) -> list[Any]:
        """The stored rows `_key, s0, …` of those of the groups that have been seen before."""
        if len(keys) > _KEYS_ONE_BY_ONE and self.count(tables.state.name) < 4 * len(keys):
            wanted = set(keys)
            return [row for row in self.connection.execute(sa.select(tables.state)) if row[0] in wanted]
        rows: list[Any] = []
        statement = self._statements(tables).states
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            rows += self.connection.execute(statement, {"keys": keys[start : start + _KEYS_AT_ONCE]}).all()
        return rows

    def add_values(
        self, tables: ViewTables, state: int, values: Sequence[tuple[str, str]], known: set[str]
    ) -> list[str]:
        """Adds (key, value) pairs to the set that a state counts; gives the key of each pair that was new.

        values: without repeats. known: the keys that have been seen before; only their values can be old.
        """
        statements = self._statements(tables)
        fresh = [(key, state, value) for key, value in values if key not in known]
        perhaps = [{"_key": key, "state": state, "value": value} for key, value in values if key in known]
        statements.new_values.run(self.connection, fresh)
        added = [row[0] for row in fresh]
        if perhaps:
            added += self.connection.execute(statements.values, perhaps).scalars().all()
        return added

    def replace(self, tables: ViewTables, rows: Sequence[tuple[Any, ...]], offset: int) -> None:
        """Writes rows over what they were; a row is `_key`, the visible columns, `_corrected`, the states.

        offset: what the commit reaches.
        """
        statements = self._statements(tables)
        width = 1 + len(tables.visible_columns)
        changed = [(*row[1:width], row[0], offset, row[width]) for row in rows]
        statements.replace_visible.run(self.connection, changed)
        if not tables.description.is_of_events:
            statements.replace_states.run(self.connection, [(row[0], *row[width + 1 :]) for row in rows])

    def confirm(self, tables: ViewTables, dates: Sequence[str], seal_offset: int) -> None:
        """Notes that the copy of these dates at that seal was found equal to batch; earlier copies of them go."""
        insert = self._insert(reconciled)
        latest = insert.on_conflict_do_update(
            index_elements=["view", "date"],
            set_={"seal_offset": insert.excluded.seal_offset},
            where=reconciled.c.seal_offset < insert.excluded.seal_offset,
        )
        rows = [{"view": tables.name, "date": date, "seal_offset": seal_offset} for date in dates]
        self.connection.execute(latest, rows)
        for table, offset in ((tables.sealed, "_seal_offset"), (seals, "seal_offset")):
            first, last = ("_first_date", "_last_date") if table is tables.sealed else ("first_date", "last_date")
            same = [table.c[first] == dates[0], table.c[last] == dates[-1], table.c[offset] < seal_offset]
            if table is seals:
                same.append(seals.c.view == tables.name)
            self.connection.execute(sa.delete(table).where(*same))

    def expire(self, tables: ViewTables, before: str) -> None:
        """Deletes all windows that began before a date, with their states, and copies of dates before it."""
        visible = tables.visible
        gone = visible.c[tables.description.window_column] < before
        keys = sa.select(visible.c["_key"]).where(gone)
        for table in (tables.state, tables.distinct):
            self.connection.execute(sa.delete(table).where(table.c["_key"].in_(keys)))
        self.connection.execute(sa.delete(visible).where(gone))
        self.connection.execute(sa.delete(tables.sealed).where(tables.sealed.c["_last_date"] < before))
        self.connection.execute(sa.delete(seals).where(seals.c.view == tables.name, seals.c.last_date < before))

    def seal(self, tables: ViewTables, first: dt.date, last: dt.date, seal_offset: int) -> None:
        """Copies the visible rows whose windows begin in the dates (a view without windows: all of them).

        A copy that was made before for the same dates and offset is replaced.
        """
        seal: dict[str, Any] = {
            "_first_date": first.isoformat(),
            "_last_date": last.isoformat(),
            "_seal_offset": seal_offset,
        }
        sealed, visible = tables.sealed, tables.visible
        self.connection.execute(sa.delete(sealed).where(*(sealed.c[name] == value for name, value in seal.items())))
        rows = sa.select(*(sa.literal(value) for value in seal.values()), visible.c["_key"], *tables.visible_columns)
        window = tables.description.window_column
        if window:
            # Times are ISO text here, so they stand between the dates' own texts as they do in time.
            after = (last + dt.timedelta(days=1)).isoformat()
            rows = rows.where(visible.c[window] >= first.isoformat(), visible.c[window] < after)
        names = [*seal, "_key", *(column.name for column in tables.visible_columns)]
        self.connection.execute(sa.insert(sealed).from_select(names, rows))
        row = {"first_date": first.isoformat(), "last_date": last.isoformat(), "seal_offset": seal_offset}
        statement = self._insert(seals).on_conflict_do_nothing()
        self.connection.execute(statement, [{"view": tables.name, **row}])

    def save(self, name: str, checkpoint: Checkpoint, *, build: str, was: int) -> None:
        """Writes how far a view is, which was at offset `was` before.

        Raises StorageError when it was not: a commit of which the answer was lost had been made, and what this
        transaction merged is in the tables already.
        """
        values = {
            "next_offset": checkpoint.offset,
            "event_time_max_us": checkpoint.event_time_max_us,
            "append_time_max_us": checkpoint.append_time_max_us,
            "watermark_us": checkpoint.watermark_us,
            "expired_before_us": checkpoint.expired_before_us,
        }
        saved = self.connection.execute(_SAVE, {"name": name, "of_build": build, "was": was, **values})
        if saved.rowcount != 1:
            raise StorageError(f"the live views' store has {name} at another offset than {was}; it is looked up again")


def _described(description: ViewDescription) -> dict[str, Any]:
    return {
        "stream": description.stream,
        "definition_hash": description.definition_hash,
        "description": description.to_json(),
    }


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise ConfigError(
            f"the live views' store {url!r} is no database URL, such as sqlite:////folder/live.sqlite"
        ) from error
    if parsed.get_backend_name() not in _INSERTS:
        raise ConfigError(f"live views can be kept in {' and '.join(_INSERTS)}, not in {parsed.get_backend_name()}")
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigError("the live views' store must be a file: sqlite:////folder/live.sqlite")
        try:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the folder of the live views' store {parsed.database} cannot be made: {error}"
            ) from error
    if parsed.drivername == "postgresql":  # without a driver named: the one that the extra `postgres` brings
        parsed = parsed.set(drivername="postgresql+psycopg2")
    try:
        engine = sa.create_engine(parsed)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the live views' store {parsed.render_as_string()} needs the driver {error.name}, which is not installed: "
            "pip install 'tidemill[postgres]'"
        ) from error
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # The driver's own transactions begin late and only for writes; ours begin where SQLAlchemy says.
    connection.isolation_level = None
    for pragma in (
        "journal_mode = WAL",
        "synchronous = NORMAL",
        f"busy_timeout = {_BUSY_MS}",
        "temp_store = MEMORY",
        f"cache_size = -{_CACHE_KIB}",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("tidemill_begin", "BEGIN"))


def _is_damaged(error: StorageError) -> bool:
    """Whether SQLite says that the file is no database, or that its pages do not fit together."""
    cause = getattr(error.__cause__, "orig", None)
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@contextmanager
def _as_storage_error() -> Iterator[None]:
    try:
        yield
    except sa.exc.SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise StorageError(f"the live views' store failed: {cause}; it is tried again") from error


def with_watermark(checkpoint: Checkpoint, out_of_orderness_s: int) -> Checkpoint:
    """The checkpoint with the watermark that follows from what it has seen; it never moves back."""
    if checkpoint.event_time_max_us is None or checkpoint.append_time_max_us is None:
        return checkpoint
    watermark = min(checkpoint.event_time_max_us - out_of_orderness_s * 1_000_000, checkpoint.append_time_max_us)
    return replace(checkpoint, watermark_us=max(watermark, checkpoint.watermark_us or watermark))
