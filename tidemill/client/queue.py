"""The batches of one producer between `send` and their acknowledgement, and the numbers that they carry.

A batch goes through: open (rows join it) → closed (complete; with an outbox it is written there) → waiting (numbered,
free to leave) → sent (on the current call) → gone.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tidemill.client.ack import Batch

BATCH_BYTES = 1_000
"""What a batch costs in memory beside its rows, about; it counts, or batches of one row would outgrow the bound."""


@dataclass(frozen=True, slots=True)
class Numbering:
    """Who a producer is and how it goes on counting: the sequence of its next batch, the rows that it sent before."""

    producer_id: str
    next_sequence: int = 0
    rows_sent: int = 0

    @classmethod
    def new(cls) -> Numbering:
        """A producer that nobody has heard of."""
        return cls(str(uuid.uuid4()))


class BatchQueue:
    """Unacknowledged batches in the order in which they were sent.

    Invariant: of each producer id, `sent` then `waiting` hold consecutive sequences; those of `producer_id` end just
    below the next one to be given. Batches of other ids, from before, come first. `closed` and `open` have no sequence
    yet. `rows_sent` counts rows as `send` gets them, whatever the service answers: it is the producer's side of the
    balance. Not thread-safe: the producer's lock guards it.
    """

    def __init__(self, stream: str, start: Numbering | None = None, before: Iterable[Batch] = ()) -> None:
        self.stream = stream
        self._begin(start or Numbering.new())
        self.open = Batch(stream)
        self.closed: deque[Batch] = deque()
        self.waiting: deque[Batch] = deque(before)
        self.sent: deque[Batch] = deque()
        self.rows = sum(batch.rows for batch in self.waiting)
        self.size_bytes = sum(batch.size_bytes + BATCH_BYTES for batch in self.waiting)

    def _begin(self, numbering: Numbering) -> None:
        self.producer_id = numbering.producer_id
        self._next_sequence = numbering.next_sequence
        self.rows_sent = numbering.rows_sent

    def __iter__(self) -> Iterator[Batch]:
        yield from self.sent
        yield from self.waiting
        yield from self.closed

    def __bool__(self) -> bool:
        return bool(self.sent or self.waiting or self.closed or self.open.messages)

    def close_open(self) -> None:
        """Close the open batch, if it has rows."""
        batch = self.open
        if batch.messages:
            batch.rows = len(batch.messages)
            self.open = Batch(self.stream)
            self._close(batch)

    def add_closed(self, batch: Batch) -> None:
        """Add a batch that is complete; the rows sent before it go first."""
        self.close_open()
        self.rows_sent += batch.rows
        self._close(batch)

    def _close(self, batch: Batch) -> None:
        batch.rows_sent = self.rows_sent
        self.rows += batch.rows
        self.size_bytes += batch.size_bytes + BATCH_BYTES
        self.closed.append(batch)

    def number_closed(self) -> list[Batch]:
        """Give the closed batches their numbers; `release` or `give_back` follows."""
        for sequence, batch in enumerate(self.closed, self._next_sequence):
            batch.producer_id, batch.sequence = self.producer_id, sequence
        return list(self.closed)

    def free_closed(self) -> None:
        """Number the closed batches, and let them leave at once."""
        self.number_closed()
        self.release(len(self.closed))

    def release(self, count: int) -> None:
        """The first closed batches keep their numbers, and are free to leave."""
        self._next_sequence += count
        self.waiting.extend(self.closed.popleft() for _ in range(count))

    def give_back(self, count: int) -> list[Batch]:
        """Take out the first closed batches again: they are as if they had never been sent."""
        gone = [self.closed.popleft() for _ in range(count)]
        rows = sum(batch.rows for batch in gone)
        self.rows_sent -= rows
        for later in self.closed:
            later.rows_sent -= rows
        for batch in gone:
            self._forget(batch)
        return gone

    def next_to_send(self) -> Batch:
        """The next waiting batch, which counts as sent from now on."""
        batch = self.waiting.popleft()
        self.sent.append(batch)
        return batch

    def pop_acknowledged(self) -> Batch:
        """The oldest batch that was sent: it needs no more."""
        batch = self.sent.popleft()
        self._forget(batch)
        return batch

    def unsend(self, *, refused: bool) -> None:
        """The call is gone: what was sent on it and not acknowledged waits to be sent again, in the same order.

        refused: the service ended it because of the first of these batches, and has taken none of that producer id.
        """
        first = self.sent[0].producer_id if self.sent else ""
        for batch in self.sent:
            batch.in_doubt = batch.in_doubt or not (refused and batch.producer_id == first)
        self.waiting.extendleft(reversed(self.sent))
        self.sent.clear()

    def pop_refused(self) -> tuple[Batch, list[Batch]]:
        """Take out the first waiting batch, which the service did not take: its sequence goes to the next one.

        Gives it, and the batches whose numbers changed.
        """
        batch = self.pop_first()
        changed = [later for later in self.waiting if later.producer_id == batch.producer_id]
        for later in changed:
            later.sequence -= 1
            later.rows_sent -= batch.rows
        if batch.producer_id == self.producer_id:
            self._next_sequence -= 1
            self.rows_sent -= batch.rows
            for later in self.closed:
                later.rows_sent -= batch.rows
        return batch, changed

    def pop_taken(self, below: int) -> list[Batch]:
        """Take out the batches of the first waiting one's producer id whose sequence is below this one.

        The service says that it took just these: the others of that id are not in doubt any more.
        """
        producer_id, gone = self.waiting[0].producer_id, []
        while self.waiting and self.waiting[0].producer_id == producer_id and self.waiting[0].sequence < below:
            gone.append(self.pop_first())
        for batch in self.waiting:
            batch.in_doubt = batch.in_doubt and batch.producer_id != producer_id
        return gone

    def pop_first(self) -> Batch:
        """Take out the first waiting batch."""
        batch = self.waiting.popleft()
        self._forget(batch)
        return batch

    def pop_in_doubt(self) -> tuple[list[Batch], list[Batch]]:
        """Take out the batches of which the service can't tell whether it took them.

        They are of the first waiting batch's producer id, which is not used any more; its batches that never left go
        on under a new one, from sequence 0. Gives the batches that are gone, and those whose numbers changed.
        """
        forgotten = self.waiting[0].producer_id
        gone = [batch for batch in self.waiting if batch.producer_id == forgotten and batch.in_doubt]
        changed = [batch for batch in self.waiting if batch.producer_id == forgotten and not batch.in_doubt]
        self.waiting = deque(batch for batch in self.waiting if batch.producer_id != forgotten or not batch.in_doubt)
        for batch in gone:
            self._forget(batch)
        anew, rows = Numbering.new(), 0
        for sequence, batch in enumerate(changed):
            rows += batch.rows
            batch.producer_id, batch.sequence, batch.rows_sent = anew.producer_id, sequence, rows
        if forgotten == self.producer_id:
            self._begin(Numbering(anew.producer_id, len(changed), rows))
            for batch in self.closed:
                self.rows_sent += batch.rows
                batch.rows_sent = self.rows_sent
            self.rows_sent += len(self.open.messages)
        return gone, changed

    def pop_all(self) -> list[Batch]:
        """Take out everything, the open batch included; what comes then has a new producer id."""
        self.close_open()
        gone = list(self)
        for batch in gone:
            self._forget(batch)
        self.sent.clear()
        self.waiting.clear()
        self.closed.clear()
        self._begin(Numbering.new())
        return gone

    def _forget(self, batch: Batch) -> None:
        self.rows -= batch.rows
        self.size_bytes -= batch.size_bytes + BATCH_BYTES
