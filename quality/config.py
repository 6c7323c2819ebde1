"""Where a day's stages find the data folder, the dbt project and the ingest service."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from quality.errors import ConfigWrong


@dataclass(frozen=True)
class DayConfig:
    """What every stage is given.

    data: the data folder. Default `.tidemill`. Wrong: a run of another folder is not found.
    project: the dbt project's folder, or the folder that holds it as `dbt_project`. Default: the current folder.
    address: host:port of the ingest service. Default `localhost:7433`. Wrong: `ServiceFailed`, which names it.
    """

    data: Path
    project: Path
    address: str

    def __post_init__(self) -> None:
        # Absolute, because dbt changes the working folder while it runs.
        object.__setattr__(self, "data", self.data.absolute())
        inner = self.project.absolute() / "dbt_project"
        project = inner if inner.is_dir() else self.project.absolute()
        if not (project / "dbt_project.yml").is_file():
            raise ConfigWrong(f"expected a dbt project in {project}; found no dbt_project.yml. Set TIDEMILL_PROJECT")
        object.__setattr__(self, "project", project)

    @classmethod
    def from_environment(cls) -> DayConfig:
        """Read TIDEMILL_DATA, TIDEMILL_PROJECT and TIDEMILL_ADDRESS; raises ConfigWrong when there is no project."""
        return cls(
            data=Path(os.environ.get("TIDEMILL_DATA", ".tidemill")),
            project=Path(os.environ.get("TIDEMILL_PROJECT", ".")),
            address=os.environ.get("TIDEMILL_ADDRESS", "localhost:7433"),
        )

    @property
    def root(self) -> Path:
        """The project's folder, which holds the dbt project, `suites`, `proto` and `dags`."""
        return self.project.parent

    @property
    def suites(self) -> Path:
        """Folder of the expectations that the project's people wrote."""
        return self.root / "suites"

    @property
    def sources(self) -> Path:
        """Folder of the generated dbt sources."""
        return self.project / "models" / "sources"

    @property
    def runs(self) -> Path:
        """Folder of the runs' records."""
        return self.data / "runs"

    @property
    def warehouse(self) -> Path:
        """The published warehouse, which readers open."""
        return self.data / "warehouse" / "warehouse.duckdb"

    @property
    def queue(self) -> Path:
        """Folder of the tickets of those who wait for the turn to write the warehouse."""
        return self.warehouse.parent / "queue"

    @property
    def turn(self) -> Path:
        """Who has the turn to write the warehouse; no file: nobody."""
        return self.warehouse.parent / "turn.json"

    @property
    def alerts(self) -> Path:
        """Folder of the alerts, a file each."""
        return self.data / "alerts"

    @property
    def dbt_docs(self) -> Path:
        """The dbt docs: one file."""
        return self.data / "docs" / "dbt" / "index.html"

    @property
    def data_docs(self) -> Path:
        """Folder of the data docs, a static site with index.html."""
        return self.data / "docs" / "data"

    @property
    def expectations(self) -> Path:
        """Folder in which Great Expectations keeps the results that the data docs show."""
        return self.data / "docs" / "gx"

    def run_folder(self, run_id: str) -> Path:
        """Folder of one run: run.json, dbt's target and log, failing rows."""
        return self.runs / run_id

    def operations(self, run_id: str) -> Path:
        """Folder of what a run knows of itself and of the runs before it, as Parquet: dbt's source `operations`."""
        return self.run_folder(run_id) / "operations"

    def work_copy(self, run_id: str) -> Path:
        """The copy of the warehouse that a run writes.

        Named as the published file is: DuckDB calls a database by its file's name, and views keep that name in them.
        """
        return self.warehouse.parent / "work" / run_id / self.warehouse.name
