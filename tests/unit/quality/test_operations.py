import dataclasses
import json
import os
from pathlib import Path

import duckdb
import pytest
import yaml

from quality.alerts import raise_alert
from quality.config import DayConfig
from quality.operations import TABLES, write_arrived, write_operations
from quality.publish import publish, take_copy
from quality.run import Options, Run, fail_stage, finish_stage, load_run, save_run
from tidemill.lake import LakeError, operations_query, operations_tables

ROOT = Path(__file__).parents[3]


def rows(config: DayConfig, run_id: str, table: str) -> list[dict]:
    file = config.operations(run_id) / f"{table}.parquet"
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        found = connection.execute(f"from read_parquet('{file}')")
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def test_the_files_have_the_columns_that_the_projects_sources_declare():
    declared = operations_tables(ROOT / "dbt_project")
    with duckdb.connect(":memory:") as connection:
        for name, columns in declared.items():
            ours = connection.execute(f"describe {operations_query(None, TABLES[name])}").fetchall()
            theirs = connection.execute(f"describe {operations_query(None, columns)}").fetchall()
            assert ours == theirs, name
    assert declared.keys() == TABLES.keys()


def test_what_a_run_did_is_written_with_what_others_did_since_the_last_publication(config: DayConfig, run: Run):
    failed = dataclasses.replace(run, run_id="failed", stages={}, options=Options(dag_id="daily", dag_run_id="m1"))
    save_run(config, failed)
    fail_stage(config, "failed", "check_sources", ValueError("so it was"))
    lines = [{"stream": "payments", "left": "sent", "left_rows": 4, "right": "received", "right_rows": 5, "text": ""}]
    finish_stage(config, run, "balance", {"balance": lines}, "2026-01-01T00:00:00+00:00")
    view = {
        "stream": "payments",
        "compared": True,
        "windows": 3,
        "rows": 4,
        "differences": 1,
        "explained": 1,
        "note": "",
    }
    finish_stage(config, load_run(config, "r1"), "reconcile", {"views": {"by_minute": view}})
    check = {"suite": "s", "subject": "payments", "expectation": "e", "severity": "WARN", "success": False,
             "rows": 4, "unexpected_rows": 2, "observed": 0.5, "sample": [], "text": ""}  # fmt: skip
    finish_stage(config, load_run(config, "r1"), "check_sources", {"results": [check]})
    difference = {"view": "by_minute", "window": "2011-12-05 08:26", "group": "", "column": "n", "live": "2",
                  "batch": "1", "difference": "1", "cause": ""}  # fmt: skip
    # That of a run that failed before it was compared again is of an earlier attempt.
    for name in ("r1", "failed"):
        file = config.run_folder(name) / "reconciliation.json"
        file.write_text(json.dumps({"views": [{"differences": [difference]}]}))
    raise_alert(config, "failed", "daily", "failed", "check_sources", "so it was")
    save_run(config, dataclasses.replace(run, run_id="killed"))
    write_operations(config, load_run(config, "r1"))

    runs = {row["run_id"]: row for row in rows(config, "r1", "runs")}
    assert (runs["r1"]["state"], runs["failed"]["state"], runs["killed"]["state"]) == ("published", "failed", "stopped")
    assert (runs["failed"]["failed_stage"], runs["failed"]["error"]) == ("check_sources", "so it was")
    assert (runs["failed"]["dag_id"], runs["failed"]["dag_run_id"]) == ("daily", "m1")
    assert json.loads(runs["r1"]["streams"]) == {"payments": 4}
    stages = {(row["run_id"], row["stage"]): row["state"] for row in rows(config, "r1", "run_stages")}
    assert stages[("r1", "balance")] == "success"
    assert stages[("failed", "check_sources")] == "failed"
    (line,) = rows(config, "r1", "balance_lines")
    assert (line["left_rows"], line["right_name"], line["is_balanced"]) == (4, "received", False)
    (compared,) = rows(config, "r1", "compared_views")
    assert (compared["windows"], compared["explained"], compared["note"]) == (3, 1, "")
    (checked,) = rows(config, "r1", "check_results")
    assert (checked["observed"], checked["success"], checked["unexpected_rows"]) == ("0.5", False, 2)
    (found,) = rows(config, "r1", "differences")
    assert (found["column_name"], found["cause"]) == ("n", "UNEXPLAINED")
    (alert,) = rows(config, "r1", "alerts")
    assert (alert["message"], alert["raised_at"].tzinfo is not None) == ("so it was", True)

    # Once that is published, a run whose record has long been as it is, is told no more.
    take_copy(config, "r1")
    publish(config, load_run(config, "r1"))
    for name in ("failed", "killed"):
        old = config.run_folder(name) / "run.json"
        os.utime(old, (old.stat().st_mtime - 86_400, old.stat().st_mtime - 86_400))
    following = dataclasses.replace(run, run_id="r2")
    save_run(config, following)
    write_operations(config, following)
    assert {row["run_id"] for row in rows(config, "r2", "runs")} == {"r1", "r2"}


def test_a_run_as_of_another_has_what_arrived_by_then(config: DayConfig, run: Run):
    folder = config.operations("r1")
    folder.mkdir(parents=True)
    (folder / "seals.parquet").write_bytes(b"as it was")
    again = dataclasses.replace(run, run_id="again", options=Options(as_of="r1"))
    write_arrived(config, again)
    assert os.listdir(config.operations("again")) == ["seals.parquet"]


def test_sources_of_what_is_known_of_the_runs_are_read_from_any_folder(config: DayConfig, tmp_path: Path):
    table = {"name": "runs", "meta": {"operations": "runs"}, "columns": [{"name": "run_id", "data_type": "VARCHAR"}]}
    file = config.project / "models" / "operations" / "sources.yml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump({"sources": [{"name": "o", "tables": [table]}]}))
    assert operations_tables(config.project) == {"runs": {"run_id": "VARCHAR"}}
    written = tmp_path / "x.parquet"
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"copy (select 'r1' as run_id, 2 as other) to '{written}' (format parquet)")
        wanted = {"run_id": "VARCHAR", "missing": "BIGINT"}
        # By name: what it does not have is NULL, what is not asked for is left out.
        assert connection.execute(operations_query(written, wanted)).fetchall() == [("r1", None)]
        assert connection.execute(operations_query(None, wanted)).fetchall() == []
    file.write_text(
        yaml.safe_dump({"sources": [{"name": "o", "tables": [{"name": "x", "meta": {"operations": "x"}}]}]})
    )
    with pytest.raises(LakeError, match="expected sources with a data_type"):
        operations_tables(config.project)
