"""The errors of running the parts on one machine.

TidemillError
└── LocalError
    ├── ProjectMissing     no folder here or above holds proto/ and dbt_project/
    ├── ProjectFileThere   a file that would be made is there already
    ├── NameRefused        a stream, model or domain cannot have this name
    ├── FolderBusy         another `tidemill up` or `demo` runs in this data folder
    ├── PortBusy           the wanted port is in use
    ├── ProcessFailed      a process died and was given up, or never became ready
    ├── CompileFailed      dbt could not compile the models
    └── AirflowError       Airflow's API refused a request or did not answer
        └── DagBroken      a DAG file cannot be imported
"""

from __future__ import annotations

from pathlib import Path

from tidemill.errors import TidemillError


class LocalError(TidemillError):
    """Root of the errors of `tidemill.local`; its text says what was expected, what came and what to do."""


class ProjectMissing(LocalError):
    """No project was found where one was expected."""


class ProjectFileThere(LocalError):
    """Something that would be made is there already; nothing was written."""


class NameRefused(LocalError):
    """A name that a stream, model or domain cannot have."""


class FolderBusy(LocalError):
    """Another stack runs in this data folder."""


class PortBusy(LocalError):
    """The wanted port is in use; `port` says which."""

    def __init__(self, message: str, port: int) -> None:
        super().__init__(message)
        self.port = port


class ProcessFailed(LocalError):
    """A process died and was given up, or never became ready; `log` has all of what it said, `tail` the end of it."""

    def __init__(self, name: str, reason: str, log: Path, tail: str) -> None:
        said = f"\n{tail}" if tail else ""
        super().__init__(f"{name} {reason}; its log is {log}{said}")
        self.name = name
        self.reason = reason
        self.log = log
        self.tail = tail


class CompileFailed(LocalError):
    """dbt could not compile the models; `log` has all of what it said."""

    def __init__(self, message: str, log: Path) -> None:
        super().__init__(message)
        self.log = log


class AirflowError(LocalError):
    """Airflow's API refused a request or did not answer; `status` is its HTTP status, or 0 when none came."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class DagBroken(AirflowError):
    """A DAG file cannot be imported; the text has the end of its traceback."""
