"""Keeps Airflow's own database and task logs from growing for ever."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

CLEAN_TIMEOUT_S = 1800
_SYNC, _ASYNC = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"


def clean_database(keep_days: int) -> dict[str, Any]:
    """Remove what Airflow keeps of runs that ended more than so many days ago, by `airflow db clean`.

    A task may not open Airflow's database itself, so the command does, in a process of its own. The newest scheduled
    run of each DAG stays: the schedule goes on from it.
    """
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=keep_days)
    command = [sys.executable, "-P", "-W", "ignore", "-m", "airflow", "db", "clean", "--yes", "--skip-archive",
               "--clean-before-timestamp", before.isoformat(), "--error-on-cleanup-failure"]  # fmt: skip
    ended = subprocess.run(
        command,
        env=command_environment(os.environ),
        capture_output=True,
        text=True,
        timeout=CLEAN_TIMEOUT_S,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"airflow db clean ended with {ended.returncode}: {ended.stderr.strip()[-2000:]}")
    return {"kept_from": before.isoformat()}


def command_environment(environment: Any) -> dict[str, str]:
    """Give the environment in which an Airflow command reaches the database from inside a task.

    Airflow puts a wall into a task's environment where the database's address was, but leaves the one of the
    asynchronous driver: the address is taken from there.
    """
    url = environment.get(_ASYNC, "")
    scheme, found, rest = url.partition("://")
    if not found or not scheme.startswith(("postgresql", "postgres")):
        raise AirflowFailException(
            f"expected PostgreSQL's address in {_ASYNC} to clean Airflow's database from a task; there is none. Run "
            "`airflow db clean` by cron instead, and leave this task out: maintain_dag(clean_airflow=False)"
        )
    # The two drivers have two names for the same option.
    kept = {name: value for name, value in environment.items() if name != "AIRFLOW__CORE__SQL_ALCHEMY_CONN"}
    return {**kept, _SYNC: f"postgresql+psycopg2://{rest.replace('ssl=', 'sslmode=')}"}


def clean_logs(keep_days: int, folder: Path | None = None, now_s: float | None = None) -> dict[str, Any]:
    """Remove log files of tasks that nobody has written to for so many days, and the folders that this leaves empty.

    folder: default Airflow's own. Gives files and bytes.
    """
    from airflow.sdk.configuration import conf

    root = folder or Path(conf.get("logging", "base_log_folder"))
    before_s = (time.time() if now_s is None else now_s) - keep_days * 86_400
    files = size = 0
    for place, folders, names in os.walk(root, topdown=False):
        for name in names:
            file = Path(place) / name
            found = file.lstat()
            if found.st_mtime < before_s:
                file.unlink()
                files, size = files + 1, size + found.st_size
        for name in folders:
            inner = Path(place) / name
            # One that was made just now may be about to get its first file.
            if not inner.is_symlink() and inner.stat().st_mtime < before_s and not any(inner.iterdir()):
                inner.rmdir()
    return {"files": files, "bytes": size}
