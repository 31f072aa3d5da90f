"""How much is done at once. Pure: the caller passes what it took."""

GOAL_S = 1.0
"""About how long one step takes: a few dozens of them are within every timeout, and other duties have their turn."""


class Pace:
    """The size of a step, between 1 and `most`. It adapts to the time that steps take, and shrinks after a failure."""

    def __init__(self, most: int, first: int) -> None:
        self._most = most
        self.size = first

    def took(self, seconds: float) -> None:
        """Adapt to the time of the last step."""
        if seconds > 2 * GOAL_S:
            self.size = max(1, self.size // 2)
        elif seconds < GOAL_S / 2:
            self.size = min(self._most, self.size * 2)

    def failed(self) -> None:
        """Adapt to a step that failed, perhaps because it was too large."""
        self.size = max(1, self.size // 8)
