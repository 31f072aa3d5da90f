"""Growing pauses between attempts, with jitter, so that many clients do not come back at the same moment."""

import random


class Backoff:
    """Pauses of between half of `first_s` and all of it, twice as long each time, up to `longest_s`."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._pause_s = first_s

    def next(self) -> float:
        """How long to pause before the next attempt, in seconds."""
        pause_s = self._pause_s * random.uniform(0.5, 1.0)
        self._pause_s = min(self._pause_s * 2, self._longest_s)
        return pause_s

    def reset(self) -> None:
        """An attempt has succeeded: the next pause is a short one again."""
        self._pause_s = self._first_s
