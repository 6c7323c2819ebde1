"""The parts as processes of their own, in a temporary data folder."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tidemill.local.folder import DataFolder
from tidemill.local.stack import Stack

PROJECT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def data_folder() -> Iterator[DataFolder]:
    """A data folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder:
        yield DataFolder(Path(folder) / "data")


@contextlib.contextmanager
def running_stack(folder: DataFolder) -> Iterator[Stack]:
    """The ingest service with its live views; Airflow may be started beside it."""
    with Stack(folder, PROJECT, scheduled=False) as stack:
        stack.start_service()
        yield stack


@contextlib.contextmanager
def ingest_service(*, dedup: bool = True) -> Iterator[str]:
    """The ingest service without live views and lake export, in an empty folder; its address.

    dedup: False takes the event id out of the contract's options.
    """
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        folder = Path(name)
        proto = PROJECT / "proto" if dedup else _without_event_id(folder / "proto")
        options = ["--data", folder / "data", "--proto", proto, "--listen", "127.0.0.1:0", "--http-listen", "none"]
        options += ["--export-interval", "0"]
        command = [sys.executable, "-m", "ingest_service", *map(str, options)]
        with (folder / "service.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            if not line.startswith("listening on "):
                raise RuntimeError(f"the service did not start: {(folder / 'service.log').read_text()[-2000:]}")
            yield line.split()[-1]
        finally:
            process.terminate()
            process.communicate()


def _without_event_id(folder: Path) -> Path:
    contract = (PROJECT / "proto" / "retail" / "v1" / "order_line.proto").read_text()
    option = 'event_id: "event_id"'
    assert option in contract
    path = folder / "retail" / "v1" / "order_line.proto"
    path.parent.mkdir(parents=True)
    path.write_text(contract.replace(option, ""))
    return folder
