"""Exponential back-off with jitter, so that many clients do not retry at the same moment."""

import math
import random


class Backoff:
    """Pauses that begin with `first_s`, double with each attempt up to `longest_s`, and are shortened by up to half."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._pause_s = first_s

    def next(self, longest_s: float = math.inf) -> float:
        """Return the pause before the next attempt, in seconds, at most `longest_s`."""
        self._pause_s = min(self._pause_s, longest_s)
        pause_s = self._pause_s * random.uniform(0.5, 1.0)
        self._pause_s = min(self._pause_s * 2, self._longest_s)
        return pause_s

    def reset(self) -> None:
        """Begin again with the shortest pause, after an attempt has succeeded."""
        self._pause_s = self._first_s
