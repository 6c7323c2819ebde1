"""Telling watchers of live views what changes, however many there are and however slowly they read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import grpc

from ingest_service.live import LiveViews, ViewWatch
from ingest_service.rpc.commits import Commits, Place
from ingest_service.rpc.view_parts import Answer
from ingest_service.rpc.writing import stalls
from tidemill.v1 import views_pb2

HELD_BYTES_MAX = 64 << 20
"""While answers of more than this wait in memory, a watcher that takes nothing for a while gives its own up."""

QUIET_S = 10.0
"""Changes of which a watcher gets no row are told of so often: they move the place where it goes on when it is cut."""

_Question = tuple[ViewWatch, bool, Place]
_Call = grpc.aio.ServicerContext[Any, Any]
_Result = TypeVar("_Result")


class Watching:
    """Answers WatchView calls. For one event loop.

    Each watcher is a coroutine that asks the view what is new, writes that, and waits for the next commit: what is not
    written is in no queue, but in the view, where it is asked for when the watcher has taken what came before.
    Watchers that ask the same at the same time share one question and one answer.
    """

    def __init__(self, views: LiveViews, commits: Commits, executor: Executor) -> None:
        """executor: where views are read and rows serialized; its threads bound how much of that goes on at once."""
        self._views, self._commits, self._executor = views, commits, executor
        self._asked: dict[_Question, asyncio.Future[Answer | None]] = {}
        self._held_bytes = 0

    async def serve(self, watch: ViewWatch, *, arrow: bool, check: Callable[[], None], context: _Call) -> None:
        """Write what changes until the caller is gone, or `check` raises, which is asked before each look."""
        loop = asyncio.get_running_loop()
        quiet_until_s = 0.0
        while True:
            place = self._commits.place(watch.view)
            check()
            answer = await self._ask(watch, arrow, place)
            if answer is None and quiet_until_s:
                await self._commits.beyond(watch.view, place)
            elif answer is None:
                # The first response comes at once: it says that the watch has begun.
                await context.write(views_pb2.WatchViewResponse(resume=watch.resume))
                quiet_until_s = loop.time() + QUIET_S
            elif answer.is_empty and loop.time() < quiet_until_s:
                watch = replace(watch, resume=answer.resume)
            else:
                watch = replace(watch, resume=await self._write(answer, context) or watch.resume)
                quiet_until_s = loop.time() + QUIET_S

    async def _ask(self, watch: ViewWatch, arrow: bool, place: Place) -> Answer | None:
        """What is new since `watch.resume`; None: nothing.

        A question is shared only while the view is at the same place: an earlier one may not have seen the last commit.
        """
        key = watch, arrow, place
        if key not in self._asked:
            asking = self._run(partial(self._look, watch, arrow))
            self._asked[key] = asking
            asking.add_done_callback(partial(self._forget, key))
        return await asyncio.shield(self._asked[key])

    def _look(self, watch: ViewWatch, arrow: bool) -> Answer | None:
        changes = self._views.changes(watch)
        return None if changes is None else Answer(changes, arrow=arrow)

    def _forget(self, key: _Question, asked: asyncio.Future[Answer | None]) -> None:
        del self._asked[key]
        if not asked.cancelled():
            asked.exception()  # seen, though everybody who waited for it may be gone

    async def _write(self, answer: Answer, context: _Call) -> str:
        """Write an answer; `resume` behind it, or "" when it was given up on the way."""
        with self._holding(answer):
            index, response = 0, answer.first
            while True:
                writing = asyncio.ensure_future(context.write(response))
                if await stalls(writing) and self._held_bytes > HELD_BYTES_MAX:
                    break
                await writing
                if response.resume:
                    return str(response.resume)
                index += 1
                response = await self._run(partial(answer.part, index))
        # It is asked for anew, from its beginning, once this response is taken.
        await writing
        return ""

    @contextlib.contextmanager
    def _holding(self, answer: Answer) -> Iterator[None]:
        """Count what answers take in memory; one that several watchers share, once."""
        if answer.holders == 0:
            self._held_bytes += answer.size_bytes
        answer.holders += 1
        try:
            yield
        finally:
            answer.holders -= 1
            if answer.holders == 0:
                self._held_bytes -= answer.size_bytes
                answer.drop()

    def _run(self, function: Callable[[], _Result]) -> asyncio.Future[_Result]:
        return asyncio.get_running_loop().run_in_executor(self._executor, function)
