"""The record of a daily run: `runs/<run_id>/run.json`.

dbt reads its pins from it (`TIDEMILL_PINS`), the stages find in it what earlier ones did, and it stays as the account
of the run: what was sealed and pinned, what was counted, checked, compared and published.
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

STAGES = ("seal", "check_sources", "build", "check_marts", "reconcile", "publish", "document")
"""A run's stages in their order. A stage that is run again makes the later ones' results void."""

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+\-]{0,199}")


@dataclass(frozen=True)
class Pin:
    """What a run reads of a stream: rows with an offset below `seal_offset` in `lake_version` of the lake table.

    counts: what the log had counted right after the seal (see `service.Counts`); lake_offset: how far the version goes.
    """

    seal_offset: int
    lake_uri: str
    lake_version: int
    lake_offset: int
    counts: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run's record as of when it was read. `stages` maps a stage that has ended well to its result.

    Its file is replaced as a whole; one stage of a run is running at a time.
    """

    run_id: str
    date: str
    last_date: str
    streams: dict[str, Pin] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

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

    def result(self, stage: str) -> dict[str, Any]:
        """Give a stage's result; RunWrong when it has not ended well."""
        if stage not in self.stages:
            raise RunWrong(f"run {self.run_id}: expected stage {stage!r} to have been run; run it first")
        return self.stages[stage]


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
        content = json.loads(path.read_text(encoding="utf-8"))
        content["streams"] = {name: Pin(**pin) for name, pin in content["streams"].items()}
        return Run(**content)
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
    """Drop the results of this stage and of those after it, and save that: whoever reads on must not trust them."""
    kept = {name: run.stages[name] for name in STAGES[: STAGES.index(stage)] if name in run.stages}
    forgotten = dataclasses.replace(run, stages=kept)
    save_run(config, forgotten)
    return forgotten


def finish_stage(config: DayConfig, run: Run, stage: str, result: dict[str, Any]) -> dict[str, Any]:
    """Keep a stage's result in the record, and give it back."""
    save_run(config, dataclasses.replace(run, stages={**run.stages, stage: result}))
    return result
