"""A watch's answer as responses, none of them larger than it has to be."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pyarrow as pa

from ingest_service.live import ViewChanges
from ingest_service.rpc.view_messages import arrow_rows, column_messages, value_rows
from tidemill.v1 import views_pb2

PART_BYTES = 256 << 10
"""What a response holds at the most, about, but for a single row that is longer: clients take 4 MiB."""


class Answer:
    """One answer of a view, for all watchers that asked for it; its responses are made one after another.

    It is made, and `part` runs, in a thread, for any number of watchers; the rest belongs to the event loop.
    """

    def __init__(self, changes: ViewChanges, *, arrow: bool) -> None:
        self.resume = changes.resume
        self.is_empty = not (changes.reset or changes.table.num_rows)
        """Whether it tells of nothing but where to go on."""
        self.size_bytes = int(changes.table.nbytes)
        """What it takes in memory, about."""
        self.holders = 0
        """How many watchers have not got all of it yet."""
        self._lock = threading.Lock()
        self._rest = _parts(changes, arrow)
        self.first = next(self._rest)
        self._made = [self.first]
        self._dropped = False

    def part(self, index: int) -> views_pb2.WatchViewResponse:
        """The response of that number, from 0; the last one has a `resume`."""
        with self._lock:
            assert not self._dropped, "whoever holds an answer keeps it"
            while len(self._made) <= index:
                self._made.append(next(self._rest))
            return self._made[index]

    def drop(self) -> None:
        """Let go of all rows, whoever still refers to the answer."""
        with self._lock:
            self._rest, self._made, self._dropped = iter(()), [], True
            self.first = views_pb2.WatchViewResponse()


def _parts(changes: ViewChanges, arrow: bool) -> Iterator[views_pb2.WatchViewResponse]:
    """The responses: the first one says `reset`, the last one `resume`."""
    columns = column_messages(changes.columns)
    made = _arrow_parts(changes.table) if arrow else _value_parts(changes.table)
    reset, response = changes.reset, next(made, None)
    while response is not None:
        following = next(made, None)
        response.columns.extend(columns)
        response.offset, response.reset = changes.offset, reset
        if following is None:
            response.resume = changes.resume
        yield response
        reset, response = False, following


def _arrow_parts(table: pa.Table) -> Iterator[views_pb2.WatchViewResponse]:
    """Halved until it is small enough: rows may be of very different sizes."""
    if table.nbytes > PART_BYTES and table.num_rows > 1:
        middle = table.num_rows // 2
        yield from _arrow_parts(table.slice(0, middle))
        yield from _arrow_parts(table.slice(middle))
    else:
        yield views_pb2.WatchViewResponse(arrow=arrow_rows(table))


def _value_parts(table: pa.Table) -> Iterator[views_pb2.WatchViewResponse]:
    response = views_pb2.WatchViewResponse()
    size_bytes = 0
    for row in value_rows(table):
        row_bytes = row.ByteSize()
        if response.values and size_bytes + row_bytes > PART_BYTES:
            yield response
            response, size_bytes = views_pb2.WatchViewResponse(), 0
        response.values.append(row)
        size_bytes += row_bytes
    yield response
