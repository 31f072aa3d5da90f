"""When rejects are too many to be a device's slip: a firmware or a gateway has gone wrong. Pure policy.

Rejects are acknowledged and kept, so nothing else would say that readings fail to arrive.
"""

WINDOW_S = 60.0
FEWEST = 20
LARGEST_SHARE = 0.05


class RejectRate:
    """Counts over windows of a minute and alarms once in each."""

    def __init__(self) -> None:
        self._items = self._rejected = 0
        self._until = 0.0
        self._alarmed = False

    @property
    def figures(self) -> dict[str, int]:
        """What this window has so far."""
        return {"items": self._items, "rejected": self._rejected}

    def alarms(self, items: int, rejected: int, now: float) -> bool:
        """Add a batch; True when it takes the window over the limit: `FEWEST` rejects and `LARGEST_SHARE` of all."""
        if now >= self._until:
            self._items = self._rejected = 0
            self._until, self._alarmed = now + WINDOW_S, False
        self._items += items
        self._rejected += rejected
        if self._alarmed or self._rejected < FEWEST or self._rejected <= self._items * LARGEST_SHARE:
            return False
        self._alarmed = True
        return True
