"""Wait for a condition, never for a time."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> Any:
    """Ask (or await) until the answer is true, and return it. Raises `AssertionError` with the last answer."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        assert time.monotonic() < deadline, f"{inspect.getsource(condition).strip()} is still {value!r}"
        await asyncio.sleep(0.01)
