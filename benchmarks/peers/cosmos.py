"""The same dbt project run by Astronomer Cosmos, with one task a model, in the same Airflow."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import PeerMissing
from tidemill.local.airflow_client import AirflowClient
from tidemill.local.folder import DataFolder

DAG_ID = "cosmos_models"
_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "cosmos-requirements.txt"


def cosmos_packages() -> Path:
    """The folder with Cosmos' packages, made once: beside the project's environment, of which it uses the rest.

    Raises PeerMissing when they can't be had.
    """
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = _HERE.parents[1] / "build" / "peers" / f"cosmos-{digest}"
    if folder.is_dir():
        return folder
    uv = Path(sys.executable).with_name("uv")
    if not uv.is_file():
        raise PeerMissing("there is no uv beside this Python (make setup)")
    new = folder.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", new]
    command += ["--no-deps", "--require-hashes", "-r", _REQUIREMENTS]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerMissing(f"its packages can't be had: {' '.join(done.stderr.split())[:300]}")
    new.replace(folder)
    return folder


class CosmosProject:
    """A folder with the project's DAGs, Cosmos' DAG beside them, and the manifest that it is made from."""

    def __init__(self, folder: Path, packages: Path, project: Path) -> None:
        self.dags = folder / "dags"
        self._folder = folder
        shutil.copytree(project / "dags", self.dags, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copyfile(_HERE / "cosmos_dag.py", self.dags / "cosmos_models.py")
        target = folder / "target"
        arguments = ["parse", "--target-path", str(target), "--log-path", str(folder / "logs")]
        command = [sys.executable, "-c", "from dbt.cli.main import cli; cli()", *arguments]
        environment = {**os.environ, "TIDEMILL_DATA": str(folder), "DO_NOT_TRACK": "1"}
        subprocess.run(command, cwd=project / "dbt_project", env=environment, check=True, capture_output=True)
        self.environment = {
            "COSMOS_PROJECT": str(project / "dbt_project"),
            "COSMOS_MANIFEST": str(target / "manifest.json"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH")])),
        }

    def run(self, airflow: AirflowClient, data: DataFolder, run_id: str, warehouse: Path, date: dt.date) -> float:
        """Build the models of a run's date over what it pinned, in a copy of a warehouse; seconds its tasks took."""
        copy = self._folder / "work" / "warehouse.duckdb"
        copy.parent.mkdir()
        shutil.copyfile(warehouse, copy)
        conf = {
            "pins": str(data.root / "runs" / run_id / "run.json"),
            "warehouse": str(copy),
            "work_copy": str(copy),
            "start": str(date),
            "end": str(date + dt.timedelta(days=1)),
        }
        airflow.trigger(DAG_ID, conf, "bench-cosmos")
        for _ in airflow.follow(DAG_ID, "bench-cosmos"):
            pass
        if airflow.run_state(DAG_ID, "bench-cosmos") != "success":
            raise RuntimeError(f"Cosmos failed: {airflow.failures(DAG_ID, 'bench-cosmos')[:3]}")
        spans = [
            (_seconds(task["start_date"]), _seconds(task["end_date"])) for task in airflow.tasks(DAG_ID, "bench-cosmos")
        ]
        return max(end for _, end in spans) - min(start for start, _ in spans)


def _seconds(text: Any) -> float:
    return dt.datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
