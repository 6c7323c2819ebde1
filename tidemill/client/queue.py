"""The batches of one producer between `send` and their acknowledgement, and the numbers that they carry.

A batch goes through: open (rows join it) → waiting (closed and numbered) → sent (on the current call) → gone.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Iterator

from tidemill.client.ack import Batch


class BatchQueue:
    """Unacknowledged batches in the order of their sequences.

    Invariant: `sent` then `waiting` hold consecutive sequences, ending just below the next one to be given; the open
    batch has none yet. `rows_sent` counts rows as `send` gets them, whatever the service answers: it is the producer's
    side of the balance. Not thread-safe: the producer's lock guards it.
    """

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self.producer_id = str(uuid.uuid4())
        self.open = Batch(stream)
        self.waiting: deque[Batch] = deque()
        self.sent: deque[Batch] = deque()
        self.rows_sent = 0
        self.rows = 0
        self.size_bytes = 0
        self._next_sequence = 0

    def __iter__(self) -> Iterator[Batch]:
        yield from self.sent
        yield from self.waiting

    def __bool__(self) -> bool:
        return bool(self.sent or self.waiting or self.open.messages)

    def close_open(self) -> Batch | None:
        """Close the open batch, if it has rows."""
        batch = self.open
        if not batch.messages:
            return None
        batch.rows = len(batch.messages)
        self.open = Batch(self.stream)
        self._append(batch)
        return batch

    def add_closed(self, batch: Batch) -> None:
        """Add a batch that is complete; the rows sent before it go first."""
        self.close_open()
        self.rows_sent += batch.rows
        self._append(batch)

    def _append(self, batch: Batch) -> None:
        batch.sequence = self._next_sequence
        batch.rows_sent = self.rows_sent
        self._next_sequence += 1
        self.rows += batch.rows
        self.size_bytes += batch.size_bytes
        self.waiting.append(batch)

    def next_to_send(self) -> Batch:
        """The next waiting batch, which counts as sent from now on."""
        batch = self.waiting.popleft()
        batch.attempts += 1
        self.sent.append(batch)
        return batch

    def pop_acknowledged(self) -> Batch:
        """The oldest batch that was sent: it needs no more."""
        batch = self.sent.popleft()
        self._forget(batch)
        return batch

    def unsend(self) -> None:
        """The call is gone: what was sent on it and not acknowledged waits to be sent again, in the same order."""
        self.waiting.extendleft(reversed(self.sent))
        self.sent.clear()

    def pop_refused(self) -> Batch:
        """Take out the first waiting batch, which the service did not take: its sequence goes to the next one."""
        batch = self.waiting.popleft()
        self._forget(batch)
        self.rows_sent -= batch.rows
        self._next_sequence -= 1
        for later in self.waiting:
            later.sequence -= 1
            later.rows_sent -= batch.rows
        return batch

    def pop_in_doubt(self, *, everything: bool) -> list[Batch]:
        """Take out the batches that the service may or may not have taken, or `everything`, open batch included.

        What stays goes on under a new producer id, from sequence 0: the old id's state is not known any more.
        """
        if everything:
            self.close_open()
        gone = [batch for batch in self.waiting if everything or batch.attempts > 1]
        for batch in gone:
            self._forget(batch)
        kept = [batch for batch in self.waiting if not (everything or batch.attempts > 1)]
        self.waiting.clear()
        self.producer_id = str(uuid.uuid4())
        self._next_sequence = 0
        open_rows = len(self.open.messages)
        self.rows_sent = 0
        for batch in kept:
            self.rows -= batch.rows
            self.size_bytes -= batch.size_bytes
            self.rows_sent += batch.rows
            self._append(batch)
        self.rows_sent += open_rows
        return gone

    def _forget(self, batch: Batch) -> None:
        self.rows -= batch.rows
        self.size_bytes -= batch.size_bytes
