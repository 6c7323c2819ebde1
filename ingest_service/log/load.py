"""What a log holds at a moment: for metrics and health."""

from __future__ import annotations

from dataclasses import dataclass

from ingest_service.log.timings import Distribution


@dataclass(frozen=True, slots=True)
class Load:
    """A log at a moment.

    committing: its committer is alive. write_error: why the last frame could not be written; "" when it was.
    queue_appends, queue_bytes: what waits to be committed. segments, segment_bytes: what it keeps on disk. producers:
    those remembered. dedup_ids, dedup_bytes: ids of the dedup window in memory, and the memory that they take.
    commit_times, sync_times: durations of commits (a frame made, written, synced), and of their fdatasync alone.
    """

    committing: bool
    write_error: str
    queue_appends: int
    queue_bytes: int
    segments: int
    segment_bytes: int
    producers: int
    dedup_ids: int
    dedup_bytes: int
    commit_times: Distribution
    sync_times: Distribution
