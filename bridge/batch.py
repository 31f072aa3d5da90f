"""When to write: a batch is due when it is full or when its oldest item has waited long enough. No I/O, no clock."""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Batch(Generic[T]):
    """Collects weighted items until `size` is reached or the oldest is `age_s` old; the caller passes the time."""

    def __init__(self, size: int, age_s: float) -> None:
        self.weight = 0
        self._size = size
        self._age_s = age_s
        self._items: deque[tuple[T, int]] = deque()
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_full(self) -> bool:
        """Whether it is due by size."""
        return self.weight >= self._size

    def add(self, item: T, weight: int, now: float) -> bool:
        """Add an item; True when the batch is due by size."""
        if not self._items:
            self._since = now
        self._items.append((item, weight))
        self.weight += weight
        return self.weight >= self._size

    def due_in(self, now: float) -> float | None:
        """Return the seconds until a batch is due (0: now), or None while it is empty."""
        if not self._items:
            return None
        if self.is_full:
            return 0.0
        return max(0.0, self._since + self._age_s - now)

    def take(self) -> list[T]:
        """Remove and return the oldest items, up to a weight of `size` but at least one; the rest is due at once."""
        taken: list[T] = []
        weight = 0
        while self._items and (not taken or weight + self._items[0][1] <= self._size):
            item, item_weight = self._items.popleft()
            taken.append(item)
            weight += item_weight
        self.weight -= weight
        return taken
