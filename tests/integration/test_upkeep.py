"""Upkeep beside a running service: what nobody needs goes, what a run or the publication needs stays."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable

import tidemill
from quality import publish, turn, upkeep
from quality.alerts import raise_alert
from quality.config import DayConfig
from quality.errors import ConfigWrong, ServiceFailed, UpkeepFailed
from quality.run import Pin, Run, run_file, save_run
from quality.upkeep_settings import UpkeepSettings

ROOT = Path(__file__).parents[2]
AT = dt.datetime(2011, 12, 5, 8, 0, tzinfo=dt.UTC)
DAY_S = 86_400


@pytest.fixture
def config(ingest: Any) -> DayConfig:
    return DayConfig(ingest.data, ROOT, ingest.address)


def send(config: DayConfig, first: int, count: int = 10) -> tidemill.Export:
    with tidemill.connect(config.address) as tm:
        lines = tm.stream("order_lines")
        for number in range(first, first + count):
            lines.send(
                {
                    "event_id": f"e{number}", "invoice_no": "536365", "stock_code": "85123A", "quantity": 1,
                    "unit_price": "2.550", "country": "France", "invoiced_at": AT,
                }
            )  # fmt: skip
        lines.flush(30)
        return tm.export("order_lines")


def pinned(config: DayConfig, run_id: str, export: tidemill.Export, *, days: float = 0.0) -> Run:
    """A run's record of some days ago that pins a version."""
    pin = Pin(export.lake_offset, export.lake_uri, export.lake_version, export.lake_offset, {}, fresh=False)
    run = Run(run_id, "2011-12-05", "2011-12-05", {"order_lines": pin})
    save_run(config, run)
    older(run_file(config, run_id), days)
    return run


def older(path: Path, days: float) -> None:
    """Make a file, or all in a folder, so many days older."""
    for each in [path, *path.rglob("*")]:
        at = each.stat().st_mtime - days * DAY_S
        os.utime(each, (at, at))


def rows(export: tidemill.Export) -> int:
    files = DeltaTable(export.lake_uri, version=export.lake_version).file_uris()
    ((count,),) = duckdb.sql(f"select count(*) from read_parquet({files!r})").fetchall()
    return int(count)


def hold_turn(config: DayConfig, run_id: str) -> None:
    ticket = turn.Ticket("t1", run_id, "2011-12-05", "2011-12-05", turn.this_process())
    assert turn.take(config, ticket)["turn"] == "held"


def test_pins_of_runs_and_of_the_publication_stay_readable(config: DayConfig) -> None:
    exports = [send(config, first) for first in range(0, 60, 10)]
    pinned(config, "young", exports[0])
    pinned(config, "old", exports[1], days=40)
    published = pinned(config, "published", exports[2], days=400)
    pinned(config, "busy", exports[3], days=40)
    publish.take_copy(config, "published")
    publish.publish(config, published)
    older(run_file(config, "published"), 400)
    hold_turn(config, "busy")
    (config.runs / "broken").mkdir()
    (config.runs / "broken" / "run.json").write_text("{")
    older(Path(exports[0].lake_uri), 60)
    result = json.loads(json.dumps(upkeep.lake(config)))
    told = result["streams"]["order_lines"]
    assert told["compacted"] == ["2011-12-05"]
    kept = [exports[number].lake_version for number in (0, 2, 3)]
    assert (told["kept_versions"], told["missing_versions"]) == (kept, [])
    assert result["unreadable_records"] == ["broken"]
    assert [rows(exports[number]) for number in (0, 2, 3)] == [10, 30, 40]
    # The compaction is of today, and so what it replaced may still be read; tomorrow's upkeep finds it old enough.
    older(Path(exports[0].lake_uri), 60)
    result = upkeep.lake(config)
    assert result["freed_bytes"] > 0
    assert [rows(exports[number]) for number in (0, 2, 3)] == [10, 30, 40]
    with pytest.raises(duckdb.IOException):
        rows(exports[5])
    assert send(config, 60).lake_offset == 70
    assert upkeep.lake(config, now_s=time.time() + 40 * DAY_S)["streams"]["order_lines"]["kept_versions"] == kept[1:]


def test_the_lake_of_a_service_that_is_away_is_tried_again(config: DayConfig, ingest: Any) -> None:
    ingest.kill()
    for part in (upkeep.lake, upkeep.log, upkeep.live):
        with pytest.raises(ServiceFailed) as raised:
            part(config)
        assert raised.value.retryable
    told = list(upkeep.maintain(config, UpkeepSettings()))
    assert [each["what"] for each in told] == list(upkeep.PARTS)
    assert [each["what"] for each in told if "error" in each] == ["lake", "log", "live"]


def test_a_table_that_cannot_be_looked_after_is_named_after_the_others(config: DayConfig) -> None:
    export = send(config, 0)
    lost = Path(DeltaTable(export.lake_uri).file_uris()[0])
    lost.unlink()
    with pytest.raises(UpkeepFailed, match=r"the lake of 1 streams was not looked after: order_lines: .* is missing"):
        upkeep.lake(config)


def run_folder(config: DayConfig, run_id: str, days: float) -> Path:
    folder = config.run_folder(run_id)
    for name in ("target/manifest.json", "logs/dbt.log", "failed/x.parquet", "operations/seals.parquet", "run.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"streams": {}}))
    older(folder, days)
    return folder


def test_runs_lose_what_is_large_first_and_their_record_last(config: DayConfig) -> None:
    newest = [run_folder(config, f"new{number}", 50 + number) for number in range(3)]
    week = run_folder(config, "week", 60)
    older(week / "run.json", -52)
    two_months, years = run_folder(config, "two_months", 61), run_folder(config, "years", 500)
    busy = run_folder(config, "busy", 500)
    for folder in newest:
        older(folder / "run.json", -50)
    hold_turn(config, "busy")
    result = upkeep.runs(config)
    names = {folder.name: sorted(path.name for path in folder.iterdir()) for folder in config.runs.iterdir()}
    whole = ["failed", "logs", "operations", "run.json", "target"]
    assert names == {
        "new0": whole, "new1": whole, "new2": whole, "busy": whole, "week": ["failed", "operations", "run.json"],
        "two_months": ["run.json"],
    }  # fmt: skip
    assert (result["runs"], result["kept_whole"], result["removed"]) == (7, 4, 2 + 4 + 1)
    assert result["freed_bytes"] > 0
    assert not years.exists()
    assert busy.exists()
    assert two_months.exists()
    assert upkeep.runs(config)["removed"] == 0


def test_old_results_go_with_their_pages(config: DayConfig) -> None:
    for run_id, days in (("r1", 100), ("r2", 1)):
        for root, ending in (
            (config.expectations / "results", "json"), (config.data_docs / "gx" / "validations", "html")
        ):  # fmt: skip
            folder = root / "source_order_lines" / run_id / "20111206T000000.000000Z"
            folder.mkdir(parents=True)
            (folder / f"asset.{ending}").write_text('{"results": []}')
            older(folder, days)
    page = config.data_docs / "runs" / "r1.html"
    page.parent.mkdir(parents=True)
    page.write_text("old")
    result = upkeep.docs(config)
    assert (result["removed"], result["runs"]) == (2, 1)
    assert not page.exists()
    assert [path.name for path in (config.expectations / "results" / "source_order_lines").iterdir()] == ["r2"]
    index = (config.data_docs / "index.html").read_text()
    assert "r2" in index
    assert "r1.html" not in index
    assert upkeep.docs(config)["removed"] == 0


def test_alerts_and_leftovers_go_when_they_are_old(config: DayConfig) -> None:
    for _ in range(3):
        raise_alert(config, "failed", "daily", "r1", "seal", "it failed")
    first, second, _ = sorted(config.alerts.iterdir())
    older(first, 91)
    older(second, 89)
    assert upkeep.alerts(config) | {"freed_bytes": 0} == {"what": "alerts", "removed": 1, "freed_bytes": 0, "kept": 2}
    work = config.warehouse.parent / "work"
    for run_id, days in (("dead", 3), ("busy", 3), ("young", 1)):
        (work / run_id).mkdir(parents=True)
        (work / run_id / "warehouse.duckdb").write_bytes(b"x" * 5000)
        older(work / run_id, days)
    hold_turn(config, "busy")
    waiting = turn.Ticket("t2", "later", "2012-01-01", "2012-01-01", turn.this_process())
    assert turn.take(config, waiting)["turn"] == "wait"
    (served,) = config.queue.glob("*.json")
    copy = config.queue / "000000000009-served.json"
    copy.write_text(json.dumps(json.loads(served.read_text()) | {"state": "served", "ticket_id": "t9"}))
    temporary = config.queue / ".000000000009-x.json.123"
    temporary.write_text("{")
    copied = config.data / "landing" / "work" / "0a1b"
    copied.mkdir(parents=True)
    for path in (served, copy, temporary, copied):
        older(path, 3)
    result = upkeep.leftovers(config)
    assert result["paths"] == sorted(map(str, (copied, copy, temporary, work / "dead")))
    assert result["freed_bytes"] >= 5000
    assert sorted(path.name for path in work.iterdir()) == ["busy", "young"]
    assert [ticket.ticket_id for ticket in turn.waiting(config)] == ["t2"]


def test_backups_are_made_and_the_oldest_removed(config: DayConfig, tmp_path: Path) -> None:
    export = send(config, 0)
    # What was written just before a backup is copied again by the next.
    older(Path(export.lake_uri), days=1)
    target = tmp_path / "backups"
    known = Path("landing", "ledger", "order_lines", f"{'0a' * 32}.json")
    (config.data / known).parent.mkdir(parents=True)
    (config.data / known).write_text("{}")
    assert "TIDEMILL_BACKUP is not set" in upkeep.backup(config, UpkeepSettings())["skipped"]
    settings = UpkeepSettings(backup=target, backups=2)
    for name in ("2020-01-01T00-00-00Z", "2020-01-02T00-00-00Z", "2020-01-03T00-00-00Z"):
        made = upkeep.backup(config, settings)
        Path(made["path"]).rename(target / name)
    (target / "mine").mkdir()
    result = upkeep.backup(config, settings)
    assert (result["removed"], result["kept"]) == (1, 2)
    assert sorted(path.name for path in target.iterdir()) == sorted(
        ["LOCK", "2020-01-03T00-00-00Z", Path(result["path"]).name, "mine"]
    )
    assert result["linked_bytes"] > 0
    # Without it, files would be imported again after a restore.
    assert (Path(result["path"]) / known).read_text() == "{}"
    check = [sys.executable, "-m", "ingest_service.data", "verify", "--data", result["path"]]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    with pytest.raises(UpkeepFailed, match="outside of the data folder"):
        upkeep.backup(config, UpkeepSettings(backup=config.data / "backups"))


def test_a_warehouse_that_cannot_be_read_stops_no_part_that_does_without(tmp_path: Path) -> None:
    config = DayConfig(tmp_path, ROOT, "127.0.0.1:1")
    config.warehouse.parent.mkdir()
    config.warehouse.write_bytes(b"no database" * 1000)
    runs, alerts = upkeep.maintain(config, UpkeepSettings(), {"runs": None, "alerts": None})
    assert "not a valid DuckDB database file" in runs["error"]
    assert "\n" not in runs["error"]
    assert "error" not in alerts


def test_the_command_does_all_parts_and_says_what_failed(config: DayConfig, ingest: Any) -> None:
    send(config, 0)
    command = [str(Path(sys.executable).with_name("tidemill")), "data", "maintain", "--data", str(config.data)]
    command += ["--address", config.address, "--project", str(ROOT)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["what"] for each in told] == list(upkeep.PARTS)
    assert told[-1]["free_bytes"] > 0
    assert told[6]["streams"]["order_lines"]["lake_offset"] == 10
    done = subprocess.run([*command, "runs", "backup"], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "runs: 0 removed, 0.0 MB freed",
        "backup: 0 removed, 0.0 MB freed; TIDEMILL_BACKUP is not set",
    ]
    done = subprocess.run([*command, "everything"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected parts of lake, runs, docs" in done.stderr
    ingest.kill()
    done = subprocess.run([*command, "lake", "alerts"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("lake: failed: ")
    assert done.stdout.splitlines()[-1] == "alerts: 0 removed, 0.0 MB freed"


def test_settings_are_checked() -> None:
    read = UpkeepSettings.from_environment(
        {"TIDEMILL_KEEP_DAYS": "90", "TIDEMILL_BACKUP": "/b", "TIDEMILL_BACKUPS": "3"}
    )
    assert (read.keep_days, read.backup, read.backups) == (90, Path("/b"), 3)
    with pytest.raises(ConfigWrong, match="TIDEMILL_KEEP_DAYS: expected a number, came 'many'"):
        UpkeepSettings.from_environment({"TIDEMILL_KEEP_DAYS": "many"})
    for text in ("nan", "inf"):
        with pytest.raises(ConfigWrong, match="TIDEMILL_BACKUPS: expected a number"):
            UpkeepSettings.from_environment({"TIDEMILL_BACKUPS": text})
    with pytest.raises(ConfigWrong, match=r"keep_days: expected 1 at the least, came 0"):
        UpkeepSettings.from_environment({"TIDEMILL_KEEP_DAYS": "0"})
