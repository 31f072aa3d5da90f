"""Turns: one key's work waits behind its own, other keys' work overtakes it."""

import asyncio

import pytest

from api.turns import TooManyWaiting, Turns

pytestmark = pytest.mark.anyio


async def test_turn_of_another_key_comes_before_the_rest_of_a_key_with_much_work() -> None:
    turns, order = Turns(1, 1, 100), list[str]()

    async def work(key: str) -> None:
        async with turns.turn(key):
            await asyncio.sleep(0)
            order.append(key)

    await asyncio.gather(*(work("much") for _ in range(50)), work("little"))
    assert order.index("little") <= 2
    assert order.count("much") == 50


async def test_as_many_turns_at_a_time_as_a_key_and_all_may_have() -> None:
    turns, now, most = Turns(3, 5, 100), dict.fromkeys("ab", 0), dict.fromkeys("ab+", 0)

    async def work(key: str) -> None:
        async with turns.turn(key):
            now[key] += 1
            most[key], most["+"] = max(most[key], now[key]), max(most["+"], sum(now.values()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            now[key] -= 1

    await asyncio.gather(*(work(key) for key in "ab" * 20))
    assert most == {"a": 3, "b": 3, "+": 5}


async def test_too_many_that_wait_are_refused_and_a_turn_that_failed_is_free_again() -> None:
    turns, go_on = Turns(1, 1, 2), asyncio.Event()

    async def work() -> None:
        async with turns.turn("a"):
            await go_on.wait()
            raise ValueError

    waiting = [asyncio.create_task(work()) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyWaiting):
        await work()
    assert turns.has_waiting("a")
    assert not turns.has_waiting("b")
    async with asyncio.timeout(30):
        waiting[1].cancel()
        go_on.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [ValueError, asyncio.CancelledError, ValueError]
        async with turns.turn("a"):
            pass
