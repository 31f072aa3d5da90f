"""The memory that request bodies may take: in all, and of each API key."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator

from api.problems import unavailable
from api.turns import Turns

SMALL_BYTES = 16 * 1024
"""So much of each body is charged to memory that is kept for the begin of bodies."""
_LEAST_SHARE_BYTES = 16 * 1024 * 1024
"""Of a key: two of the largest bodies."""
_MOST_UNPACKING = 100_000  # in memory they are bounded already, by the connections


class BodyBudget:
    """Bytes of bodies that are in memory, as sent or, of a compressed body, as decompressed.

    One key has a quarter of them, and an eighth more is kept for the first bytes of each body: small bodies are
    received while large ones use up the rest.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._left = limit_bytes
        self._left_for_small = limit_bytes // 8
        self._share = min(limit_bytes, max(limit_bytes // 4, _LEAST_SHARE_BYTES))
        self._unpacking = Turns(1, 1, _MOST_UNPACKING)
        self._by_key: defaultdict[str, int] = defaultdict(int)

    @contextlib.contextmanager
    def charge(self, key_id: str) -> Iterator["Charge"]:
        """A charge for a request with this key, which is returned at the end."""
        charge = Charge(self, key_id)
        try:
            yield charge
        finally:
            self._return(charge)

    def take(self, charge: "Charge", size_bytes: int) -> None:
        """Charge bytes that have arrived. Raises 503 when the key's share or the budget is exhausted."""
        small = min(size_bytes, SMALL_BYTES - charge.small)
        if self._left_for_small < small:
            small = 0
        large = size_bytes - small
        if self._by_key[charge.key_id] + size_bytes > self._share:
            raise unavailable("too many large requests with this key at a time", 1)
        if large > self._left:
            raise unavailable("too many concurrent large requests", 1)
        self._left -= large
        self._left_for_small -= small
        self._by_key[charge.key_id] += size_bytes
        charge.large += large
        charge.small += small

    def unpacking(self, charge: "Charge") -> contextlib.AbstractAsyncContextManager[None]:
        """The turn of a body to be decompressed, which takes much more time than to receive it."""
        return self._unpacking.turn(charge.key_id)

    def _return(self, charge: "Charge") -> None:
        self._left += charge.large
        self._left_for_small += charge.small
        self._by_key[charge.key_id] -= charge.large + charge.small
        if not self._by_key[charge.key_id]:
            del self._by_key[charge.key_id]


class Charge:
    """What one request has taken of the budget."""

    __slots__ = ("_budget", "key_id", "large", "small")

    def __init__(self, budget: BodyBudget, key_id: str) -> None:
        self._budget = budget
        self.key_id = key_id
        self.large = 0
        self.small = 0

    def take(self, size_bytes: int) -> None:
        """Charge bytes that have arrived. Raises 503 when the key's share or the budget is exhausted."""
        self._budget.take(self, size_bytes)

    def unpacking(self) -> contextlib.AbstractAsyncContextManager[None]:
        """The turn to decompress a piece of the body."""
        return self._budget.unpacking(self)
