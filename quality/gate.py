"""Runs the suites by Great Expectations, and stops the day where one says so.

The source is checked in a scratch database that holds only a view over the pinned Parquet files, the marts in the work
copy, opened read-only: no check ever locks the published warehouse.
"""

# ruff: noqa: S608 - SQL is put together here: the query is GX's own, paths are quoted.

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quality.config import DayConfig
from quality.data_docs import gx_context, write_pages
from quality.errors import CheckFailed
from quality.lake import pinned_query
from quality.run import Run
from quality.suites import STOP, Suite, mart_suites, source_suites
from tidemill.lake import identifier, literal

if TYPE_CHECKING:
    from great_expectations.data_context import AbstractDataContext

SAMPLE_ROWS = 5
"""How many failing values of a check are shown; the rows of a check that stops the day are written to a file."""


def check_lake(config: DayConfig, run: Run) -> dict[str, Any]:
    """Check the source suites. Gives verdict, checks, warnings; raises CheckFailed, naming each check that stops."""
    import duckdb

    scratch = config.run_folder(run.run_id) / "source.duckdb"
    scratch.unlink(missing_ok=True)
    with duckdb.connect(str(scratch)) as connection:
        connection.execute("set TimeZone = 'UTC'")
        for stream, pin in run.streams.items():
            query = pinned_query(config, stream, pin, pin.seal_offset)
            connection.execute(f"create view {identifier(stream)} as {query}")
    try:
        return run_suites(config, run, scratch, source_suites(run))
    finally:
        scratch.unlink()


def check_warehouse(config: DayConfig, run: Run) -> dict[str, Any]:
    """Check the mart suites on the run's work copy. Gives and raises as `check_lake`."""
    return run_suites(config, run, config.work_copy(run.run_id), mart_suites(run))


def run_suites(config: DayConfig, run: Run, database: Path, suites: list[Suite]) -> dict[str, Any]:
    """Run suites on a DuckDB file. Gives verdict, number of checks, and the warnings; raises CheckFailed."""
    checks: list[dict[str, Any]] = []
    with gx_context(config) as context:
        with _datasource(context, database) as datasource:
            for suite in suites:
                checks += _validate(config, run, context, datasource, database, suite)
        stopped = [check for check in checks if not check["success"] and check["severity"] == STOP]
        if stopped:
            # A run that goes on writes its pages once, at its end.
            write_pages(config, context, run.run_id)
    warned = [check for check in checks if not check["success"] and check["severity"] != STOP]
    if stopped:
        texts = "; ".join(check["text"] for check in stopped)
        raise CheckFailed(
            f"{len(stopped)} of {len(checks)} checks stop the day: {texts}", [check["name"] for check in stopped]
        )
    return {
        "verdict": f"passed with {len(warned)} warning{'s' * (len(warned) > 1)}" if warned else "passed",
        "checks": len(checks),
        "warnings": warned,
    }


def _validate(
    config: DayConfig, run: Run, context: AbstractDataContext, datasource: Any, database: Path, suite: Suite
) -> list[dict[str, Any]]:
    """Run one suite and keep its result in the context's store; give one entry a check."""
    import great_expectations as gx
    from great_expectations.core.run_identifier import RunIdentifier

    asset = datasource.add_query_asset(suite.name, query=suite.query)
    batch = asset.add_batch_definition_whole_table("rows")
    # Copies, as GX marks those that it was given as belonging to this one run.
    expectations = gx.ExpectationSuite(name=suite.name, expectations=[copy.copy(each) for each in suite.expectations])
    definition = context.validation_definitions.add_or_update(
        gx.ValidationDefinition(name=suite.name, data=batch, suite=context.suites.add_or_update(expectations))
    )
    result = definition.run(
        run_id=RunIdentifier(run_name=run.run_id, run_time=dt.datetime.now(dt.UTC)),
        result_format={"result_format": "SUMMARY", "unexpected_index_column_names": list(suite.key)},
    )
    checks = []
    for each in result.results:
        check = _entry(suite, each.to_json_dict())
        if not check["success"] and check["severity"] == STOP and check["unexpected_rows"]:
            complete = batch.get_batch().validate(
                each.expectation_config.to_domain_obj(),
                result_format={"result_format": "COMPLETE", "unexpected_index_column_names": list(suite.key)},
            )
            _write_rows(config, run, database, suite, check, complete.result["unexpected_index_query"])
        checks.append(check)
    return checks


def _entry(suite: Suite, result: dict[str, Any]) -> dict[str, Any]:
    config, found = result["expectation_config"], result["result"]
    arguments = {name: value for name, value in config["kwargs"].items() if name != "batch_id"}
    columns = [arguments.pop(name) for name in ("column", "column_A", "column_B") if name in arguments]
    about = ",".join([*columns, *arguments.pop("column_list", [])]) or "table"
    name = f"{suite.name}.{about}.{config['type'].removeprefix('expect_')}"
    entry = {
        "name": name,
        "success": bool(result["success"]),
        "severity": config["severity"],
        "arguments": arguments,
        "rows": found.get("element_count") or 0,
        "unexpected_rows": found.get("unexpected_count"),
        "observed": found.get("observed_value"),
        "sample": (found.get("partial_unexpected_index_list") or found.get("partial_unexpected_list", []))[
            :SAMPLE_ROWS
        ],
    }
    if _raised(result["exception_info"]):
        # A check that could not be made is not a check that passed, whatever its severity.
        entry.update(severity=STOP, success=False, observed=_raised(result["exception_info"]))
    return {**entry, "text": _text(entry)}


def _raised(info: dict[str, Any]) -> str:
    """Give the message of what a check raised, if it did; one check may hold several."""
    infos = [info] if "raised_exception" in info else [each for each in info.values() if isinstance(each, dict)]
    messages = [str(each["exception_message"]) for each in infos if each["raised_exception"]]
    return " ".join("; ".join(messages).split())


def _text(entry: dict[str, Any]) -> str:
    if entry["unexpected_rows"] is None:
        return f"{entry['name']}: expected {entry['arguments'] or 'it to hold'}, found {entry['observed']}"
    text = f"{entry['name']}: {entry['unexpected_rows']:,} of {entry['rows']:,} rows"
    sample = [_shown(row) for row in entry["sample"]]
    return f"{text}, such as {' | '.join(sample)}" if sample else text


def _shown(row: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.items()) if isinstance(row, dict) else str(row)


def _write_rows(config: DayConfig, run: Run, database: Path, suite: Suite, check: dict[str, Any], query: str) -> None:
    """Write the rows that a check does not accept to a file, and name it in the check's text."""
    import duckdb

    # GX writes a query where a table's name would stand, without the brackets that it needs there.
    query = query.replace(suite.query, f"({suite.query})").rstrip("; \n")

    file = config.run_folder(run.run_id) / "failed" / f"{check['name']}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        # GX has the database open, with settings of its own: attached here, it is another instance that reads.
        connection.execute(f"attach {literal(database)} as checked (read_only)")
        connection.execute("use checked")
        # `select *` from it, as GX may list a column twice.
        connection.execute(f"copy (select * from ({query})) to {literal(file)} (format parquet)")
    check["text"] += f"; all of them in {file}"


@contextmanager
def _datasource(context: AbstractDataContext, database: Path) -> Iterator[Any]:
    """Give a GX datasource over a DuckDB file, opened read-only in UTC, and let go of the file at the end."""
    from sqlalchemy import event
    from sqlalchemy.pool import Pool

    opened: list[Any] = []

    def prepare(connection: Any, record: Any) -> None:
        del record
        if type(connection).__module__ == "duckdb_engine":
            connection.execute("set TimeZone = 'UTC'")
            opened.append(connection)

    # On every pool, as GX makes engines of its own; and closed here, as it keeps their connections for its life, and
    # DuckDB would keep the file open with them.
    event.listen(Pool, "connect", prepare)
    try:
        yield context.data_sources.add_sql(
            database.stem,
            connection_string=f"duckdb:///{database}?access_mode=READ_ONLY",
            create_temp_table=False,
            # Nothing is written, so nothing is rolled back: not when GX lets go of a connection closed below either.
            # Parameters are question marks, because GX knows how to put values into its queries for those alone.
            kwargs={"pool_reset_on_return": None, "paramstyle": "qmark"},
        )
    finally:
        event.remove(Pool, "connect", prepare)
        for connection in opened:
            connection.close()
