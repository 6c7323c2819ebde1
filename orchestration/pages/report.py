"""A run's report: what its record, its files and Airflow tell of it, put together for showing.

Whatever is not there yet, or not any more, is left out: a run that failed or still goes on is shown as far as it came.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from orchestration.pages.airflow_runs import AirflowRun
from orchestration.pages.days import Counted
from orchestration.pages.published import Publication, Published
from orchestration.pages.records import CHECK_STAGES, result_of
from orchestration.pages.steps import TASKS, Step, moment, span, steps_of
from quality.balance import Line
from quality.config import DayConfig
from quality.reconcile_views import report_file
from quality.run import LAYERS, Run

DIFFERENCES_SHOWN = 100
"""How many differences of a run are listed on its page; the file that holds more is named."""
QUARANTINE_SHOWN = 50
"""How many kinds of quarantined rows are listed."""


@dataclass(frozen=True)
class Failure:
    """Something that stopped the run. rows: how many broke it, None where it is not about rows; file: all of them."""

    stage: str
    task_id: str
    name: str
    message: str
    at: dt.datetime | None
    rows: int | None
    sample: tuple[str, ...]
    file: str


@dataclass(frozen=True)
class Model:
    """A model, seed or snapshot that was built. failed: names of its tests that failed or warned."""

    name: str
    kind: str
    rows: int
    seconds: float
    tests: int
    failed: tuple[tuple[str, str, int], ...]
    docs: str


@dataclass(frozen=True)
class Check:
    """An expectation's result."""

    name: str
    suite: str
    subject: str
    expectation: str
    stops: bool
    success: bool
    rows: int
    unexpected: int | None
    observed: str
    sample: tuple[tuple[tuple[str, str], ...], ...]
    file: str

    @property
    def state(self) -> str:
        """How it ended."""
        return "passed" if self.success else "failed" if self.stops else "warned"


@dataclass(frozen=True)
class View:
    """A live view, compared with its model. causes: cause → rows; what has none is unexplained."""

    name: str
    stream: str
    windows: int
    rows: int
    differences: int
    explained: int
    causes: tuple[tuple[str, int], ...]
    note: str


@dataclass(frozen=True)
class Stream:
    """A stream as the run read it. rows: of the run's dates, as the log had counted them at the seal."""

    name: str
    fresh: bool
    seal_offset: int
    sealed_at: dt.datetime | None
    lake_version: int | None
    appended: int
    rows: int
    late: int
    quarantined: int


@dataclass(frozen=True)
class Late:
    """Rows of a date that came after a publication of it. taken: in this run; pending: in none yet."""

    date: str
    stream: str
    taken: int
    pending: int


@dataclass(frozen=True)
class Quarantined:
    """Rows in quarantine that broke one rule in one field; message: that of one of them."""

    stream: str
    field: str
    rule: str
    rows: int
    replayed: int
    message: str


@dataclass(frozen=True)
class Report:
    """All of it. publication: the run's own, if its dates are published by it; by_other: dates that another run has
    published since.
    """

    run: Run
    airflow: AirflowRun | None
    state: str
    steps: tuple[Step, ...]
    failures: tuple[Failure, ...]
    layers: tuple[tuple[str, tuple[Model, ...]], ...]
    tests: int
    tests_not_passed: int
    checks: tuple[Check, ...]
    lines: tuple[Line, ...]
    views: tuple[View, ...]
    differences: tuple[Mapping[str, str], ...]
    differences_total: int
    reconcile_note: str
    streams: tuple[Stream, ...]
    late: tuple[Late, ...]
    late_problem: str
    quarantined: tuple[Quarantined, ...]
    publication: Publication | None
    replaced: int
    data_docs: str
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def dates(self) -> str:
        """The run's dates in words."""
        return self.run.date if self.run.date == self.run.last_date else f"{self.run.date} to {self.run.last_date}"

    @property
    def seconds(self) -> float | None:
        """From the first step's begin to the last one's end."""
        return span(self.steps)[1]

    def count(self, state: str) -> int:
        """Tell how many checks ended so."""
        return sum(check.state == state for check in self.checks)


def make_report(
    config: DayConfig, run: Run, airflow: AirflowRun | None, published: Published, counted: Counted
) -> Report:
    """Put a run's report together."""
    by_date = published.by_date()
    mine = next((each for each in published.publications if each.run_id == run.run_id), None)
    layers = tuple((layer, tuple(_models(config, run, layer))) for layer in (*LAYERS, "operations"))
    tests = [test for layer in (*LAYERS, "operations") for test in _built(run, layer).get("test_results", [])]
    views, differences, total, note = _reconciliation(config, run)
    return Report(
        run=run,
        airflow=airflow,
        state=_state(run, airflow),
        steps=steps_of(run, airflow),
        failures=tuple(_failures(config, run, airflow)),
        layers=tuple((layer, models) for layer, models in layers if models),
        tests=len(tests),
        tests_not_passed=sum(test.get("status") not in {"pass", "success"} for test in tests),
        checks=tuple(_checks(config, run)),
        lines=tuple(_lines(run)),
        views=views,
        differences=differences,
        differences_total=total,
        reconcile_note=note,
        streams=tuple(_streams(run)),
        late=tuple(_late(run, published, counted)),
        late_problem=counted.problem,
        quarantined=tuple(_quarantined(config, run)),
        publication=mine,
        replaced=sum(by_date[date].run_id != run.run_id for date in run.dates if date in by_date) if mine else 0,
        data_docs=_data_docs(config, run),
        files={
            "record": _short(config, config.run_folder(run.run_id) / "run.json"),
            "dbt log": _short(config, config.run_folder(run.run_id) / "logs" / "dbt.log"),
        },
    )


def _state(run: Run, airflow: AirflowRun | None) -> str:
    """Give the run's state; Airflow knows better whether one without an end still goes on."""
    if run.state in {"published", "built"}:
        return run.state
    if airflow is not None:
        if airflow.is_running:
            return "running"
        if airflow.state == "failed":
            return "failed"
    return run.state


def _built(run: Run, layer: str) -> dict[str, Any]:
    if layer == "operations":
        found: dict[str, Any] = result_of(run, "publish").get("operations") or {}
        return found
    return result_of(run, f"dbt.{layer}")


def _failures(config: DayConfig, run: Run, airflow: AirflowRun | None) -> Iterator[Failure]:
    told = set()
    for each in run.failures:
        names, stage = [str(name) for name in each.get("names", [])], str(each["stage"])
        told.add(TASKS.get(stage, stage))
        yield Failure(
            stage=stage,
            task_id=TASKS.get(stage, stage),
            name=", ".join(names),
            message=_message(str(each.get("error", "")), names),
            at=moment(each.get("at")),
            rows=each.get("rows"),
            sample=tuple(str(row) for row in each.get("sample", [])),
            file=_short(config, each.get("file", "")),
        )
    for task in airflow.tasks if airflow else ():
        if task.state == "failed" and task.task_id.removeprefix("dates.") not in told:
            text = "The task failed before it could write down why: its log in Airflow says it."
            yield Failure(task.task_id, task.task_id, "", text, task.ended_at, None, (), "")


def _message(error: str, names: list[str]) -> str:
    """Take of an error that is about several findings the part about these."""
    parts = [part for part in error.split("; ") if any(name in part for name in names)]
    if len(names) == 1 and parts:
        return re.sub(r"[;:]? (such as|all of them in|all \d+ in) .*", "", parts[0])
    return error


def _models(config: DayConfig, run: Run, layer: str) -> Iterator[Model]:
    built = _built(run, layer)
    tests = built.get("test_results", [])
    project = _project_name(config)
    for kind, key in (("model", "models"), ("seed", "seeds"), ("snapshot", "snapshots")):
        for name, each in sorted(built.get(key, {}).items()):
            bad = [
                test for test in tests if name in test.get("models", []) and test["status"] not in {"pass", "success"}
            ]
            yield Model(
                name=name,
                kind=kind,
                rows=int(each.get("rows", 0)),
                seconds=float(each.get("seconds", 0.0)),
                tests=int(each.get("tests", 0)),
                failed=tuple((str(test["name"]), str(test["status"]), int(test.get("rows", 0))) for test in bad),
                docs=f"#!/{kind}/{kind}.{project}.{name}" if project else "",
            )


def _project_name(config: DayConfig) -> str:
    try:
        text = (config.project / "dbt_project.yml").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r"^name:\s*[\"']?([A-Za-z0-9_]+)", text, re.MULTILINE)
    return found.group(1) if found else ""


def _checks(config: DayConfig, run: Run) -> Iterator[Check]:
    for stage in CHECK_STAGES:
        for each in result_of(run, stage).get("results", []):
            yield Check(
                name=str(each.get("name", "")),
                suite=str(each.get("suite", "")),
                subject=str(each.get("subject", "")),
                expectation=str(each.get("expectation", "")),
                stops=str(each.get("severity", "")).upper() in {"STOP", "CRITICAL"},
                success=bool(each.get("success")),
                rows=int(each.get("rows") or 0),
                unexpected=each.get("unexpected_rows"),
                observed="" if each.get("observed") in {None, ""} else str(each["observed"]),
                sample=tuple(_row(row) for row in each.get("sample", [])) if not each.get("success") else (),
                file=_short(config, each.get("file", "")),
            )


def _row(row: Any) -> tuple[tuple[str, str], ...]:
    values = row.items() if isinstance(row, dict) else [("", row)]
    return tuple((str(name), "NULL" if value is None else str(value)) for name, value in values)


def _lines(run: Run) -> Iterator[Line]:
    for stage in ("balance", "check_marts"):
        for each in result_of(run, stage).get("balance", []):
            yield Line(each["stream"], each["left"], int(each["left_rows"]), each["right"], int(each["right_rows"]))


def _reconciliation(config: DayConfig, run: Run) -> tuple[tuple[View, ...], tuple[Mapping[str, str], ...], int, str]:
    """Give the views, the differences that are shown, how many there are, and a note.

    A run that failed by them has its comparisons in their file alone.
    """
    try:
        written = json.loads(report_file(config, run.run_id).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        written = {}
    result = result_of(run, "reconcile")
    failed = any(each["stage"] == "reconcile" for each in run.failures)
    if not result and not failed:
        # Of an earlier try, whose build is void.
        return (), (), 0, ""
    compared = {str(each["view"]): each for each in written.get("views", [])}
    entries: Mapping[str, Any] = result.get("views") or compared
    views = tuple(
        View(
            name=name,
            stream=str(each.get("stream", "")),
            windows=int(each.get("windows", each.get("windows_compared", 0))),
            rows=int(each.get("rows", each.get("rows_compared", 0))),
            differences=int(each.get("differences") if result else each.get("difference_count", 0)),
            explained=int(each.get("explained") or 0),
            causes=tuple((str(cause), int(rows)) for cause, rows in dict(each.get("causes") or {}).items()),
            note=str(each.get("note") or each.get("expired") or ""),
        )
        for name, each in sorted(entries.items())
    )
    listed = [
        {key: str(value) for key, value in difference.items()}
        for each in compared.values()
        for difference in each.get("differences", [])
    ]
    notes = [str(result.get("note", "")), *(str(text) for text in written.get("not_compared", []))]
    return (
        views,
        tuple(listed[:DIFFERENCES_SHOWN]),
        sum(view.differences for view in views),
        " ".join(filter(None, notes)),
    )


def _streams(run: Run) -> Iterator[Stream]:
    dates = {str(date) for date in run.dates}
    for name, pin in sorted(run.streams.items()):
        by_date = pin.counts.get("appended_by_date", {})
        yield Stream(
            name=name,
            fresh=pin.fresh,
            seal_offset=pin.seal_offset,
            sealed_at=moment(pin.sealed_at),
            lake_version=pin.lake_version if pin.exported else None,
            appended=int(pin.counts.get("appended", 0)),
            rows=sum(int(rows) for date, rows in by_date.items() if date in dates),
            late=int(pin.counts.get("late", 0)),
            quarantined=int(pin.counts.get("quarantined", 0)),
        )


def _late(run: Run, published: Published, counted: Counted) -> Iterator[Late]:
    taken: Mapping[str, Mapping[str, int]] = result_of(run, "publish").get("late") or {}
    by_date = published.by_date()
    for date in run.dates:
        is_mine = date in by_date and by_date[date].run_id == run.run_id
        logged = counted.rows.get(date, {})
        for stream in sorted(run.streams):
            here = published.rows.get(date, {}).get(stream)
            pending = max(logged.get(stream, 0) - here, 0) if is_mine and here is not None else 0
            rows = int(taken.get(stream, {}).get(str(date), 0))
            if rows or pending:
                yield Late(str(date), stream, rows, pending)


def _quarantined(config: DayConfig, run: Run) -> list[Quarantined]:
    """Count what stood in quarantine when the run brought its lake up to date."""
    import duckdb

    file = config.operations(run.run_id) / "quarantined_rows.parquet"
    if "export" not in run.stages or not file.is_file():
        return []
    try:
        with duckdb.connect(":memory:") as connection:
            found = connection.execute(
                'select stream, "field", rule, count(*), count(*) filter (replayed), min(message) '
                "from read_parquet(?) group by all order by 1, 4 desc, 2, 3 limit ?",
                [str(file), QUARANTINE_SHOWN],
            ).fetchall()
    except duckdb.Error:  # written by another release, or half a file
        return []
    return [
        Quarantined(str(stream), str(where or ""), str(rule or ""), int(rows), int(replayed), str(message or ""))
        for stream, where, rule, rows, replayed, message in found
    ]


def _data_docs(config: DayConfig, run: Run) -> str:
    page = f"runs/{run.run_id}.html"
    return quote(page) if (config.data_docs / page).is_file() else ""


def _short(config: DayConfig, path: Any) -> str:
    """Give a path below the data folder without it."""
    return str(path or "").removeprefix(f"{config.data}/")
