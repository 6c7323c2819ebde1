"""One of the day's own tools (`quality`) as a child process: this package may not import it, and runs without it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tidemill.errors import MissingExtra


def run_quality_tool(
    command: str,
    module: str,
    arguments: Sequence[str],
    *,
    needs: str,
    data: Path | None,
    project: Path | None,
    address: str,
    settings: Mapping[str, str],
    show: Callable[[dict[str, Any]], str] | None,
) -> int:
    """Run a tool in the project's data folder; print each JSON line that it says, and give its exit code.

    command: the one that needs it, for messages; needs: a library of the extra `batch` that it needs; settings: of its
    environment, beside folder, project and address; show: puts a line into words, None: as it is. Raises MissingExtra,
    ProjectMissing.
    """
    if importlib.util.find_spec("quality") is None or importlib.util.find_spec(needs) is None:
        raise MissingExtra(command, "batch")
    from tidemill.local.folder import DataFolder, find_project

    root = find_project(project)
    environment = {
        **os.environ,
        "TIDEMILL_DATA": str(DataFolder.at(data, root).root),
        "TIDEMILL_ADDRESS": address,
        "TIDEMILL_PROJECT": str(root),
        **settings,
    }
    # -P: the folder that it runs in must not hide a module.
    program = [sys.executable, "-P", "-m", module, *arguments]
    with subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            click.echo(line.rstrip() if show is None else show(json.loads(line)))
    return process.returncode
