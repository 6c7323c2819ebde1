"""What is known of streams and runs, as Parquet files that dbt reads: its source `operations`.

A run writes them into its own folder, `runs/<run>/operations`: what has arrived (quarantine, seals) when it is
exported, so that the marts may read it; what the runs did when it is published. Of the runs, those whose record has
changed since the last publication: the models keep what earlier ones told them.
"""

# ruff: noqa: S608 - SQL is put together here: types are ours, paths are quoted.

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from quality.alerts import list_alerts
from quality.config import DayConfig
from quality.errors import RunWrong
from quality.publish import last_published
from quality.run import STAGES, Run, load_run, now
from quality.service import connected
from tidemill.lake import identifier, literal

if TYPE_CHECKING:
    from tidemill import Client

QUARANTINED_MAX = 10_000
"""How many quarantined rows of a stream are taken, the newest: as many as the service gives in one answer."""
OVERLAP = dt.timedelta(hours=1)
"""Runs that changed this much before the last publication are told again: it took a while itself."""

STOPPED = "stopped"
"""The state of a run that ended without a word: it was killed, or given up."""

TABLES: Mapping[str, Mapping[str, str]] = {
    "quarantined_rows": {
        "stream": "varchar", "row_id": "varchar", "at_offset": "bigint", "append_time": "timestamptz",
        "producer_id": "varchar", "sequence": "bigint", "row_index": "integer", "rule": "varchar", "field": "varchar",
        "message": "varchar", "replayed": "boolean",
    },
    "seals": {
        "stream": "varchar", "event_date": "date", "seal_offset": "bigint", "sealed_at": "timestamptz",
    },
    "runs": {
        "run_id": "varchar", "dag_id": "varchar", "dag_run_id": "varchar", "first_date": "date", "last_date": "date",
        "state": "varchar", "failed_stage": "varchar", "error": "varchar", "started_at": "timestamptz",
        "ended_at": "timestamptz", "streams": "varchar", "rows_late": "bigint",
    },
    "run_stages": {
        "run_id": "varchar", "stage": "varchar", "started_at": "timestamptz", "seconds": "double", "state": "varchar",
    },
    "balance_lines": {
        "run_id": "varchar", "stream": "varchar", "left_name": "varchar", "left_rows": "bigint",
        "right_name": "varchar", "right_rows": "bigint", "is_balanced": "boolean",
    },
    "compared_views": {
        "run_id": "varchar", "view": "varchar", "stream": "varchar", "windows": "bigint", "rows": "bigint",
        "differences": "bigint", "explained": "bigint", "note": "varchar",
    },
    "differences": {
        "run_id": "varchar", "view": "varchar", "window_start": "varchar", "group_key": "varchar",
        "column_name": "varchar", "live": "varchar", "batch": "varchar", "difference": "varchar", "cause": "varchar",
    },
    "check_results": {
        "run_id": "varchar", "suite": "varchar", "subject": "varchar", "expectation": "varchar", "severity": "varchar",
        "success": "boolean", "rows": "bigint", "unexpected_rows": "bigint", "observed": "varchar",
    },
    "alerts": {
        "alert_id": "varchar", "raised_at": "timestamptz", "kind": "varchar", "dag_id": "varchar", "run_id": "varchar",
        "task_id": "varchar", "message": "varchar",
    },
}  # fmt: skip
"""Each file's columns, with their DuckDB types."""
ARRIVED = ("quarantined_rows", "seals")

Row = Mapping[str, Any]


def write_arrived(config: DayConfig, run: Run) -> None:
    """Write what the streams have in quarantine, and their seals; for a run as of another one, what that one wrote."""
    if run.options.as_of:
        for table in ARRIVED:
            earlier = config.operations(run.options.as_of) / f"{table}.parquet"
            if earlier.exists():
                config.operations(run.run_id).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(earlier, config.operations(run.run_id) / earlier.name)
        return
    quarantined: list[Row] = []
    seals: list[Row] = []
    with connected(config) as client:
        for stream in sorted(run.streams):
            quarantined += _quarantined(client, stream)
            seals += _seals(client, stream)
    _write(config, run, "quarantined_rows", quarantined)
    _write(config, run, "seals", seals)


def write_operations(config: DayConfig, run: Run) -> None:
    """Write what this run did, and what other runs did since the last publication; and the alerts since then."""
    since = _since(config)
    runs = [*_changed_runs(config, since, but=run.run_id), run]
    _write(config, run, "runs", (_run(each, publishing=each is run) for each in runs))
    _write(config, run, "run_stages", (row for each in runs for row in _stages(each)))
    _write(config, run, "balance_lines", (row for each in runs for row in _balance(each)))
    _write(config, run, "compared_views", (row for each in runs for row in _views(each)))
    _write(config, run, "differences", (row for each in runs for row in _differences(config, each)))
    _write(config, run, "check_results", (row for each in runs for row in _checks(each)))
    _write(config, run, "alerts", list_alerts(config, since))


def _since(config: DayConfig) -> dt.datetime | None:
    published = last_published(config)
    return dt.datetime.fromisoformat(published["published_at"]) - OVERLAP if published else None


def _changed_runs(config: DayConfig, since: dt.datetime | None, but: str) -> list[Run]:
    found = []
    for folder in sorted(config.runs.iterdir()):
        file = folder / "run.json"
        if folder.name == but or not file.is_file():
            continue
        if since is not None and file.stat().st_mtime < since.timestamp():
            continue
        try:
            found.append(load_run(config, folder.name))
        except RunWrong:
            continue  # not a record of ours
    return found


def _quarantined(client: Client, stream: str) -> list[Row]:
    return [
        {
            "stream": stream,
            "row_id": row.id,
            "at_offset": row.at_offset,
            "append_time": row.append_time.isoformat() if row.append_time else None,
            "producer_id": row.producer_id,
            "sequence": row.sequence,
            "row_index": row.index,
            "rule": row.rule,
            "field": row.field,
            "message": row.message,
            "replayed": row.replayed,
        }
        for row in client.quarantine(stream, QUARANTINED_MAX).rows
    ]


def _seals(client: Client, stream: str) -> list[Row]:
    return [
        {
            "stream": stream,
            "event_date": str(seal.date + dt.timedelta(days=day)),
            "seal_offset": seal.seal_offset,
            "sealed_at": seal.sealed_at.isoformat() if seal.sealed_at else None,
        }
        for seal in client.stream_status(stream).seals
        for day in range((seal.last_date - seal.date).days + 1)
    ]


def _run(run: Run, *, publishing: bool) -> Row:
    failed = run.failures[-1] if run.failures and not publishing else {}
    times = [entry["ended_at"] for entry in run.stages.values() if entry["ended_at"]]
    # This very run is published by the time that anybody reads it.
    ended_at = now() if publishing else max([*times, *(failure["at"] for failure in run.failures)], default=None)
    return {
        "run_id": run.run_id,
        "dag_id": run.options.dag_id,
        "dag_run_id": run.options.dag_run_id,
        "first_date": run.date,
        "last_date": run.last_date,
        # One run at a time has the turn, and that is the one that publishes: no other can be under way.
        "state": "published" if publishing else run.state.replace("running", STOPPED),
        "failed_stage": failed.get("stage"),
        "error": failed.get("error"),
        "started_at": run.began_at or None,
        "ended_at": ended_at,
        "streams": json.dumps({name: pin.seal_offset for name, pin in sorted(run.streams.items())}),
        "rows_late": sum(int(pin.counts.get("late", 0)) for pin in run.fresh.values()),
    }


def _stages(run: Run) -> list[Row]:
    rows: list[Row] = []
    for stage in STAGES:
        entry = run.stages.get(stage)
        if entry is not None and entry["started_at"]:
            started, ended = (dt.datetime.fromisoformat(entry[name]) for name in ("started_at", "ended_at"))
            rows.append(_stage(run, stage, entry["started_at"], (ended - started).total_seconds(), "success"))
    failed = {failure["stage"]: failure["at"] for failure in run.failures if failure["stage"] not in run.stages}
    return rows + [_stage(run, stage, at, None, "failed") for stage, at in failed.items()]


def _stage(run: Run, stage: str, started_at: str, seconds: float | None, state: str) -> Row:
    return {"run_id": run.run_id, "stage": stage, "started_at": started_at, "seconds": seconds, "state": state}


def _balance(run: Run) -> list[Row]:
    lines = [
        line for stage in ("balance", "check_sources", "check_marts") for line in _result(run, stage).get("balance", [])
    ]
    return [
        {
            "run_id": run.run_id,
            "stream": line["stream"],
            "left_name": line["left"],
            "left_rows": line["left_rows"],
            "right_name": line["right"],
            "right_rows": line["right_rows"],
            "is_balanced": line["left_rows"] == line["right_rows"],
        }
        for line in lines
    ]


def _views(run: Run) -> list[Row]:
    return [
        {
            "run_id": run.run_id,
            "view": name,
            "explained": 0,
            **{key: view.get(key) for key in ("stream", "windows", "rows", "differences", "note")},
            **({"explained": view["explained"]} if "explained" in view else {}),
        }
        for name, view in _result(run, "reconcile").get("views", {}).items()
    ]


def _differences(config: DayConfig, run: Run) -> list[Row]:
    """Read the differences that the reconciliation wrote down, explained or not; of runs that failed by them too."""
    if "reconcile" not in run.stages and all(failure["stage"] != "reconcile" for failure in run.failures):
        return []  # Those in the file are of an earlier attempt.
    file = config.run_folder(run.run_id) / "reconciliation.json"
    try:
        views = json.loads(file.read_text(encoding="utf-8"))["views"]
    except (OSError, ValueError, KeyError):
        return []
    return [
        {
            "run_id": run.run_id,
            "view": each["view"],
            "window_start": each.get("window", ""),
            "group_key": each.get("group", ""),
            "column_name": each.get("column", ""),
            **{key: each.get(key, "") for key in ("live", "batch", "difference")},
            "cause": each.get("cause") or "UNEXPLAINED",
        }
        for view in views
        for each in view["differences"]
    ]


def _checks(run: Run) -> list[Row]:
    results = [each for stage in ("check_sources", "check_marts") for each in _result(run, stage).get("results", [])]
    results += [each for failure in run.failures for each in failure.get("results", [])]
    fields = [name for name in TABLES["check_results"] if name not in ("run_id", "observed")]
    return [
        {
            "run_id": run.run_id,
            **{name: each.get(name) for name in fields},
            "observed": None if each.get("observed") is None else str(each["observed"]),
        }
        for each in results
    ]


def _result(run: Run, stage: str) -> dict[str, Any]:
    result: dict[str, Any] = run.stages.get(stage, {}).get("result", {})
    return result


def _write(config: DayConfig, run: Run, table: str, rows: Iterable[Row]) -> None:
    """Write one file, whole or not at all, with exactly the table's columns."""
    import duckdb
    import pyarrow as pa

    columns = TABLES[table]
    listed = list(rows)
    file = config.operations(run.run_id) / f"{table}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    # As text first: DuckDB turns it into the types, NULL where a row has no value.
    texts = pa.table({name: pa.array([_text(row.get(name)) for row in listed], pa.string()) for name in columns})
    new = file.with_name(f".{file.name}")
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("texts", texts)
        casts = ", ".join(f"cast({identifier(name)} as {kind}) as {identifier(name)}" for name, kind in columns.items())
        connection.execute(f"copy (select {casts} from texts) to {literal(new)} (format parquet)")
    new.replace(file)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
