"""Bodies of HTTP requests: announced, trickled, compressed, expensive to decode."""

import asyncio
import contextlib
import gzip
from collections.abc import Awaitable, Callable
from functools import partial

from tests.acceptance.attacks import payloads
from tests.acceptance.attacks.attack import Attack, Done, Target, repeat
from tests.acceptance.attacks.http_wire import Wire, chunk, connection, head, post

_LARGEST = 8_000_000
_CHUNKED = ("Content-Type: application/json", "Transfer-Encoding: chunked")


async def announced(target: Target, done: Done) -> None:
    async def once(number: int) -> str:
        async with connection(target, number) as wire:
            await wire.send(head(target, f"Content-Length: {_LARGEST}", method="POST") + b"[")
            return await wire.status()

    await repeat(500, once, done)


async def trickled(target: Target, done: Done) -> None:
    async def once(number: int) -> str:
        async with connection(target, number) as wire:
            await wire.send(head(target, *_CHUNKED, method="POST"))
            trickling = asyncio.create_task(_trickle(wire))
            try:
                return await wire.status()
            finally:
                trickling.cancel()

    await repeat(500, once, done)


async def _trickle(wire: Wire) -> None:
    with contextlib.suppress(OSError):  # the status tells
        while True:
            await wire.send(chunk(b"["))
            await asyncio.sleep(0.2)


async def half_sent(target: Target, done: Done) -> None:
    """Almost all of the largest body, and then nothing."""
    body = b"[" + b" " * (_LARGEST - 1000)

    async def once(number: int) -> str:
        async with connection(target, number) as wire:
            await wire.send(head(target, f"Content-Length: {_LARGEST}", method="POST"))
            await wire.send(body)
            return await wire.status()

    await repeat(100, once, done)


async def small_chunked(target: Target, done: Done) -> None:
    async def once(number: int) -> str:
        async with connection(target, number) as wire:
            await wire.send(head(target, *_CHUNKED, method="POST") + chunk(payloads.reading()) + chunk(b""))
            return await wire.status()

    await repeat(300, once, done)


def posting(
    make: Callable[[int], bytes], size_bytes: int, workers: int, *fields: str, packed: bool = False
) -> Callable[[Target, Done], Awaitable[None]]:
    """An attack that posts a body of this size again and again, made once for each worker."""

    async def run(target: Target, done: Done) -> None:
        body = target.own(make(size_bytes))
        request = post(target, gzip.compress(body, 1) if packed else body, *fields)

        async def once(number: int) -> str:
            async with connection(target, number) as wire:
                await wire.send(request)
                return await wire.status()

        await repeat(workers, once, done)

    return run


_GZIP = "Content-Encoding: gzip"

ATTACKS = (
    Attack("announced", "bodies", "500 requests that announce 8 MB and send a byte", announced),
    Attack("trickled", "bodies", "500 chunked bodies, a byte every 0.2 s", trickled),
    Attack("half-sent", "bodies", "100 bodies of 8 MB without their last kilobyte", half_sent),
    Attack("small-chunked", "bodies", "300 small chunked bodies at a time", small_chunked),
    Attack(
        "gzip-bombs", "bodies", "100 gzip bodies of 8 kB, which are 8 MB", posting(payloads.bomb, _LARGEST, 100, _GZIP)
    ),
    Attack(
        "gzip-members",
        "bodies",
        "50 gzip bodies of 99 members",
        posting(partial(payloads.members, 98), _LARGEST, 50, _GZIP),
    ),
    Attack(
        "gzip-readings",
        "bodies",
        "50 gzip bodies of 10,000 readings",
        posting(payloads.readings, _LARGEST, 50, _GZIP, packed=True),
        most_disk_mib=512,
    ),
    Attack(
        "nested-bodies", "bodies", "8 MB of nested unknown fields, 8 at a time", posting(payloads.nested, _LARGEST, 8)
    ),
    Attack("deep-bodies", "bodies", "8 MB of fields of 400 levels, 8 at a time", posting(payloads.deep, _LARGEST, 8)),
    Attack(
        "damaged-bodies",
        "bodies",
        "10,000 readings, each second one damaged, 8 at a time",
        posting(payloads.damaged, _LARGEST, 8),
    ),
    Attack("open-strings", "bodies", "8 MB of begun strings, 8 at a time", posting(payloads.open_strings, _LARGEST, 8)),
    Attack("digit-bodies", "bodies", "8 MB of long numbers, 8 at a time", posting(payloads.digits, _LARGEST, 8)),
)
