"""Our own pages on what the checks found: static HTML that needs no network and no JavaScript.

An index of the newest runs, and a page for each run with every expectation. They are made from the results that Great
Expectations keeps (`<suite>/<run>/<time>/<asset>.json`) and from the runs' records, so they can be made again at any
time. Samples come from events, which anyone may have sent: every text is escaped, and a policy in each page forbids
the browser to load anything.
"""

from __future__ import annotations

import datetime as dt
import enum
import functools
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from quality.config import DayConfig
from quality.errors import RunWrong
from quality.files import write_atomically
from quality.run import load_run

if TYPE_CHECKING:
    import jinja2

RUNS_MAX = 400
"""How many runs the index lists, the newest. Older runs have no page of ours; their results are kept."""
SAMPLE_ROWS = 5
"""How many of the rows that break an expectation are shown."""
VALUE_CHARS_MAX = 160
"""Where a shown value is cut: an event's text may be of any length."""

OWN = "tidemill"
"""The key of our own notes in an expectation's meta, which GX keeps with its result."""
GX_SEVERITY = {"STOP": "critical", "WARN": "warning"}

_FIRST = ("contract_", "source_")
"""How the names of the suites begin that a run checks first."""


class State(enum.StrEnum):
    """What became of a check, worst first."""

    FAILED = "failed"
    WARNED = "warned"
    PASSED = "passed"


@dataclass(frozen=True)
class Check:
    """One expectation's result. rows and broken are None where it is not about rows.

    name: as the gate's messages have it. problem: why it could not be made; empty when it was.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    expected: str
    kind: str
    stops: bool
    state: State
    rows: int | None
    missing: int
    broken: int | None
    observed: str
    sample: tuple[tuple[tuple[str, str], ...], ...]
    problem: str
    failed_rows: str

    @property
    def share(self) -> str:
        """The rows that broke it, in percent of those checked."""
        if not self.broken or not self.rows:
            return ""
        percent = 100 * self.broken / self.rows
        return "< 0.01 %" if percent < 0.01 else f"{percent:.2f} %"


@dataclass(frozen=True)
class SuiteResult:
    """A suite's newest result in a run. gx_page: GX's page of it below the data docs, if there is one.

    problem: why the result could not be read; then there are no checks. not_checked: what it left out, as text.
    """

    name: str
    checked_at: dt.datetime
    checks: tuple[Check, ...]
    gx_page: str
    problem: str
    not_checked: tuple[str, ...] = ()

    def count(self, state: str) -> int:
        """Tell how many of its checks ended so."""
        return sum(check.state == state for check in self.checks)


@dataclass(frozen=True)
class RunReport:
    """What a run's checks found. dates is empty when the run's record is gone; repeated: results that were replaced."""

    run_id: str
    dates: str
    suites: tuple[SuiteResult, ...]
    repeated: int

    @property
    def checked_at(self) -> dt.datetime:
        """When its last suite was checked (UTC)."""
        return max(suite.checked_at for suite in self.suites)

    def checks(self, state: str) -> list[Check]:
        """Give the checks that ended so, those that broke most rows first."""
        found = [check for suite in self.suites for check in suite.checks if check.state == state]
        return sorted(found, key=lambda check: (not check.problem, -(check.broken or 0)))

    @property
    def state(self) -> State:
        """The worst of its checks; a result that cannot be read is no result that passed."""
        if any(suite.problem for suite in self.suites):
            return State.FAILED
        return next((state for state in State if self.checks(state)), State.PASSED)

    @property
    def verdict(self) -> str:
        """The state in words."""
        if any(suite.problem for suite in self.suites):
            return "unreadable"
        warned = len(self.checks(State.WARNED))
        warnings = f" with {warned} warning{'s' * (warned > 1)}"
        return "failed" if self.state is State.FAILED else f"passed{warnings if warned else ''}"


def write_report(config: DayConfig, run_id: str) -> Path:
    """Write a run's page, other listed runs' pages where they are missing or old, and the index; give the index.

    What is written depends on the results and records alone, so repeating it changes nothing. Pages of runs that are no
    longer listed are removed.
    """
    results = _results(config)
    newest = sorted(results, key=lambda name: (max(_times(results[name])), name), reverse=True)[:RUNS_MAX]
    reports = [_report(config, name, results[name]) for name in newest]
    folder, listed = config.data_docs / "runs", set(newest)
    for report in reports:
        page = folder / f"{report.run_id}.html"
        if report.run_id == run_id or _is_old(page, results[report.run_id]):
            write_atomically(page, _templates().get_template("run.html").render(run=report, states=State))
    for page in folder.glob("*.html"):
        if page.stem not in listed:
            page.unlink(missing_ok=True)
    index = config.data_docs / "index.html"
    gx = (config.data_docs / "gx" / "index.html").is_file()
    template = _templates().get_template("index.html")
    write_atomically(index, template.render(runs=reports, total=len(results), limit=RUNS_MAX, states=State, gx=gx))
    return index


def _results(config: DayConfig) -> dict[str, dict[str, list[tuple[dt.datetime, Path]]]]:
    """Give run → suite → its results' files, oldest first."""
    found: dict[str, dict[str, list[tuple[dt.datetime, Path]]]] = defaultdict(lambda: defaultdict(list))
    folder = config.expectations / "results"
    for path in sorted(folder.glob("*/*/*/*.json")):
        suite, run_id, moment, _ = path.relative_to(folder).parts
        try:
            time = dt.datetime.strptime(moment, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=dt.UTC)
        except ValueError:  # not written by the gate
            continue
        found[run_id][suite].append((time, path))
    return found


def _times(suites: dict[str, list[tuple[dt.datetime, Path]]]) -> Iterator[dt.datetime]:
    return (time for results in suites.values() for time, _ in results)


def _is_old(page: Path, suites: dict[str, list[tuple[dt.datetime, Path]]]) -> bool:
    """Whether the page is missing, or a result was written after it."""
    try:
        written = page.stat().st_mtime_ns
    except FileNotFoundError:
        return True
    return any(path.stat().st_mtime_ns >= written for results in suites.values() for _, path in results)


def _report(config: DayConfig, run_id: str, suites: dict[str, list[tuple[dt.datetime, Path]]]) -> RunReport:
    newest = {name: results[-1] for name, results in suites.items()}
    # A run whose source is checked again begins anew: what its marts were found to be before is of another build.
    begun = min((time for name, (time, _) in newest.items() if name.startswith(_FIRST)), default=None)
    valid = [(time, name, path) for name, (time, path) in newest.items() if begun is None or time >= begun]
    try:
        run = load_run(config, run_id)
        dates = run.date if run.date == run.last_date else f"{run.date} to {run.last_date}"
    except RunWrong:
        dates = ""
    read = tuple(_suite(config, run_id, name, time, path) for time, name, path in sorted(valid))
    return RunReport(run_id, dates, read, sum(map(len, suites.values())) - len(valid))


def _suite(config: DayConfig, run_id: str, name: str, checked_at: dt.datetime, path: Path) -> SuiteResult:
    page = Path("gx/validations", path.relative_to(config.expectations / "results").with_suffix(".html"))
    gx_page = page.as_posix() if (config.data_docs / page).is_file() else ""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))["results"]
        checks = tuple(_check(config, run_id, name, result) for result in results)
        left_out = tuple(str(each) for result in results for each in _own(result).get("not_checked", ()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        problem = f"{path.relative_to(config.data)} is no result ({type(error).__name__}). Run the checks again"
        return SuiteResult(name, checked_at, (), gx_page, problem)
    return SuiteResult(name, checked_at, checks, gx_page, "", left_out)


def _check(config: DayConfig, run_id: str, suite: str, result: dict[str, Any]) -> Check:
    setup, found, own = result["expectation_config"], result["result"], _own(result)
    problem = own.get("problem") or _problem(result["exception_info"])
    # As the gate judges: a check that could not be made stops the day, whatever its severity.
    stops = setup["severity"] == GX_SEVERITY["STOP"] or bool(problem)
    passed = bool(result["success"]) and not problem
    if own:
        name, table, kind, expected = f"{own['suite']}.{own['name']}", own["subject"], own["name"], own["says"]
        columns: list[str] = []
        shown = own["shown"]
    else:
        arguments = {name: value for name, value in setup["kwargs"].items() if name != "batch_id"}
        columns = [str(arguments.pop(name)) for name in ("column", "column_A", "column_B") if name in arguments]
        columns += map(str, arguments.pop("column_list", []))
        kind = str(setup["type"]).removeprefix("expect_")
        name, table = f"{suite}.{','.join(columns) or 'table'}.{kind}", subject_of(suite)
        expected, shown = in_words(kind, columns, arguments), []
    rows = Path("runs", run_id, "failed", f"{name}.parquet")
    sample = found.get("partial_unexpected_index_list") or found.get("partial_unexpected_list") or []
    observed = found.get("observed_value", own.get("observed", ""))
    return Check(
        name=name,
        table=table,
        columns=tuple(columns),
        expected=expected,
        kind=kind,
        stops=stops,
        state=State.PASSED if passed else State.FAILED if stops else State.WARNED,
        rows=None if problem else found.get("element_count"),
        missing=found.get("missing_count") or 0,
        broken=None if problem else found.get("unexpected_count"),
        observed="" if observed == "" else _shown(observed),
        sample=() if passed else tuple(_sample_row(_of(row, shown), columns) for row in sample[:SAMPLE_ROWS]),
        problem=_shown(problem, 1_000) if problem else "",
        failed_rows=rows.as_posix() if stops and not passed and (config.data / rows).is_file() else "",
    )


def _own(result: dict[str, Any]) -> dict[str, Any]:
    """Give what the gate noted of one of our own checks; empty for one of GX's."""
    own: dict[str, Any] = (result["expectation_config"].get("meta") or {}).get(OWN, {})
    return own


def _of(row: Any, shown: list[str]) -> Any:
    return {name: row[name] for name in shown if name in row} if shown and isinstance(row, dict) else row


def subject_of(suite: str) -> str:
    """Give what a suite of GX's expectations is about, by its name."""
    for first in (*_FIRST, "marts_"):
        suite = suite.removeprefix(first)
    return suite


def _problem(info: dict[str, Any]) -> str:
    """Give the message of what a check raised, if it did; one check may hold several."""
    infos = [info] if "raised_exception" in info else [each for each in info.values() if isinstance(each, dict)]
    messages = [" ".join(str(each["exception_message"]).split()) for each in infos if each["raised_exception"]]
    return _shown("; ".join(messages), 1_000) if messages else ""


def in_words(kind: str, columns: list[str], arguments: dict[str, Any]) -> str:
    """Say what was expected; a type that is not known here by its own name, and unknown arguments as they are.

    kind: the expectation's type without `expect_`; columns: those it is about; arguments: the others it was given.
    """
    rest = dict(arguments)
    match kind:
        case "column_values_to_not_be_null":
            text = "has a value"
        case "column_values_to_be_unique":
            text = "no value twice"
        case "compound_columns_to_be_unique":
            text = "no combination twice"
        case "column_values_to_be_in_set":
            text = f"is {_either(rest.pop('value_set', []))}"
        case "column_values_to_not_be_in_set":
            text = f"is not {_either(rest.pop('value_set', []))}"
        case "column_values_to_be_between":
            text = f"is {_span(rest)}"
        case "column_value_lengths_to_be_between":
            text = f"length is {_span(rest)}"
        case "table_row_count_to_be_between":
            text = f"number of rows is {_span(rest)}"
        case "column_pair_values_to_be_equal" if len(columns) == 2:
            text = f"{columns[0]} = {columns[1]}"
        case "column_pair_values_a_to_be_greater_than_b" if len(columns) == 2:
            text = f"{columns[0]} {'≥' if rest.pop('or_equal', False) else '>'} {columns[1]}"
        case _:
            text = kind.replace("_", " ")
    return "; ".join([text, *(f"{name} {_shown(value)}".replace("_", " ") for name, value in sorted(rest.items()))])


def _either(values: list[Any]) -> str:
    shown = [_shown(value) for value in values]
    return shown[0] if len(shown) == 1 else f"one of {', '.join(shown)}"


def _span(arguments: dict[str, Any]) -> str:
    """Put bounds in words, and take them out of the arguments."""
    low, high = arguments.pop("min_value", None), arguments.pop("max_value", None)
    above = "above" if arguments.pop("strict_min", False) else "at least"
    below = "below" if arguments.pop("strict_max", False) else "at most"
    bounds = [f"{word} {_bound(value)}" for word, value in ((above, low), (below, high)) if value is not None]
    return " and ".join(bounds) or "any"


def _bound(value: Any) -> str:
    return f"{value:,.10g}" if isinstance(value, int | float) else _shown(value)


def _sample_row(row: Any, columns: list[str]) -> tuple[tuple[str, str], ...]:
    """Give names and values, those of the checked columns first; a value without a name is of the column itself."""
    if not isinstance(row, dict):
        return ((columns[0] if len(columns) == 1 else "", _shown(row)),)
    names = [*(name for name in columns if name in row), *(name for name in row if name not in columns)]
    return tuple((str(name), _shown(row[name])) for name in names)


def _shown(value: Any, chars_max: int = VALUE_CHARS_MAX) -> str:
    """Show a value as SQL would, cut where it is long. What a reader could not see or be misled by is spelt out."""
    match value:
        case None:
            text = "NULL"
        case bool():
            text = str(value).lower()
        case "":
            text = "''"
        case _:
            text = str(value)
    cut = text[:chars_max] + "…" * (len(text) > chars_max)
    # Line ends, control characters, and those that turn the direction of writing around.
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in cut)


@functools.cache
def _templates() -> jinja2.Environment:
    """Give the templates of the pages; whatever they are given is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["address"] = quote
    environment.filters["utc"] = lambda time: f"{time:%Y-%m-%d %H:%M:%S}"
    environment.filters["number"] = lambda number: f"{number:,}"
    return environment
