"""Converts simulated seconds to wall-clock time. `speed` 0 is unlimited."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

_GRAIN_S = 0.01
"""Readings due within this time are sent together, because a timer for each is too expensive."""


class Pacer:
    """Starts at its creation."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._started = time.monotonic()

    def wait_s(self, due_s: float) -> float:
        """Wall-clock seconds until `due_s` after the start; 0 when it is due, or nearly."""
        if not self._speed:
            return 0.0
        wait = self._started + due_s / self._speed - time.monotonic()
        return wait if wait > _GRAIN_S else 0.0

    async def stopped_before(self, due_s: float, stop: asyncio.Event) -> bool:
        """Wait until `due_s`; True when `stop` was set meanwhile."""
        wait_s = self.wait_s(due_s)
        if not wait_s:
            return False
        try:
            async with asyncio.timeout(wait_s):
                return await stop.wait()
        except TimeoutError:
            return False


def start_for(speed: float, minutes: int, now: datetime) -> datetime:
    """The whole minute at which to start, so that the last reading is about now and none is in the future."""
    spared = minutes if not speed else minutes * (1 - 1 / speed)
    start = now.astimezone(UTC) - timedelta(minutes=max(0.0, spared))
    return start.replace(second=0, microsecond=0)
