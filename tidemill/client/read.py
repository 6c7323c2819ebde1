"""Reading a stream: its rows one by one, or as record batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from tidemill.client.lasting import LastingCall
from tidemill.client.read_progress import ReadProgress
from tidemill.client.table import import_pyarrow
from tidemill.v1 import read_pb2

Item = TypeVar("Item")

Unpack = Callable[[read_pb2.ReadResponse], Iterator[tuple[Item, int]]]
"""A response's items, each with one above the offset of its last row."""


class Reading(Generic[Item]):
    """The rows of a stream in the order of their offsets, each once; made by `Stream.read` and `Stream.read_arrow`.

    Iterate over it, from one thread at a time. A connection that is lost is made again, and reading goes on behind the
    last row; only when that fails for `retry_for_s` seconds is ServiceUnavailable raised. Whoever reads slowly holds up
    nobody: what is not taken stays in the service's log. As a context manager it closes itself.
    """

    def __init__(
        self,
        read: Callable[[read_pb2.ReadRequest], Any],
        progress: ReadProgress,
        unpack: Unpack[Item],
        address: str,
        retry_for_s: float,
    ) -> None:
        self._progress, self._unpack = progress, unpack
        self._call: LastingCall[read_pb2.ReadResponse] = LastingCall(
            lambda: read(progress.request()), address, retry_for_s
        )
        self._items: Iterator[tuple[Item, int]] = iter(())
        self._next_offset: int | None = None

    @property
    def next_offset(self) -> int | None:
        """One above the last row given: where to begin next time. None before the service has answered."""
        return self._next_offset

    @property
    def durable_offset(self) -> int:
        """The stream's durable offset, as the service last said: rows below it can be read."""
        return self._progress.durable_offset

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        while not self._call.closed:
            item = next(self._items, None)
            if item is not None:
                self._next_offset = item[1]
                return item[0]
            response = self._response()
            if response is None:
                self.close()
                break
            self._next_offset = response.base_offset
            self._items = self._unpack(response)
        raise StopIteration

    def take(self) -> list[tuple[Item, int]]:
        """The next rows that came together, each with one above its offset; empty at the end."""
        while not self._call.closed:
            if items := list(self._items):
                self._next_offset = items[-1][1]
                return items
            response = self._response()
            if response is None:
                self.close()
                break
            self._next_offset = response.base_offset
            self._items = self._unpack(response)
        return []

    def close(self) -> None:
        """End the call; from any thread. Whoever waits for the next row gets to the end."""
        self._call.close()
        self._items = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _response(self) -> read_pb2.ReadResponse | None:
        """The next response; None at the end."""
        response = None if self._progress.done else self._call.next()
        if response is not None:
            self._progress.take(response)
        return response


def messages(message: type[Item]) -> Unpack[Item]:
    """Takes rows as messages of that class."""
    parse = message.FromString  # type: ignore[attr-defined]

    def unpack(response: read_pb2.ReadResponse) -> Iterator[tuple[Item, int]]:
        for offset, data in enumerate(response.proto.messages, response.base_offset + 1):
            yield parse(data), offset

    return unpack


def record_batches() -> Unpack[Any]:
    """Takes rows as Arrow record batches; raises MissingExtra without pyarrow."""
    pa = import_pyarrow("read_arrow")

    def unpack(response: read_pb2.ReadResponse) -> Iterator[tuple[Any, int]]:
        if response.WhichOneof("rows") == "arrow":
            with pa.ipc.open_stream(response.arrow) as reader:
                yield reader.read_next_batch(), response.next_offset

    return unpack
