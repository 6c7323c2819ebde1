"""A dbt project so small that a whole day of it takes seconds, and a running service for it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from integration.conftest import IngestProcess

import tidemill
from quality import dbt_project
from quality.config import DayConfig
from quality.publish import take_copy
from quality.run import Run, save_run
from quality.turn import Ticket
from quality.whole_day import run_day, ticket_of
from support.lakes import order_lines
from tidemill.lake import source_tables
from tidemill.local.live_models import live_manifest

ROOT = Path(__file__).parents[2]
SYSTEM = ["_partition", "_offset", "_append_time", "event_date"]
STREAMS = ("order_lines", "web_requests")
TABLES = ("stg_order_lines", "fct_days", "fct_pages", "sales_by_minute", "traffic_by_minute")

_MODELS = {
    "staging/stg_order_lines.sql": (
        "select _offset, event_date, invoiced_at, country, quantity, quantity * unit_price as line_amount "
        "from {{ source('events', 'order_lines') }}"
    ),
    "staging/stg_order_lines.yml": (
        "models: [{name: stg_order_lines, columns: [{name: _offset, data_tests: [unique, "
        "{relationships: {arguments: {to: ref('fct_offsets'), field: _offset}}}]}]}]"
    ),
    "staging/staging_filtered.sql": (
        "select 'order_lines' as stream, 'stg_order_lines' as model, count(*) as lake_rows, 0 as filtered_rows "
        "from {{ source('events', 'order_lines') }}"
    ),
    "marts/fct_offsets.sql": "select _offset from {{ ref('stg_order_lines') }}",
    "marts/fct_days.sql": (
        "select event_date, count(*) as lines, sum(line_amount) as revenue from {{ ref('stg_order_lines') }} group by 1"
    ),
    "marts/fct_days.yml": ("models: [{name: fct_days, columns: [{name: event_date, data_tests: [unique, not_null]}]}]"),
    "marts/fct_pages.sql": (
        "select event_date, count(*) as requests from {{ source('events', 'web_requests') }} group by 1"
    ),
    "marts/fct_minutes.sql": "select sum(lines) as lines from {{ ref('sales_by_minute') }}",
    "operations/pipeline_runs.sql": (
        "{{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key='run_id', "
        "full_refresh=false) }} select * from {{ source('operations', 'runs') }}"
    ),
    "operations/pipeline_runs.yml": (
        "models: [{name: pipeline_runs, columns: [{name: run_id, data_tests: [unique, not_null]}]}]"
    ),
}


@dataclass(frozen=True)
class SmallShop:
    """The service, and what a day's stages need."""

    service: IngestProcess
    config: DayConfig

    def send_lines(self, rows: int, days: list[int], first: int) -> None:
        """Send lines of days of December 2011; `first` makes them other ones than those before."""
        with tidemill.connect(self.service.address) as client:
            client.stream("order_lines").send_table(order_lines(rows, days, first).drop_columns(SYSTEM)).result(30)

    def send_requests(self, rows: int, day: int, first: int) -> None:
        at = dt.datetime(2011, 12, day, 10, tzinfo=dt.UTC)
        with tidemill.connect(self.service.address) as client:
            stream = client.stream("web_requests")
            acks = [
                stream.send(
                    {"event_id": f"w{first + n}", "requested_at": at + dt.timedelta(seconds=n), "host": f"h{n % 3}",
                     "method": "GET", "url": "/", "status": 200, "bytes": n}
                )
                for n in range(rows)
            ]  # fmt: skip
            for ack in acks:
                ack.result(30)

    def ticket(self, date: str, last_date: str | None = None, **options: Any) -> Ticket:
        return ticket_of(date, last_date, force=True, **options)

    def run(self, run_id: str, date: str, last_date: str | None = None, **options: Any) -> dict[str, Any]:
        """Run a whole day in this process."""
        return run_day(self.config, self.ticket(date, last_date, run_id=run_id, **options), lambda stage, text: None)

    def tables(self, file: Path | None = None) -> dict[str, list[tuple[Any, ...]]]:
        """Everything in a warehouse; the published one unless told."""
        with duckdb.connect(str(file or self.config.warehouse), read_only=True) as connection:
            connection.execute("set TimeZone = 'UTC'")
            return {name: connection.execute(f"select * from {name} order by all").fetchall() for name in TABLES}

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.config.warehouse), read_only=True) as connection:
            connection.execute("set TimeZone = 'UTC'")
            return connection.execute(sql).fetchall()


def write_project(folder: Path) -> Path:
    """Make the small project in a folder; give the dbt project."""
    project = folder / "dbt_project"
    sources = project / "models" / "sources"
    sources.mkdir(parents=True)
    for stream in (*STREAMS, "operations"):
        shutil.copy(ROOT / "dbt_project" / "models" / "sources" / f"{stream}.yml", sources)
    shutil.copy(ROOT / "dbt_project" / "profiles.yml", project)
    (project / "macros").mkdir()
    shutil.copy(ROOT / "dbt_project" / "macros" / "begin_date.sql", project / "macros")
    for view in ("sales_by_minute", "traffic_by_minute"):
        (project / "models" / "live").mkdir(exist_ok=True)
        shutil.copy(ROOT / "dbt_project" / "models" / "live" / f"{view}.sql", project / "models" / "live")
    for name, text in _MODELS.items():
        file = project / "models" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")
    (project / "dbt_project.yml").write_text(
        "name: small\nversion: 1.0.0\nconfig-version: 2\nprofile: tidemill\n"
        "flags: {send_anonymous_usage_stats: false, use_colors: false}\n"
        "vars: {begin_days: 7, batch_size: day}\nmodels: {small: {+materialized: table}}\n",
        encoding="utf-8",
    )
    return project


@contextmanager
def small_shop(folder: Path) -> Iterator[SmallShop]:
    """Start a service over a new data folder, with the small project's live models."""
    config = DayConfig(folder / "data", write_project(folder), "localhost:1")
    service = IngestProcess(folder, compiled(config))
    service.start()
    try:
        yield SmallShop(service, dataclasses.replace(config, address=service.address))
    finally:
        service.stop()


def compiled(config: DayConfig) -> Path:
    """Compile the live models as `tidemill up` does, and give the manifest, where the service of the folder has it."""
    run = Run("compile", "2011-12-05", "2011-12-05")
    save_run(config, run)
    take_copy(config, "compile")
    target = config.run_folder("compile") / "target"
    with dbt_project.environment(config, run, config.work_copy("compile")):
        # No run is pinned: compiling reads the columns alone.
        nothing = {"lake_uri": "", "lake_version": 0, "seal_offset": 0}
        (config.run_folder("compile") / "run.json").write_text(
            json.dumps({"streams": dict.fromkeys(source_tables(config.sources), nothing)})
        )
        dbt_project.invoke(config, run, ["compile", "--select", "tag:live"])
    # The runs need not parse the project again.
    shutil.copy(target / "partial_parse.msgpack", config.runs)
    manifest = config.data / "live" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    written = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    manifest.write_text(json.dumps(live_manifest(written, target)), encoding="utf-8")
    shutil.rmtree(config.run_folder("compile"))
    return manifest
