"""Connections that are held: idle, with heads that trickle, with answers that are not read."""

import asyncio
import itertools

from tests.acceptance.attacks.attack import Attack, Done, Target, repeat
from tests.acceptance.attacks.http_wire import connection, head

_NO_KEY = "fleet_none"


async def idle(target: Target, done: Done) -> None:
    async def once(number: int) -> str:
        async with connection(target, number % 10) as wire:
            await wire.reader.readexactly(1)
            return "answered"

    await repeat(5_000, once, done)


async def slow_heads(target: Target, done: Done) -> None:
    request = head(target, *(f"X-{n}: {n}" for n in range(100)))

    async def once(number: int) -> str:
        async with connection(target, number % 10) as wire:
            for at in range(len(request)):
                await wire.send(request[at : at + 1])
                await asyncio.sleep(0.5)
            return await wire.status()

    await repeat(2_000, once, done)


async def unread(target: Target, done: Done) -> None:
    """Without a key: the document and the files of the page are public."""
    request = head(target, path="/openapi.json", key=_NO_KEY) * 5

    async def once(number: int) -> str:
        async with connection(target, number % 10, receive_buffer=4_096) as wire:
            wire.writer.write(request)
            await asyncio.sleep(1_000)
            return ""

    await repeat(1_000, once, done)


async def documents(target: Target, done: Done) -> None:
    """Without a key, and read."""
    paths = itertools.cycle(("/openapi.json", "/docs/swagger-ui-bundle.js", "/page/app.js", "/readyz"))

    async def once(number: int) -> str:
        async with connection(target, number % 10) as wire:
            await wire.send(head(target, path=next(paths), key=_NO_KEY))
            return await wire.status()

    await repeat(100, once, done)


async def unread_with_key(target: Target, done: Done) -> None:
    request = head(target, path="/openapi.json") * 5

    async def once(number: int) -> str:
        async with connection(target, number, receive_buffer=4_096) as wire:
            wire.writer.write(request)
            await wire.reader.readexactly(100)
            await asyncio.sleep(1_000)
            return ""

    await repeat(1_000, once, done)


async def pipelined(target: Target, done: Done) -> None:
    request = head(target, path="/v1/live/vehicles") * 5

    async def once(number: int) -> str:
        async with connection(target, number) as wire:
            await wire.send(request)
            for _ in range(4):
                await wire.status()
            return await wire.status()

    await repeat(50, once, done)


async def tiny(target: Target, done: Done) -> None:
    """The smallest requests, thousands in a segment."""
    requests = b"GET / HTTP/1.1\r\nHost:\r\n\r\n" * 2_500

    async def once(number: int) -> str:
        async with connection(target, number % 10) as wire:
            await wire.send(requests)
            await wire.reader.read()
            return "ended"

    await repeat(200, once, done)


async def reconnecting(target: Target, done: Done) -> None:
    request = head(target, path="/v1/live/vehicles/ATTACKER")

    async def once(number: int) -> str:
        async with connection(target, number) as wire:
            await wire.send(request)
            return await wire.status()

    await repeat(100, once, done)


ATTACKS = (
    Attack("idle", "connections", "5,000 connections of 10 addresses that send nothing", idle),
    Attack("slow-heads", "connections", "2,000 heads, a byte every 0.5 s", slow_heads),
    Attack("unread", "connections", "1,000 connections without a key, 5 answers of each not read", unread),
    Attack("documents", "connections", "100 clients without a key that read the documentation", documents),
    Attack("unread-with-key", "connections", "the same with a key", unread_with_key),
    Attack("pipelined", "connections", "50 connections, 5 requests at a time on each", pipelined),
    Attack("tiny", "connections", "200 connections without a key, thousands of tiny requests on each", tiny),
    Attack("reconnecting", "connections", "100 clients, a new connection for each request", reconnecting),
)
