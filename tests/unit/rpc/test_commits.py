"""Waiting for commits: none is missed, many make one wake-up, and whoever is not concerned sleeps on."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from ingest_service.errors import StorageError
from ingest_service.rpc.commits import AT_ONCE, PAUSE_S, Commits


class Views:
    """Views that are an offset each, and tell who listens when it moves."""

    def __init__(self, *names: str) -> None:
        self.offsets = dict.fromkeys(names, 0)
        self.listeners: list[Callable[[], None]] = []

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.listeners.append(callback)
        return lambda: self.listeners.remove(callback)

    def place(self, view: str) -> tuple[str, int] | None:
        return ("build", self.offsets[view]) if view in self.offsets else None

    def commit(self, view: str) -> None:
        self.offsets[view] += 1
        for listener in list(self.listeners):
            listener()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


@pytest.mark.parametrize("seed", range(5))
def test_no_commit_is_missed(seed: int) -> None:
    chance = random.Random(seed)
    views = Views("a", "b", "c")
    total = 300

    def commit(view: str, pauses: list[float]) -> None:
        stop = threading.Event()
        for pause_s in pauses:
            views.commit(view)
            if pause_s:
                stop.wait(pause_s)

    async def follow(commits: Commits, view: str) -> None:
        """As a watcher does: it looks, and waits where it found nothing new."""
        seen = -1
        while seen < total:
            place = commits.place(view)
            await asyncio.sleep(0)
            reached = views.offsets[view]
            if reached > seen:
                seen = reached
            else:
                await commits.beyond(view, place)

    async def test() -> None:
        commits = Commits(views)
        following = [asyncio.create_task(follow(commits, view)) for view in "abc" for _ in range(20)]
        await asyncio.sleep(0)
        committing = [
            asyncio.to_thread(commit, view, [chance.choice([0, 0, 0.001]) for _ in range(total)]) for view in "abc"
        ]
        await asyncio.gather(*committing)
        await asyncio.gather(*following)
        assert not any(commits._watching.values())

    print(f"seed {seed}")
    run(test())


def test_many_commits_are_one_wake_up() -> None:
    views = Views("a")

    async def test() -> None:
        commits = Commits(views)
        count = commits.count()
        # The loop does not get to run meanwhile.
        for _ in range(1000):
            views.commit("a")
        await commits.after(count)
        assert commits.count() == count + 1

    run(test())


def test_wake_ups_keep_their_distance() -> None:
    views = Views("a")

    async def test() -> None:
        commits = Commits(views)
        times = []
        for _ in range(5):
            count = commits.count()
            views.commit("a")
            await commits.after(count)
            times.append(asyncio.get_running_loop().time())
        # The loop's clock counts in its own resolution.
        assert times[-1] - times[0] >= 4 * PAUSE_S * 0.9

    run(test())


def test_who_watches_another_view_sleeps_on() -> None:
    views = Views("busy", "quiet")

    async def test() -> None:
        commits = Commits(views)
        waiting = asyncio.create_task(commits.beyond("quiet", commits.place("quiet")))
        for _ in range(3):
            count = commits.count()
            views.commit("busy")
            await commits.after(count)
        (future,) = commits._watching["quiet"]
        assert not future.done()
        views.commit("quiet")
        await waiting

    run(test())


def test_a_view_that_goes_wakes_its_watchers() -> None:
    views = Views("a", "b")

    async def test() -> None:
        commits = Commits(views)
        waiting = asyncio.create_task(commits.beyond("a", commits.place("a")))
        await asyncio.sleep(0)
        del views.offsets["a"]
        views.commit("b")
        await waiting
        assert commits.place("a") is None

    run(test())


def test_all_are_woken_however_many() -> None:
    views = Views("a")

    async def test() -> None:
        commits = Commits(views)
        place = commits.place("a")
        waiting = [asyncio.create_task(commits.beyond("a", place)) for _ in range(10 * AT_ONCE + 1)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        views.commit("a")
        await asyncio.gather(*waiting[1:])
        assert waiting[0].cancelled()

    run(test())


def test_a_stop_is_told_to_all() -> None:
    views = Views("a")

    async def test() -> None:
        commits = Commits(views)
        place, count = commits.place("a"), commits.count()
        waiting = [asyncio.create_task(commits.beyond("a", place)), asyncio.create_task(commits.after(count))]
        await asyncio.sleep(0)
        commits.stop()
        commits.stop()
        for each in waiting:
            with pytest.raises(StorageError, match="is stopping"):
                await each
        assert views.listeners == []
        # Nobody listens any more, and who comes now is told at once.
        with pytest.raises(StorageError, match="is stopping"):
            await commits.beyond("a", commits.place("a"))

    run(test())


def test_commits_after_the_loop_has_ended_do_no_harm() -> None:
    views = Views("a")
    commits = Commits(views)

    async def test() -> None:
        commits.count()

    run(test())
    views.commit("a")
    views.commit("a")
