"""Keys that do not exist."""

import itertools

from tests.acceptance.attacks.attack import Attack, Done, Target, repeat
from tests.acceptance.attacks.http_wire import connection, head


async def _guess(target: Target, done: Done, addresses: int) -> None:
    numbers = itertools.count()

    async def once(number: int) -> str:
        async with connection(target, number % addresses) as wire:
            for _ in range(100):
                key = f"fleet_{next(numbers):012}_{target.key[-43:]}"
                await wire.send(head(target, path="/v1/live/vehicles", key=key))
                status = await wire.status()
                done[status] += 1
            return "100 keys"

    await repeat(50, once, done)


async def unknown(target: Target, done: Done) -> None:
    await _guess(target, done, 1)


async def unknown_from_many(target: Target, done: Done) -> None:
    await _guess(target, done, 50)


async def malformed(target: Target, done: Done) -> None:
    request = head(target, path="/v1/live/vehicles", key="x" * 8_000) * 10

    async def once(number: int) -> str:
        async with connection(target, number) as wire:
            await wire.send(request)
            for _ in range(9):
                await wire.status()
            return await wire.status()

    await repeat(50, once, done)


ATTACKS = (
    Attack("unknown-keys", "keys", "well-formed keys that do not exist, on 50 connections of one address", unknown),
    Attack("unknown-keys-many", "keys", "the same from 50 addresses", unknown_from_many),
    Attack("malformed-keys", "keys", "keys of 8 kB that are not well-formed", malformed),
)
