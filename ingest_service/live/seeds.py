"""Seeds that live models join: small CSV files of the dbt project, loaded by the statements that dbt-duckdb runs.

The same COPY over the same bytes gives the same rows as dbt's table has. What would make dbt read the file in another
way (a column whose type it guesses, `fast: false`, hooks) is refused.
"""

from __future__ import annotations

import csv
import hashlib
import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from ingest_service.errors import ViewRefused
from ingest_service.live.column_types import quote

PREFIX = "tidemill_seed_"


@dataclass(frozen=True, slots=True)
class Seed:
    """A seed of the manifest. path: its file, for messages; content: its text; refusal: why it can't be joined."""

    name: str
    path: str
    content: str
    column_types: tuple[tuple[str, str], ...]
    delimiter: str
    refusal: str = ""

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> Seed:
        """The seed of a manifest's node; its text is in the node, or in the file that the node names."""
        config = node.get("config", {})
        path = str(node.get("original_file_path", node["name"]))
        types = tuple((str(name), str(kind)) for name, kind in (config.get("column_types") or {}).items())
        content, problem = _content(node, path)
        if config.get("fast") is False:
            problem = "it is loaded cell by cell (fast: false), and cells may become other values then; take that out"
        if config.get("pre-hook") or config.get("post-hook"):
            problem = "it has hooks, and what they do to its rows is not known here; take them out"
        return cls(node.get("alias") or node["name"], path, content, types, config.get("delimiter") or ",", problem)

    @property
    def table(self) -> str:
        """The name of its table in DuckDB: another one for other rows, so that an old definition keeps its own."""
        digest = hashlib.sha256(repr((self.column_types, self.delimiter, self.content)).encode()).hexdigest()[:12]
        return f"{PREFIX}{self.name}_{digest}"

    def check(self) -> None:
        """See that it can be joined; raises ViewRefused."""
        problem = self.refusal
        header = self._header()
        declared = {name for name, _ in self.column_types}
        missing = [name for name in header if name not in declared]
        if not problem and (not header or "" in header or len({name.lower() for name in header}) < len(header)):
            problem = "its first line has to name its columns, each by another name"
        elif not problem and missing:
            problem = (
                f"the type of its column {missing[0]} is not declared, so dbt guesses it from the rows; "
                "declare column_types for every column"
            )
        if problem:
            raise ViewRefused(f"{self.path}: the seed {self.name} cannot be joined: {problem}")

    def load(self, duck: Any) -> None:
        """Make its table in a DuckDB database, unless it is there; raises ViewRefused when the file cannot be read."""
        self.check()
        known = "SELECT 1 FROM duckdb_tables() WHERE table_name = ? AND NOT internal"
        if duck.execute(known, [self.table]).fetchall():
            return
        types = dict(self.column_types)
        columns = ", ".join(f"{quote(name)} {types[name]}" for name in self._header())
        duck.execute("BEGIN")
        try:
            duck.execute(f"CREATE TABLE {quote(self.table)} ({columns})")
            with tempfile.TemporaryDirectory(prefix="tidemill-seed-") as folder:
                file = Path(folder) / "seed.csv"
                file.write_bytes(self.content.encode())  # not as text: line ends stay as they are
                place, delimiter = (text.replace("'", "''") for text in (str(file), self.delimiter))
                duck.execute(
                    f"COPY {quote(self.table)} FROM '{place}' (FORMAT CSV, HEADER TRUE, DELIMITER '{delimiter}')"
                )
        except duckdb.Error as error:
            duck.execute("ROLLBACK")
            reason = " ".join(str(error).split())[:400]
            raise ViewRefused(f"{self.path}: the seed {self.name} cannot be loaded: {reason}") from error
        duck.execute("COMMIT")

    def _header(self) -> list[str]:
        rows = csv.reader(io.StringIO(self.content.removeprefix("\ufeff"), newline=""), delimiter=self.delimiter)
        return next(rows, [])


def _content(node: Mapping[str, Any], path: str) -> tuple[str, str]:
    """A seed's text, and why there is none."""
    if "tidemill_content" in node:
        return str(node["tidemill_content"]), ""
    try:
        return (Path(node.get("root_path") or ".") / path).read_bytes().decode("utf-8"), ""
    except (OSError, UnicodeDecodeError) as error:
        return "", f"its file cannot be read ({error})"
