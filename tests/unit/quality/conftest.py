from pathlib import Path

import pytest
import yaml
from deltalake import write_deltalake
from support.lakes import COLUMNS, payments

from quality.config import DayConfig
from quality.run import Pin, Run, save_run

DONE = {"result": {}, "started_at": "", "ended_at": ""}


@pytest.fixture
def config(tmp_path: Path) -> DayConfig:
    """A data folder and a dbt project with one source, stream `payments`."""
    project = tmp_path / "project"
    sources = project / "models" / "sources"
    sources.mkdir(parents=True)
    (project / "dbt_project.yml").write_text("name: small\n")
    table = {
        "name": "payments",
        "config": {"meta": {"plugin": "lake", "stream": "payments"}},
        "columns": [{"name": name, "data_type": kind} for name, kind in COLUMNS.items()],
    }
    (sources / "payments.yml").write_text(yaml.safe_dump({"sources": [{"name": "events", "tables": [table]}]}))
    return DayConfig(tmp_path / "data", project, "localhost:1")


@pytest.fixture
def run(config: DayConfig) -> Run:
    """A run of 5 December 2011 whose stream has 6 rows, 4 of them below the seal offset, 3 of those on the date."""
    uri = config.data / "lake" / "payments"
    write_deltalake(str(uri), payments(0, [4, 5, 5, 5]), partition_by=["event_date"])
    write_deltalake(str(uri), payments(4, [5, 6]), mode="append")
    counts = {
        "sent": 9, "received_counted": 9, "received": 9, "appended": 6, "duplicate": 1, "quarantined": 2, "late": 0,
        "appended_by_date": {"2011-12-04": 1, "2011-12-05": 4, "2011-12-06": 1},
    }  # fmt: skip
    pinned = Run("r1", "2011-12-05", "2011-12-05", {"payments": Pin(4, str(uri), 1, 6, counts)}, {"seal": DONE})
    save_run(config, pinned)
    return pinned
