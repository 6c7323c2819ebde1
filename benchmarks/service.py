"""An ingest service as a process of its own, in a temporary data folder."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tidemill.local.service import compile_models

PROJECT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    """A data folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def running_service(data: Path, *, views: bool) -> Iterator[str]:
    """A running service; its address."""
    command = [sys.executable, "-m", "ingest_service", "--data", str(data), "--proto", str(PROJECT / "proto")]
    command += ["--listen", "127.0.0.1:0"]
    if views:
        compile_models(PROJECT, data)
        command += ["--manifest", str(data / "live" / "manifest.json")]
    with (data / "service.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=PROJECT)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("listening on "):
                raise RuntimeError(f"the service did not start; see {data / 'service.log'}")
            yield line.removeprefix("listening on ").strip()
        finally:
            process.terminate()
            process.wait(30)
