"""The time by which readings are judged: this machine's, as long as it agrees with the database's.

With a wrong clock correct readings would be rejected, and devices forget what is acknowledged. The database's time is
asked for every few seconds and continued with the monotonic clock in between, so that a step of this machine's clock is
noticed before the next reading is judged. Which of two clocks is wrong cannot be told: while they differ, no reading is
judged.
"""

import time
from datetime import UTC, datetime
from typing import NamedTuple

from bridge.errors import ClocksDiffer

EVERY_S = 5.0
"""How often the database's time is asked for at least, while it can be asked."""


class _Compared(NamedTuple):
    """The database's time at one moment."""

    at_s: float
    """The moment, by the monotonic clock."""
    database_s: float
    """Seconds since 1970."""
    unsure_s: float
    """Half of the time that the question took."""


class Clock:
    """Compares the clock of this machine with that of the database. Safe to use from several threads."""

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._compared: _Compared | None = None

    def compare(self, database: datetime, asked_at_s: float) -> None:
        """Note the database's time, which was asked for at this moment of the monotonic clock and has just arrived."""
        answered_at_s = steady_s()
        middle_s, unsure_s = (asked_at_s + answered_at_s) / 2, (answered_at_s - asked_at_s) / 2
        self._compared = _Compared(middle_s, database.timestamp(), unsure_s)

    @property
    def is_due(self) -> bool:
        """Whether the database's time should be asked for: it is a while ago, or the clocks differ."""
        compared = self._compared
        return compared is None or steady_s() - compared.at_s >= EVERY_S or self.problem is not None

    @property
    def ahead_s(self) -> float | None:
        """How far this machine's clock is ahead of the database's, s; None before the first comparison."""
        return None if self._compared is None else self._ahead_s(self._compared, wall_s())

    @property
    def problem(self) -> str | None:
        """Why no reading can be judged, or None."""
        return self._problem(wall_s())

    def now(self) -> datetime:
        """The current time. Raises `ClocksDiffer`, also before the first comparison."""
        at_s = wall_s()
        if (problem := self._problem(at_s)) is not None:
            raise ClocksDiffer(problem)
        return datetime.fromtimestamp(at_s, UTC)

    def _problem(self, at_s: float) -> str | None:
        compared = self._compared
        if compared is None:
            return "the clock has not been compared with the database's yet"
        ahead_s = self._ahead_s(compared, at_s)
        if abs(ahead_s) <= self._most_s + compared.unsure_s:
            return None
        side = "ahead of" if ahead_s > 0 else "behind"
        return f"this machine's clock is {abs(ahead_s):.0f} s {side} the database's: correct the wrong one"

    @staticmethod
    def _ahead_s(compared: _Compared, at_s: float) -> float:
        return at_s - (compared.database_s + steady_s() - compared.at_s)


def wall_s() -> float:
    """This machine's time, in seconds since 1970."""
    return time.time()


def steady_s() -> float:
    """The monotonic clock, in seconds."""
    return time.monotonic()
