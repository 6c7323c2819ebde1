"""Retention: a log's oldest segments are dropped once the lake has their rows."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ingest_service.clock import Clock, SystemClock
from ingest_service.errors import IngestError
from ingest_service.log.files import Files, OsFiles
from ingest_service.log.log import Log
from ingest_service.log.segment import SegmentName
from ingest_service.log.segments import SegmentInfo
from ingest_service.log.settings import LogSettings
from ingest_service.log.snapshot import snapshot_places
from ingest_service.log.start import Start, write_start

INTERVAL_S = 60.0
"""How often the background thread looks, in seconds."""

_log = logging.getLogger(__name__)


class RetentionHold:
    """A lock file (flock) that keeps segments where they are: shared by who needs them, exclusive to who drops some.

    A backup holds it for as long as it copies; the kernel lets go of it when its process dies.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def dropping(self) -> Iterator[bool]:
        """Whether segments may be dropped now; False while somebody holds them."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a run of retention dropped."""

    segments: int = 0
    size_bytes: int = 0


class Retention:
    """Drops the oldest segments of one log, and its oldest quarantined rows. One run at a time.

    A segment is dropped, in this order: 1 its quarantined rows are kept in a file of their own; 2 what the lake has is
    brought to disk, as delta-rs does not sync what it writes; 3 `start.json` says that the log begins behind it; 4 the
    log lets go of it; 5 the file is removed. After a crash in between, the next start goes on from 3, and whatever was
    done before is done again or does no harm. Everything else that follows from its frames is in the snapshots, of
    which the older one covers it too.
    """

    def __init__(
        self,
        log: Log,
        folder: Path,
        lake_offset: Callable[[], int],
        hold: RetentionHold,
        *,
        settings: LogSettings,
        clock: Clock | None = None,
        files: Files | None = None,
        sync: Callable[[], None] = os.sync,
    ) -> None:
        """`folder`: the log's. `lake_offset`: everything strictly below it is in the lake; it may raise IngestError.

        `sync`: returns once what the lake holds is on disk.
        """
        self._log, self._folder, self._lake_offset, self._hold = log, folder, lake_offset, hold
        self._settings = settings
        self._clock = clock or SystemClock()
        self._files = files or OsFiles()
        self._sync = sync
        self._running = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def run(self) -> Dropped:
        """Drop what may go now.

        Raises:
            IngestError: the lake's offset is not known, or the log is being closed.
            OSError: the folder can't be written.
        """
        with self._running:
            now_us = self._clock.now_us()
            self._log.expire_quarantine(now_us - self._settings.quarantine_age_s * 1_000_000)
            with self._hold.dropping() as free:
                if not free:
                    return Dropped()
                doomed = self._doomed(now_us)
                if doomed:
                    self._drop(doomed)
                self._remove_files()
        return Dropped(len(doomed), sum(info.valid_end for info in doomed))

    def start(self, interval_s: float = INTERVAL_S) -> None:
        """Run in the background, every `interval_s`."""
        assert self._thread is None, "started twice"
        self._thread = threading.Thread(
            target=self._follow, args=(interval_s,), name=f"retain-{self._log.spec.stream}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop the background thread, after the run that it may be in. Idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _follow(self, interval_s: float) -> None:
        while not self._stopping.wait(interval_s):
            try:
                dropped = self.run()
            except (IngestError, OSError) as error:
                _log.warning("stream %s: nothing is dropped for now: %s", self._log.spec.stream, error)
                continue
            if dropped.segments:
                _log.info(
                    "stream %s: dropped %d segments, %d bytes; the log begins at offset %d now",
                    self._log.spec.stream, dropped.segments, dropped.size_bytes, self._log.start_offset,
                )  # fmt: skip

    def _doomed(self, now_us: int) -> Sequence[SegmentInfo]:
        segments = list(self._log.segments)
        snapshots = snapshot_places(self._files, self._folder)
        if len(segments) < 2 or not snapshots:
            return ()
        # What the older snapshot does not cover may still have to be read, and so may the dedup window's ids.
        needed_from = min(snapshots[-1].segment, self._log.dedup_segment())
        seals = {seal.seal_offset for seal in self._log.seals()}
        count = expired(segments, needed_from, self._lake_offset(), now_us, self._settings)
        # A reader from the first kept offset on is owed the seals that stand at it, which a dropped segment may hold.
        while count and segments[count].name.base_offset in seals:
            count -= 1
        return segments[:count]

    def _drop(self, doomed: Sequence[SegmentInfo]) -> None:
        first = self._log.segments.after(doomed[-1].name.number)
        assert first is not None, "the active segment is never dropped"
        for info in doomed:
            self._log.quarantine.keep(info)  # 1
        self._sync()  # 2
        write_start(self._files, self._folder, Start(first.name.number, first.name.base_offset))  # 3
        self._log.drop_before(first.name.number)  # 4

    def _remove_files(self) -> None:
        """5: oldest first, also those that an earlier run could not remove."""
        names = (SegmentName.parse(name) for name in self._files.list_folder(self._folder))
        for name in sorted((name for name in names if name), key=lambda name: name.number):
            if name.number < self._log.start_segment:
                self._files.remove(self._folder / str(name))


def expired(
    segments: Sequence[SegmentInfo], needed_from: int, lake_offset: int, now_us: int, settings: LogSettings
) -> int:
    """How many of the segments, from the oldest on, are too old or too many, and not needed any more.

    needed_from: number of the first segment that must stay; lake_offset: everything strictly below it is in the lake.
    """
    left_bytes = sum(info.valid_end for info in segments)
    count = 0
    for info, following in pairwise(segments):
        # All rows of a segment were appended before its successor began.
        old = settings.retain_age_s and now_us - following.begun_us > settings.retain_age_s * 1_000_000
        large = settings.retain_bytes and left_bytes > settings.retain_bytes
        if not (old or large) or info.name.number >= needed_from or following.name.base_offset > lake_offset:
            break
        left_bytes -= info.valid_end
        count += 1
    return count
