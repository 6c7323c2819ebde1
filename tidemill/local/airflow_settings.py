"""What Airflow is told through its environment, and the secrets it keeps.

Each value has been measured; a setting that is not here stays as Airflow has it, and a user's own AIRFLOW__… variables
reach it too, except for those that hold the parts together.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidemill.local.errors import LocalError
from tidemill.local.ports import LOOPBACK

USER = "admin"
DATABASE_VARIABLE = "TIDEMILL_AIRFLOW_DATABASE_URL"

TUNING = {
    # The default, 5, held workers for 5 s after many tasks, and failed tasks that were resumed quickly.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    # The default forks 32 workers.
    "AIRFLOW__CORE__PARALLELISM": "4",
    # A chain of ten tasks: 12 s at the default, 2 to 3 s so.
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    # A task waits for an answer of the API server as long as a busy machine may need: after 5 s it asks four times
    # more, and then it is killed.
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
    # A task whose process is gone is seen after a minute, not five.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    # Those of a scheduler that was killed are nobody's: they are looked for every half minute, not every five.
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
    # A new or changed DAG file is seen after 10 s, not 300. One that has not changed is read once a minute, not twice:
    # each time costs a process.
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    # A line for each request otherwise, and hundreds at each import of Great Expectations.
    "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "http.access=WARNING great_expectations=WARNING",
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
    "AIRFLOW__API__INSTANCE_NAME": "Tidemill",
}

QUIET = {
    # Warnings of libraries about each other are not for the user's eyes.
    "PYTHONWARNINGS": "ignore",
    "PYTHONUNBUFFERED": "1",
    # Neither dbt nor Great Expectations calls home.
    "DO_NOT_TRACK": "1",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "GX_ANALYTICS_ENABLED": "false",
}

# Written to $AIRFLOW_HOME/config. Tasks run in forks of the scheduler, triggers in a fork of the triggerer: what those
# have imported, they have.
LOCAL_SETTINGS = '''"""Written by Tidemill at each start; Airflow reads it in every process."""

import atexit
import importlib
import logging
import os
import sys

__all__: list[str] = []


def _leave() -> None:
    """End without the interpreter's last garbage collection: seconds of it, over all that has been imported."""
    if os.getpid() == _pid:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if hasattr(sys, "last_value") else 0)


if sys.argv[1:2] and sys.argv[1] in ("api-server", "scheduler", "dag-processor", "triggerer"):
    _pid = os.getpid()
    atexit.register(_leave)

_AHEAD = {
    "scheduler": (
        "duckdb",
        "deltalake",
        "dbt.cli.main",
        "dbt.adapters.duckdb.impl",
        "great_expectations",
        "airflow.sdk.execution_time.supervisor",
        "airflow.providers.standard.operators.python",
        "orchestration.turn",
        "orchestration.wait",
        "quality.day",
        "quality.dbt_ahead",
        "quality.dbt_project",
        "quality.gate",
        "quality.publish",
        "quality.reconcile_views",
        "quality.seal",
    ),
    # An import inside of a trigger holds up all others.
    "triggerer": (
        "duckdb",
        "tidemill",
        "orchestration.triggers",
        "quality.day",
        "quality.late",
        "quality.seal",
        "quality.turn",
    ),
}

# Once here, instead of in each task, and before the triggers begin.
for _module in _AHEAD.get("".join(sys.argv[1:2]), ()):
    try:
        importlib.import_module(_module)
    except ImportError as _error:
        print(f"not imported ahead: {_module}: {_error}", file=sys.stderr)
if "quality.dbt_ahead" in sys.modules and not sys.modules["quality.dbt_ahead"].warm_up():
    print("dbt was not made ready ahead", file=sys.stderr)
'''


@dataclass(frozen=True)
class Login:
    """Who may enter Airflow's pages and API; `file` is where it is kept."""

    user: str
    password: str
    file: Path

    def __repr__(self) -> str:
        return f"Login(user={self.user!r}, file={self.file!r})"


@dataclass(frozen=True)
class Secrets:
    """What signs and encrypts; made once for a data folder, so that a restart logs nobody out."""

    jwt_secret: str
    secret_key: str
    fernet_key: str

    def __repr__(self) -> str:
        return "Secrets(…)"


def make_login(home: Path) -> Login:
    """Read the login of this AIRFLOW_HOME, or make one with a random password; the file is the user's own (0600)."""
    file = home / "login.json"
    passwords = _read_or_make(file, {USER: secrets.token_urlsafe(12)})
    if USER not in passwords:
        raise LocalError(f"{file} has no password for {USER!r}: delete it, and a new one is made")
    return Login(USER, passwords[USER], file)


def make_secrets(home: Path) -> Secrets:
    """Read the secrets of this AIRFLOW_HOME, or make them (0600)."""
    file = home / "secrets.json"
    made = {
        "jwt_secret": secrets.token_urlsafe(64),
        "secret_key": secrets.token_urlsafe(64),
        "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }
    try:
        return Secrets(**_read_or_make(file, made))
    except TypeError as error:
        raise LocalError(f"{file} does not hold Airflow's secrets: delete it, and new ones are made") from error


def write_local_settings(home: Path) -> None:
    """Put the scheduler's imports where Airflow looks for them."""
    folder = home / "config"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "airflow_local_settings.py").write_text(LOCAL_SETTINGS)


def airflow_environment(
    *, home: Path, dags: Path, port: int, database_url: str, login: Login, keys: Secrets, extra: Mapping[str, str]
) -> dict[str, str]:
    """Give the whole environment of Airflow's processes and tasks.

    extra: what the tasks need beyond it (where data folder, project and service are).
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        # The first two would lead to another Airflow. Without cached bytecode each process compiles all of it anew:
        # 5 s instead of 2 at every start.
        if name not in {"AIRFLOW_CONFIG", "AIRFLOW_HOME", "PYTHONDONTWRITEBYTECODE"}
    }
    here = f"{LOOPBACK},localhost"
    no_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), here]))
    structure = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__FERNET_KEY": keys.fernet_key,
        # Without it every task fails on any port but 8080.
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{LOOPBACK}:{port}/execution/",
        # User and ROLE; the password comes from the file.
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{login.user}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(login.file),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": _with_driver(database_url, "psycopg2"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": _with_driver(database_url, "asyncpg"),
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://{LOOPBACK}:{port}",
        "AIRFLOW__API__SECRET_KEY": keys.secret_key,
        "AIRFLOW__API_AUTH__JWT_SECRET": keys.jwt_secret,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        # Tasks and components talk to the API on this machine, whatever proxy the machine uses.
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
    }
    return {**QUIET, **TUNING, **inherited, **structure, **extra}


def _with_driver(url: str, driver: str) -> str:
    scheme, found, rest = url.partition("://")
    if not found or scheme.split("+")[0] not in {"postgresql", "postgres"}:
        raise LocalError(
            f"{DATABASE_VARIABLE} is to be postgresql://user:password@host/database; it begins with {scheme[:20]!r}"
        )
    # The two drivers have two names for the same option.
    return f"postgresql+{driver}://{rest.replace('sslmode=', 'ssl=') if driver == 'asyncpg' else rest}"


def _read_or_make(file: Path, made: dict[str, str]) -> dict[str, str]:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        # Put there whole and with its mode: at no moment can others read it, or a second start read half of it.
        new = file.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            json.dump(made, opened)
        new.replace(file)
        return made
    try:
        return {str(name): str(value) for name, value in json.loads(file.read_text()).items()}
    except (ValueError, AttributeError) as error:
        raise LocalError(f"{file} is no JSON object: delete it, and a new one is made") from error
