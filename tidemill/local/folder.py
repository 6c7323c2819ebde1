"""The data folder's layout, and where the project is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidemill.local.errors import FolderBusy, ProjectMissing

DATA_VARIABLE = "TIDEMILL_DATA"
PROJECT_VARIABLE = "TIDEMILL_PROJECT"
DEFAULT_DATA = ".tidemill"
LOCK_WAIT_S = 15.0
LIVING_WAIT_S = 2.0


@dataclass(frozen=True)
class DataFolder:
    """Where each part keeps what it keeps; `root` is absolute. Nothing is made before it is needed."""

    root: Path

    @classmethod
    def at(cls, given: Path | str | None, project: Path, environment: Mapping[str, str] | None = None) -> DataFolder:
        """Take the folder that is given, else the environment's TIDEMILL_DATA, else `.tidemill` in the project."""
        named = given or (os.environ if environment is None else environment).get(DATA_VARIABLE)
        return cls(Path(named).expanduser().absolute() if named else project / DEFAULT_DATA)

    @property
    def live(self) -> Path:
        """The live tables' store, and the manifest that defines them."""
        return self.root / "live"

    @property
    def manifest(self) -> Path:
        """What dbt compiled of the live models, for the service."""
        return self.live / "manifest.json"

    @property
    def compile(self) -> Path:
        """dbt's target folder of its own for compiling: a run would strip the SQL from its manifest."""
        return self.live / "compile"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME: secrets, settings, task logs."""
        return self.root / "airflow"

    @property
    def airflow_address(self) -> Path:
        """Where Airflow was last started, as JSON: `tidemill day` finds it there."""
        return self.airflow / "address.json"

    @property
    def postgres(self) -> Path:
        """Airflow's metadata."""
        return self.airflow / "postgres"

    @property
    def warehouse(self) -> Path:
        """The published warehouse."""
        return self.root / "warehouse" / "warehouse.duckdb"

    @property
    def dbt_docs(self) -> Path:
        """dbt's docs as one static file."""
        return self.root / "docs" / "dbt" / "index.html"

    @property
    def data_docs(self) -> Path:
        """Great Expectations' data docs."""
        return self.root / "docs" / "data" / "index.html"

    @property
    def logs(self) -> Path:
        """A file for each component."""
        return self.root / "logs"

    def log(self, component: str) -> Path:
        """The log file of one component."""
        return self.logs / f"{component}.log"

    @contextlib.contextmanager
    def locked(self, wait_s: float = LOCK_WAIT_S) -> Iterator[int]:
        """Hold the folder for one stack; gives the lock's file descriptor.

        A descriptor that is handed on (to the guard) holds the lock too: the next stack waits until the last process
        of a killed one is gone.
        Raises FolderBusy when another stack holds the folder for longer than wait_s seconds.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        file = self.root / "stack.lock"
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            asked = time.monotonic()
            while not _try_lock(descriptor):
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
                # A dead holder's guard is still ending its processes; a living one may just be about to stop.
                patience_s = min(wait_s, LIVING_WAIT_S) if _is_alive(holder) else wait_s
                if time.monotonic() - asked >= patience_s:
                    raise FolderBusy(
                        f"{self.root} is in use by another `tidemill up` or `tidemill demo` (process "
                        f"{holder or 'unknown'}): stop that one, or choose another folder with --data"
                    )
                time.sleep(0.1)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def find_project(
    given: Path | str | None = None, environment: Mapping[str, str] | None = None, start: Path | None = None
) -> Path:
    """Find the project: the folder that holds proto/ and dbt_project/.

    In this order: the given folder, the environment's TIDEMILL_PROJECT, `start` (the current folder) and those above.
    Raises ProjectMissing.
    """
    named = given or (os.environ if environment is None else environment).get(PROJECT_VARIABLE)
    if named:
        folder = Path(named).expanduser().absolute()
        if not _is_project(folder):
            raise ProjectMissing(f"{folder} is no Tidemill project: it has no proto/ and dbt_project/ in it")
        return folder
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if _is_project(folder):
            return folder
    raise ProjectMissing(
        f"no Tidemill project in {here} or above it (a folder with proto/ and dbt_project/): "
        f"go to one, or name it with --project or {PROJECT_VARIABLE}"
    )


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _is_project(folder: Path) -> bool:
    return (folder / "proto").is_dir() and (folder / "dbt_project").is_dir()
