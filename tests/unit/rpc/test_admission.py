"""Requests are let in while there is room, in the order they came."""

import asyncio
import os
import random

import pytest

from ingest_service.errors import Overloaded
from ingest_service.rpc.admission import Admission


def run(scenario) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_what_fits_does_not_wait():
    async def scenario() -> None:
        admission = Admission(100, 100)
        await admission.enter(60)
        await admission.enter(40)
        assert not admission.has_room(1)
        admission.leave(40)
        assert admission.has_room(40)
        assert not admission.has_room(41)

    run(scenario())


def test_others_wait_in_the_order_they_came():
    async def scenario() -> None:
        admission = Admission(100, 1000)
        await admission.enter(100)
        entered = []

        async def call(name: str, size: int) -> None:
            await admission.enter(size)
            entered.append(name)

        calls = [asyncio.create_task(call(name, size)) for name, size in (("large", 90), ("small", 5), ("next", 20))]
        await settle()
        assert (entered, admission.waiting_bytes) == ([], 115)
        admission.leave(50)
        await settle()
        assert entered == [], "a small one does not overtake: the large one would never get in"
        admission.leave(50)
        await settle()
        assert entered == ["large", "small"]
        admission.leave(90)
        await asyncio.gather(*calls)
        assert (admission.in_hand_bytes, admission.waiting_bytes) == (25, 0)

    run(scenario())


def test_one_that_is_larger_than_all_room_gets_in_alone():
    async def scenario() -> None:
        admission = Admission(100, 10)
        await admission.enter(500)
        waiting = asyncio.create_task(admission.enter(500))
        await settle()
        admission.leave(500)
        await waiting
        assert admission.in_hand_bytes == 500

    run(scenario())


def test_beyond_what_may_wait_calls_are_refused():
    async def scenario() -> None:
        admission = Admission(100, 100)
        await admission.enter(100)
        waiting = [asyncio.create_task(admission.enter(50)) for _ in range(2)]
        await settle()
        with pytest.raises(Overloaded) as caught:
            await admission.enter(1)
        assert caught.value.retry_after_ms > 0
        admission.leave(100)
        await asyncio.gather(*waiting)

    run(scenario())


def test_callers_that_go_away_leave_nothing_behind():
    seed = int(os.environ.get("TIDEMILL_TEST_SEED") or random.randrange(1 << 32))
    print("seed", seed)
    rng = random.Random(seed)

    async def scenario() -> None:
        admission = Admission(100, 500)
        inside: list[int] = []

        async def call(size: int) -> None:
            await admission.enter(size)
            inside.append(size)

        calls: list[asyncio.Task[None]] = []
        for _ in range(2000):
            match rng.randrange(4):
                case 0 | 1:
                    calls.append(asyncio.create_task(call(rng.randint(1, 120))))
                case 2 if calls:
                    calls.pop(rng.randrange(len(calls))).cancel()
                case _ if inside:
                    admission.leave(inside.pop(rng.randrange(len(inside))))
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)
            assert admission.waiting_bytes <= 500
        for each in calls:
            each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await settle()
        for size in inside:
            admission.leave(size)
        assert (admission.in_hand_bytes, admission.waiting_bytes) == (0, 0)

    run(scenario())
