"""Sends one stream's batches over one pipelined call, again and again until they are acknowledged."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import grpc

from tidemill import errors
from tidemill.client import status
from tidemill.client.ack import Ack, Batch, Rejected
from tidemill.client.at_exit import close_at_exit, was_closed
from tidemill.client.backoff import Backoff
from tidemill.client.counts import SendCounts, with_acknowledged
from tidemill.client.options import MESSAGE_BYTES_MAX, ProducerOptions
from tidemill.client.queue import BatchQueue, Numbering
from tidemill.client.rejections import Rejections
from tidemill.v1 import append_pb2

_logger = logging.getLogger("tidemill")

OpenCall = Callable[[Iterator[append_pb2.AppendRequest]], "grpc.CallIterator[append_pb2.AppendResponse]"]

_UNCLEAR_ATTEMPTS = 5
_SENT_BATCHES_PARTLY_FILLED = 2


class Producer:
    """Takes rows from any thread and delivers them in order, each exactly once.

    Two threads work for it: its own reads the answers and reconnects; gRPC's takes the requests from `_requests`.
    A batch keeps its sequence for as long as the service may have taken it, so a resend is recognised there.
    `_lock` guards all state; callbacks and futures are called without it.

    start: go on as the producer of that id, which then never changes: a failure ends the producer, so that whoever goes
    on later finds the service's state of that id complete. before: batches that an earlier program left.
    """

    _keeps_trying = False
    """Whether batches are sent again for ever, instead of failing when it takes too long."""
    _closes_early = True
    """Whether the open batch is closed as soon as it could leave."""

    def __init__(
        self,
        stream: str,
        address: str,
        open_call: OpenCall,
        options: ProducerOptions,
        on_rejected: Callable[[Rejected], None] | None = None,
        rng: random.Random | None = None,
        *,
        start: Numbering | None = None,
        before: Iterable[Batch] = (),
    ) -> None:
        self._stream = stream
        self._address = address
        self._open_call = open_call
        self._options = options
        self._batch_rows = options.batch_rows
        self._batch_bytes = options.batch_bytes
        self._rejections = Rejections(stream, on_rejected)
        self._backoff = Backoff(rng or random.Random())  # noqa: S311 - jitter is no secret
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._space = threading.Condition(self._lock)
        self._id_is_kept = start is not None
        self._queue = BatchQueue(stream, start, before)
        self._counts = SendCounts()
        self._failed: list[Batch] = []
        self._thread: threading.Thread | None = None
        self._call: grpc.CallIterator[append_pb2.AppendResponse] | None = None
        self._call_number = 0
        self._closed = False
        self._stopping = threading.Event()
        # One batch at a time, while it is being found out which one the service refuses.
        self._probing = False
        self._failing_since_s: float | None = None
        if self._queue:
            self._start()

    # ---- what senders call -------------------------------------------------------------------------------------

    def add(self, message: bytes, *, wait: bool = True) -> Ack:
        """Add one serialized event; blocks while too much is unacknowledged, unless `wait` is False."""
        with self._lock:
            batch = self._queue.open
            messages = batch.messages
            index = len(messages)
            if not index:
                self._begin(batch)
            size_bytes = len(message)
            if size_bytes > self._batch_bytes:
                _check_size(size_bytes)
            messages.append(message)
            batch.size_bytes += size_bytes
            self._queue.rows_sent += 1
            if index + 1 >= self._batch_rows or batch.size_bytes >= self._batch_bytes:
                self._queue.close_open()
                self._let_leave()
                if wait:
                    self._wait_for_space()
        return Ack(batch, index)

    def _begin(self, batch: Batch) -> None:
        """A batch gets its first row: what is too dear for every row happens here."""
        self._check_open()
        self._check_space()
        batch.opened_at_s = time.monotonic()
        if self._thread is None:
            self._start()
        self._work.notify()

    def _let_leave(self) -> None:
        """Closed batches may leave."""
        self._queue.free_closed()
        self._work.notify()

    def add_batch(self, batch: Batch, *, wait: bool = True) -> None:
        """Add a batch that is complete; blocks while too much is unacknowledged, unless `wait` is False."""
        if not batch.arrow:
            batch.rows = len(batch.messages)
            batch.size_bytes = sum(map(len, batch.messages))
        _check_size(batch.size_bytes)
        with self._lock:
            self._check_open()
            self._check_space()
            if self._thread is None:
                self._start()
            self._queue.add_closed(batch)
            self._let_leave()
            if wait:
                self._wait_for_space()

    def is_full(self) -> bool:
        """Whether too much is unacknowledged."""
        options, queue = self._options, self._queue
        return queue.rows > options.in_flight_rows or queue.size_bytes > options.in_flight_bytes

    def wait_for_space(self) -> None:
        """Wait while too much is unacknowledged."""
        with self._lock:
            self._wait_for_space()

    def counts(self) -> SendCounts:
        """What was sent so far, and what came of it."""
        with self._lock:
            pending = self._queue.rows + len(self._queue.open.messages)
            counts = self._counts
            return replace(counts, sent=counts.acknowledged + counts.failed + pending)

    def flush(self, timeout: float | None = None) -> SendCounts:
        """Wait until everything sent so far is acknowledged; raises the first failure that nobody has seen yet."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            self._queue.close_open()
            self._let_leave()
            pending = list(self._queue)
        for batch in pending:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not batch.wait_done(left):
                raise errors.WaitTimeout(
                    f"stream {self._stream!r}: rows are not acknowledged after {timeout} s; they are still being sent"
                )
        with self._lock:
            failed, self._failed = self._failed, []
        for batch in failed:
            if not batch.observed and batch.error is not None:
                raise batch.error
        return self.counts()

    def close(self, timeout: float | None = None) -> None:
        """Flush, then end the call and the threads. Raises as `flush` does, after everything has ended."""
        try:
            self.flush(timeout)
        finally:
            with self._lock:
                self._closed = True
                self._work.notify_all()
                self._space.notify_all()
                call, thread = self._call, self._thread
            self._stopping.set()
            was_closed(self)
            self._fail_all(errors.ClientClosed(f"stream {self._stream!r} was closed before the rows were acknowledged"))
            if thread is not None:
                # The service ends the call once the requests have ended; one that hangs is not waited for.
                thread.join(1.0)
                if call is not None and thread.is_alive():
                    call.cancel()  # type: ignore[no-untyped-call]
                    thread.join(5.0)

    def _check_open(self) -> None:
        if self._closed:
            raise errors.ClientClosed(f"stream {self._stream!r} is closed: events can only be sent before close()")

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"tidemill-{self._stream}", daemon=True)
        self._thread.start()
        close_at_exit(self)

    def _check_space(self) -> None:
        if self._options.when_full == "raise" and self.is_full():
            raise errors.SendBufferFull(
                f"stream {self._stream!r}: {self._queue.rows:,} rows are unacknowledged (in_flight_rows "
                f"{self._options.in_flight_rows:,}, in_flight_bytes {self._options.in_flight_bytes:,}); the event was "
                "not taken: send it again later"
            )

    def _wait_for_space(self) -> None:
        # A callback that sends runs in the thread that makes space: it must not wait for itself.
        if threading.current_thread() is self._thread or self._options.when_full == "raise":
            return
        while self.is_full() and self._queue and not self._closed:
            self._space.wait()

    # ---- gRPC's thread: the requests ---------------------------------------------------------------------------

    def _requests(self, call_number: int) -> Iterator[append_pb2.AppendRequest]:
        while (batch := self._take(call_number)) is not None:
            request = append_pb2.AppendRequest(
                stream=self._stream,
                producer_id=batch.producer_id,
                sequence=batch.sequence,
                rows_sent=batch.rows_sent,
            )
            if batch.arrow is not None:
                request.arrow = batch.arrow
            else:
                request.proto.messages.extend(batch.messages)
            yield request

    def _take(self, call_number: int) -> Batch | None:
        """Wait for the next batch of this call; None when the call is over."""
        queue, linger_s = self._queue, self._options.linger_ms / 1000
        with self._lock:
            while True:
                if call_number != self._call_number or (self._closed and not queue):
                    return None
                wait_s: float | None = None
                if self._probing and queue.sent:
                    pass
                elif queue.waiting:
                    return queue.next_to_send()
                elif queue.open.messages and self._closes_early:
                    wait_s = queue.open.opened_at_s + linger_s - time.monotonic()
                    # Full batches cost the service less: with several on their way, rows wait until theirs is full.
                    few = len(queue.sent) <= _SENT_BATCHES_PARTLY_FILLED
                    if not queue.sent or (wait_s <= 0 and few):
                        queue.close_open()
                        queue.free_closed()
                        continue
                    if not few:
                        wait_s = None
                self._work.wait(wait_s)

    # ---- the producer's own thread: the answers -----------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                error = self._one_call()
                with self._lock:
                    self._call_number += 1  # _requests of the call that is gone ends itself
                    self._call = None
                    self._queue.unsend(refused=error is not None and status.code_of(error) in status.REFUSED)
                    self._work.notify_all()
                self._after_call(error)
        except BaseException as error:  # whatever it was: acks must not wait for ever, nor may rows be taken
            with self._lock:
                self._closed = True
            self._fail_all(errors.ServiceError(f"the producer of stream {self._stream!r} stopped: {error!r}"))
            raise

    def _wait_for_work(self) -> bool:
        with self._lock:
            while not self._queue:
                if self._closed:
                    return False
                self._work.wait()
            return True

    def _one_call(self) -> grpc.RpcError | None:
        """Send and read answers until the call ends; the error that it ended with."""
        try:
            call = self._open_call(self._requests(self._call_number))
            with self._lock:
                self._call = call
            for response in call:
                self._acknowledge(response)
        except grpc.RpcError as error:
            return error
        return None

    def _acknowledge(self, response: append_pb2.AppendResponse) -> None:
        with self._lock:
            if not self._queue.sent:
                return  # closed meanwhile, without waiting for this
            batch = self._queue.pop_acknowledged()
            assert batch.sequence == response.sequence, "answers come in the order of the requests"
            self._counts = with_acknowledged(self._counts, batch.rows, response)
            self._backoff.reset()
            self._failing_since_s = None
            # Rows that linger are free to leave once nothing is on its way; a probed batch makes way for the next.
            if self._probing or not self._queue.waiting:
                self._work.notify()
            self._space.notify_all()
        self._forget(batch)
        # Before the acks: who has seen an ack, or a flush end, has been told of what was rejected.
        self._rejections.tell(batch, response)
        batch.finish(response)

    # ---- after a call has ended ---------------------------------------------------------------------------------

    def _after_call(self, error: grpc.RpcError | None) -> None:
        """Decide what becomes of the unacknowledged batches: sent again, refused, or failed."""
        code = None if error is None else status.code_of(error)
        if error is None or code in status.LOST | status.BUSY | status.UNCLEAR:
            self._retry(error, code)
        elif self._id_is_kept:
            self._stop(status.to_error(error, self._address))
        elif code is grpc.StatusCode.INVALID_ARGUMENT:
            self._drop_refused(status.to_error(error, self._address))
        elif code is grpc.StatusCode.OUT_OF_RANGE:
            self._begin_anew(status.to_error(error, self._address))
        elif self._keeps_trying:
            self._retry(error, code)
        else:
            self._fail_all(status.to_error(error, self._address))

    def _retry(self, error: grpc.RpcError | None, code: grpc.StatusCode | None) -> None:
        with self._lock:
            if not self._queue:
                return
            now_s = time.monotonic()
            if self._failing_since_s is None:
                self._failing_since_s = now_s
            over = now_s - self._failing_since_s >= self._options.retry_for_s
            wait_s = self._backoff.next_s(status.retry_delay_s(error) if error is not None else 0.0)
            attempts = self._backoff.attempts
        over = over or (code in status.UNCLEAR and attempts > _UNCLEAR_ATTEMPTS)
        if over and not self._keeps_trying:
            gave_up = self._gave_up(error)
            self._stop(gave_up) if self._id_is_kept else self._fail_all(gave_up)
            return
        if attempts == 1 and error is not None:
            told = logging.INFO if code in status.LOST | status.BUSY else logging.WARNING
            _logger.log(told, "stream %r: %s; sending again", self._stream, status.details_of(error))
        self._stopping.wait(wait_s)

    def _gave_up(self, error: grpc.RpcError | None) -> errors.ServiceError:
        reason = status.to_error(error, self._address) if error is not None else None
        return (type(reason) if reason else errors.ServiceUnavailable)(
            f"gave up after {self._options.retry_for_s:g} s: {reason or 'the service ended the call'}. The rows not "
            "acknowledged may or may not have been taken: with an event id they can be sent again safely",
            reason.code if reason else "",
        )

    def _drop_refused(self, error: errors.ServiceError) -> None:
        """The service refused a whole batch. Which one is certain only when no other one was on its way."""
        with self._numbers(), self._lock:
            if not self._queue.waiting:
                return
            if len(self._queue.waiting) > 1 and not self._probing:
                self._probing = True
                return
            self._probing = False
            batch, renumbered = self._queue.pop_refused()
            self._set_aside([batch], error, renumbered)
            self._record_failed([batch])
        batch.finish(None, error)

    def _begin_anew(self, error: errors.ServiceError) -> None:
        """The service does not know our sequence: what it may have taken fails, the rest gets a new producer id.

        Of batches that an earlier program left it may know that they were taken, though no longer how: these are done.
        """
        with self._lock:
            producer_id = self._queue.waiting[0].producer_id if self._queue.waiting else ""
        below = self._taken_below(producer_id) if producer_id else None
        with self._numbers(), self._lock:
            if not self._queue.waiting:
                return  # closed meanwhile
            taken = [] if below is None else self._queue.pop_taken(below)
            gone: list[Batch] = []
            if not taken:
                gone, renumbered = self._queue.pop_in_doubt()
                self._set_aside(gone, error, renumbered)
                self._record_failed(gone)
            wait_s = self._backoff.next_s()
        for batch in taken:
            self._forget(batch)
            batch.finish(append_pb2.AppendResponse(sequence=batch.sequence, replayed=True))
        for batch in gone:
            batch.finish(None, error)
        self._stopping.wait(wait_s)

    def _stop(self, error: errors.TidemillError) -> None:
        """A producer whose id is kept can't go on under another one."""
        with self._lock:
            self._closed = True
        self._fail_all(error)

    def _fail_all(self, error: errors.TidemillError) -> None:
        with self._numbers(), self._lock:
            self._queue.unsend(refused=False)
            gone = self._queue.pop_all()
            self._record_failed(gone)
            self._failing_since_s = None
            self._backoff.reset()
        for batch in gone:
            batch.finish(None, error)

    def _record_failed(self, batches: list[Batch]) -> None:
        failed = self._counts.failed + sum(batch.rows for batch in batches)
        self._counts = replace(self._counts, failed=failed)
        # A bound: flush needs only one failure that nobody has seen.
        self._failed = [*self._failed, *batches][:1000]
        self._space.notify_all()

    # ---- what a producer with an outbox does besides ------------------------------------------------------------

    def _numbers(self) -> contextlib.AbstractContextManager[object]:
        """Held while batches change their numbers; taken before `_lock`."""
        return contextlib.nullcontext()

    def _forget(self, batch: Batch) -> None:
        """The batch is acknowledged."""

    def _set_aside(self, gone: list[Batch], error: errors.ServiceError, renumbered: list[Batch]) -> None:
        """Batches can't be delivered, and those behind them have other numbers."""

    def _taken_below(self, producer_id: str) -> int | None:
        """The service took the batches of that id up to this sequence, and no others; None when that can't be told."""
        del producer_id
        return None


def _check_size(size_bytes: int) -> None:
    if size_bytes > MESSAGE_BYTES_MAX - (1 << 20):
        raise errors.BadEvent(
            f"an event or slice of {size_bytes:,} bytes is too large: at most {MESSAGE_BYTES_MAX - (1 << 20):,} go "
            "into one message"
        )
