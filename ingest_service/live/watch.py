"""Watching a view: what has changed in it since somebody looked last.

The answer needs no memory of who asks: `resume` says which rows, made when, were seen up to which offset. What a view
changed lately it remembers; for older changes its table is read by `_changed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ingest_service.errors import BadRequest
from ingest_service.live.description import ViewColumn
from ingest_service.live.query import RowReader, ViewFilter, ViewQuery
from ingest_service.live.store import ReadTransaction, Store
from ingest_service.live.view import LiveView


@dataclass(frozen=True, slots=True)
class ViewWatch:
    """What to watch of a view.

    filters: all must hold. resume: the last answer's; "" at first: then the answer is all of the view, or, with
    `only_new`, nothing but where to go on.
    """

    view: str
    filters: tuple[ViewFilter, ...] = ()
    resume: str = ""
    only_new: bool = False


@dataclass(frozen=True, slots=True)
class ViewChanges:
    """Rows that changed, as they are now; maybe none that the filters let through.

    offset: they are those of the log strictly below it. reset: forget all that came before, these are all rows: at
    first, and once the view was rebuilt. Rows that a filter no longer lets through, or that leave by retention, are not
    told of.
    """

    columns: tuple[ViewColumn, ...]
    table: pa.Table
    offset: int
    resume: str
    reset: bool


def changes(watch: ViewWatch, view: LiveView | None, store: Store, duck: Any) -> ViewChanges | None:
    """What has changed since `watch.resume`, or None.

    view: what keeps the rows up to date, None when nothing does. `duck` is a connection of the caller's own.
    """
    build, offset = _position(watch.resume)
    if view is not None and build == view.build:
        found = view.changed_since(offset)
        if found is not None:
            rows, reached = found
            if reached <= offset:
                return None
            reader = _reader(watch, view.plan.description, duck)
            return _answer(reader, reader.typed([row[1:-1] for row in rows]), view.build, reached, reset=False)
    with store.read() as transaction:
        return _from_table(watch, build, offset, transaction, duck)


def _from_table(
    watch: ViewWatch, build: str, offset: int, transaction: ReadTransaction, duck: Any
) -> ViewChanges | None:
    stored = transaction.load(watch.view)
    if stored is None:  # it was removed since it was asked for
        return None
    reached = stored.checkpoint.offset
    reset = build != stored.build
    if not reset and reached <= offset:
        return None
    reader = _reader(watch, stored.description, duck)
    if not watch.resume and watch.only_new:
        return _answer(reader, reader.typed([]), stored.build, reached, reset=False)
    table = reader.read(transaction, changed_above=None if reset else offset)
    return _answer(reader, table, stored.build, reached, reset=reset)


def _reader(watch: ViewWatch, description: Any, duck: Any) -> RowReader:
    return RowReader(ViewQuery(watch.view, watch.filters), description, duck)


def _answer(reader: RowReader, table: pa.Table, build: str, reached: int, *, reset: bool) -> ViewChanges:
    return ViewChanges(reader.columns, table, reached, f"{build}.{reached}", reset)


def _position(resume: str) -> tuple[str, int]:
    if not resume:
        return "", -1
    build, dot, offset = resume.partition(".")
    if not (dot and build.isalnum() and offset.isdigit()):
        raise BadRequest(f"resume: expected what an earlier answer gave, came {resume[:40]!r}")
    return build, int(offset)
