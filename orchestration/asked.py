"""What a run is asked to do: the form of `daily` and `late_events`, and what a run's params and interval come to."""

from __future__ import annotations

import hashlib
import os
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowFailException

_STREAM = re.compile(r"^\s*stream:\s*[\"']?([A-Za-z0-9_.\-]+)[\"']?\s*$", re.MULTILINE)


def is_scheduled() -> bool:
    """Whether DAGs have their schedules: TIDEMILL_SCHEDULED=0 leaves only triggered runs (a demo, a test)."""
    return os.environ.get("TIDEMILL_SCHEDULED", "1") != "0"


def streams_of_project(project: Path | None = None) -> list[str]:
    """Name the streams of a project's dbt sources; [] when there is no such project.

    project: default TIDEMILL_PROJECT. Read as text: this runs whenever Airflow reads a DAG file, and a parser of YAML
    takes longer to import than all the rest.
    """
    root = project or Path(os.environ.get("TIDEMILL_PROJECT", "."))
    files = sorted((root / "dbt_project" / "models" / "sources").glob("*.yml"))
    return sorted({name for file in files for name in _STREAM.findall(file.read_text(encoding="utf-8"))})


def date_params(streams: list[str]) -> dict[str, Param]:
    """Give the fields of the form that say which dates and streams a run is about."""
    return {
        "date": Param(
            None, type=["null", "string"], format="date", title="Date", description="UTC; empty: the run's own interval"
        ),
        "last_date": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Last date",
            description="Runs a range of dates at once, this one included; empty: the one date",
        ),
        "streams": Param(
            [],
            # Airflow's form offers a list's examples for choosing, and checks against the items' enum.
            type="array",
            items={"type": "string", **({"enum": streams} if streams else {})},
            examples=streams,
            title="Streams",
            description="Seals and builds only what depends on these; empty: all",
        ),
    }


def run_params(streams: list[str]) -> dict[str, Param]:
    """Give the whole form of `daily`."""
    return {
        **date_params(streams),
        "full_refresh": Param(
            False,
            type="boolean",
            title="Full refresh",
            description="Builds every model anew from all sealed dates, instead of this run's dates alone",
        ),
        "force": Param(
            False,
            type="boolean",
            title="Seal now",
            description="Seals although events of these dates may still be on their way; what comes later is late",
        ),
        "as_of": Param(
            None,
            type=["null", "string"],
            title="As of run",
            description="Builds from the very data of this earlier run, to look at: checked, never published",
        ),
    }


def run_name(date: str, run_id: str) -> str:
    """Name the run's folder after its date and Airflow's run id, which may hold what a path should not."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", run_id).strip("-")[:80]
    # Different ids may read the same once cleaned; their digests do not.
    return f"{date}_{words}_{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"


def run_date(params: dict[str, Any], interval_start: datetime | None) -> str:
    """Take the date from the form, else from the run's data interval."""
    if params["date"]:
        return str(params["date"])
    if interval_start is None:
        raise AirflowFailException("this run has neither a date nor a data interval: trigger it again with a date")
    return interval_start.astimezone(UTC).date().isoformat()


def run_asked(dag_id: str, run_id: str, params: dict[str, Any], interval_start: datetime | None) -> dict[str, Any]:
    """Give what a run is asked to do, as its tasks hand it on.

    Gives run_id (of the run's folder), date, last_date, streams (None: all), full_refresh, force, as_of, and holder:
    who it is for the turn. A last date without a date is refused: it would be taken for a range that nobody named.
    """
    if params.get("last_date") and not params["date"]:
        raise AirflowFailException(f"expected a date with the last date {params['last_date']}: trigger it again")
    first = run_date(params, interval_start)
    last = str(params.get("last_date") or first)
    if last < first:
        raise AirflowFailException(f"expected the last date at or after the first, came {first} to {last}")
    return {
        "run_id": run_name(first, run_id),
        "date": first,
        "last_date": last,
        "streams": sorted(params.get("streams") or []) or None,
        "full_refresh": bool(params.get("full_refresh")),
        "force": bool(params.get("force")),
        "as_of": params.get("as_of") or None,
        "holder": {"kind": "airflow", "dag_id": dag_id, "run_id": run_id},
    }


def first_midnight() -> datetime:
    """Give the start of all DAGs: before any date that someone may have events of."""
    return datetime.combine(date(2009, 1, 1), datetime.min.time(), UTC)
