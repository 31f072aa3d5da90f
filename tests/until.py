"""Wait for a condition, never for a time."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> Any:
    """Evaluate the condition until it is true, and return the result. Raises `AssertionError` with the last result."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        assert time.monotonic() < deadline, f"{inspect.getsource(condition).strip()} is still {value!r}"
        await asyncio.sleep(0.01)
