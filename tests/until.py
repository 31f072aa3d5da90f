"""Wait for a condition, never for a time."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")
_LOOK_EVERY_S = 0.01


class NotInTime(AssertionError):
    """The condition was not met in time."""


class _Patience:
    """When to give up, and what to say then."""

    def __init__(self, condition: Callable[[], object], what: str, timeout_s: float) -> None:
        self._condition, self._what, self._timeout_s = condition, what, timeout_s
        self._deadline = time.monotonic() + timeout_s

    def check(self, answer: object) -> None:
        """Raise `NotInTime` when it is too late."""
        if time.monotonic() > self._deadline:
            what = self._what or inspect.getsource(self._condition).strip()
            raise NotInTime(f"not within {self._timeout_s:.0f} s: {what} (the last result was {answer!r})")


async def until(
    condition: Callable[[], Awaitable[Any]] | Callable[[], Any], what: str = "", timeout_s: float = 30.0
) -> Any:
    """Evaluate (or await) the condition until it is true, and return the result. Raises `NotInTime`."""
    patience = _Patience(condition, what, timeout_s)
    while True:
        answer = condition()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        patience.check(value)
        await asyncio.sleep(_LOOK_EVERY_S)


def wait_until(condition: Callable[[], T], what: str = "", timeout_s: float = 30.0) -> T:
    """The same for code that may block."""
    patience = _Patience(condition, what, timeout_s)
    while not (answer := condition()):
        patience.check(answer)
        time.sleep(_LOOK_EVERY_S)
    return answer
