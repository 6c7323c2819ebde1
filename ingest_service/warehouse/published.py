"""The published warehouse: a DuckDB file by a name that leads to another one whenever a day is published.

It has, beside the models' tables:

    tidemill_published(run_id, first_date, last_date, streams, built_at, published_at)    a row a publication
    tidemill_reconciled(view, date, run_id, seal_offset)    a row a view and date: it was found equal to live at that
                                                            seal; by which definition, where it has definition_hash
"""

# ruff: noqa: S608 - SQL is put together here: names are quoted, values are parameters.

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from ingest_service.errors import StorageError

_NAME = "published"
_MAIN = "main"


@dataclass(frozen=True, slots=True)
class BatchTable:
    """A model's table. relation: its name in SQL, quoted. types: its columns' DuckDB types, by name."""

    relation: str
    types: dict[str, str]


class PublishedWarehouse:
    """The warehouse that is published, whichever it is at the time; thread-safe, and never written."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def attach(self, duck: Any) -> Publication | None:
        """Attach the file that is in its place now to `duck`, until that is closed; None before the first publication.

        duck: an instance of its own, in memory, in UTC. All that is read by it is of one file, whatever is published
        meanwhile: the name is a link, which DuckDB resolves once. Where it is none (a backup's), what an instance in
        memory attaches is still opened anew; `connect` would give the file that the process has open by that path.

        Raises StorageError when the file cannot be read.
        """
        try:
            self.file.stat()
            duck.execute(f"ATTACH {_literal(str(self.file))} AS {_NAME} (READ_ONLY)")
        except FileNotFoundError:
            return None
        except (OSError, duckdb.Error) as error:
            raise StorageError(
                f"the published warehouse {self.file} cannot be opened: {str(error).splitlines()[0]}"
            ) from error
        return Publication(duck)


class Publication:
    """One published file, attached as `published`. What it is asked raises StorageError when it cannot be read."""

    def __init__(self, duck: Any) -> None:
        self._duck = duck

    def published_at_us(self) -> int | None:
        """When it was published, in µs since 1970 UTC; None when it does not say."""
        table = self.table("tidemill_published")
        if table is None:
            return None
        ((at_us,),) = self._ask(f"SELECT epoch_us(max(published_at)) FROM {table.relation}")
        return None if at_us is None else int(at_us)

    def reconciled(self, view: str) -> dict[dt.date, str]:
        """The dates on which the view was found equal to live; each with the definition by which, "" where not said."""
        table = self.table("tidemill_reconciled")
        if table is None:
            return {}
        definition = "coalesce(definition_hash, '')" if "definition_hash" in table.types else "''"
        return dict(
            self._ask(f'SELECT CAST("date" AS DATE), {definition} FROM {table.relation} WHERE view = $1', [view])
        )

    def table(self, name: str) -> BatchTable | None:
        """The table of a model: the one in the main schema, or else the only one of that name; None without one."""
        rows = self._ask(
            "SELECT schema_name, column_name, data_type FROM duckdb_columns() WHERE database_name = $1 "
            "AND table_name = $2 ORDER BY schema_name <> $3, schema_name, column_index",
            [_NAME, name, _MAIN],
        )
        schemas = list(dict.fromkeys(schema for schema, *_ in rows))
        if not schemas or (len(schemas) > 1 and schemas[0] != _MAIN):
            return None
        types = {column: kind for schema, column, kind in rows if schema == schemas[0]}
        return BatchTable(".".join(map(_quote, (_NAME, schemas[0], name))), types)

    def _ask(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        try:
            return list(self._duck.execute(sql, parameters).fetchall())
        except duckdb.Error as error:
            raise StorageError(f"the published warehouse cannot be read: {str(error).splitlines()[0]}") from error


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
