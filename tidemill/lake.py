"""Reads the lake: one version of a stream's Delta table, up to an offset, as DuckDB SQL.

The query scans the version's own Parquet files natively (several times as fast as an Arrow dataset) and has exactly
the columns asked for, in their order and types, whichever files exist: a column that a file does not have is NULL,
and a table without a file gives an empty result of the same shape.
"""

# ruff: noqa: S608 - SQL is put together here: names and texts are quoted.

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

EVENT_DATE = "event_date"
"""The partition column: it stands in the folder's name, not in the files."""


class LakeError(Exception):
    """The lake cannot be read as asked; the text says which table and version, and what to do."""


def lake_files(uri: str, version: int | None) -> list[str]:
    """Give the Parquet files of one version of a Delta table.

    version: None for the latest. A table that does not exist has no files, unless a version of it is asked for.
    Raises LakeError when the version is not there.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        files = DeltaTable(uri, version=version).file_uris()
    except TableNotFoundError as error:
        if version is None:
            return []
        raise LakeError(
            f"expected the lake table {uri} at version {version}; found no Delta table there. "
            "Was the data folder moved, or another one meant? Seal the date again to pin a new version"
        ) from error
    except DeltaError as error:
        raise LakeError(
            f"expected the lake table {uri} at version {version}; Delta says: {error}. "
            "If the version was vacuumed, seal the date again to pin a new one"
        ) from error
    # Delta writes paths as URLs are written; DuckDB takes those of local files as they are.
    return sorted(files if "://" in uri else map(unquote, files))


def lake_query(files: list[str], columns: Mapping[str, str], below_offset: int | None) -> str:
    """Give the SQL that reads these files.

    columns: name → DuckDB type, in the wanted order; `event_date` is taken from the folder's name.
    below_offset: only rows with a smaller `_offset`; None for all rows.
    """
    if not files:
        empty = ", ".join(f"cast(null as {kind}) as {identifier(name)}" for name, kind in columns.items())
        return f"select {empty} where false"
    in_files = {name: kind for name, kind in columns.items() if name != EVENT_DATE}
    # A schema by name: columns that older files lack become NULL, and no footer is read before the scan.
    schema = ", ".join(
        f"{literal(name)}: {{name: {literal(name)}, type: {literal(kind)}, default_value: null}}"
        for name, kind in in_files.items()
    )
    # `schema` does not go with DuckDB's own hive partitioning; the file name is constant in each vector, so this is
    # evaluated once a vector, and a filter on the date still skips whole files.
    date = f"cast(regexp_extract(filename, '{EVENT_DATE}=([0-9-]+)', 1) as date) as {EVENT_DATE}"
    selected = ", ".join(date if name == EVENT_DATE else identifier(name) for name in columns)
    listed = ", ".join(literal(file) for file in files)
    condition = "" if below_offset is None else f" where _offset < {int(below_offset)}"
    return f"select {selected} from read_parquet([{listed}], schema = map {{{schema}}}, filename = true){condition}"


def source_tables(folder: Path) -> dict[str, dict[str, str]]:
    """Read the generated dbt sources in a folder: stream → its columns (name → DuckDB type), in the contract's order.

    Raises LakeError when a file is no source description or a column has no data_type.
    """
    import yaml

    tables: dict[str, dict[str, str]] = {}
    for file in sorted(folder.glob("*.yml")):
        try:
            content = read_yaml(file.read_text(encoding="utf-8")) or {}
            for source in content.get("sources", []):
                for table in source["tables"]:
                    meta = table.get("config", {}).get("meta", {})
                    if "stream" in meta:
                        tables[meta["stream"]] = {column["name"]: column["data_type"] for column in table["columns"]}
        except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise LakeError(
                f"{file}: expected dbt sources with a data_type on every column; {error!r}. Run `make proto`"
            ) from error
    return tables


def read_yaml(text: str) -> Any:
    """Read YAML of plain values, several times as fast where PyYAML was built with libyaml. Raises yaml.YAMLError."""
    import yaml

    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe ones both


def operations_tables(project: Path) -> dict[str, dict[str, str]]:
    """Read the project's sources of what is known of its runs: name → its columns (name → DuckDB type).

    They are told by `operations: NAME` in a source table's meta, anywhere below `models`. Raises LakeError.
    """
    import yaml

    tables: dict[str, dict[str, str]] = {}
    for file in sorted((project / "models").rglob("*.yml")):
        text = file.read_text(encoding="utf-8")
        # dbt reads the others: what it accepts of them is not for us to judge.
        if "operations:" not in text or "sources:" not in text:
            continue
        try:
            for source in (read_yaml(text) or {}).get("sources") or []:
                for table in source.get("tables") or []:
                    meta = {**(table.get("meta") or {}), **((table.get("config") or {}).get("meta") or {})}
                    if "operations" in meta:
                        columns = table["columns"]
                        tables[meta["operations"]] = {column["name"]: column["data_type"] for column in columns}
        except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise LakeError(f"{file}: expected sources with a data_type on every column; {error!r}") from error
    return tables


def operations_query(file: Path | None, columns: Mapping[str, str]) -> str:
    """Give the SQL that reads one file of what is known of the runs; without a file, an empty result of its shape."""
    empty = ", ".join(f"cast(null as {kind}) as {identifier(name)}" for name, kind in columns.items())
    if file is None:
        return f"select {empty} where false"
    selected = ", ".join(f"cast({identifier(name)} as {kind}) as {identifier(name)}" for name, kind in columns.items())
    # By name: a column that the file does not have is NULL.
    rows = f"(select {empty} where false) union all by name (from read_parquet({literal(file)}))"
    return f"select {selected} from ({rows})"


def identifier(name: str) -> str:
    """Quote a name for DuckDB."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | os.PathLike[str]) -> str:
    """Quote a text for DuckDB."""
    return "'" + str(text).replace("'", "''") + "'"
