"""A cancelled task ends, also when its clean-up fails."""

import asyncio

import asyncpg
import pytest

from bridge.errors import StoreUnavailable
from bridge.store.database_errors import asking

pytestmark = pytest.mark.anyio


async def lost_session() -> None:
    """A statement whose session is lost at the moment of the cancellation."""
    try:
        await asyncio.Event().wait()
    finally:
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


async def ask_again() -> None:
    for _ in range(2):
        try:
            with asking():
                await lost_session()
        except StoreUnavailable:
            await asyncio.sleep(0)


async def test_loop_that_asks_again_ends_when_it_is_cancelled() -> None:
    task = asyncio.create_task(ask_again())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=1)
    is_ended = task.done()
    task.cancel()  # of the second round, if there is one
    assert is_ended


async def ask_once() -> None:
    async with asyncio.timeout(0):
        with asking():
            await lost_session()


async def ask_with_a_limit() -> None:
    with asking():
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            raise asyncpg.InterfaceError("the connection is closed") from None


async def test_time_limit_around_the_question_is_a_time_limit() -> None:
    with pytest.raises(TimeoutError):
        await ask_once()


async def test_time_limit_within_the_question_is_an_outage() -> None:
    with pytest.raises(StoreUnavailable):
        await ask_with_a_limit()
