"""Spark Structured Streaming: one process, two worker threads; what it does is in `spark_job`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.peers.environment import Job, job
from benchmarks.peers.peer import PeerMissing


@contextmanager
def spark() -> Iterator[Job]:
    """A session. Raises PeerMissing."""
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        raise PeerMissing("there is no Java")
    with job("spark_job.py") as started:
        yield started
