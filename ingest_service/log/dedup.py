"""The dedup window: which event ids were appended lately. Exact: it holds the ids themselves."""

from __future__ import annotations

from collections import deque

import numpy as np
import pyarrow as pa


class DedupWindow:
    """The last `ids_max` event ids, none older than `age_max_us` by append time. Not thread-safe.

    Membership is one Python set of strings, filled and asked by whole batches: set operations loop in C. Ids leave in
    the batches they came in, and after the next batch came: the window may hold one batch more than `ids_max`.
    """

    def __init__(self, ids_max: int, age_max_us: int) -> None:
        self._ids_max = ids_max
        self._age_max_us = age_max_us
        self._ids: set[str] = set()
        self._batches: deque[tuple[int, list[str]]] = deque()
        self._staged: list[tuple[int, list[str]]] = []

    def take(self, column: pa.Array, append_time_us: int) -> np.ndarray | None:
        """Add a batch's ids; the indices of its duplicates (int64, rising), or None when there are none.

        A duplicate is an id that is in the window or earlier in the batch. Null ids are never duplicates.
        """
        self._expire(append_time_us)
        ids = column.to_pylist()
        fresh = set(ids)
        duplicates = None
        if len(fresh) != len(ids) or not self._ids.isdisjoint(fresh):
            # Only a batch that holds a duplicate is looked through row by row.
            seen: set[str | None] = set()
            flags = np.zeros(len(ids), dtype=bool)
            for index, event_id in enumerate(ids):
                if event_id is None:
                    continue
                if event_id in self._ids or event_id in seen:
                    flags[index] = True
                seen.add(event_id)
            duplicates = np.flatnonzero(flags)
            fresh -= self._ids
        fresh.discard(None)
        added = list(fresh)
        self._ids.update(added)
        self._staged.append((append_time_us, added))
        return duplicates if duplicates is not None and len(duplicates) else None

    def commit(self) -> None:
        """Keep the ids taken since the last commit."""
        self._batches.extend(self._staged)
        self._staged.clear()

    def roll_back(self) -> None:
        """Forget the ids taken since the last commit."""
        for _, ids in self._staged:
            self._ids.difference_update(ids)
        self._staged.clear()

    def restore(self, column: pa.Array, append_time_us: int) -> None:
        """Add ids that the log holds: when the window is rebuilt, batch after batch, oldest first."""
        ids = [event_id for event_id in column.to_pylist() if event_id is not None]
        self._ids.update(ids)
        self._batches.append((append_time_us, ids))
        self._expire(append_time_us)

    def reaches(self, ids: int, age_us: int) -> bool:
        """Whether a batch after which `ids` ids came, `age_us` before the newest, is still in the window."""
        return ids < self._ids_max and age_us <= self._age_max_us

    def _expire(self, now_us: int) -> None:
        while self._batches:
            append_time_us, ids = self._batches[0]
            if len(self._ids) <= self._ids_max and now_us - append_time_us <= self._age_max_us:
                return
            self._ids.difference_update(ids)
            self._batches.popleft()
