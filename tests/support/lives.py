"""A log's life on a disk of our own: what the power-loss and fault tests let happen to it."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ingest_service.errors import StorageError
from ingest_service.log import Log, LogSettings
from ingest_service.log.retention import Retention, RetentionHold
from support.ledger import GateClock, Ledger
from support.logs import SPEC
from support.power import Disk, PowerFiles

FOLDER = Path("/data/log/payments/0")
SETTINGS = LogSettings(segment_bytes=2500, tail_bytes=0, dedup_ids_max=80, retain_bytes=4000)


def open_log(files: PowerFiles, clock: GateClock | None = None, *, tries: int = 1) -> Log:
    """The log in FOLDER; segments of a few frames, and readers that read files, not memory."""
    for left in reversed(range(tries)):
        try:
            return Log.open(FOLDER, SPEC, clock=clock or GateClock(), files=files, settings=SETTINGS)
        except StorageError:
            if not left:
                raise
    raise AssertionError("expected at least one try")


def play(files: PowerFiles, ledger: Ledger, *, tries: int = 1) -> None:
    """A log's life, up to where the power goes: three producers, a dozen segments, seals, retention, two restarts.

    Some rows are sent twice, some break their contract, some come after their date was sealed. tries: how often each
    batch is sent at most, and the log opened.
    """
    for part in range(3):
        clock = GateClock()
        try:
            log = open_log(files, clock, tries=tries)
        except StorageError:
            return
        try:
            if not _part(log, clock, ledger, part, tries):
                return
            retain(log, clock, files, ledger)
        finally:
            log.close()


def _part(log: Log, clock: GateClock, ledger: Ledger, part: int, tries: int) -> bool:
    new = ledger.next
    return (
        ledger.send(log, new("a", 3), new("a", 2, again=1), tries=tries)
        and ledger.send_together(log, clock, new("b", 2), new("c", 4, bad=2), new("a", 1), new("c", 2), tries=tries)
        and ledger.seal(log, part, tries=tries)
        and ledger.send(log, new("b", 3, day=part), new("b", 0, bad=1), tries=tries)
        and ledger.send_together(log, clock, new("a", 30), new("b", 20, again=2), new("c", 1, bad=1), tries=tries)
        and ledger.send(log, new("c", 1), tries=tries)
        and ledger.replay(log, tries=tries)
    )


class _NoHold(RetentionHold):
    """No backup is under way."""

    def __init__(self) -> None:
        super().__init__(Path("HOLD"))

    @contextmanager
    def dropping(self) -> Iterator[bool]:
        yield True


def retain(log: Log, clock: GateClock, files: PowerFiles, ledger: Ledger) -> None:
    """Export everything, and drop the oldest segments; what fails is tried again by the next run."""
    retention = Retention(
        log, FOLDER, lambda: ledger.export(log), _NoHold(),
        settings=SETTINGS, clock=clock, files=files, sync=lambda: None,
    )  # fmt: skip
    with suppress(OSError, StorageError):
        retention.run()


def steps_of_a_life(left_out: Collection[str] = ()) -> PowerFiles:
    """The files of a life that nothing happened to: they count its steps and its syncs."""
    files = PowerFiles(Disk(), random.Random(0), left_out=left_out)
    play(files, Ledger())
    return files


def restart(files: PowerFiles, ledger: Ledger, *, resend: bool, steps: int | None = None) -> list[str]:
    """Start on what is there, check it against the ledger, go on, and end without tidying up; the ids found first.

    resend: send everything again. steps: then send what is not acknowledged, until the power goes after so many steps.
    """
    log = open_log(files)
    try:
        found = ledger.check(log, resend=resend)
        if steps is not None:
            files.power_off_at = files.steps + steps
            ledger.send(log, *ledger.open())
        return found
    finally:
        files.kill()
        log.close()
