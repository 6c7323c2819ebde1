"""dbt as its user runs it: by hand, in a copy of the project, whose data folder is beside it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD_S = 300
PROGRAM = (sys.executable, "-c", "from dbt.cli.main import cli; cli()")


def project(folder: Path) -> Path:
    """The folder's copy of the project, made when there is none."""
    made = folder / "dbt_project"
    if not made.exists():
        shutil.copytree(ROOT / "dbt_project", made, ignore=shutil.ignore_patterns("target", "logs"))
    return made


def environment(**more: str) -> dict[str, str]:
    """What dbt is run with: nothing of ours but what is given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "DBT_"))}
    return {**clean, **more}


def dbt(folder: Path, *arguments: str, **variables: str) -> str:
    """Run dbt in the folder's copy of the project; give what it said."""
    done = subprocess.run(
        [*PROGRAM, *arguments], cwd=project(folder), env=environment(**variables), capture_output=True, text=True,
        timeout=BUILD_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return done.stdout


def warehouse(folder: Path) -> Path:
    """The file that dbt writes by hand."""
    return folder / ".tidemill" / "warehouse" / "dev" / "warehouse.duckdb"
