"""The parts as processes of their own, in a temporary data folder."""

from __future__ import annotations

import contextlib
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
