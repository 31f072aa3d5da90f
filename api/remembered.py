"""Answers that several clients ask for: each is worked out once for all of them, and kept for a minute."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")
_KEPT_S = 60.0
_MOST = 256


class Remembered:
    """The answers of one process by question."""

    def __init__(self) -> None:
        self._found: dict[Hashable, tuple[float, asyncio.Future[Any]]] = {}

    async def get(self, question: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer: one that is at most a minute old, or is being worked out, else that of `ask`.

        A failure is raised for each client that waits for it, and is not kept. The work goes on when a client leaves.
        """
        now = time.monotonic()
        known = self._found.get(question)
        if known is None or known[0] < now:
            self._found = {key: one for key, one in self._found.items() if one[0] >= now}
            while len(self._found) >= _MOST:
                del self._found[next(iter(self._found))]
            known = now + _KEPT_S, asyncio.ensure_future(ask())
            self._found[question] = known
        try:
            answer: T = await asyncio.shield(known[1])
        except BaseException:
            if known[1].done() and self._found.get(question) is known:
                del self._found[question]
            raise
        return answer
