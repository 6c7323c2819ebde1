"""Validating the small batches of many callers together."""

from __future__ import annotations

import asyncio
from itertools import chain

from ingest_service.clock import Clock
from ingest_service.contracts import Validated
from ingest_service.rpc.parts import StreamParts

BATCH_ROWS_MAX = 64
"""Batches of more rows are validated each by itself."""
_TOGETHER_ROWS_MAX = 1024
"""So many rows are validated at a time, on the event loop: about a millisecond's work."""

_Waiting = tuple[list[bytes], "asyncio.Future[Validated]"]


class Gathering:
    """Shares among small batches what it costs to validate any batch at all. For one event loop.

    Batches that come in one turn of the loop are validated in its next, as one. A caller alone waits for nobody; the
    more callers there are, the more batches come in a turn, and the less each costs.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[StreamParts, list[_Waiting]] = {}

    async def validate(self, parts: StreamParts, messages: list[bytes]) -> Validated:
        """Check a batch of at most BATCH_ROWS_MAX messages, as `Intake.from_proto` does."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Validated] = loop.create_future()
        waiting = self._waiting.setdefault(parts, [])
        waiting.append((messages, future))
        if len(waiting) == 1:
            loop.call_soon(self._validate_all, parts)
        return await future

    def _validate_all(self, parts: StreamParts) -> None:
        waiting = self._waiting.pop(parts)
        while waiting:
            count = rows = 0
            while count < len(waiting) and rows + len(waiting[count][0]) <= _TOGETHER_ROWS_MAX:
                rows += len(waiting[count][0])
                count += 1
            self._validate(parts, waiting[:count])
            del waiting[:count]

    def _validate(self, parts: StreamParts, together: list[_Waiting]) -> None:
        futures = [future for _, future in together]
        try:
            messages = list(chain.from_iterable(messages for messages, _ in together))
            validated = parts.intake.from_proto(messages, self._clock.now_us())
            split = validated.split([len(messages) for messages, _ in together])
        except Exception as error:  # noqa: BLE001 - each caller is told
            for future in futures:
                if not future.cancelled():
                    future.set_exception(error)
            return
        for future, part in zip(futures, split, strict=True):
            if not future.cancelled():
                future.set_result(part)
