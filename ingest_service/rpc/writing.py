"""Writing responses to callers that may read slowly, or not at all."""

from __future__ import annotations

import asyncio

STALL_S = 1.0
"""A caller that takes no response for so long keeps nothing but that response in memory."""


async def stalls(writing: asyncio.Future[None]) -> bool:
    """Whether a response is not taken within STALL_S; a call that ends meanwhile takes its response along."""
    try:
        done, _ = await asyncio.wait({writing}, timeout=STALL_S)
    except asyncio.CancelledError:
        writing.cancel()
        raise
    return not done
