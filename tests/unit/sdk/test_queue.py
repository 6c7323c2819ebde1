"""The numbers that batches carry, whatever happens to them on their way."""

from __future__ import annotations

import itertools
import random

from tidemill.client.ack import Batch
from tidemill.client.queue import BATCH_BYTES, BatchQueue, Numbering


def batch(rows: int = 1) -> Batch:
    made = Batch("numbers", arrow=b"x" * rows, rows=rows)
    made.size_bytes = rows
    return made


def queue_of(count: int) -> BatchQueue:
    queue = BatchQueue("numbers")
    for _ in range(count):
        queue.add_closed(batch())
    queue.free_closed()
    return queue


def test_what_may_have_been_taken_is_never_sent_under_another_name() -> None:
    """Three batches left on a call that broke; then the first one, sent again, is refused: the producer is forgotten.

    The two behind it were not sent again yet, but they did leave before.
    """
    queue = queue_of(4)
    for _ in range(3):
        queue.next_to_send()
    queue.unsend(refused=False)
    queue.next_to_send()
    queue.unsend(refused=True)
    gone, changed = queue.pop_in_doubt()
    assert [each.sequence for each in gone] == [0, 1, 2]
    assert [(each.producer_id, each.sequence, each.rows_sent) for each in changed] == [(queue.producer_id, 0, 1)]


def test_what_is_refused_on_its_first_call_was_not_taken() -> None:
    queue = queue_of(3)
    before = queue.producer_id
    for _ in range(3):
        queue.next_to_send()
    queue.unsend(refused=True)
    gone, changed = queue.pop_in_doubt()
    assert gone == []
    assert [each.sequence for each in changed] == [0, 1, 2]
    assert queue.producer_id != before


def test_batches_from_before_keep_their_numbers_when_another_id_is_forgotten() -> None:
    old = batch()
    old.producer_id, old.sequence, old.in_doubt = "old", 7, True
    queue = BatchQueue("numbers", before=[old])
    queue.add_closed(batch())
    queue.free_closed()
    for _ in range(2):
        queue.next_to_send()
    assert queue.pop_acknowledged() is old
    queue.unsend(refused=True)
    gone, changed = queue.pop_in_doubt()
    assert (gone, [each.sequence for each in changed]) == ([], [0])


def test_numbers_stay_dense_whatever_happens() -> None:
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    for _ in range(200):
        start = Numbering("mine", rng.randrange(5), 100)
        queue = BatchQueue("numbers", start)
        for _ in range(60):
            step(queue, rng)
            check(queue, f"seed {seed}")


def step(queue: BatchQueue, rng: random.Random) -> None:
    kind = rng.randrange(9)
    if kind <= 2:
        queue.add_closed(batch(rng.randrange(1, 5)))
    elif kind == 3 and queue.closed:
        queue.number_closed()
        queue.release(rng.randrange(len(queue.closed)) + 1)
    elif kind == 4 and queue.closed:
        queue.number_closed()
        queue.give_back(rng.randrange(len(queue.closed)) + 1)
    elif kind == 5 and queue.waiting:
        queue.next_to_send()
    elif kind == 6 and queue.sent:
        queue.pop_acknowledged()
    elif kind == 7:
        queue.unsend(refused=rng.random() < 0.5)
    elif kind == 8 and queue.waiting and not queue.sent:
        if rng.random() < 0.5:
            queue.pop_refused()
        else:
            queue.pop_in_doubt()


def check(queue: BatchQueue, told: str) -> None:
    numbered = [*queue.sent, *queue.waiting]
    for one, after in itertools.pairwise(numbered):
        if one.producer_id == after.producer_id:
            assert after.sequence == one.sequence + 1, told
            assert after.rows_sent == one.rows_sent + after.rows, told
    if numbered and numbered[-1].producer_id == queue.producer_id:
        assert queue._next_sequence == numbered[-1].sequence + 1, told
    for one, after in itertools.pairwise(queue.closed):
        assert after.rows_sent == one.rows_sent + after.rows, told
    last = [*numbered, *queue.closed][-1:]
    if last and (queue.closed or last[0].producer_id == queue.producer_id):
        assert queue.rows_sent == last[0].rows_sent, told
    assert queue.rows == sum(each.rows for each in queue), told
    assert queue.size_bytes == sum(each.size_bytes + BATCH_BYTES for each in queue), told
