"""Producers: who sent which batch, so that a resent one gets its first response again.

The mechanism is Kafka's idempotent producer (KIP-98), with the whole response kept instead of the offset alone.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from typing import Any

from ingest_service.errors import ProducerError
from ingest_service.log.records import Append, AppendResult
from ingest_service.log.table import pack_verdicts, unpack_verdicts

RESULTS_KEPT = 256
"""Responses remembered a producer: more than a client may have in flight."""
RESULTS_KEPT_LEAST = 64
VERDICTS_KEPT = 20_000
"""Verdicts on single rows in them; beyond, only the newest RESULTS_KEPT_LEAST responses are remembered."""


@dataclass(slots=True)
class ProducerState:
    """A producer's last sequence, when it was last heard of, its own count of rows, and its last responses."""

    last_sequence: int = -1
    last_append_us: int = 0
    rows_sent: int = 0
    results: deque[tuple[int, AppendResult]] = field(default_factory=lambda: deque(maxlen=RESULTS_KEPT))

    def forget_verbose(self) -> None:
        """Forget old responses that say so much of single rows that they would fill the memory."""
        verdicts = sum(len(result.verdicts) for _, result in self.results)
        while verdicts > VERDICTS_KEPT and len(self.results) > RESULTS_KEPT_LEAST:
            _, result = self.results.popleft()
            verdicts -= len(result.verdicts)

    def result_of(self, sequence: int) -> AppendResult | None:
        """The response to a batch taken before, while it is remembered."""
        back = self.last_sequence - sequence
        if back >= len(self.results):
            return None
        return self.results[-1 - back][1]


class Producers:
    """The producers of a stream, bounded in number and age. Not thread-safe: the committer alone uses it.

    Changes are made by `take` before the frame is durable and kept by `commit` or undone by `roll_back`.
    """

    def __init__(self, most: int, expiry_us: int) -> None:
        self._most = most
        self._expiry_us = expiry_us
        self._states: OrderedDict[str, ProducerState] = OrderedDict()
        self._undo: list[tuple[str, ProducerState | None]] = []

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._states)

    def replay_of(self, append: Append, ahead: int = 0) -> AppendResult | None:
        """The first response, when this batch was taken before; None when it is the one expected next.

        ahead: how many of the producer's batches are about to be taken before it.

        Raises:
            ProducerError: a gap, an unknown producer that does not begin at 0, or a batch too old to be remembered.
        """
        state = self._states.get(append.producer_id)
        if state is None and not ahead:
            if append.sequence:
                raise ProducerError(
                    f"producer {append.producer_id!r} is unknown or expired: expected its first batch, sequence 0, "
                    f"came {append.sequence}. Whether earlier batches were taken can't be told any more; begin with a "
                    "new producer id",
                    expected_sequence=None,
                )
            return None
        expected = ahead + (0 if state is None else state.last_sequence + 1)
        if append.sequence == expected:
            return None
        if append.sequence > expected:
            raise ProducerError(
                f"producer {append.producer_id!r}: expected sequence {expected}, came {append.sequence}: "
                f"{append.sequence - expected} batches are missing; send them first",
                expected_sequence=expected,
            )
        result = None if state is None else state.result_of(append.sequence)
        if result is None:
            kept = 0 if state is None else len(state.results)
            raise ProducerError(
                f"producer {append.producer_id!r}: sequence {append.sequence} was taken before, but only the last "
                f"{kept} responses are remembered (expected next: {expected}); don't send it again",
                expected_sequence=expected,
            )
        return replace(result, replayed=True)

    def known(self, producer_id: str) -> ProducerState | None:
        """A copy of what is known of a producer; to be asked between commits only."""
        state = self._states.get(producer_id)
        return None if state is None else _copy(state)

    def take(self, append: Append, result: AppendResult, append_time_us: int) -> None:
        """Remember the batch as taken."""
        state = self._states.get(append.producer_id)
        self._undo.append((append.producer_id, None if state is None else _copy(state)))
        if state is None:
            state = self._states[append.producer_id] = ProducerState()
        state.last_sequence = append.sequence
        state.last_append_us = append_time_us
        state.rows_sent = append.rows_sent
        state.results.append((append.sequence, result))
        if result.verdicts:
            state.forget_verbose()

    def commit(self) -> None:
        """Keep what was taken, and forget producers over the bound or past their expiry."""
        for producer_id, _ in self._undo:
            self._states.move_to_end(producer_id)
        self._undo.clear()
        while self._states:
            oldest = next(iter(self._states.values()))
            newest_us = next(reversed(self._states.values())).last_append_us
            if len(self._states) <= self._most and newest_us - oldest.last_append_us <= self._expiry_us:
                break
            self._states.popitem(last=False)

    def roll_back(self) -> None:
        """Undo everything taken since the last commit."""
        for producer_id, state in reversed(self._undo):
            if state is None:
                del self._states[producer_id]
            else:
                self._states[producer_id] = state
        self._undo.clear()

    def pack(self) -> list[Any]:
        """As MessagePack takes it: those heard of last come last."""
        return [
            [producer_id, state.last_append_us, state.rows_sent, [_pack(*each) for each in state.results]]
            for producer_id, state in self._states.items()
        ]

    def restore(self, packed: list[Any]) -> None:
        """Take what `pack` gave, in place of what is here."""
        self._states.clear()
        for producer_id, last_append_us, rows_sent, results in packed:
            kept = deque((_unpack(each) for each in results), maxlen=RESULTS_KEPT)
            self._states[producer_id] = ProducerState(kept[-1][0], last_append_us, rows_sent, kept)


def _pack(sequence: int, result: AppendResult) -> list[Any]:
    return [
        sequence, result.partition, result.base_offset, result.rows_appended, result.durable_offset,
        pack_verdicts(result.verdicts),
    ]  # fmt: skip


def _unpack(packed: list[Any]) -> tuple[int, AppendResult]:
    sequence, partition, base_offset, rows_appended, durable_offset, verdicts = packed
    result = AppendResult(partition, base_offset, rows_appended, durable_offset, False, unpack_verdicts(verdicts))
    return sequence, result


def _copy(state: ProducerState) -> ProducerState:
    results = deque(state.results, maxlen=RESULTS_KEPT)
    return ProducerState(state.last_sequence, state.last_append_us, state.rows_sent, results)
