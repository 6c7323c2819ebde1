"""Runs the suites by Great Expectations, and stops the day where one says so.

Checked is a scratch database (`quality.checked_tables`): the source's rows come from the pinned Parquet files, the
marts' from the work copy, opened read-only. No check ever locks the published warehouse.
"""

# ruff: noqa: S608 - SQL is put together here: the queries are our own or GX's, paths are quoted.

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quality.checked_tables import Check, CheckedTable, Rows, make_tables
from quality.config import DayConfig
from quality.contract_suite import ContractSuite, contract_suites
from quality.data_docs import gx_context, write_pages
from quality.errors import CheckFailed, ConfigWrong, Finding, RunWrong
from quality.lake import pinned_query, reading_lake, streams_of
from quality.publish import publications
from quality.report_page import GX_SEVERITY, OWN, in_words
from quality.run import Run, load_run
from quality.suite import STOP, WARN, MartSuite
from quality.suite_files import load_suites
from tidemill.lake import identifier, literal

if TYPE_CHECKING:
    import great_expectations as gx
    from great_expectations.data_context import AbstractDataContext

SAMPLE_ROWS = 5
"""How many failing rows of a check are shown; the rows of a check that stops the day are written to a file."""
_SEVERITY = {"critical": STOP, "warning": WARN, "info": WARN}


@dataclass(frozen=True)
class Suite:
    """Expectations of Great Expectations on one table. query: its rows, by DuckDB; key: what identifies one of them.

    files: for a check of our own that stops the day, by its column: the file that holds the rows that break it.
    """

    name: str
    query: str
    key: tuple[str, ...]
    expectations: tuple[gx.expectations.Expectation, ...]
    files: Mapping[str, Path] = field(default_factory=dict)


def check_lake(config: DayConfig, run: Run) -> dict[str, Any]:
    """Check what the contracts promise, and the project's source suites, on the streams that the run sealed.

    Gives verdict, checks, warnings, results, not_checked. Raises CheckFailed, naming each check that stops.
    """
    written = load_suites(config.suites).sources
    promised = contract_suites(config, run)
    known = streams_of(config)
    for suite in written:
        if suite.stream not in known:
            raise ConfigWrong(
                f"suite {suite.name}: expected a stream of {config.sources}, came {suite.stream!r}; there are "
                f"{', '.join(sorted(known)) or 'none'}"
            )
    # A stream that never had an event has nothing to promise, and nothing to report each day.
    streams = {name: pin for name, pin in run.fresh.items() if pin.seal_offset}
    promised = [suite for suite in promised if suite.stream in streams]
    suites: list[Suite] = []
    scratch = config.run_folder(run.run_id) / "source.duckdb"
    try:
        with _scratch(scratch) as connection, reading_lake():
            for contract in promised:
                pin = streams[contract.stream]
                query = pinned_query(config, contract.stream, pin, pin.seal_offset)
                connection.execute(f"create or replace temp view {identifier(contract.stream)} as {query}")
                own = [suite for suite in written if suite.stream == contract.stream]
                shares = _shares(config, run, contract.stream)
                tables = make_tables(
                    connection, "checked", _source_rows(run, contract), [contract, *own], run.dates, shares
                )
                suites += _suites(config, run, connection, tables)
        not_checked = [{"subject": e.subject, "rule": e.rule} for suite in promised for e in suite.not_checked]
        return {**run_suites(config, run, scratch, suites), "not_checked": not_checked}
    finally:
        scratch.unlink(missing_ok=True)


def check_warehouse(config: DayConfig, run: Run) -> dict[str, Any]:
    """Check the project's mart suites on the run's work copy. Gives and raises as `check_lake`."""
    import duckdb

    suites: list[Suite] = []
    scratch = config.run_folder(run.run_id) / "marts.duckdb"
    try:
        with _scratch(scratch) as connection:
            connection.execute(f"attach {literal(config.work_copy(run.run_id))} as work (read_only)")
            connection.execute("use work")
            for suite in load_suites(config.suites).marts:
                try:
                    tables = make_tables(connection, "checked.main", _mart_rows(run, suite), [suite], run.dates)
                except (duckdb.CatalogException, duckdb.BinderException) as error:
                    if run.options.streams is not None and isinstance(error, duckdb.CatalogException):
                        continue  # A model of another stream, which has never been built.
                    why = " ".join(str(error).split())
                    raise ConfigWrong(f"suite {suite.name}: its rows cannot be had: {why}. Correct it") from error
                suites += _suites(config, run, connection, tables)
        return run_suites(config, run, scratch, suites)
    finally:
        scratch.unlink(missing_ok=True)


def _source_rows(run: Run, suite: ContractSuite) -> Rows:
    stream = identifier(suite.stream)
    dates = f"event_date between date {literal(run.date)} and date {literal(run.last_date)}"
    return Rows(
        table=f"stream_{suite.stream}",
        about=suite.stream,
        query=f"select * from {stream} where {dates}",
        history=f"select * from {stream}",
        date="event_date",
        event_time=suite.event_time,
        hidden=suite.personal,
    )


def _mart_rows(run: Run, suite: MartSuite) -> Rows:
    history = suite.query or f"select * from {identifier(suite.subject)}"
    dates = f"cast({suite.date} as date) between date {literal(run.date)} and date {literal(run.last_date)}"
    query = f"select * from ({history}) where {dates}" if suite.date else history
    return Rows(suite.name, suite.subject, query, history, suite.date)


def _shares(config: DayConfig, run: Run, stream: str) -> dict[str, tuple[int, int]]:
    """Give what the log has counted since the last published run: of what was received, and of what was appended."""
    counts, before = run.streams[stream].counts, _counted_before(config, run, stream)
    new = {
        name: int(counts.get(name, 0)) - int(before.get(name, 0))
        for name in ("quarantined", "received", "late", "appended")
    }
    # A replayed row leaves quarantine: fewer may be in it than before.
    return {
        "quarantined": (max(new["quarantined"], 0), new["received"]),
        "late": (max(new["late"], 0), new["appended"]),
    }


def _counted_before(config: DayConfig, run: Run, stream: str) -> Mapping[str, Any]:
    """Give what the log had counted when the stream was last sealed and published before this run's seal."""
    received = int(run.streams[stream].counts.get("received", 0))
    for publication in publications(config):
        if publication["run_id"] in (run.run_id, run.options.as_of):
            continue
        try:
            pin = load_run(config, publication["run_id"]).fresh.get(stream)
        except RunWrong:  # its folder is gone
            continue
        # Of a run as of another one, later publications know more than it does.
        if pin is not None and int(pin.counts.get("received", 0)) <= received:
            return pin.counts
    return {}


@contextmanager
def _scratch(file: Path) -> Iterator[Any]:
    """Give a connection that has a new scratch database attached as `checked`; GX can open that once this is closed."""
    import duckdb

    file.unlink(missing_ok=True)
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"attach {literal(file)} as checked")
        connection.execute("use checked")
        yield connection


def _suites(config: DayConfig, run: Run, connection: Any, tables: Sequence[CheckedTable]) -> list[Suite]:
    """Give tables' checks as suites, once the rows that break one that stops the day are in its file.

    The rows are written now, while the connection still knows where they come from.
    """
    suites = []
    for table in tables:
        files = {}
        for check in table.checks:
            if check.severity == STOP and not check.problem and _is_broken(connection, table, check):
                files[check.column] = file = _failed_file(config, run, f"{check.suite}.{check.name}")
                connection.execute(f"copy ({check.failing}) to {literal(file)} (format parquet)")
        query = f"select * from {identifier(table.table)}"
        suites.append(Suite(table.name, query, table.key, tuple(_expectations(table)), files))
    return suites


def _is_broken(connection: Any, table: CheckedTable, check: Check) -> bool:
    found = connection.execute(
        f"select 1 from {table.relation} where not {identifier(check.column)} limit 1"
    ).fetchall()
    return bool(found)


def _failed_file(config: DayConfig, run: Run, name: str) -> Path:
    file = config.run_folder(run.run_id) / "failed" / f"{name}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _expectations(table: CheckedTable) -> Iterator[gx.expectations.Expectation]:
    """Give a table's checks as GX's: each of our own as one of its column of booleans, with what it is in its meta."""
    import great_expectations.expectations as e

    left_out = [f"{each.subject}: {each.rule}" for each in table.not_checked]
    for check in table.checks:
        if check.native is not None:
            yield check.native
            continue
        own = {
            "suite": check.suite,
            "name": check.name,
            "subject": check.subject,
            "says": check.says,
            "shown": list(dict.fromkeys((*table.key, *check.shown))),
            "observed": check.observed,
            "problem": check.problem,
            "not_checked": left_out,
        }
        left_out = []
        severity = GX_SEVERITY[check.severity]
        yield e.ExpectColumnValuesToBeInSet(column=check.column, value_set=[True], severity=severity, meta={OWN: own})


def run_suites(config: DayConfig, run: Run, database: Path, suites: Sequence[Suite]) -> dict[str, Any]:
    """Run suites on a DuckDB file. Gives verdict, number of checks, warnings, results; raises CheckFailed."""
    results: list[dict[str, Any]] = []
    with gx_context(config) as context:
        with _datasource(context, database) as datasource:
            for suite in suites:
                results += _validate(config, run, context, datasource, database, suite)
        stopped = [each for each in results if not each["success"] and each["severity"] == STOP]
        if stopped:
            # A run that goes on writes its pages once, at its end.
            write_pages(config, context, run.run_id)
    warned = [each for each in results if not each["success"] and each["severity"] != STOP]
    if stopped:
        texts = "; ".join(each["text"] for each in stopped)
        raise CheckFailed(
            f"{len(stopped)} of {len(results)} checks stop the day: {texts}",
            [each["name"] for each in stopped],
            [_finding(each) for each in stopped],
            results,
        )
    return {
        "verdict": f"passed with {len(warned)} warning{'s' * (len(warned) > 1)}" if warned else "passed",
        "checks": len(results),
        "warnings": warned,
        "results": results,
    }


def _finding(result: dict[str, Any]) -> Finding:
    return Finding(
        result["name"],
        result["text"],
        result["unexpected_rows"],
        tuple(_shown(row) for row in result["sample"]),
        result["file"],
    )


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
    # What a sample shows of a row: GX takes one list for all.
    shown = [name for each in suite.expectations for name in (each.meta or {}).get(OWN, {}).get("shown", ())]
    result = definition.run(
        run_id=RunIdentifier(run_name=run.run_id, run_time=dt.datetime.now(dt.UTC)),
        result_format={
            "result_format": "SUMMARY",
            "unexpected_index_column_names": list(dict.fromkeys([*suite.key, *shown])),
        },
    )
    results = []
    for each in result.results:
        entry = _entry(suite, each.to_json_dict())
        if not entry["success"] and entry["severity"] == STOP and entry["unexpected_rows"]:
            file = suite.files.get(each.expectation_config.kwargs.get("column", ""))
            if file is None:
                complete = batch.get_batch().validate(
                    each.expectation_config.to_domain_obj(),
                    result_format={"result_format": "COMPLETE", "unexpected_index_column_names": list(suite.key)},
                )
                file = _failed_file(config, run, entry["name"])
                _write_rows(database, suite, file, complete.result["unexpected_index_query"])
            entry.update(file=str(file), text=f"{entry['text']}; all of them in {file}")
        results.append(entry)
    return results


def _entry(suite: Suite, result: dict[str, Any]) -> dict[str, Any]:
    """Give one check's result as the run's record has it: JSON, and a text that says it all in a line."""
    config, found = result["expectation_config"], result["result"]
    arguments = {name: value for name, value in config["kwargs"].items() if name != "batch_id"}
    own = (config.get("meta") or {}).get(OWN)
    if own:
        about = {each: own[each] for each in ("suite", "subject")}
        name, says, shown = f"{own['suite']}.{own['name']}", own["says"], own["shown"]
    else:
        columns = [arguments.pop(name) for name in ("column", "column_A", "column_B") if name in arguments]
        columns += arguments.pop("column_list", [])
        kind = config["type"].removeprefix("expect_")
        name = f"{suite.name}.{','.join(columns) or 'table'}.{kind}"
        about = {"suite": suite.name, "subject": ", ".join(columns) or "the whole table"}
        says, shown = in_words(kind, columns, dict(arguments)), []
    rows = (found.get("partial_unexpected_index_list") or found.get("partial_unexpected_list", []))[:SAMPLE_ROWS]
    entry = {
        "name": name,
        **about,
        "expectation": says,
        "severity": str(_SEVERITY[config["severity"]]),
        "success": bool(result["success"]),
        "rows": found.get("element_count") or 0,
        "unexpected_rows": found.get("unexpected_count"),
        "observed": str(found.get("observed_value", own["observed"] if own else "")),
        "sample": [_of(row, shown) for row in rows],
        "file": "",
    }
    problem = (own or {}).get("problem") or raised(result["exception_info"])
    if problem:
        # A check that could not be made is not a check that passed, whatever its severity.
        entry.update(severity=str(STOP), success=False, observed=problem, rows=0, unexpected_rows=None, sample=[])
    return {**entry, "text": _text(entry, bool(problem))}


def raised(info: dict[str, Any]) -> str:
    """Give the message of what a check raised, if it did; one check may hold several."""
    infos = [info] if "raised_exception" in info else [each for each in info.values() if isinstance(each, dict)]
    messages = [str(each["exception_message"]) for each in infos if each["raised_exception"]]
    return " ".join("; ".join(messages).split())


def _of(row: Any, shown: Sequence[str]) -> Any:
    return {name: row[name] for name in shown if name in row} if shown and isinstance(row, dict) else row


def _text(entry: dict[str, Any], has_problem: bool) -> str:
    text = f"{entry['name']}: expected {entry['expectation']}"
    if has_problem:
        return f"{text}, but it could not be checked: {entry['observed']}"
    if entry["unexpected_rows"] is None:
        return f"{text}, found {entry['observed']}"
    if entry["success"]:
        return f"{text}: so in {entry['rows'] - entry['unexpected_rows']:,} of {entry['rows']:,} rows"
    text += f"; not so in {entry['unexpected_rows']:,} of {entry['rows']:,} rows"
    sample = [_shown(row) for row in entry["sample"]]
    return f"{text}, such as {' | '.join(sample)}" if sample else text


def _shown(row: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.items()) if isinstance(row, dict) else str(row)


def _write_rows(database: Path, suite: Suite, file: Path, query: str) -> None:
    """Write the rows that one of GX's own checks does not accept to a file."""
    import duckdb

    # GX writes a query where a table's name would stand, without the brackets that it needs there.
    query = query.replace(suite.query, f"({suite.query})").rstrip("; \n")
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        # GX has the database open, with settings of its own: attached here, it is another instance that reads.
        connection.execute(f"attach {literal(database)} as checked (read_only)")
        connection.execute("use checked")
        # `select *` from it, as GX may list a column twice.
        connection.execute(f"copy (select * from ({query})) to {literal(file)} (format parquet)")


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
