"""Ids numbered in the order in which they came, and a hash table that finds them, filled and asked by whole batches."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

_SLOTS_MIN = 1 << 10
_GROWTH = 1.25
_TEXT_BYTES_MAX = 1 << 31
_REFILL_IDS = 1 << 13
"""So many ids at once find their new slots: what that needs stays in the processor's cache."""


class IdTable:
    """Numbers ids from 0 and finds them again, exactly. Not thread-safe.

    Open addressing with linear probing, at most half full; a slot holds 1 + an id's number, or 0. Of ids with one hash
    only one has a slot, the others are in a dict: there is hardly ever any. Memory: 8 to 16 bytes of slots an id, 8 of
    hash, 4 for where its text ends, the text itself, and 16 bytes for every time at which ids came.
    """

    def __init__(self) -> None:
        self.count = 0
        self._kept = 0
        self._slots = np.zeros(_SLOTS_MIN, np.int32)
        self._hashes = np.zeros(0, np.uint64)
        self._ends = np.zeros(0, np.uint32)
        self._text = np.zeros(0, np.uint8)
        # Runs of ids that came at one time: the number of the first, and the time (µs since 1970 UTC).
        self._runs = np.zeros((0, 2), np.int64)
        self._run_count = 0
        self._others: dict[bytes, int] = {}

    @property
    def newest_us(self) -> int:
        """When the last id came (µs since 1970 UTC); 0 for an empty table."""
        return int(self._runs[self._run_count - 1, 1]) if self._run_count else 0

    @property
    def has_room(self) -> bool:
        """Whether the texts that may still come can be addressed."""
        return self._end < _TEXT_BYTES_MAX

    @property
    def size_bytes(self) -> int:
        """Memory that it takes."""
        arrays = (self._slots, self._hashes, self._ends, self._text, self._runs)
        return sum(array.nbytes for array in arrays)

    def find(self, hashes: np.ndarray, ids: pa.Array) -> np.ndarray | None:
        """The number of each id (int64; -1: not here), the latest where it was added twice; None when all are not."""
        found = None
        slots, pending = self._slots_of(hashes), np.arange(len(hashes))
        while len(pending):
            numbers = self._slots.take(slots) - 1
            used = numbers >= 0
            same = used & (self._hashes.take(numbers, mode="clip") == hashes) if self.count else used
            if same.any():
                found = np.full(len(ids), -1, np.int64) if found is None else found
                found[pending[same]] = numbers[same]
            further = np.flatnonzero(used & ~same)
            pending, hashes = pending[further], hashes[further]
            slots = (slots[further] + 1) & (len(self._slots) - 1)
        return None if found is None else self._verified(found, ids)

    def _verified(self, found: np.ndarray, ids: pa.Array) -> np.ndarray | None:
        """Of the ids found by hash those with the same text. One by one: an id that comes again is an exception."""
        rows = np.flatnonzero(found >= 0)
        for row, text in zip(rows.tolist(), ids.take(pa.array(rows)).to_pylist(), strict=True):
            id_bytes = text.encode()
            if self.text(int(found[row])) != id_bytes:
                found[row] = self._others.get(id_bytes, -1)
        return found if (found >= 0).any() else None

    def add(self, hashes: np.ndarray, ids: pa.Array, time_us: int | np.ndarray) -> bool:
        """Add ids, if none of their hashes is here and none is twice among them.

        time_us: when they came; an array (int64) has a time for each.
        """
        base = self.count
        self._append(hashes, ids, time_us)
        claimed, doubtful = self._claim(hashes, base)
        if len(doubtful):
            # The last ones that came: no other id was put behind them.
            self._slots[claimed] = 0
            self._truncate(base)
            return False
        return True

    def add_distinct(self, hashes: np.ndarray, ids: pa.Array, time_us: int | np.ndarray) -> None:
        """Add ids that differ from each other, whatever their hashes are; one that is here gets a new number."""
        base = self.count
        self._append(hashes, ids, time_us)
        _, doubtful = self._claim(hashes, base)
        for number in (doubtful + base).tolist():
            self._settle(number)

    def text(self, number: int) -> bytes:
        """The id of that number, as UTF-8."""
        begin = int(self._ends[number - 1]) if number else 0
        return self._text[begin : int(self._ends[number])].tobytes()

    def times_us(self, numbers: np.ndarray) -> np.ndarray:
        """When the ids of these numbers came (µs since 1970 UTC)."""
        runs = self._runs[: self._run_count]
        times_us: np.ndarray = runs[np.searchsorted(runs[:, 0], numbers, side="right") - 1, 1]
        return times_us

    def commit(self) -> None:
        """Keep the ids added since the last commit."""
        self._kept = self.count

    def roll_back(self) -> None:
        """Forget the ids added since the last commit. Rare: all slots are filled anew."""
        if self.count == self._kept:
            return
        self._truncate(self._kept)
        self._others = {id_bytes: number for id_bytes, number in self._others.items() if number < self.count}
        self._fill(len(self._slots))

    @property
    def _end(self) -> int:
        return int(self._ends[self.count - 1]) if self.count else 0

    def _slots_of(self, hashes: np.ndarray) -> np.ndarray:
        return (hashes & np.uint64(len(self._slots) - 1)).astype(np.int64)

    def _slot_with(self, hash_: np.uint64) -> int:
        slot = int(hash_) & (len(self._slots) - 1)
        while self._hashes[self._slots[slot] - 1] != hash_:
            slot = (slot + 1) & (len(self._slots) - 1)
        return slot

    def _claim(self, hashes: np.ndarray, base: int) -> tuple[np.ndarray, np.ndarray]:
        """Put the ids from number `base` on into free slots: the slots taken, and the rows whose hash has one already.

        hashes: theirs; they are in `_hashes` too.
        """
        slots = self._slots_of(hashes)
        rows = np.arange(len(hashes), dtype=np.int32)
        claimed, doubtful = [], []
        while len(rows):
            numbers = self._slots.take(slots)
            free = numbers == 0
            self._slots[slots[free]] = rows[free] + np.int32(base + 1)
            numbers = self._slots.take(slots)
            # Of several that took one slot the last one has it.
            won = numbers == rows + np.int32(base + 1)
            claimed.append(slots[won])
            left = np.flatnonzero(~won)
            if not len(left):
                break
            rows, hashes, slots = rows[left], hashes[left], slots[left]
            same = self._hashes.take(numbers[left] - 1) == hashes
            if same.any():
                doubtful.append(rows[same])
                left = np.flatnonzero(~same)
                rows, hashes, slots = rows[left], hashes[left], slots[left]
            slots = (slots + 1) & (len(self._slots) - 1)
        return np.concatenate(claimed) if claimed else slots, np.concatenate(doubtful) if doubtful else rows[:0]

    def _settle(self, number: int) -> None:
        """An id whose hash has a slot: it came before, and its latest number counts, or it goes to `_others`."""
        id_bytes = self.text(number)
        slot = self._slot_with(self._hashes[number])
        if self.text(int(self._slots[slot]) - 1) == id_bytes:
            self._slots[slot] = max(number + 1, int(self._slots[slot]))
        else:
            self._others[id_bytes] = max(number, self._others.get(id_bytes, number))

    def _append(self, hashes: np.ndarray, ids: pa.Array, time_us: int | np.ndarray) -> None:
        """Note hash, text and time of the ids that follow, and make room for their slots."""
        if not len(ids):
            return
        base, begin, after = self.count, self._end, self.count + len(ids)
        offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1]
        end = begin + int(offsets[-1]) - int(offsets[0])
        for array, length in ((self._hashes, after), (self._ends, after), (self._text, end)):
            _grow(array, length)
        if end > begin:
            self._text[begin:end] = np.frombuffer(ids.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
        self._ends[base:after] = (offsets[1:] - offsets[0]).astype(np.uint32) + np.uint32(begin)
        self._hashes[base:after] = hashes
        if isinstance(time_us, np.ndarray):
            starts = np.flatnonzero(np.diff(time_us, prepend=-1))
            _grow(self._runs, self._run_count + len(starts))
            self._runs[self._run_count : self._run_count + len(starts)] = np.c_[base + starts, time_us[starts]]
            self._run_count += len(starts)
        elif not self._run_count or self.newest_us != time_us:
            _grow(self._runs, self._run_count + 1)
            self._runs[self._run_count] = base, time_us
            self._run_count += 1
        slots = len(self._slots)
        while 2 * after > slots:
            slots *= 2
        if slots > len(self._slots):
            self._fill(slots)
        self.count = after

    def _truncate(self, count: int) -> None:
        self.count = count
        self._run_count = int(np.searchsorted(self._runs[: self._run_count, 0], count))

    def _fill(self, slots: int) -> None:
        """Give every id a slot among so many."""
        self._slots = np.zeros(slots, np.int32)
        for begin in range(0, self.count, _REFILL_IDS):
            _, doubtful = self._claim(self._hashes[begin : min(begin + _REFILL_IDS, self.count)], begin)
            for number in (doubtful + begin).tolist():
                self._settle(number)


def _grow(array: np.ndarray, least: int) -> None:
    """Make the array at least so long, in place."""
    if least > len(array):
        length = max(least, int(len(array) * _GROWTH), _SLOTS_MIN)
        array.resize((length, *array.shape[1:]), refcheck=False)
