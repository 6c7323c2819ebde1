"""The file formats: each tells its columns, and reads some of them as record batches in bounded memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tidemill.errors import InputError

_DELIMITED = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_JSON_LINES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
_PARQUET = (".parquet", ".pq")


class Format(Protocol):
    """A file that can be read."""

    columns: list[str]
    rows: int | None
    """How many rows it has, where that is known without reading it."""

    def read(self, columns: Sequence[str], text: Collection[str], rows_max: int) -> Iterator[pa.RecordBatch]:
        """Some of its columns; those in `text` as text where the file itself has no types."""


def open_format(path: Path) -> Format:
    """The file as its format, which its name says. Raises InputError: no such file, unknown format, unreadable."""
    name = path.name.lower()
    if not path.exists():
        raise InputError(f"there is no file {path}", str(path))
    if path.is_dir():
        raise InputError(f"expected a file, {path} is a folder", str(path))
    try:
        if name.endswith(_PARQUET):
            return ParquetFormat(path)
        if name.endswith(_DELIMITED):
            return DuckFormat(path, "read_csv", "")
        if name.endswith(_JSON_LINES):
            return DuckFormat(path, "read_json", ", format = 'newline_delimited'")
    except (pa.ArrowException, OSError, duckdb.Error) as error:
        raise unreadable(path, error) from None
    raise InputError(
        f"{path}: expected a name that ends in {', '.join((*_PARQUET, *_DELIMITED[:2], *_JSON_LINES[:2]))}", str(path)
    )


def unreadable(path: Path, error: Exception) -> InputError:
    """The error of a library as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # DuckDB goes on with advice about options that are not the user's here.
    told = " ".join(lines[:2]).partition("Possible")[0].strip() or type(error).__name__
    return InputError(f"{path} cannot be read: {told}", str(path))


class ParquetFormat:
    """A Parquet file, read by row groups."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with pq.ParquetFile(path) as file:
            self.columns = list(file.schema_arrow.names)
            self.rows: int | None = file.metadata.num_rows

    def read(self, columns: Sequence[str], text: Collection[str], rows_max: int) -> Iterator[pa.RecordBatch]:
        """Some of its columns, with the file's own types."""
        del text
        try:
            with pq.ParquetFile(self._path) as file:
                yield from file.iter_batches(batch_size=rows_max, columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self._path, error) from None


class DuckFormat:
    """A delimited file or JSON lines, read by DuckDB: it finds out delimiter, header and how times are written.

    A JSON number with more than 15 digits is not exact in most programs, this one among them: such decimals are text.
    """

    def __init__(self, path: Path, function: str, options: str) -> None:
        self._path = path
        self._call = f"{function}({_literal(str(path))}{options}"
        self.rows: int | None = None
        with self._connect() as duck:
            self.columns = list(duck.sql(f"from {self._call})").columns)
        self._types = "types" if function == "read_csv" else "columns"
        self._detected = self._detect() if function == "read_json" else {}

    def _connect(self) -> Any:
        duck = duckdb.connect(":memory:")
        duck.execute("set TimeZone = 'UTC'")
        return duck

    def _detect(self) -> dict[str, str]:
        with self._connect() as duck:
            relation = duck.sql(f"from {self._call})")
            return dict(zip(relation.columns, map(str, relation.types), strict=True))

    def read(self, columns: Sequence[str], text: Collection[str], rows_max: int) -> Iterator[pa.RecordBatch]:
        """Some of its columns; those in `text` exactly as they are written."""
        # read_json wants the types of all columns that are read, read_csv of those that it should not guess.
        types = {name: self._detected.get(name, "VARCHAR") for name in columns if name in text or self._detected}
        types.update(dict.fromkeys((name for name in columns if name in text), "VARCHAR"))
        types = {name: "VARCHAR" if '"NULL"' in kind else kind for name, kind in types.items()}
        listed = ", ".join(f"{_quoted(name)}: '{kind}'" for name, kind in types.items())
        typed = f", {self._types} = {{{listed}}}" if types else ""
        selected = ", ".join(_quoted(name) for name in columns)
        try:
            with self._connect() as duck:
                # Names and path are quoted; the rest is this module's own.
                yield from duck.sql(f"select {selected} from {self._call}{typed})").to_arrow_reader(rows_max)  # noqa: S608
        except duckdb.Error as error:
            raise unreadable(self._path, error) from None


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
