"""Runs the dbt project in this process, as one run reads the lake: pinned by its record, into its work copy.

dbt takes its options from the environment and changes the working folder; both are put back afterwards. Not
thread-safe for that reason: one dbt invocation a process.
"""

# ruff: noqa: S608 - SQL is put together here: names come from dbt's manifest, paths are quoted.

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quality.config import DayConfig
from quality.errors import ModelFailed
from quality.files import copy_file, replace_durably
from quality.live_models import keep_live_models
from quality.run import Run, run_file
from tidemill.lake import literal

SAMPLE_ROWS = 5
"""How many failing rows of a test are shown; all are written to a file."""
_PARSED = "partial_parse.msgpack"
_FAILED = {"error", "fail", "runtime error", "partial success"}
MONTHLY_FROM_DAYS = 31
"""A range of more dates is built by month: a batch costs about 0.1 s however few rows it has."""


def build(config: DayConfig, run: Run) -> dict[str, Any]:
    """Run `dbt build` for the run's dates into its work copy; give each model's rows and time, and the tests' count.

    1. compile the live models: what a batch of a microbatch model compiles to is filtered by its dates
    2. build everything: seeds, which are made anew, models, tests
    3. make the docs, while the copy is open to this run alone: `put_docs` only puts them in their place

    Raises ModelFailed naming every model or test that failed, its failing rows and dbt's log.
    """
    span = ["--event-time-start", run.date, "--event-time-end", run.end.isoformat()]
    monthly = (run.end - run.first).days > MONTHLY_FROM_DAYS
    variables = ["--vars", "{batch_size: month}"] if monthly else []
    with environment(config, run, config.work_copy(run.run_id)):
        _take_parsed(config, run)
        invoke(config, run, ["compile", "--select", "tag:live", *variables])  # 1
        manifest = _target(config, run) / "manifest.json"
        keep_live_models(config, run, manifest)
        _drop_seeds(config, run, manifest)
        results = invoke(config, run, ["build", *span, *variables])  # 2
        # The manifest is the build's; --no-compile, because the compiled SQL stands in it.
        invoke(config, run, ["docs", "generate", "--static", "--no-compile", *variables])  # 3
    if not monthly:
        _keep_parsed(config, run)
    return _summary(config, run, results)


def _drop_seeds(config: DayConfig, run: Run, manifest: Path) -> None:
    """Drop the seeds' tables from the work copy: into one that exists dbt loads by position, whatever its columns."""
    import duckdb

    nodes = json.loads(manifest.read_text(encoding="utf-8"))["nodes"].values()
    with duckdb.connect(str(config.work_copy(run.run_id))) as connection:
        for node in nodes:
            if node["resource_type"] == "seed":
                connection.execute(f"drop table if exists {node['relation_name']}")


def put_docs(config: DayConfig, run: Run) -> Path:
    """Make the docs of the run's build the current ones; give their page."""
    page = _target(config, run) / "static_index.html"
    copy_file(page, page.with_suffix(".new"))
    replace_durably(page.with_suffix(".new"), config.dbt_docs)
    return config.dbt_docs


def _take_parsed(config: DayConfig, run: Run) -> None:
    """Give dbt what it parsed in an earlier run: it parses anew what has changed since, and all of it when in doubt."""
    parsed = config.runs / _PARSED
    if parsed.exists():
        copy_file(parsed, _target(config, run) / _PARSED)


def _keep_parsed(config: DayConfig, run: Run) -> None:
    new = config.runs / f".{_PARSED}.{run.run_id}"
    copy_file(_target(config, run) / _PARSED, new)
    new.replace(config.runs / _PARSED)


def _target(config: DayConfig, run: Run) -> Path:
    return config.run_folder(run.run_id) / "target"


def _log(config: DayConfig, run: Run) -> Path:
    return config.run_folder(run.run_id) / "logs" / "dbt.log"


@contextmanager
def environment(config: DayConfig, run: Run, warehouse: Path) -> Iterator[None]:
    """Let dbt read what the run pinned and write that warehouse, inside the project's folder."""
    wanted = {
        "TIDEMILL_DATA": str(config.data),
        # The profile's file stays the same for all runs, or dbt would parse the whole project for each.
        "TIDEMILL_WAREHOUSE": str(config.warehouse.parent / "work" / warehouse.name),
        "TIDEMILL_WORK_COPY": str(warehouse),
        "TIDEMILL_PINS": str(run_file(config, run.run_id)),
        "DO_NOT_TRACK": "1",
    }
    before = {name: os.environ.get(name) for name in wanted}
    folder = Path.cwd()
    os.environ.update(wanted)
    # The profile and the plugin take paths from the project's folder, as when dbt is run by hand.
    os.chdir(config.project)
    try:
        yield
    finally:
        _close_files()
        os.chdir(folder)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def invoke(config: DayConfig, run: Run, arguments: list[str]) -> list[Any]:
    """Run one dbt command; give its nodes' results. Raises ModelFailed."""
    from dbt.cli.main import dbtRunner

    errors: dict[str, str] = {}

    def remember(event: Any) -> None:
        # What a batch of a microbatch model failed by is in no result, only in the events.
        if str(event.info.level) == "error" and hasattr(event.data, "node_info"):
            errors.setdefault(event.data.node_info.unique_id, event.info.msg)

    project = str(config.project)
    folders = ["--project-dir", project, "--profiles-dir", project]
    folders += ["--target-path", str(_target(config, run)), "--log-path", str(_log(config, run).parent)]
    result = dbtRunner(callbacks=[remember]).invoke([*arguments, *folders])
    results = list(getattr(result.result, "results", None) or [])
    _close_files()
    _raise_failures(config, run, result, results, errors)
    return results


def _close_files() -> None:
    """Close what dbt keeps open for its process's next invocation: the warehouse, and its log."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt_common.events.event_manager_client import get_event_manager

    environment = DuckDBConnectionManager._ENV
    if environment is not None:
        environment.close()
    DuckDBConnectionManager.close_all_connections()
    for logger in get_event_manager().loggers:
        for handler in logger._python_logger.handlers if logger._python_logger else []:
            if isinstance(handler, logging.FileHandler):
                handler.close()


def _raise_failures(config: DayConfig, run: Run, result: Any, results: list[Any], errors: dict[str, str]) -> None:
    log = str(_log(config, run))
    failed = [each for each in results if str(getattr(each, "status", "")) in _FAILED]
    if failed:
        texts = [_failure(config, run, each, errors.get(each.node.unique_id, "")) for each in failed]
        raise ModelFailed("dbt: " + "; ".join(texts) + f". Log: {log}", [each.node.name for each in failed], log)
    if not result.success:
        reason = " ".join(str(result.exception or "it gave no reason").split())
        raise ModelFailed(f"dbt could not run the project in {config.project}: {reason}. Log: {log}", [], log)


def _failure(config: DayConfig, run: Run, result: Any, error: str) -> str:
    """Say what failed in one node: for a test, how many rows, some of them, and the file that holds all."""
    node = result.node
    message = str(result.message or "")
    message = " ".join((error if message in {"", "ERROR"} and error else message).split())
    text = f"{node.resource_type} {node.name} failed: {message}"
    if str(node.resource_type) != "test" or not result.failures or not node.compiled_code:
        return text
    # dbt counts the rows of the test's query; the same query gives them.
    import duckdb

    file = config.run_folder(run.run_id) / "failed" / f"{node.name}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(config.work_copy(run.run_id)), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.execute(f"copy ({node.compiled_code}) to {literal(file)} (format parquet)")
        found = connection.execute(f"select * from read_parquet({literal(file)}) limit {SAMPLE_ROWS}")
        names = [column[0] for column in found.description]
        sample = [
            ", ".join(f"{name}={value}" for name, value in zip(names, row, strict=True)) for row in found.fetchall()
        ]
    return f"{text}; such as {' | '.join(sample)}; all {result.failures} in {file}"


def _summary(config: DayConfig, run: Run, results: list[Any]) -> dict[str, Any]:
    import duckdb

    tables: dict[str, dict[str, dict[str, Any]]] = {"model": {}, "seed": {}}
    tests = warnings = 0
    with duckdb.connect(str(config.work_copy(run.run_id)), read_only=True) as connection:
        for each in results:
            kind = str(each.node.resource_type)
            if kind in tables:
                # A batch of a microbatch model is no model of its own; the model's own result sums them up.
                rows = connection.execute(f"select count(*) from {each.node.relation_name}").fetchall()[0][0]
                tables[kind][each.node.name] = {"rows": int(rows), "seconds": round(each.execution_time, 3)}
            elif kind in {"test", "unit_test"}:
                tests += 1
                warnings += str(each.status) == "warn"
    return {
        "models": tables["model"],
        "seeds": tables["seed"],
        "tests": tests,
        "test_warnings": warnings,
        "log": str(_log(config, run)),
        "run_results": str(_target(config, run) / "run_results.json"),
    }
