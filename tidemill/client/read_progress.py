"""Where a read is, and whether to try again: what reading from threads and from asyncio share. Knows no connection."""

from __future__ import annotations

import datetime as dt
import random
import time
from collections.abc import Sequence

import grpc

from tidemill.client import status
from tidemill.client.backoff import Backoff
from tidemill.errors import BadQuery, ServiceError
from tidemill.v1 import read_pb2

_UNCLEAR_ATTEMPTS = 3


class ReadProgress:
    """Asks for what has not come yet: after a lost call, `request` begins at the row behind the last that came."""

    def __init__(
        self,
        stream: str,
        *,
        from_offset: int | None = None,
        from_time: dt.datetime | None = None,
        from_end: bool = False,
        follow: bool = False,
        columns: Sequence[str] = (),
        limit: int = 0,
        arrow: bool = False,
    ) -> None:
        """Raises BadQuery for a place that is none, or more than one."""
        if sum((from_offset is not None, from_time is not None, from_end)) > 1:
            raise BadQuery("from_offset, from_time and from_end say where to begin: give one of them, or none")
        if from_time is not None and from_time.utcoffset() is None:
            raise BadQuery(f"from_time: {from_time!r} has no time zone; give datetime(..., tzinfo=datetime.UTC)")
        if (from_offset or 0) < 0 or limit < 0:
            raise BadQuery(f"expected from_offset and limit to be 0 or more, came {from_offset} and {limit}")
        if isinstance(columns, str):
            raise BadQuery(f"columns: expected a list of names, came the text {columns!r}")
        form = read_pb2.READ_FORMAT_ARROW if arrow else read_pb2.READ_FORMAT_PROTO
        self._first = read_pb2.ReadRequest(stream=stream, follow=follow, columns=columns, limit=limit, format=form)
        if from_offset is not None:
            self._first.from_offset = from_offset
        elif from_time is not None:
            self._first.from_time.FromDatetime(from_time)
        elif from_end:
            self._first.from_end = True
        self._left = limit or None
        self._end: int | None = None
        self.next_offset: int | None = None
        """One above the last row that came; None before the first response."""
        self.durable_offset = 0
        """The stream's, as of the last response."""

    @property
    def done(self) -> bool:
        """Whether everything that was asked for has come."""
        return self._left == 0 or (self._end is not None and (self.next_offset or 0) >= self._end)

    def request(self) -> read_pb2.ReadRequest:
        """What to ask for now."""
        request = read_pb2.ReadRequest()
        request.CopyFrom(self._first)
        if self.next_offset is not None:
            request.from_offset = self.next_offset
            # A call that begins later would end later: this one ends where the first would have.
            rest = None if self._end is None else self._end - self.next_offset
            request.limit = min((each for each in (rest, self._left) if each is not None), default=0)
        return request

    def take(self, response: read_pb2.ReadResponse) -> None:
        """Count a response in; raises ServiceError when its rows are not the next ones."""
        expected = response.base_offset if self.next_offset is None else self.next_offset
        if response.base_offset != expected:
            raise ServiceError(
                f"stream {self._first.stream!r}: expected the rows from offset {expected} on, the service sent those "
                f"from {response.base_offset} on"
            )
        if self.next_offset is None and not self._first.follow:
            self._end = response.durable_offset
        if self._left is not None:
            self._left -= response.next_offset - response.base_offset
        self.next_offset = response.next_offset
        self.durable_offset = response.durable_offset


class Patience:
    """How long a call that fails is made again: until `retry_for_s` seconds went by without progress."""

    def __init__(self, address: str, retry_for_s: float) -> None:
        self._address, self._retry_for_s = address, retry_for_s
        self._backoff = Backoff(random.Random())  # noqa: S311 - jitter is no secret
        self._failing_since_s: float | None = None

    def progress(self) -> None:
        """Something came."""
        self._failing_since_s = None
        self._backoff.reset()

    def wait_s(self, error: grpc.RpcError) -> float:
        """How many seconds to wait before the next call; raises the SDK's error when there is to be none."""
        code, now_s = status.code_of(error), time.monotonic()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        wait_s = self._backoff.next_s(status.retry_delay_s(error))
        over = now_s - self._failing_since_s >= self._retry_for_s
        if code in status.UNCLEAR:
            over = over or self._backoff.attempts > _UNCLEAR_ATTEMPTS
        elif code not in status.LOST | status.BUSY:
            over = True
        if over:
            raise status.to_error(error, self._address) from None
        return wait_s
