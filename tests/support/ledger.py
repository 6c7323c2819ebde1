"""A ledger of what producers sent and what they were told, and whether a log keeps to it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event

import pytest

from ingest_service.errors import BadRequest, StorageError
from ingest_service.log import Append, AppendResult, Log, QuarantinedRow, Seal, Verdict
from ingest_service.log.quarantine_index import replays_of
from support.logs import NOON_US, SetClock, batch, ids_in

DAY_US = 86_400_000_000


@dataclass
class Batch:
    """A batch that a producer sends under one sequence, until it is acknowledged.

    ids: event ids of its good rows, as sent; fresh: those that no earlier batch of its producer holds; bad: payloads of
    rows that break the contract, which stand behind the good ones.
    """

    producer: str
    sequence: int
    ids: list[str]
    fresh: list[str]
    bad: list[bytes]
    day: int
    rows_sent: int
    acks: list[AppendResult] = field(default_factory=list)
    refused: int = 0

    def append(self) -> Append:
        rows = batch(self.ids, NOON_US - self.day * DAY_US)
        count = len(self.ids) + len(self.bad)
        bad = tuple(QuarantinedRow(len(self.ids) + i, "r", "f", "m", payload) for i, payload in enumerate(self.bad))
        return Append(rows, count, bad, self.producer, self.sequence, self.rows_sent)


class GateClock(SetClock):
    """A clock at which a committer can be held up, so that what is queued meanwhile becomes one frame."""

    def __init__(self) -> None:
        super().__init__()
        self._reached: Event | None = None
        self._opened = Event()

    def shut(self) -> Event:
        """Hold up who asks for the time next; the event says that somebody is held up."""
        self._opened.clear()
        self._reached = Event()
        return self._reached

    def open(self) -> None:
        self._opened.set()

    def now_us(self) -> int:
        if self._reached is not None:
            reached, self._reached = self._reached, None
            reached.set()
            assert self._opened.wait(30)
        return super().now_us()


class Ledger:
    """Sends batches as the SDK does (in order, until each is acknowledged) and remembers every answer.

    on_refused: called with the log and each batch that it refuses. lake: ids of all rows from offset 0 on that were
    exported; they are durable there. replays: quarantined rows that were to be appended, by row id: their event ids.
    """

    def __init__(self, on_refused: Callable[[Log, Batch], None] = lambda log, batch: None) -> None:
        self._on_refused = on_refused
        self.batches: dict[str, list[Batch]] = {}
        self.lake: list[str] = []
        self.replays: dict[str, str] = {}
        self._replayed: set[str] = set()
        self._payloads: set[bytes] = set()
        self.seals: list[Seal] = []
        self._rows_sent: dict[str, int] = {}

    def next(self, producer: str, rows: int, *, again: int = 0, bad: int = 0, day: int = 0) -> Batch:
        """The producer's next batch: `rows` new rows, between them `again` that it sent before, and `bad` ones."""
        sent = self.batches.setdefault(producer, [])
        sequence = len(sent)
        earlier = [each for one in sent for each in one.fresh]
        fresh = [f"{producer}{sequence}.{i}" for i in range(rows)]
        ids = fresh[:1] + earlier[-again:] * bool(again) + fresh[1:]
        payloads = [f"{producer}{sequence}!{i}".encode() for i in range(bad)]
        self._rows_sent[producer] = self._rows_sent.get(producer, 0) + len(ids) + bad
        new = Batch(producer, sequence, ids, fresh, payloads, day, self._rows_sent[producer])
        sent.append(new)
        return new

    def send(self, log: Log, *batches: Batch, tries: int = 1) -> bool:
        """Send batches one behind the other; False once one is refused for good: those behind it wait."""
        return all(self._send_one(log, each, tries) for each in batches)

    def send_together(self, log: Log, clock: GateClock, first: Batch, *rest: Batch, tries: int = 1) -> bool:
        """Send one batch and, while it is being written, the others: they become one frame."""
        reached = clock.shut()
        futures = [(first, log.append(first.append()))]
        assert reached.wait(30)
        futures += [(each, log.append(each.append())) for each in rest]
        clock.open()
        for each, future in futures:
            error = future.exception(30)
            if error is None:
                each.acks.append(future.result())
            else:
                self._refused(log, each)
        return self.send(log, *(each for each, _ in futures if not each.acks), tries=tries)

    def seal(self, log: Log, day: int, *, tries: int = 1) -> bool:
        """Seal the day so many days before the scenario's."""
        date = dt.datetime.fromtimestamp(NOON_US / 1e6, dt.UTC).date() - dt.timedelta(days=day)
        for _ in range(tries):
            try:
                self.seals.append(log.seal(date, date, force=True))
            except StorageError:
                continue
            return True
        return False

    def replay(self, log: Log, *, tries: int = 1) -> bool:
        """Append the newest row in quarantine; True once that is acknowledged."""
        for _ in range(tries):
            with suppress(OSError, StorageError):
                newest = [kept for kept in log.quarantine.newest(1000) if not kept.replayed][-1]
                event_id = self.replays.setdefault(newest.row_id, f"r{newest.row_id}")
                self._payloads.add(newest.row.payload)
                log.replay(batch([event_id]), replays_of([newest.row_id]))
                self._replayed.add(newest.row_id)
                return True
        return False

    def _send_one(self, log: Log, each: Batch, tries: int) -> bool:
        for _ in range(tries):
            try:
                each.acks.append(log.append(each.append()).result(30))
            except StorageError:
                self._refused(log, each)
            else:
                return True
        return False

    def _refused(self, log: Log, each: Batch) -> None:
        each.refused += 1
        self._on_refused(log, each)

    def export(self, log: Log) -> int:
        """Bring everything durable to the lake; the offset that it reaches."""
        self.lake += ids_in(log, len(self.lake))
        return len(self.lake)

    def ids_in(self, log: Log) -> list[str]:
        """Every id, in offset order: from the lake what retention has dropped, the others from the log."""
        start = log.start_offset
        assert start <= len(self.lake), f"rows were dropped that the lake has not: {len(self.lake)} to {start}"
        ids = self.lake[:start] + ids_in(log, start)
        assert ids[: len(self.lake)] == self.lake, "the lake has rows that the log has not"
        return ids

    def open(self) -> list[Batch]:
        """The batches that were sent or begun and not acknowledged, each producer's in order."""
        return [one for one in self._all() if not one.acks]

    def check(self, log: Log, *, resend: bool = True) -> list[str]:
        """See that the log holds what was acknowledged, and nothing that was not sent; its ids, in offset order.

        resend: send every batch again as well, acknowledged or not, and see that each is in the log once then.
        """
        ids = self.ids_in(log)
        assert len(set(ids)) == len(ids), f"a row is in the log twice: {ids}"
        self._check_batches(ids)
        self._check_seals(log)
        self._check_quarantine(log)
        self._check_counts(log, ids)
        assert {self.replays[row_id] for row_id in self._replayed} <= set(ids), "a row that was replayed is gone"
        self._resend(log, set(ids), everything=resend)
        if resend:
            self._replay_again(log, set(ids))
            whole = self.ids_in(log)
            assert whole[: len(ids)] == ids, "resending changed rows that were there"
            fresh = [each for one in self._all() for each in one.fresh]
            assert sorted(whole) == sorted([*fresh, *self.replays.values()])
            self._check_counts(log, whole)
        return ids

    def _all(self) -> list[Batch]:
        return [each for sent in self.batches.values() for each in sent]

    def _check_batches(self, ids: list[str]) -> None:
        place = {each: offset for offset, each in enumerate(ids)}
        for producer, sent in self.batches.items():
            taken = [one for one in sent if one.fresh and one.fresh[0] in place]
            assert taken == [one for one in sent if one.fresh][: len(taken)], f"a batch of {producer} is missing"
            for one in taken:
                offsets = [place.get(each) for each in one.fresh]
                assert offsets == list(range(place[one.fresh[0]], place[one.fresh[0]] + len(offsets))), one
            order = [place[one.fresh[0]] for one in taken]
            assert order == sorted(order), f"batches of {producer} are out of order"
        for one in self._all():
            for ack in one.acks:
                assert ack.durable_offset <= len(ids), f"acknowledged up to {ack.durable_offset}, {len(ids)} there"
                assert ids[ack.base_offset : ack.base_offset + ack.rows_appended] == one.fresh, one
                assert ack.base_offset == one.acks[0].base_offset
                assert ack.verdicts == one.acks[0].verdicts
                kinds = [verdict.verdict for verdict in ack.verdicts if verdict.verdict is not Verdict.LATE]
                assert kinds.count(Verdict.DUPLICATE) == len(one.ids) - len(one.fresh)
                assert kinds.count(Verdict.QUARANTINED) == len(one.bad)

    def _check_seals(self, log: Log) -> None:
        kept = iter(log.seals())
        assert all(seal in kept for seal in self.seals), f"acknowledged {self.seals}, kept {log.seals()}"

    def _check_quarantine(self, log: Log) -> None:
        kept = [kept.row.payload for kept in log.quarantine.newest(1000)]
        assert len(set(kept)) == len(kept), f"a quarantined row is there twice: {kept}"
        # What was replayed need not be kept.
        missing = {payload for one in self._all() if one.acks for payload in one.bad} - set(kept) - self._payloads
        assert not missing, f"quarantined rows are gone: {missing}"

    def _check_counts(self, log: Log, ids: list[str]) -> None:
        counts = log.counts()
        assert counts.appended == len(ids) == log.durable_offset
        assert counts.received == counts.appended + counts.duplicate + counts.quarantined
        assert counts.sent == counts.received

    def _resend(self, log: Log, present: set[str], *, everything: bool) -> None:
        for one in self._all():
            taken = one.fresh[0] in present if one.fresh else bool(one.acks)
            if not taken and not everything:
                continue
            result = log.append(one.append()).result(30)
            assert result.replayed or not (one.acks or taken), f"{one} was in the log, and was taken for new"
            one.acks.append(result)
            self._check_ack(one)

    def _replay_again(self, log: Log, present: set[str]) -> None:
        """Replay once more what was to be replayed: what is in the log already is refused."""
        for row_id, event_id in self.replays.items():
            if event_id in present:
                with pytest.raises(BadRequest):
                    # Under an id of its own, so that nothing but the row's own id can tell.
                    log.replay(batch([f"{event_id} again"]), replays_of([row_id]))
            else:
                log.replay(batch([event_id]), replays_of([row_id]))
                self._replayed.add(row_id)

    def _check_ack(self, one: Batch) -> None:
        first, last = one.acks[0], one.acks[-1]
        assert (first.base_offset, first.rows_appended, first.verdicts) == (
            last.base_offset,
            last.rows_appended,
            last.verdicts,
        ), one
