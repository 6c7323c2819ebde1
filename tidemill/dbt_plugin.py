"""dbt-duckdb plugin that gives dbt the lake as its source, one version and one offset for a whole run.

In `profiles.yml`: `plugins: [{module: tidemill.dbt_plugin, alias: lake, config: {data: …, project: …}}]`; a source
table names the plugin and its stream in its meta (`plugin: lake`, `stream: order_lines`).

- `TIDEMILL_PINS` in the environment names a run's `run.json`: every source reads exactly its `lake_version`, and of
  it the rows with `_offset` below its `seal_offset`.
- Without it, the sources read the latest version of `<data>/lake/<stream>`, whole.
- `TIDEMILL_WORK_COPY` names the DuckDB file to write instead of the profile's. Its name must be that of the profile's
  file, as DuckDB calls a database by it. It is not in the profile, because dbt would parse the whole project anew for
  every other path.

A source table with `operations: NAME` in its meta instead of a stream reads what is known of streams and runs: the file
`operations/NAME.parquet` beside the run's `run.json`. Without pins, or where the run has no such file, it is empty, in
the types that its columns' `data_type` say.

The types of streams are those of the generated sources in `<project>/models/sources`: what a live view gets on arrival
and what dbt reads at night have identical columns.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dbt.adapters.duckdb.plugins import BasePlugin
from dbt.adapters.duckdb.utils import SourceConfig

from tidemill.lake import LakeError, lake_files, lake_query, operations_query, operations_tables, source_tables

PINS_VARIABLE = "TIDEMILL_PINS"
WORK_COPY_VARIABLE = "TIDEMILL_WORK_COPY"


class Plugin(BasePlugin):  # type: ignore[misc]  # dbt carries no types
    """Resolves a source to the Parquet files of one pinned Delta version.

    A source keeps the version that it had when it was first read in a dbt invocation: models of one invocation never
    see two versions. Not thread-safe: dbt-duckdb replaces a source's view whenever a model reads it, and DuckDB
    refuses two such replacements at once, so profiles.yml has one dbt thread (DuckDB itself uses all cores).
    """

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        """Take `data` (the data folder) and `project` (the dbt project's folder) from the profile."""
        self._data = Path(str(plugin_config.get("data", "../.tidemill")))
        self._project = Path(str(plugin_config.get("project", ".")))
        self._connection: Any = None
        self._queries: dict[str, str] = {}

    def update_connection_config(self, creds: Any, config: dict[str, Any]) -> None:
        """Take the run's work copy where there is one, and make the warehouse's folder, as DuckDB does not."""
        del config
        work_copy = os.environ.get(WORK_COPY_VARIABLE)
        if work_copy:
            if Path(work_copy).stem != creds.database:
                raise LakeError(
                    f"{WORK_COPY_VARIABLE}={work_copy}: expected a file named {creds.database}.duckdb, as the profile's"
                )
            creds.path = work_copy
        if creds.path != ":memory:":
            Path(creds.path).parent.mkdir(parents=True, exist_ok=True)

    def configure_connection(self, conn: Any) -> None:
        """Keep the connection, whose relations all of dbt's cursors can read."""
        conn.execute("set TimeZone = 'UTC'")
        self._connection = conn

    def configure_cursor(self, cursor: Any) -> None:
        """Days are UTC days: date_trunc and time_bucket follow the session's zone."""
        cursor.execute("set TimeZone = 'UTC'")

    def default_materialization(self) -> str:
        """Sources are views: nothing is copied."""
        return "view"

    def load(self, source_config: SourceConfig) -> Any:
        """Give the source's rows as a DuckDB relation. Raises LakeError when they cannot be read as pinned."""
        operations = source_config.get("operations")
        if operations is not None:
            # Not kept: a run's later stages write more of these files.
            return self._connection.sql(self._operations_query(str(operations)))
        stream = source_config.get("stream")
        if not isinstance(stream, str):
            raise LakeError(
                f"source {source_config.name}: expected its stream's name in meta.stream (or meta.operations), "
                f"found {stream!r}"
            )
        if stream not in self._queries:
            self._queries[stream] = self._query(stream)
        return self._connection.sql(self._queries[stream])

    def _query(self, stream: str) -> str:
        folder = self._project / "models" / "sources"
        columns = source_tables(folder).get(stream)
        if columns is None:
            raise LakeError(
                f"expected a source whose meta.stream is {stream!r} in {folder.resolve()}; found none. Run `make proto`"
            )
        pins = os.environ.get(PINS_VARIABLE)
        if not pins:
            return lake_query(lake_files(str((self._data / "lake" / stream).resolve()), None), columns, None)
        pinned = pinned_stream(Path(pins), stream)
        files = lake_files(pinned["lake_uri"], pinned["lake_version"]) if pinned["seal_offset"] else []
        return lake_query(files, columns, pinned["seal_offset"])

    def _operations_query(self, name: str) -> str:
        columns = operations_tables(self._project).get(name)
        if columns is None:
            raise LakeError(f"expected a source whose meta.operations is {name!r} in {self._project.resolve()}/models")
        pins = os.environ.get(PINS_VARIABLE)
        file = Path(pins).parent / "operations" / f"{name}.parquet" if pins else None
        return operations_query(file if file is not None and file.exists() else None, columns)


def pinned_stream(run_file: Path, stream: str) -> dict[str, Any]:
    """Read a stream's pin (lake_uri, lake_version, seal_offset) from a run's run.json; LakeError when it has none."""
    try:
        streams = json.loads(run_file.read_text(encoding="utf-8"))["streams"]
    except (OSError, ValueError, KeyError) as error:
        raise LakeError(
            f"{PINS_VARIABLE}={run_file}: expected a run.json with pinned streams; {error!r}. "
            "Seal the date first, or unset the variable to read the latest lake"
        ) from error
    if stream not in streams:
        listed = ", ".join(sorted(streams)) or "none"
        raise LakeError(f"{run_file}: stream {stream!r} is not pinned (pinned: {listed}). Seal the date again")
    pinned: dict[str, Any] = streams[stream]
    return pinned
