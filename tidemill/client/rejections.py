"""Tells of rows that the service quarantined: to the user's callback, or else to the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from tidemill.client.ack import Batch, Rejected
from tidemill.v1 import append_pb2

_logger = logging.getLogger("tidemill")

_WARN_EVERY_S = 10.0


class Rejections:
    """What becomes known of rejected rows on the client's side. Used by the producer's thread alone."""

    def __init__(self, stream: str, on_rejected: Callable[[Rejected], None] | None) -> None:
        self._stream = stream
        self._on_rejected = on_rejected
        self._warned_at_s = float("-inf")
        self._rows_unsaid = 0

    def tell(self, batch: Batch, response: append_pb2.AppendResponse) -> None:
        """Tell of a batch's quarantined rows, while its messages are still there."""
        rejected = [v for v in response.verdicts if v.verdict == append_pb2.VERDICT_QUARANTINED]
        if not rejected:
            return
        if self._on_rejected is None:
            self._warn(len(rejected), rejected[0])
            return
        for v in rejected:
            event = batch.messages[v.index] if batch.messages else None
            row = Rejected(self._stream, batch.first_index + v.index, v.rule, v.field, v.message, event)
            try:
                self._on_rejected(row)
            except Exception:
                _logger.exception("stream %r: the on_rejected callback failed", self._stream)

    def _warn(self, rows: int, first: append_pb2.RowVerdict) -> None:
        """Nothing is silent: without a callback the log says it, now and then."""
        self._rows_unsaid += rows
        if time.monotonic() - self._warned_at_s >= _WARN_EVERY_S:
            _logger.warning(
                "stream %r quarantined %d row(s) that break their contract, such as %s: %s (rule %s); "
                "see: tidemill quarantine list %s",
                self._stream, self._rows_unsaid, first.field, first.message, first.rule, self._stream,
            )  # fmt: skip
            self._warned_at_s, self._rows_unsaid = time.monotonic(), 0
