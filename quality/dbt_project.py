"""Runs the dbt project in this process, as one run reads the lake: pinned by its record, into its work copy.

dbt takes its options from the environment and changes the working folder; both are put back afterwards. Not
thread-safe for that reason: one dbt invocation a process.
"""

# ruff: noqa: S608 - SQL is put together here: names come from dbt's manifest, paths are quoted.

from __future__ import annotations

import datetime as dt
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quality import unit_tests
from quality.config import DayConfig
from quality.errors import Finding, ModelFailed
from quality.files import copy_file, replace_durably, write_atomically
from quality.lake import lake_dates
from quality.layers import OPERATIONS, Layers, selector
from quality.live_models import keep_live_models
from quality.publish import last_published
from quality.run import LAYERS, Run, run_file
from tidemill.lake import literal

SAMPLE_ROWS = 5
"""How many failing rows of a test are shown; all are written to a file."""
_PARSED = "partial_parse.msgpack"
_FAILED = {"error", "fail", "runtime error", "partial success"}
MONTHLY_FROM_DAYS = 31
"""A range of more dates is built by month: a batch costs about 0.1 s however few rows it has."""


def build(config: DayConfig, run: Run, layer: str) -> dict[str, Any]:
    """Run `dbt build` for one layer of the run's dates into its work copy; give models, tests and their times.

    Before the first layer the live models are compiled, because what a batch of a microbatch model compiles to is
    filtered by its dates, and the seeds are dropped. A layer of which nothing is to be built gives an empty result.
    dbt's unit tests run when the project has changed since they passed (`quality.unit_tests`).
    Raises ModelFailed naming every model or test that failed, its failing rows and dbt's log; DiskFull.
    """
    manifest = _target(config, run) / "manifest.json"
    span, variables = _window(config, run)
    with environment(config, run, config.work_copy(run.run_id)):
        if layer == LAYERS[0]:
            _take_parsed(config, run)
            _compiled_file(config, run).unlink(missing_ok=True)
        # As the project is now: it may have been repaired since the layer before.
        parsed = parse(config, run, variables)
        if layer == LAYERS[0]:
            invoke(config, run, ["compile", "--select", "tag:live", *variables], parsed)
            keep_live_models(config, run, manifest)
            _keep_compiled(config, run, parsed)
            _drop_seeds(config, run, manifest)
        content = json.loads(manifest.read_text(encoding="utf-8"))
        project = unit_tests.digest(content, (config.project / "dbt_project.yml").read_text(encoding="utf-8"))
        nodes = Layers(content).selected(layer, run.options.streams, _tables(config, run))
        passed = unit_tests.have_passed(config, layer, project)
        if passed:
            nodes = [node for node in nodes if node["resource_type"] != "unit_test"]
        if not nodes:
            return _summary(config, run, layer, [])
        # Exactly these, each named: dbt adds no test of its own accord, so none runs twice over the layers.
        selection = ["--select", *map(selector, nodes), "--indirect-selection", "empty"]
        # A model's name selects its unit tests too: theirs begins with it.
        selection += ["--exclude-resource-type", "unit_test"] if passed else []
        # What the operations models know of earlier runs is nowhere else: they are never made anew.
        refresh = ["--full-refresh"] if run.options.full_refresh and layer != OPERATIONS else []
        # Its manifest would be the one that `parse` wrote: the compiled SQL is taken from memory.
        built = _invoke(config, run, ["build", "--no-write-json", *selection, *span, *variables, *refresh], parsed)
        _keep_compiled(config, run, parsed)
        built.write(str(_results_file(config, run, layer)))
        if run.options.streams is None:
            unit_tests.keep_passed(config, layer, project)
    if not variables:
        _keep_parsed(config, run)
    return _summary(config, run, layer, list(built.results))


def _window(config: DayConfig, run: Run) -> tuple[list[str], list[str]]:
    """Give the options that say which dates are built, and the variables of a range so long that it goes by month."""
    first, last = run.first, run.last
    if run.options.full_refresh:
        # Made anew, a model has the window's dates alone: it must be all that it had.
        published = last_published(config)
        first = min([first, *lake_dates(run)])
        last = max([last, *([dt.date.fromisoformat(published["last_published_date"])] if published else [])])
    end = last + dt.timedelta(days=1)
    span = ["--event-time-start", first.isoformat(), "--event-time-end", end.isoformat()]
    return span, ["--vars", "{batch_size: month}"] if (end - first).days > MONTHLY_FROM_DAYS else []


def _tables(config: DayConfig, run: Run) -> set[tuple[str, str]]:
    """Give schema and name of everything in the work copy."""
    import duckdb

    with duckdb.connect(str(config.work_copy(run.run_id)), read_only=True) as connection:
        return set(connection.execute("select table_schema, table_name from information_schema.tables").fetchall())


def _compiled_file(config: DayConfig, run: Run) -> Path:
    return config.run_folder(run.run_id) / "compiled.json"


def _keep_compiled(config: DayConfig, run: Run, parsed: Any) -> None:
    """Keep the compiled SQL of what was just compiled or built: the next layer's project, read anew, has none."""
    file = _compiled_file(config, run)
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    nodes = parsed.nodes.items()
    kept.update({name: node.compiled_code for name, node in nodes if getattr(node, "compiled_code", None)})
    write_atomically(file, json.dumps(kept, ensure_ascii=False))


def _drop_seeds(config: DayConfig, run: Run, manifest: Path) -> None:
    """Drop the seeds' tables from the work copy: into one that exists dbt loads by position, whatever its columns."""
    import duckdb

    nodes = json.loads(manifest.read_text(encoding="utf-8"))["nodes"].values()
    with duckdb.connect(str(config.work_copy(run.run_id))) as connection:
        for node in nodes:
            if node["resource_type"] == "seed":
                connection.execute(f"drop table if exists {node['relation_name']}")


def make_docs(config: DayConfig, run: Run) -> None:
    """Make the docs of all that was built, while the copy is open to this run alone; `put_docs` puts them in place.

    Every model's compiled SQL is in them: that of the layers of this run, and of what it did not build, compiled now.
    """
    manifest = _target(config, run) / "manifest.json"
    _, variables = _window(config, run)
    with environment(config, run, config.work_copy(run.run_id)):
        kept = json.loads(_compiled_file(config, run).read_text(encoding="utf-8"))
        content = json.loads(manifest.read_text(encoding="utf-8"))
        models = {name for name, node in content["nodes"].items() if node["resource_type"] == "model"}
        if models - kept.keys():
            invoke(config, run, ["compile", *variables])
            content = json.loads(manifest.read_text(encoding="utf-8"))
        for name, node in content["nodes"].items():
            if not node.get("compiled_code") and name in kept:
                node.update(compiled=True, compiled_code=kept[name])
        write_atomically(manifest, json.dumps(content, ensure_ascii=False))
        # --no-compile, because the compiled SQL stands in the manifest.
        invoke(config, run, ["docs", "generate", "--static", "--no-compile", *variables])


def put_docs(config: DayConfig, run: Run) -> Path:
    """Make the docs of the run's build the current ones; give their page."""
    page = _target(config, run) / "static_index.html"
    copy_file(page, page.with_suffix(".new"))
    replace_durably(page.with_suffix(".new"), config.dbt_docs)
    return config.dbt_docs


def _results_file(config: DayConfig, run: Run, layer: str) -> Path:
    return config.run_folder(run.run_id) / "run_results" / f"{layer}.json"


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
        close_files()
        os.chdir(folder)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def parse(config: DayConfig, run: Run, variables: list[str]) -> Any:
    """Read the project, write its manifest, and give it for the commands that follow. Raises ModelFailed."""
    return _invoke(config, run, ["parse", *variables], None)


def invoke(config: DayConfig, run: Run, arguments: list[str], parsed: Any = None) -> list[Any]:
    """Run one dbt command; give its nodes' results. Raises ModelFailed and DiskFull.

    parsed: the project as `parse` gave it; None: it is read anew.
    """
    return list(getattr(_invoke(config, run, arguments, parsed), "results", None) or [])


def _invoke(config: DayConfig, run: Run, arguments: list[str], parsed: Any) -> Any:
    from dbt.cli.main import dbtRunner

    errors: dict[str, str] = {}

    def remember(event: Any) -> None:
        # What a batch of a microbatch model failed by is in no result, only in the events.
        if str(event.info.level) == "error" and hasattr(event.data, "node_info"):
            errors.setdefault(event.data.node_info.unique_id, event.info.msg)

    project = str(config.project)
    folders = ["--project-dir", project, "--profiles-dir", project]
    folders += ["--target-path", str(_target(config, run)), "--log-path", str(_log(config, run).parent)]
    result = dbtRunner(manifest=parsed, callbacks=[remember]).invoke([*arguments, *folders])
    results = list(getattr(result.result, "results", None) or [])
    close_files()
    _raise_failures(config, run, result, results, errors)
    return result.result


def close_files() -> None:
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
    findings = [_finding(config, run, each, errors.get(each.node.unique_id, "")) for each in failed]
    reason = " ".join(str(result.exception or "it gave no reason").split())
    if failed:
        texts = [_text(each, finding) for each, finding in zip(failed, findings, strict=True)]
        names = [finding.name for finding in findings]
        raise ModelFailed("dbt: " + "; ".join(texts) + f". Log: {log}", names, log, findings)
    if not result.success:
        raise ModelFailed(f"dbt could not run the project in {config.project}: {reason}. Log: {log}", [], log)


def _finding(config: DayConfig, run: Run, result: Any, error: str) -> Finding:
    """Say what failed in one node: for a test, how many rows, some of them, and the file that holds all."""
    node = result.node
    message = str(result.message or "")
    message = " ".join((error if message in {"", "ERROR"} and error else message).split())
    if str(node.resource_type) != "test" or not result.failures or not node.compiled_code:
        return Finding(node.name, message)
    # dbt counts the rows of the test's query; the same query gives them.
    import duckdb

    file = config.run_folder(run.run_id) / "failed" / f"{node.name}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with duckdb.connect(str(config.work_copy(run.run_id)), read_only=True) as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.execute(f"copy ({node.compiled_code}) to {literal(file)} (format parquet)")
            found = connection.execute(f"select * from read_parquet({literal(file)}) limit {SAMPLE_ROWS}")
            names = [column[0] for column in found.description]
            sample = [
                ", ".join(f"{name}={value}" for name, value in zip(names, row, strict=True)) for row in found.fetchall()
            ]
    except duckdb.Error as problem:
        # A test of a source, whose rows dbt alone can read: the count is what there is.
        return Finding(node.name, f"{message} (its rows could not be kept: {problem})", int(result.failures))
    return Finding(node.name, message, int(result.failures), tuple(sample), str(file))


def _text(result: Any, finding: Finding) -> str:
    text = f"{result.node.resource_type} {finding.name} failed: {finding.message}"
    if not finding.file:
        return text
    return f"{text}; such as {' | '.join(finding.sample)}; all {finding.rows} in {finding.file}"


def _summary(config: DayConfig, run: Run, layer: str, results: list[Any]) -> dict[str, Any]:
    import duckdb

    tables: dict[str, dict[str, dict[str, Any]]] = {"model": {}, "seed": {}, "snapshot": {}}
    tests: list[dict[str, Any]] = []
    with duckdb.connect(str(config.work_copy(run.run_id)), read_only=True) as connection:
        for each in results:
            kind, node = str(each.node.resource_type), each.node
            if kind in tables and node.relation_name:
                # A batch of a microbatch model is no model of its own; the model's own result sums them up.
                rows = connection.execute(f"select count(*) from {node.relation_name}").fetchall()[0][0]
                tables[kind][node.name] = {"rows": int(rows), "seconds": round(each.execution_time, 3)}
            elif kind in {"test", "unit_test"}:
                parents = [name.split(".")[2] for name in node.depends_on.nodes if name.startswith("model.")]
                tests.append(
                    {
                        "name": node.name,
                        "models": parents,
                        "status": str(each.status),
                        "rows": int(each.failures or 0),
                        "seconds": round(each.execution_time, 3),
                    }
                )
    for name, model in tables["model"].items():
        model["tests"] = sum(name in test["models"] for test in tests)
    return {
        "layer": layer,
        "models": tables["model"],
        "seeds": tables["seed"],
        "snapshots": tables["snapshot"],
        "tests": len(tests),
        "test_warnings": sum(test["status"] == "warn" for test in tests),
        "test_results": tests,
        "note": "" if results else "nothing to build in this layer",
        "log": str(_log(config, run)),
        "run_results": str(_results_file(config, run, layer)) if results else "",
    }
