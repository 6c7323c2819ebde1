"""bytewax: a dataflow library for Python; what it does is in `dataflow_job`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.peers.environment import Job, job


@contextmanager
def dataflow() -> Iterator[Job]:
    """A process that runs dataflows. Raises PeerMissing."""
    with job("dataflow_job.py") as started:
        yield started
