"""Detects a high share of rejects, which indicates a faulty firmware or gateway. No I/O, no clock.

Rejects are acknowledged and stored, so without this alarm an operator would not notice that readings are missing.
"""

WINDOW_S = 60.0
FEWEST = 20
LARGEST_SHARE = 0.05


class RejectRate:
    """Counts items in windows of a minute. Raises an alarm at most once per window."""

    def __init__(self) -> None:
        self._items = self._rejected = 0
        self._until = 0.0
        self._alarmed = False

    @property
    def figures(self) -> dict[str, int]:
        """The counts of the current window, for the log."""
        return {"items": self._items, "rejected": self._rejected}

    def alarms(self, items: int, rejected: int, now: float) -> bool:
        """Add a batch; True when the window first reaches `FEWEST` rejects and exceeds `LARGEST_SHARE` of all items."""
        if now >= self._until:
            self._items = self._rejected = 0
            self._until, self._alarmed = now + WINDOW_S, False
        self._items += items
        self._rejected += rejected
        if self._alarmed or self._rejected < FEWEST or self._rejected <= self._items * LARGEST_SHARE:
            return False
        self._alarmed = True
        return True
