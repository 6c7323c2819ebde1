"""Why live may differ from batch though neither is wrong; a cause counts only if it makes the difference zero.

Both sides are functions of the same rows, those below the seal offset, so only another function can make them differ:

    definition changed    the service follows another definition (SQL or seeds) than dbt built. Live's own definition
                          is run over the very rows that batch read: if that gives live's sealed copy, to the row, what
                          differs from batch is the change of definition. If not, live is wrong, and it is UNEXPLAINED.

What else happens in a day changes the rows of both sides alike. A quarantined row that is replayed gets an offset of
its own: below the seal both sides have it, at or above it neither has. A contract that changes keeps the columns' types
and gives the rows before it NULL in new columns, on both sides. So neither is ever a cause; a difference that vanished
without the replayed rows would mean that one side has lost them. See docs/adr/0019.
"""

# ruff: noqa: S608 - SQL is put together here: names and texts are quoted.

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quality.reconcile import COLUMNS, Comparison, Difference
from tidemill.lake import identifier, literal

if TYPE_CHECKING:
    import pyarrow as pa

DEFINITION = "definition changed"
UNEXPLAINED = "UNEXPLAINED"


class CannotRun(Exception):
    """A definition cannot be run here; the text says why."""


def rows_by_definition(
    sql: str, rows: str, seeds: Mapping[str, Mapping[str, Any]], tables: Mapping[str, str], work_copy: Path
) -> pa.Table:
    """Run a live view's compiled SQL over a stream's rows; give what it makes of them.

    rows: a query of the stream's rows. seeds: nodes of the seeds that the definition may read, by name, as the service
    has them; tables: in place of one that is not among them, its table in the work copy, which is attached as `work`.
    Raises CannotRun.
    """
    import duckdb

    try:
        with duckdb.connect(":memory:") as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.execute(f"attach {literal(work_copy)} as work (read_only)")
            for catalog, schema, name in _relations(sql):
                relation = _made_schema(connection, catalog, schema) + identifier(name)
                if name in seeds:
                    _load_seed(connection, relation, seeds[name])
                else:
                    query = f"select * from {tables[name]}" if name in tables else rows
                    connection.execute(f"create view {relation} as {query}")
            return connection.sql(sql).to_arrow_table()
    except duckdb.IOException:
        raise  # A file of the lake, not the definition.
    except duckdb.Error as error:
        raise CannotRun(" ".join(str(error).split())) from error


def of_magnitudes(sql: str) -> str:
    """Give a model's SQL with the absolute values in each sum and mean: how large the numbers are that they are of."""
    import sqlglot
    from sqlglot import exp

    try:
        tree = sqlglot.parse_one(sql, dialect="duckdb")
    except sqlglot.errors.SqlglotError as error:
        raise CannotRun(" ".join(str(error).split())) from error
    for node in list(tree.find_all(exp.Sum, exp.Avg)):
        if not isinstance(node.this, exp.Distinct):
            node.set("this", exp.Abs(this=node.this.copy()))
    return str(tree.sql(dialect="duckdb"))


def explain(own: Comparison, batch: Comparison | None, columns: tuple[Iterable[str], Iterable[str]]) -> Comparison:
    """Give what comes of comparing a view of another definition than was built.

    own: live's sealed copy against live's own definition; batch: the copy against the model, None where their columns
    are not the same; columns: live's and the model's.
    """
    if own.difference_count:
        note = "it follows another definition than was built, and its rows are not those of that one either"
        return dataclasses.replace(own, note=note)
    found = batch
    if found is None:
        live, built = (", ".join(sorted(names)) for names in columns)
        only = Difference(own.view, "", "", COLUMNS, live, built, "")
        found = dataclasses.replace(own, difference_count=1, differences=(only,))
    return dataclasses.replace(
        found,
        differences=tuple(dataclasses.replace(each, cause=DEFINITION) for each in found.differences),
        explained=found.difference_count,
        causes={DEFINITION: found.difference_count} if found.difference_count else {},
        note="live follows another definition than was built, and has its rows right: apply the project (tidemill view "
        "apply) if it is newer, or run the day again from dbt on if it is older",
    )


def _relations(sql: str) -> list[tuple[str, str, str]]:
    """Give the relations that a compiled model reads: catalog, schema and name. CTEs have no schema."""
    import sqlglot

    try:
        tree = sqlglot.parse_one(sql, dialect="duckdb")
    except sqlglot.errors.SqlglotError as error:
        raise CannotRun(" ".join(str(error).split())) from error
    named = [(table.catalog, table.db, table.name) for table in tree.find_all(sqlglot.exp.Table) if table.db]
    return list(dict.fromkeys(named))


def _made_schema(connection: Any, catalog: str, schema: str) -> str:
    """Make the schema that a definition names; give it, quoted and with its dot."""
    place = f"{identifier(catalog)}." if catalog else ""
    if (
        catalog
        and not connection.execute("select 1 from duckdb_databases() where database_name = ?", [catalog]).fetchall()
    ):
        connection.execute(f"attach ':memory:' as {identifier(catalog)}")
    connection.execute(f"create schema if not exists {place}{identifier(schema)}")
    return f"{place}{identifier(schema)}."


def _load_seed(connection: Any, relation: str, node: Mapping[str, Any]) -> None:
    """Make a seed's table of its text, by the statements that dbt-duckdb runs."""
    config = node.get("config", {})
    delimiter = config.get("delimiter") or ","
    columns = ", ".join(f"{identifier(name)} {kind}" for name, kind in (config.get("column_types") or {}).items())
    if not columns:
        raise CannotRun(f"the seed {node.get('name')} does not declare the types of its columns")
    connection.execute(f"create table {relation} ({columns})")
    with tempfile.TemporaryDirectory(prefix="tidemill-seed-") as folder:
        file = Path(folder) / "seed.csv"
        file.write_bytes(str(node["tidemill_content"]).encode())
        header = str(node["tidemill_content"]).removeprefix("\ufeff").split("\n", 1)[0].strip().split(delimiter)
        named = ", ".join(identifier(name.strip().strip('"')) for name in header)
        connection.execute(
            f"copy {relation} ({named}) from {literal(file)} (format csv, header true, delimiter {literal(delimiter)})"
        )
