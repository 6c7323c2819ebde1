"""A producer with an outbox: what `send` returned for is on disk."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from tidemill import errors
from tidemill.client.ack import Ack, Batch
from tidemill.client.counts import SendCounts
from tidemill.client.outbox_file import OutboxFile
from tidemill.client.producer import OpenCall, Producer
from tidemill.v1 import append_pb2

_logger = logging.getLogger("tidemill")

StateOf = Callable[[str], append_pb2.GetProducerStateResponse]
"""Asks the service for what it knows of a producer id; raises a ServiceError when it can't be asked."""


class StoringProducer(Producer):
    """Delivers as `Producer` does; batches are in the outbox from before they leave until they are acknowledged.

    Sending is never given up: a batch that the service refuses for good is set aside in the outbox, everything else is
    sent again, by the next start if need be. What earlier programs left goes first, under the numbers that it had.
    """

    _keeps_trying = True
    _closes_early = False

    def __init__(
        self,
        stream: str,
        address: str,
        open_call: OpenCall,
        *args: Any,
        outbox: OutboxFile,
        state_of: StateOf,
        **more: Any,
    ) -> None:
        # Before the base class: it may begin to send at once.
        self._outbox = outbox
        self._state_of = state_of
        super().__init__(stream, address, open_call, *args, before=outbox.claim(stream), **more)

    def add(self, message: bytes, *, wait: bool = True) -> Ack:
        """Add one serialized event; returns when it is on disk, unless `wait` is False: then `store` has to follow."""
        ack = super().add(message, wait=False)
        if wait:
            self.store(ack._batch)
            self.wait_for_space()
        return ack

    def add_batch(self, batch: Batch, *, wait: bool = True) -> None:
        """Add a batch that is complete; returns when it is on disk."""
        super().add_batch(batch, wait=False)
        self.store(batch)
        if wait:
            self.wait_for_space()

    def store(self, batch: Batch | None = None) -> None:
        """Write what is not in the outbox yet, and let it leave; nothing to do when `batch` is there already.

        Whoever comes first writes for all who wait: one fsync a group. Raises OutboxError: the rows are not sent then.
        """
        outbox, queue = self._outbox, self._queue
        with outbox.lock:
            if batch is not None and (batch.outbox_id or batch.done()):
                if batch.error is not None and not batch.outbox_id:
                    raise batch.error
                return
            with self._lock:
                queue.close_open()
                group = queue.number_closed()
            try:
                outbox.add(group)
            except errors.OutboxError as error:
                with self._lock:
                    queue.give_back(len(group))
                for each in group:
                    each.finish(None, error)
                raise
            with self._lock:
                queue.release(len(group))
                self._work.notify()

    def flush(self, timeout: float | None = None) -> SendCounts:
        """Wait until everything sent so far is acknowledged; raises the first failure that nobody has seen yet."""
        if not self._closed:
            self.store()
        return super().flush(timeout)

    def close(self, timeout: float | None = None) -> None:
        """Flush, then end. What is not acknowledged by then stays in the outbox: that is no error."""
        # A service that is away is not waited for without end: the rows are safe.
        limit = self._options.retry_for_s if timeout is None else timeout
        try:
            super().close(limit)
        except errors.WaitTimeout:
            _logger.warning(
                "stream %r: not everything is acknowledged yet; %d row(s) stay in the outbox %s, and the next start "
                "sends them",
                self._stream, self._outbox.pending_rows(), self._outbox.path,
            )  # fmt: skip

    def is_full(self) -> bool:
        """Whether too much is in the outbox, set aside or not."""
        kept = self._queue.size_bytes + self._outbox.set_aside_bytes
        return self._queue.rows > self._options.in_flight_rows or kept > self._options.in_flight_bytes

    def _check_space(self) -> None:
        kept = self._outbox.set_aside_bytes
        if kept > self._options.in_flight_bytes:
            raise errors.SendBufferFull(
                f"stream {self._stream!r}: the outbox is full of batches that can't be delivered ({kept:,} bytes): "
                "look at Client.outbox.set_aside(), then discard them"
            )
        super()._check_space()

    def _let_leave(self) -> None:
        """Only `store` lets batches leave."""

    def _numbers(self) -> contextlib.AbstractContextManager[object]:
        return self._outbox.lock

    def _forget(self, batch: Batch) -> None:
        # With nothing left to send nobody may write for a long time.
        self._outbox.remove(batch, at_once=not self._queue)

    def _set_aside(self, gone: list[Batch], error: errors.ServiceError, renumbered: list[Batch]) -> None:
        self._outbox.set_aside(gone, str(error), renumbered)
        if gone:
            _logger.error("stream %r: %d batch(es) are set aside in the outbox: %s", self._stream, len(gone), error)

    def _taken_below(self, producer_id: str) -> int | None:
        try:
            state = self._state_of(producer_id)
        except errors.ServiceError:
            return None
        return state.next_sequence if state.known else None
