"""The record of a daily run: `runs/<run_id>/run.json`.

dbt reads its pins from it (`TIDEMILL_PINS`), the stages find in it what earlier ones did, and it stays as the account
of the run: what was sealed and pinned, what was counted, checked, compared and published, and what failed.

    {"run_id", "date", "last_date", "began_at",
     "options": {"streams", "force", "full_refresh", "as_of", "dag_id", "dag_run_id"},
     "streams": {name: pin},
     "stages": {name: {"result", "started_at", "ended_at"}},
     "failures": [{"stage", "at", "error", "names", "rows", "sample", "file"}]}
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quality.config import DayConfig
from quality.errors import RunWrong
from quality.files import write_atomically

LAYERS = ("staging", "intermediate", "marts", "live")
"""The layers that dbt builds one after another, each a stage: `dbt.staging` and so on."""

STAGES = (
    "seal",
    "export",
    "check_sources",
    "balance",
    *(f"dbt.{layer}" for layer in LAYERS),
    "check_marts",
    "reconcile",
    "publish",
    "document",
)
"""A run's stages in their order. A stage that is run again makes the later ones' results void."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+\-]{0,199}")
_NOT_EXPORTED = -1


@dataclass(frozen=True)
class Pin:
    """What a run reads of a stream: rows with an offset below `seal_offset` in `lake_version` of the lake table.

    counts: what the log had counted right after the seal (see `service.Counts`); lake_offset: how far the version goes.
    fresh: this run sealed it. If not, it is the pin of the published warehouse, as the stream was not chosen.
    Until the stage `export` has run, there is no version: `exported` is false.
    """

    seal_offset: int
    lake_uri: str = ""
    lake_version: int = _NOT_EXPORTED
    lake_offset: int = 0
    counts: dict[str, Any] = field(default_factory=dict)
    sealed_at: str = ""
    fresh: bool = True

    @property
    def exported(self) -> bool:
        """The lake version that holds its rows is known."""
        return self.lake_version != _NOT_EXPORTED


@dataclass(frozen=True)
class Options:
    """What was asked of a run.

    streams: those to be sealed and rebuilt, None for all. force: seal before the watermark says so. full_refresh: make
    the models by window anew, for all dates. as_of: the run whose pins are taken; then nothing is published.
    dag_id, dag_run_id: Airflow's names of the run, empty without it.
    """

    streams: tuple[str, ...] | None = None
    force: bool = False
    full_refresh: bool = False
    as_of: str = ""
    dag_id: str = ""
    dag_run_id: str = ""


@dataclass(frozen=True)
class Run:
    """One run's record as of when it was read. `stages` maps a stage that has ended well to what it gave, and when.

    Its file is replaced as a whole; one stage of a run is running at a time.
    """

    run_id: str
    date: str
    last_date: str
    streams: dict[str, Pin] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    failures: tuple[dict[str, Any], ...] = ()
    began_at: str = ""

    @property
    def first(self) -> dt.date:
        """The first date (UTC)."""
        return dt.date.fromisoformat(self.date)

    @property
    def last(self) -> dt.date:
        """The last date (UTC), included."""
        return dt.date.fromisoformat(self.last_date)

    @property
    def end(self) -> dt.date:
        """The date after the last one."""
        return self.last + dt.timedelta(days=1)

    @property
    def dates(self) -> list[dt.date]:
        """Every date of the run."""
        return [self.first + dt.timedelta(days=day) for day in range((self.end - self.first).days)]

    @property
    def fresh(self) -> dict[str, Pin]:
        """The streams that this run sealed, with their pins; the others are as they were published."""
        return {name: pin for name, pin in self.streams.items() if pin.fresh}

    @property
    def state(self) -> str:
        """`published`, `built` (as of another run: it is never published), `failed`, or `running`."""
        if "publish" in self.stages:
            return "built" if self.options.as_of else "published"
        return "failed" if self.failures else "running"

    def result(self, stage: str) -> dict[str, Any]:
        """Give a stage's result; RunWrong when it has not ended well."""
        if stage not in self.stages:
            raise RunWrong(f"run {self.run_id}: expected stage {stage!r} to have been run; run it first")
        result: dict[str, Any] = self.stages[stage]["result"]
        return result


def now() -> str:
    """Give the time as the record has it: UTC, ISO form."""
    return dt.datetime.now(dt.UTC).isoformat()


def check_run_id(run_id: str) -> str:
    """Give the run id back; RunWrong when it cannot name a folder inside `runs/`."""
    if not _RUN_ID.fullmatch(run_id) or ".." in run_id:
        raise RunWrong(
            f"run id {run_id!r}: expected up to 200 letters, digits and _ . : + -, a letter or digit first, no '..'"
        )
    return run_id


def check_dates(date: str, last_date: str | None) -> tuple[str, str]:
    """Give both dates in ISO form; RunWrong when one is no date or they are the wrong way round."""
    try:
        first = dt.date.fromisoformat(date)
        last = dt.date.fromisoformat(last_date) if last_date else first
    except ValueError as error:
        raise RunWrong(f"expected dates such as 2011-12-05; found {date!r} and {last_date!r}: {error}") from error
    if last < first:
        raise RunWrong(f"expected the last date at or after the first; found {first} to {last}")
    return first.isoformat(), last.isoformat()


def run_file(config: DayConfig, run_id: str) -> Path:
    """Give the path of a run's record."""
    return config.run_folder(check_run_id(run_id)) / "run.json"


def load_run(config: DayConfig, run_id: str) -> Run:
    """Read a run's record; RunWrong when there is none or it cannot be read."""
    path = run_file(config, run_id)
    try:
        return _read(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise RunWrong(
            f"run {run_id}: expected {path}; there is none. Seal a date first: every run begins so"
        ) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunWrong(f"run {run_id}: {path} is no run record ({error!r}). Seal the date again") from error


def save_run(config: DayConfig, run: Run) -> None:
    """Write a run's record; it is on disk when this returns."""
    text = json.dumps(dataclasses.asdict(run), indent=2, ensure_ascii=False) + "\n"
    write_atomically(run_file(config, run.run_id), text)


def forget_from(config: DayConfig, run: Run, stage: str) -> Run:
    """Drop the results of this stage and of those after it, and their failures: whoever reads on must not trust them.

    It is saved.
    """
    void = set(STAGES[STAGES.index(stage) :])
    kept = {name: entry for name, entry in run.stages.items() if name not in void}
    failures = tuple(failure for failure in run.failures if failure["stage"] not in void)
    forgotten = dataclasses.replace(run, stages=kept, failures=failures)
    save_run(config, forgotten)
    return forgotten


def finish_stage(
    config: DayConfig, run: Run, stage: str, result: dict[str, Any], started_at: str = ""
) -> dict[str, Any]:
    """Keep a stage's result in the record, and when it ran; give the result back."""
    ended_at = now()
    entry = {"result": result, "started_at": started_at or ended_at, "ended_at": ended_at}
    save_run(config, dataclasses.replace(run, stages={**run.stages, stage: entry}))
    return result


def fail_stage(config: DayConfig, run_id: str, stage: str, error: BaseException) -> None:
    """Keep in the record what a stage failed by: an entry for each finding, or one for the error alone.

    Does nothing where there is no record that could take it.
    """
    try:
        run = load_run(config, run_id)
        findings = getattr(error, "findings", ())
        common = {"stage": stage, "at": now(), "error": str(error) or type(error).__name__}
        entries = [
            {**common, "names": [each.name], "rows": each.rows, "sample": list(each.sample), "file": each.file}
            for each in findings
        ] or [{**common, "names": list(getattr(error, "names", ())), "rows": None, "sample": [], "file": ""}]
        if results := list(getattr(error, "results", ())):
            # Of all checks, not only of those that failed; once.
            entries[0] |= {"results": results}
        others = tuple(failure for failure in run.failures if failure["stage"] != stage)
        save_run(config, dataclasses.replace(run, failures=(*others, *entries)))
    except (RunWrong, OSError):  # the disk that is full, the record that is missing: the error itself says it
        return


def _read(content: dict[str, Any]) -> Run:
    """Make a run of its record, also of one that an older release wrote: its stages hold their results alone."""
    options = content.get("options", {})
    if options.get("streams") is not None:
        options = {**options, "streams": tuple(options["streams"])}
    stages = {
        name: entry if entry.keys() == {"result", "started_at", "ended_at"} else _of_old(entry)
        for name, entry in content["stages"].items()
    }
    return Run(
        **{
            **content,
            "streams": {name: Pin(**pin) for name, pin in content["streams"].items()},
            "stages": stages,
            "options": Options(**options),
            "failures": tuple(content.get("failures", ())),
        }
    )


def _of_old(result: dict[str, Any]) -> dict[str, Any]:
    return {"result": result, "started_at": "", "ended_at": ""}
