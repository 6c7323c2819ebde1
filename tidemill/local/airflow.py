"""Airflow on this machine: its database, its four components, and when it can take a run."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tidemill.local.airflow_client import AirflowClient
from tidemill.local.airflow_settings import (
    DATABASE_VARIABLE,
    airflow_environment,
    make_login,
    make_secrets,
    write_local_settings,
)
from tidemill.local.errors import LocalError
from tidemill.local.folder import DataFolder
from tidemill.local.ports import LOOPBACK
from tidemill.local.postgres import Postgres
from tidemill.local.process import ProcessSpec
from tidemill.local.supervisor import Supervisor

# `python -m airflow`, with the garbage collector looking less often: a fifth of a start's time is its search in
# objects that stay for good.
PROGRAM = "import gc; gc.set_threshold(50_000, 20, 50); from airflow.__main__ import main; main()"
# Scheduler and triggerer would each serve task logs on a fixed port, in a process of 140 MB; the API server reads
# the same files.
COMMANDS = {
    "migrate": ["db", "migrate"],
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
API_READY_TIMEOUT_S = 180.0
NICE = 5


class Airflow:
    """The processes of one Airflow under a supervisor.

    Order of a start:
    1. secrets, login and the scheduler's imports are written;
    2. PostgreSQL starts, unless TIDEMILL_AIRFLOW_DATABASE_URL names the user's own;
    3. its tables are made or migrated;
    4. the components start, the triggerer last: no run needs it to begin, and at start all fight for the processor;
    5. (`wait`) the API answers, the DAG has been read.
    """

    def __init__(
        self,
        *,
        folder: DataFolder,
        dags: Path,
        port: int,
        supervisor: Supervisor,
        extra: Mapping[str, str],
        database_url: str | None = None,
    ) -> None:
        """Start nothing yet.

        extra: environment for the tasks. database_url: default from TIDEMILL_AIRFLOW_DATABASE_URL.
        """
        self.url = f"http://{LOOPBACK}:{port}"
        self.login = make_login(folder.airflow)
        self._folder = folder
        self._supervisor = supervisor
        own = database_url or os.environ.get(DATABASE_VARIABLE)
        self._postgres = None if own else Postgres(folder.postgres, folder.log("postgres"))
        self.environment = airflow_environment(
            home=folder.airflow,
            dags=dags,
            port=port,
            database_url=own or (self._postgres.url if self._postgres else ""),
            login=self.login,
            keys=make_secrets(folder.airflow),
            extra=extra,
        )

    def start(self) -> None:
        """Steps 1 to 4. Takes some ten seconds; raises ProcessFailed or LocalError."""
        _check_installed()
        write_local_settings(self._folder.airflow)  # 1
        if self._postgres is not None:  # 2
            if self._postgres.prepare():
                self._migrated.unlink(missing_ok=True)
            self._supervisor.start(self._postgres.spec())
            self._supervisor.wait_ready("postgres")
        self._migrate()  # 3
        for name in ("api-server", "scheduler", "dag-processor"):  # 4
            self._supervisor.start(self._spec(name))
        self._supervisor.wait_ready("airflow-api-server")
        self._folder.airflow_address.write_text(json.dumps({"url": self.url}))
        self._supervisor.start(self._spec("triggerer"))

    def wait(self, dag_id: str | None, timeout_s: float = API_READY_TIMEOUT_S) -> AirflowClient:
        """Step 5: wait until a run of the DAG can be triggered, after `start`; None: until the API answers.

        Raises ProcessFailed when a component dies, DagBroken when the DAG's file cannot be imported.
        """
        client = AirflowClient(self.url, self.login)
        if dag_id is not None:
            client.wait_dag(dag_id, timeout_s, check=lambda: self._supervisor.wait_failure(0))
        return client

    def _spec(self, name: str, *, once: bool = False) -> ProcessSpec:
        return ProcessSpec(
            name=f"airflow-{name}",
            # -P: the folder that it runs in must not hide a module.
            command=[sys.executable, "-P", "-c", PROGRAM, *COMMANDS[name]],
            log=self._folder.log(f"airflow-{name}"),
            environment=self.environment,
            folder=self._folder.airflow,
            ready=AirflowClient(self.url, self.login).is_up if name == "api-server" else None,
            ready_timeout_s=API_READY_TIMEOUT_S,
            grace_s=15.0,
            # The stream side answers people and programs within milliseconds; the night's work can wait for it.
            nice=NICE,
            once=once,
        )

    @property
    def _migrated(self) -> Path:
        return self._folder.airflow / "migrated.json"

    def _migrate(self) -> None:
        """Make or migrate the tables; of our own PostgreSQL it is known when they are as they should be."""
        wanted = {"airflow": importlib.metadata.version("apache-airflow")}
        if self._postgres is not None and self._migrated.exists() and json.loads(self._migrated.read_text()) == wanted:
            return
        self._supervisor.start(self._spec("migrate", once=True))
        self._supervisor.wait_ready("airflow-migrate")
        self._migrated.write_text(json.dumps(wanted))


def _check_installed() -> None:
    try:
        importlib.metadata.version("apache-airflow")
    except importlib.metadata.PackageNotFoundError as error:
        raise LocalError(
            "Airflow is not installed: pip install 'tidemill[airflow,batch]', or run the stream side alone with "
            "`tidemill up --no-airflow`"
        ) from error
