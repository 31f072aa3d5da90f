"""When a reading is due: simulated seconds against the wall clock. `speed` 0 is as fast as it goes."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

_GRAIN_S = 0.01
"""Readings due within this are sent together; a timer for each would cost more than it gives."""


class Pacer:
    """Starts when it is made."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._started = time.monotonic()

    def wait_s(self, due_s: float) -> float:
        """How long until `due_s` after the start, in wall seconds; 0 when it is due, or nearly."""
        if not self._speed:
            return 0.0
        wait = self._started + due_s / self._speed - time.monotonic()
        return wait if wait > _GRAIN_S else 0.0

    async def stopped_before(self, due_s: float, stop: asyncio.Event) -> bool:
        """Wait until it is due; True when `stop` was set meanwhile."""
        wait_s = self.wait_s(due_s)
        if not wait_s:
            return False
        try:
            async with asyncio.timeout(wait_s):
                return await stop.wait()
        except TimeoutError:
            return False


def start_for(speed: float, minutes: int, now: datetime) -> datetime:
    """A whole minute to start from, so that the last reading is about now and none lies in the future."""
    spared = minutes if not speed else minutes * (1 - 1 / speed)
    start = now.astimezone(UTC) - timedelta(minutes=max(0.0, spared))
    return start.replace(second=0, microsecond=0)
