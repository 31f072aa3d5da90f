"""Positions in the database's log, and which of its states they stand for. Pure."""

import re
from bisect import bisect_right
from collections import deque
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple, Self, TypeAlias

_text = re.compile(r"([0-9]{1,9})-([0-9A-F]{1,16})").fullmatch
_MOST_MARKS = 4_000
"""A quarter of an hour, of one every 250 ms."""


class Position(NamedTuple):
    """A place in the log. What was committed before it is in every state that has reached it."""

    timeline: int
    """One more with each promotion of a standby."""
    lsn: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The position of a text, or None for a text that is none."""
        match = _text(text)
        return cls(int(match[1]), int(match[2], 16)) if match and int(match[2], 16) < 1 << 63 else None

    def __str__(self) -> str:
        return f"{self.timeline}-{self.lsn:X}"


AsOf: TypeAlias = datetime | Position
"""What an answer must contain: everything that was committed at a time of the primary's clock, or before a position."""


class Mark(NamedTuple):
    """What was committed at a time is in the log before this position."""

    position: Position
    at: datetime
    """By the primary's clock."""
    asked_at_s: float
    """By the monotonic clock of this process."""


class Marks:
    """The marks of the primary's present timeline, the newest ones."""

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque(maxlen=_MOST_MARKS)

    def add(self, mark: Mark) -> None:
        """Add a newer mark. Those of another timeline are forgotten: their positions mean other commits."""
        if self._marks and self._marks[-1].position.timeline != mark.position.timeline:
            self._marks.clear()
        if self._marks and self._marks[-1].position.lsn >= mark.position.lsn:
            self._marks.pop()  # nothing was written since, so the newer time is that of the same position
        self._marks.append(mark)

    def reached(self, lsn: int) -> Mark | None:
        """The newest mark before a position; None if it is before all of them."""
        n = bisect_right(self._marks, lsn, key=attrgetter("position.lsn"))
        return self._marks[n - 1] if n else None
