"""A stream's Delta table: rows and the offset they reach are one commit."""

from __future__ import annotations

import datetime as dt
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from ingest_service.errors import ConfigError, StorageError
from ingest_service.lake.vacuum import Vacuumed, vacuum

Result = TypeVar("Result")

PARTITION_COLUMN = "event_date"
OFFSET_COLUMN = "_offset"
CHECKPOINT_COMMITS = 50
"""Delta writes a checkpoint every so many commits; without one, a small commit becomes twice as slow over 400."""
COMMIT_ATTEMPTS = 5
"""How often a commit is tried when another writer (a user's vacuum or optimize) commits at the same time."""
SMALL_FILE_BYTES = 50_000_000
"""A smaller file is small; Delta makes files of 100 MB, so that compaction leaves one small file of a date at most."""
SORTED_BYTES_MAX = 500_000_000
"""A date is sorted as a whole up to this size; of a larger one the small files are put together, in memory bounds."""

# Level 1 is as fast as no compression to speak of, and a third of Snappy's size.
_PARQUET = WriterProperties(compression="ZSTD", compression_level=1)


def transaction_id(stream: str) -> str:
    """The Delta application transaction whose version is the offset that the stream's table reaches."""
    return f"tidemill-export-{stream}"


@dataclass(frozen=True, slots=True)
class LakeState:
    """Where a stream's lake is: version of its Delta table, and the offset that it reaches (everything below is in)."""

    version: int
    offset: int
    uri: str


class LakeTable:
    """Appends a stream's rows to its Delta table, each exactly once. Use it from one thread at a time.

    The Delta application transaction `tidemill-export-<stream>` holds the next offset. Delta-rs does not refuse a
    transaction that was there before, so an append: 1 reads that offset in the table's version; 2 refuses rows that
    are not the next ones; 3 commits as the very next version and nothing else. A commit that loses to another writer
    is done again from 1 by the caller. Rows that were written but never committed are files that no version names.
    """

    def __init__(self, uri: str, stream: str, schema: pa.Schema, storage_options: Mapping[str, str] | None) -> None:
        self._uri = uri
        self._stream = stream
        self._schema = schema
        self._storage_options = dict(storage_options) if storage_options else None
        self._app_id = transaction_id(stream)
        self._table: DeltaTable | None = None

    def ensure(self) -> LakeState:
        """Makes the table, empty and with all columns, where it is missing; adds the columns that it lacks.

        Raises ConfigError when the table has other columns, StorageError when it cannot be read or made.
        """
        self._table = self._guarded("opened", self._open)
        self._check_columns(self._table)
        self._add_columns(self._table)
        return self.state()

    def take_schema(self, schema: pa.Schema) -> None:
        """From now on rows have these columns: adds those that the table lacks; raises as `ensure` does."""
        if schema == self._schema:
            return
        before, self._schema = self._schema, schema
        try:
            self.ensure()
        except BaseException:
            # The next export tries again.
            self._schema = before
            raise

    def state(self) -> LakeState:
        """Where the table is, as last seen."""
        table = self._opened()
        return LakeState(table.version(), table.transaction_version(self._app_id) or 0, self._uri)

    def reload(self) -> LakeState:
        """Where the table is now, other writers' commits included."""
        table = self._opened()
        self._guarded("read", table.update_incremental)
        return self.state()

    def append(self, rows: pa.Table, first_offset: int, next_offset: int) -> bool:
        """Commits the rows first_offset … next_offset - 1, in this order.

        Gives False, with nothing committed, when the table does not reach just to first_offset, or another writer was
        faster: `reload`, and look again. Raises StorageError when the store fails.
        """
        if self.state().offset != first_offset:
            return False
        commit = CommitProperties(
            custom_metadata={"tidemill": f"offsets {first_offset} to {next_offset - 1} of {self._stream}"},
            # No silent retry: it would commit on top of a version whose offset nobody has looked at.
            max_commit_retries=0,
            app_transactions=[Transaction(self._app_id, next_offset)],
        )
        try:
            write_deltalake(self._opened(), rows, mode="append", writer_properties=_PARQUET, commit_properties=commit)
        except CommitFailedError:
            return False
        except (DeltaError, OSError) as error:
            raise self._failed("written", error) from error
        return True

    def uncompacted(self, before: dt.date) -> list[dt.date]:
        """The dates before `before` that are in several small files, oldest first."""
        self.reload()
        small: dict[dt.date, int] = defaultdict(int)
        for action in self._actions():
            small[action[f"partition.{PARTITION_COLUMN}"]] += action["size_bytes"] < SMALL_FILE_BYTES
        return sorted(date for date, count in small.items() if count > 1 and date < before)

    def compact(self, date: dt.date) -> LakeState:
        """Rewrites the files of one date as one, sorted by offset; nothing happens where one at most is small.

        A date that is larger than SORTED_BYTES_MAX keeps its large files. The old files stay for the versions that name
        them, until they are vacuumed.
        """
        self.reload()
        table = self._opened()
        name = f"partition.{PARTITION_COLUMN}"
        sizes = [action["size_bytes"] for action in self._actions() if action[name] == date]
        if sum(size < SMALL_FILE_BYTES for size in sizes) < 2:
            return self.state()
        filters = [(PARTITION_COLUMN, "=", date.isoformat())]
        if sum(sizes) <= SORTED_BYTES_MAX:
            # Z-order by a single column is a sort; `compact` puts the files one after another.
            rewrite = lambda: table.optimize.z_order([OFFSET_COLUMN], filters, writer_properties=_PARQUET)  # noqa: E731
        else:
            rewrite = lambda: table.optimize.compact(filters, writer_properties=_PARQUET)  # noqa: E731
        self._guarded("compacted", rewrite)
        return self.state()

    def vacuum(self, keep_versions: Collection[int], cutoff_ns: int, sync: Callable[[], None] = os.sync) -> Vacuumed:
        """Deletes the files that no version needs which stays readable; see `Vacuum`.

        Raises StorageError, before anything is deleted, when the present version has not all of its rows.
        """
        self.reload()
        table = self._opened()
        self._check_rows()
        vacuumed = self._guarded(
            "vacuumed", lambda: vacuum(table, self._uri, self._storage_options, keep_versions, cutoff_ns, sync)
        )
        self.reload()
        return vacuumed

    def _check_rows(self) -> None:
        """Offsets are dense: a table that reaches an offset has as many rows."""
        actions = self._actions()
        if any(action.get("num_records") is None for action in actions):
            return
        rows: int = sum(action["num_records"] for action in actions)
        if rows != self.state().offset:
            raise StorageError(
                f"the lake table {self._uri} reaches to offset {self.state().offset}, but has {rows} rows: nothing of "
                "it is deleted; was it written to by somebody else? `tidemill data verify` says more"
            )

    def _actions(self) -> list[dict[str, Any]]:
        """What the Delta log says of the present files."""
        actions = pa.table(self._opened().get_add_actions(flatten=True))
        wanted = ("path", "size_bytes", "num_records", f"partition.{PARTITION_COLUMN}")
        listed: list[dict[str, Any]] = actions.select(
            [name for name in wanted if name in actions.schema.names]
        ).to_pylist()
        return listed

    def _open(self) -> DeltaTable:
        try:
            return DeltaTable(self._uri, storage_options=self._storage_options)
        except TableNotFoundError:
            if "://" not in self._uri:
                Path(self._uri).mkdir(parents=True, exist_ok=True)
            return DeltaTable.create(
                self._uri,
                schema=self._schema,
                # Two services that make it at once: the second opens what the first made.
                mode="ignore",
                partition_by=[PARTITION_COLUMN],
                name=self._stream,
                configuration={
                    "delta.checkpointInterval": str(CHECKPOINT_COMMITS),
                    # Statistics of all columns: readers find files by the last ones, `_offset` and `_append_time`.
                    "delta.dataSkippingNumIndexedCols": "-1",
                },
                storage_options=self._storage_options,
            )

    def _add_columns(self, table: DeltaTable) -> None:
        """A changed contract's columns, in a commit of their own; they are null in the rows before."""
        present = table.schema().to_arrow().names
        lacking = [field for field in self._schema if field.name not in present]
        if lacking:
            self._guarded("changed", lambda: table.alter.add_columns(Schema.from_arrow(pa.schema(lacking)).fields))

    def _check_columns(self, table: DeltaTable) -> None:
        found = pa.schema(table.schema().to_arrow())
        differing = [field.name for field in self._schema if _differs(found, field)]
        differing += [field.name for field in found if field.name not in self._schema.names]
        if differing:
            raise ConfigError(
                f"the lake table {self._uri} was made for another contract of stream {self._stream!r}: the columns "
                f"{', '.join(differing)} differ (expected {self._schema.to_string()}; found {found.to_string()}); move "
                "the table away, and it is exported again from the log"
            )

    def _opened(self) -> DeltaTable:
        if self._table is None:
            self.ensure()
        assert self._table is not None
        return self._table

    def _guarded(self, what: str, action: Callable[[], Result]) -> Result:
        try:
            return action()
        except (DeltaError, OSError) as error:
            raise self._failed(what, error) from error

    def _failed(self, what: str, error: Exception) -> StorageError:
        return StorageError(
            f"the lake table {self._uri} of stream {self._stream!r} could not be {what}: {error}; what is in the log "
            "is safe, and is exported once the store works again"
        )


def _differs(found: pa.Schema, wanted: pa.Field) -> bool:
    """Whether a table's columns can't be made to have this one: what may be null can be added."""
    if wanted.name not in found.names:
        return not wanted.nullable
    return bool(found.field(wanted.name).type != wanted.type)
