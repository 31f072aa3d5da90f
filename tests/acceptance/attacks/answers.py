"""Large, slow and endless answers."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from tests.acceptance.attacks.attack import ATTACKER, Attack, Done, Target, repeat
from tests.acceptance.attacks.http_wire import Wire, connection, head

_HISTORY = f"/v1/history/vehicles/{ATTACKER}?limit=10000"


async def history(target: Target, done: Done) -> None:
    request = head(target, path=_HISTORY)

    async def once(number: int) -> str:
        async with connection(target, number) as wire:
            await wire.send(request)
            return await wire.status()

    await repeat(32, once, done)


async def unread_history(target: Target, done: Done) -> None:
    request = head(target, path=_HISTORY)

    async def once(number: int) -> str:
        async with connection(target, number, receive_buffer=4_096) as wire:
            await wire.send(request)
            await asyncio.sleep(1_000)
            return ""

    await repeat(200, once, done)


async def gone(target: Target, done: Done) -> None:
    """To ask and to close costs the client nothing; the server cannot tell it from a client that waits half-closed."""
    request = head(target, path=_HISTORY)

    async def once(number: int) -> str:
        async with connection(target, number) as wire:
            await wire.send(request)
            await asyncio.sleep(0.01)
            return "gone"

    await repeat(20, once, done)


async def slow_csv(target: Target, done: Done) -> None:
    request = head(target, "Accept: text/csv", path=f"/v1/history/vehicles/{ATTACKER}")

    async def once(number: int) -> str:
        async with connection(target, number, receive_buffer=4_096) as wire:
            await wire.send(request)
            async for _ in slowly(wire):
                await asyncio.sleep(0.1)
            return "ended"

    await repeat(200, once, done)


async def slowly(wire: Wire) -> AsyncIterator[bytes]:
    """What comes, a kilobyte at a time."""
    while piece := await wire.reader.read(1_000):
        yield piece


async def streams(target: Target, done: Done) -> None:
    request = head(target, path="/v1/live/stream")

    async def once(number: int) -> str:
        async with connection(target, number, receive_buffer=4_096) as wire:
            await wire.send(request)
            status = (await wire.reader.readexactly(12))[9:].decode()
            await asyncio.sleep(1_000 if status == "200" else 1)
            return status

    await repeat(500, once, done)


async def opened_streams(target: Target, done: Done) -> None:
    request = head(target, path="/v1/live/stream")

    async def once(number: int) -> str:
        async with connection(target, number) as wire:
            await wire.send(request)
            return (await wire.reader.readexactly(12))[9:].decode()

    await repeat(50, once, done)


async def questions(target: Target, done: Done) -> None:
    now = datetime.now(UTC)
    began = (now - timedelta(days=3_000)).strftime("%Y-%m-%dT%H:%M:%SZ")
    period = f"from={began}&to={now:%Y-%m-%dT%H:%M:%SZ}"
    recent = f"from={now - timedelta(days=90):%Y-%m-%dT%H:%M:%SZ}&to={now:%Y-%m-%dT%H:%M:%SZ}"
    paths = itertools.cycle(
        (
            f"/v1/analytics/performance/{ATTACKER}?{period}",
            f"/v1/analytics/energy?of=vehicles&id={ATTACKER}&bucket=15m&{period}",
            f"/v1/analytics/energy?of=vehicles&id={ATTACKER}&bucket=day&{period}",
            f"/v1/sessions?vehicle={ATTACKER}&{period}",
            f"/v1/analytics/series/vehicles/{ATTACKER}?measure=soc&points=2000&{recent}",
            f"/v1/quality?{period}",
            "/v1/live/vehicles?limit=1000",
        )
    )

    async def once(number: int) -> str:
        async with connection(target, number) as wire:
            await wire.send(head(target, path=next(paths)))
            return await wire.status()

    await repeat(100, once, done)


ATTACKS = (
    Attack("history", "answers", "32 pages of 10,000 readings with large unknown fields at a time", history),
    Attack("unread-history", "answers", "200 such pages that are not read", unread_history),
    Attack("gone", "answers", "such pages, of clients that close at once", gone),
    Attack("slow-csv", "answers", "200 downloads that are read at 10 kB/s", slow_csv),
    Attack("streams", "answers", "500 live streams that are not read", streams),
    Attack("opened-streams", "answers", "50 clients that open live streams and close them", opened_streams),
    Attack("questions", "answers", "100 questions about energy and sessions of eight years at a time", questions),
)
