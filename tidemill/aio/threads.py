"""The threads that wait in an event loop's stead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

_THREADS_MAX = 16

_Result = TypeVar("_Result")


class Threads:
    """A bounded number of threads, and the loop that their results go to. Made in the loop that uses it."""

    def __init__(self, most: int = _THREADS_MAX) -> None:
        self.loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(most, thread_name_prefix="tidemill-aio")

    async def run(self, function: Callable[..., _Result], *arguments: Any, **named: Any) -> _Result:
        """Call a function that blocks; whoever waits may be cancelled, the call goes on to its end."""
        return await self.start(partial(function, *arguments, **named))

    def start(self, function: Callable[[], _Result]) -> asyncio.Future[_Result]:
        """Begin to call a function that blocks."""
        return self.loop.run_in_executor(self._executor, function)

    def tell(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Have the loop call something, from any thread; nothing happens when the loop is closed."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback, *arguments)

    def close(self) -> None:
        """Take no more calls; those that run end by themselves."""
        self._executor.shutdown(wait=False)
