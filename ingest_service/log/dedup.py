"""The dedup window: which event ids were appended lately. Exact: it holds the ids themselves."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ingest_service.log.id_hash import IdHash
from ingest_service.log.id_table import IdTable


class DedupWindow:
    """The last `ids_max` event ids, none older than `age_max_us` by append time. Not thread-safe.

    Ids are in tables of half the window, which are dropped as a whole once none of their ids is in the window any more:
    memory is bounded by one and a half times the window. Whole batches are looked up and added at once.
    """

    def __init__(self, ids_max: int, age_max_us: int, hash_: IdHash | None = None) -> None:
        self._ids_max = ids_max
        self._age_max_us = age_max_us
        self._hash = hash_ or IdHash()
        # Each with how many ids came before it; the newest last.
        self._tables: list[tuple[int, IdTable]] = [(0, IdTable())]

    def take(self, column: pa.Array, append_time_us: int) -> np.ndarray | None:
        """Add a batch's ids; the indices of its duplicates (int64, rising), or None when there are none.

        A duplicate is an id that is in the window or earlier in the batch. Null ids are never duplicates.
        """
        if column.null_count:
            rows = np.flatnonzero(np.asarray(column.is_valid()))
            duplicates = self.take(column.drop_null(), append_time_us)
            return None if duplicates is None else rows[duplicates]
        hashes, table = self._hash.of(column), self._open_table()
        known = self._known(self._tables[:-1], hashes, column, append_time_us)
        # Most batches hold nothing that came before: then the newest table is looked into only once, to add.
        if known is None and table.add(hashes, column, append_time_us):
            return None
        again = _repeated(hashes, column)
        for each in (known, self._known(self._tables[-1:], hashes, column, append_time_us)):
            again = again if each is None else again | each
        fresh = ~again
        table.add_distinct(hashes[fresh], column.filter(pa.array(fresh)), append_time_us)
        duplicates = np.flatnonzero(again)
        return duplicates if len(duplicates) else None

    def _known(
        self, tables: list[tuple[int, IdTable]], hashes: np.ndarray, column: pa.Array, now_us: int
    ) -> np.ndarray | None:
        """Which ids are in these tables and in the window (bool), or None when none is."""
        known = None
        oldest = self._total - self._ids_max
        for before, table in tables:
            numbers = table.find(hashes, column) if table.count else None
            if numbers is None:
                continue
            inside = (numbers >= 0) & (numbers + before >= oldest)
            inside[inside] = now_us - table.times_us(numbers[inside]) <= self._age_max_us
            known = inside if known is None else known | inside
        return known if known is not None and known.any() else None

    def commit(self) -> None:
        """Keep the ids taken since the last commit, and drop the tables that the window has left behind."""
        for _, table in self._tables:
            table.commit()
        newest_us = self._tables[-1][1].newest_us
        while len(self._tables) > 1:
            before, table = self._tables[0]
            in_window = self._total - before - table.count < self._ids_max
            if in_window and newest_us - table.newest_us <= self._age_max_us:
                return
            del self._tables[0]

    def roll_back(self) -> None:
        """Forget the ids taken since the last commit."""
        for _, table in self._tables:
            table.roll_back()
        self._tables = [(before, table) for at, (before, table) in enumerate(self._tables) if table.count or not at]

    def restore(self, column: pa.Array, append_times_us: int | np.ndarray) -> None:
        """Add ids that the log holds: when the window is rebuilt, the rows of one or of many frames, oldest first.

        All of them count, as all were appended: a frame holds an id again that had left the window within the frame.
        append_times_us: of all of them, or of each (int64, rising).
        """
        times_us = np.broadcast_to(append_times_us, len(column))[np.asarray(column.is_valid())]
        ids = column.drop_null()
        hashes, begin = self._hash.of(ids), 0
        if not self._open_table().add(hashes, ids, times_us):
            for end in (*np.flatnonzero(_repeated(hashes, ids)).tolist(), len(ids)):
                self._open_table().add_distinct(hashes[begin:end], ids[begin:end], times_us[begin:end])
                begin = end
        self.commit()

    def begins_at(self, next_offset: int, now_us: int) -> tuple[int, int]:
        """An offset and an append time (µs) below which no row is in the window any more: every row has an id."""
        return next_offset - self._ids_max, now_us - self._age_max_us

    @property
    def ids(self) -> int:
        """Ids in memory; at most one and a half times the window."""
        return sum(table.count for _, table in self._tables)

    @property
    def size_bytes(self) -> int:
        """Memory that the window takes."""
        return sum(table.size_bytes for _, table in self._tables)

    @property
    def _total(self) -> int:
        before, table = self._tables[-1]
        return before + table.count

    def _open_table(self) -> IdTable:
        """The newest table, or one after it when it is full."""
        table = self._tables[-1][1]
        if table.count >= max(1, self._ids_max // 2) or not table.has_room:
            self._tables.append((self._total, table := IdTable()))
        return table


def _repeated(hashes: np.ndarray, column: pa.Array) -> np.ndarray:
    """Which ids came earlier in the batch (bool). Only rows that share a hash with another are looked at one by one."""
    again = np.zeros(len(hashes), bool)
    order = np.argsort(hashes, kind="stable")
    sorted_ = hashes[order]
    same = sorted_[1:] == sorted_[:-1]
    suspects = np.sort(order[np.flatnonzero(np.r_[same, False] | np.r_[False, same])])
    seen: set[str] = set()
    for row, event_id in zip(suspects.tolist(), pc.take(column, pa.array(suspects)).to_pylist(), strict=True):
        again[row] = event_id in seen
        seen.add(event_id)
    return again
