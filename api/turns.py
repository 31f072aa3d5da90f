"""At most so many pieces of work of one key at a time, and in all; keys with little work overtake keys with much."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class TooManyWaiting(Exception):
    """As many wait for a turn of this key as may."""


class _OfKey:
    """The turns of one key, and how many have one or wait for it."""

    __slots__ = ("free", "known")

    def __init__(self, most: int) -> None:
        self.free = asyncio.Semaphore(most)
        self.known = 0


class Turns:
    """A key's work waits behind the key's own work first, so that only `per_key` of it wait for a turn in all."""

    def __init__(self, per_key: int, in_all: int, most_waiting: int) -> None:
        self._per_key = per_key
        self._most = per_key + most_waiting
        self._in_all = asyncio.Semaphore(in_all)
        self._keys: dict[str, _OfKey] = {}

    def has_waiting(self, key_id: str) -> bool:
        """Whether work of this key waits for a turn."""
        of_key = self._keys.get(key_id)
        return of_key is not None and of_key.known > self._per_key

    @contextlib.asynccontextmanager
    async def turn(self, key_id: str) -> AsyncIterator[None]:
        """Wait for a turn of this key and keep it in the context. Raises `TooManyWaiting`."""
        of_key = self._keys.get(key_id)
        if of_key is None:
            of_key = self._keys[key_id] = _OfKey(self._per_key)
        if of_key.known >= self._most:
            raise TooManyWaiting
        of_key.known += 1
        try:
            async with of_key.free, self._in_all:
                yield
        finally:
            of_key.known -= 1
            if not of_key.known:
                del self._keys[key_id]
