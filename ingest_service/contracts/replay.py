"""Quarantined rows against the present contract: those that keep it now are appended, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ingest_service.contracts.intake import Intake, Validated
from ingest_service.contracts.json_rows import is_json, json_batch
from ingest_service.log import KeptRow, Log, Verdict
from ingest_service.log.quarantine_index import replays_of

ROWS_MAX = 5_000
BYTES_MAX = 8 << 20
"""Rows and payload bytes that are checked and appended together."""


@dataclass(slots=True)
class Replay:
    """What became of the rows that were not replayed before, in rows; see tidemill/v1/streams.proto.

    after_offset: a view that covers it has seen the appended rows; 0 when there are none.
    """

    checked: int = 0
    appended: int = 0
    duplicate: int = 0
    still_broken: int = 0
    after_offset: int = 0


def replay(log: Log, intake: Intake, ids: Sequence[str], *, check_only: bool, now_us: int) -> Replay:
    """Replay the rows of these ids, or all that wait. One at a time for a log; waits until all is durable.

    Where it fails midway, what was appended stays appended, and another replay goes on with the rest.

    Raises:
        BadRequest: an id is none, or its row is no longer kept; nothing is appended.
        LogDamaged, StorageError: rows can't be read, or not be written.
    """
    outcome = Replay()
    with log.quarantine.replaying:
        frames: Iterable[list[KeptRow]] = [log.quarantine.by_id(ids)] if ids else log.quarantine.all_waiting()
        for chunk in _chunks(row for rows in frames for row in rows if not row.replayed):
            _replay_chunk(log, intake, chunk, outcome, check_only=check_only, now_us=now_us)
    return outcome


def _replay_chunk(
    log: Log, intake: Intake, chunk: list[KeptRow], outcome: Replay, *, check_only: bool, now_us: int
) -> None:
    validated, rows = _check(intake, chunk, now_us)
    broken = {row.index for row in validated.quarantined}
    good = [row.row_id for index, row in enumerate(rows) if index not in broken]
    outcome.checked += len(chunk)
    outcome.still_broken += len(chunk) - len(good)
    if not good:
        return
    if check_only:
        duplicate = log.duplicates(validated.rows)
    else:
        result = log.replay(validated.rows, replays_of(good))
        duplicate = sum(verdict.verdict is Verdict.DUPLICATE for verdict in result.verdicts)
        outcome.after_offset = result.durable_offset
    outcome.duplicate += duplicate
    outcome.appended += len(good) - duplicate


def _check(intake: Intake, chunk: list[KeptRow], now_us: int) -> tuple[Validated, list[KeptRow]]:
    """The verdicts over the rows, and the rows themselves without those that can't even be read."""
    payloads = [row.row.payload for row in chunk]
    if not is_json(payloads[0]):
        return intake.from_proto(payloads, now_us), chunk
    stream, readable = json_batch(payloads, intake.contract.schema)
    return intake.from_arrow(stream, now_us), [chunk[index] for index in readable]


def _chunks(rows: Iterable[KeptRow]) -> Iterator[list[KeptRow]]:
    """Rows that follow each other, all of them messages or all of them JSON, within the bounds."""
    chunk: list[KeptRow] = []
    size_bytes = 0
    for row in rows:
        size_bytes += len(row.row.payload)
        full = len(chunk) >= ROWS_MAX or size_bytes > BYTES_MAX
        if chunk and (full or is_json(row.row.payload) != is_json(chunk[0].row.payload)):
            yield chunk
            chunk, size_bytes = [], len(row.row.payload)
        chunk.append(row)
    if chunk:
        yield chunk
