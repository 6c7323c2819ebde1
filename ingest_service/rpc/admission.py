"""How much the service takes in at a time, over all calls."""

from __future__ import annotations

import asyncio

from ingest_service.errors import Overloaded

IN_HAND_BYTES_MAX = 32 << 20
"""Bytes of requests that were read and are not committed yet; a single larger one is let in when it is alone."""
WAITING_BYTES_MAX = 64 << 20
"""Bytes of requests that were read and wait for their turn; beyond them calls are refused."""


class Admission:
    """Lets requests in, in the order they came, while there is room for them. For one event loop.

    A call that waits reads no further request, so gRPC's flow control holds its sender: that is how a producer which
    is too fast is slowed down. Beyond what may wait, it is refused and told when to come again.
    """

    def __init__(self, in_hand_bytes_max: int = IN_HAND_BYTES_MAX, waiting_bytes_max: int = WAITING_BYTES_MAX) -> None:
        self._in_hand_bytes_max = in_hand_bytes_max
        self._waiting_bytes_max = waiting_bytes_max
        # In the order they came.
        self._waiting: dict[asyncio.Future[None], int] = {}
        self.in_hand_bytes = 0
        self.waiting_bytes = 0

    def has_room(self, size_bytes: int) -> bool:
        """Whether a request would be let in at once."""
        return not self._waiting and self._fits(size_bytes)

    async def enter(self, size_bytes: int) -> None:
        """Wait until there is room for a request, and take it; `leave` gives it back.

        Raises:
            Overloaded: too much waits already.
        """
        if self.has_room(size_bytes):
            self.in_hand_bytes += size_bytes
            return
        if self._waiting and self.waiting_bytes + size_bytes > self._waiting_bytes_max:
            raise Overloaded(
                f"{self.in_hand_bytes + self.waiting_bytes} bytes of requests, {len(self._waiting)} of which wait for "
                "their turn, are not written yet; send again a little later"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = size_bytes
        self.waiting_bytes += size_bytes
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # It was let in at the moment its caller went away.
                self.leave(size_bytes)
            elif turn in self._waiting:
                self._drop(turn)
                self._let_in()
            raise

    def leave(self, size_bytes: int) -> None:
        """Give back the room of a request that is committed, or was refused."""
        self.in_hand_bytes -= size_bytes
        self._let_in()

    def _fits(self, size_bytes: int) -> bool:
        return not self.in_hand_bytes or self.in_hand_bytes + size_bytes <= self._in_hand_bytes_max

    def _let_in(self) -> None:
        while self._waiting:
            turn, size_bytes = next(iter(self._waiting.items()))
            if turn.cancelled():
                # Its caller went away; nobody waits for it.
                self._drop(turn)
                continue
            if not self._fits(size_bytes):
                return
            self._drop(turn)
            self.in_hand_bytes += size_bytes
            turn.set_result(None)

    def _drop(self, turn: asyncio.Future[None]) -> None:
        self.waiting_bytes -= self._waiting.pop(turn)
