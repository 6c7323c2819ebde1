"""All parts on one machine, started together and stopped together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tidemill.local.airflow import Airflow
from tidemill.local.airflow_client import AirflowClient
from tidemill.local.airflow_settings import Login
from tidemill.local.folder import DataFolder
from tidemill.local.live_models import put_in_force
from tidemill.local.ports import LOOPBACK, claim_port
from tidemill.local.process import ProcessEvent
from tidemill.local.service import SERVICE, service_spec
from tidemill.local.supervisor import Supervisor

DAILY = "daily"


class Stack:
    """The ingest service and Airflow, as a context manager: inside it the parts can be started, behind it none is left.

    The service and Airflow don't wait for each other: `start_airflow` returns at once, `start_service` when events can
    be sent, `wait_airflow` when a run can be triggered. Use it from one thread; on_event is called from another.
    """

    def __init__(
        self,
        folder: DataFolder,
        project: Path,
        *,
        service_port: int | None = None,
        airflow_port: int | None = None,
        scheduled: bool = True,
        dags: Path | None = None,
        settings: Mapping[str, str] | None = None,
        on_event: Callable[[ProcessEvent], None] | None = None,
    ) -> None:
        """Start nothing yet.

        service_port, airflow_port: None or 0 for any free one. scheduled: whether DAGs have their schedules; without,
        only triggered runs start (a demo, a test). dags: folder of the DAGs; None: the project's own. settings: more of
        the environment of Airflow's processes, such as TIDEMILL_LANDING. on_event: told of each change of a process.
        """
        self.folder = folder
        self.project = project
        self._wanted = (service_port, airflow_port)
        self._scheduled = scheduled
        self._dags = dags or project / "dags"
        self._settings = dict(settings or {})
        self._on_event = on_event
        self._cleanup = ExitStack()
        self._service_port = 0
        self._airflow: Airflow | None = None
        self._airflow_thread: threading.Thread | None = None
        self._airflow_error: BaseException | None = None

    def __enter__(self) -> Self:
        """Take the data folder and the service's port. Raises FolderBusy or PortBusy."""
        with ExitStack() as taken:
            lock = taken.enter_context(self.folder.locked())
            self._service_port = claim_port(self._wanted[0], what="the ingest service", option="--port")
            self.supervisor = taken.enter_context(Supervisor(on_event=self._on_event, hold=(lock,)))
            self._cleanup = taken.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop every process, then let the folder go."""
        self._cleanup.__exit__(kind, error, trace)
        if self._airflow_thread is not None:
            # Its processes are gone, so it ends at once.
            self._airflow_thread.join()

    @property
    def address(self) -> str:
        """Where the service listens: host:port."""
        return f"{LOOPBACK}:{self._service_port}"

    @property
    def airflow_url(self) -> str:
        """Airflow's pages; after `start_airflow`."""
        assert self._airflow is not None, "start_airflow comes first"
        return self._airflow.url

    @property
    def login(self) -> Login:
        """Airflow's login; after `start_airflow`."""
        assert self._airflow is not None, "start_airflow comes first"
        return self._airflow.login

    def start_service(self) -> str:
        """Compile the live models, start the service and wait until it serves; gives its address.

        Raises CompileFailed, ProcessFailed.
        """
        put_in_force(self.project, self.folder, self.supervisor)
        self.supervisor.start(service_spec(self.project, self.folder, self._service_port))
        self.supervisor.wait_ready(SERVICE)
        return self.address

    def start_airflow(self) -> None:
        """Begin to start Airflow and return at once; `wait_airflow` tells how it went. Raises PortBusy."""
        assert self._airflow is None, "Airflow is started once"
        port = claim_port(self._wanted[1], what="Airflow's pages", option="--airflow-port")
        self._airflow = Airflow(
            folder=self.folder,
            dags=self._dags,
            port=port,
            supervisor=self.supervisor,
            extra={
                **self._settings,
                "TIDEMILL_DATA": str(self.folder.root),
                "TIDEMILL_PROJECT": str(self.project),
                "TIDEMILL_ADDRESS": self.address,
                "TIDEMILL_SCHEDULED": "1" if self._scheduled else "0",
            },
        )
        self._airflow_thread = threading.Thread(target=self._run_airflow, name="start-airflow", daemon=True)
        self._airflow_thread.start()

    def wait_airflow(self, dag_id: str | None = DAILY) -> AirflowClient:
        """Wait until a run of the DAG can be triggered, after `start_airflow`; gives the client to do so.

        dag_id: None waits for Airflow's API alone.

        Raises what went wrong: ProcessFailed, DagBroken, another LocalError.
        """
        assert self._airflow is not None, "start_airflow comes first"
        assert self._airflow_thread is not None
        self._airflow_thread.join()
        if self._airflow_error is not None:
            raise self._airflow_error
        return self._airflow.wait(dag_id)

    def check(self) -> None:
        """Raise ProcessFailed when a process was given up; to be called while waiting for something else."""
        self.supervisor.wait_failure(0)

    def _run_airflow(self) -> None:
        assert self._airflow is not None
        try:
            self._airflow.start()
        except BaseException as error:  # noqa: BLE001  # kept for the thread that waits
            self._airflow_error = error
