"""Energy counters of a device (registers), and the energy that follows from their values.

A counter only increases, except that a restart of its device sets it to 0 and that a value is occasionally slightly too
low (jitter). The energy between two readings is the difference of their values, so no energy is lost with a reading:
the next one contains it.
"""

from collections.abc import Iterable
from decimal import Decimal
from random import Random

_JITTER_MICRO = 100_000
_RESET_SHARE = Decimal("0.9")
_LEAST_TO_FALL_MICRO = 100_000_000
"""A counter below 100 kWh is neither reset nor jittered, because the two could not be distinguished."""
_RESTARTS, _JITTERS = 0.002, 0.02


class Counters:
    """A device's two counters, of positive and of negative energy, in micro-kWh."""

    __slots__ = ("_random", "epoch", "micro")

    def __init__(self, random: Random) -> None:
        self._random = random
        self.micro = [random.randrange(100_000_000, 50_000_000_000) for _ in range(2)]
        self.epoch = 0
        """How many times the device has restarted."""

    def maybe_restart(self) -> None:
        """Set both to 0 with a small probability."""
        if self._random.random() < _RESTARTS and all(not m or m > _LEAST_TO_FALL_MICRO for m in self.micro):
            self.micro = [0, 0]
            self.epoch += 1

    def add(self, micro: int) -> None:
        """Count energy, signed."""
        self.micro[micro < 0] += abs(micro)

    def read(self) -> tuple[int, int]:
        """The values as the device reports them: occasionally 0.1 kWh too low."""
        low = _JITTER_MICRO if self._random.random() < _JITTERS else 0
        charged, discharged = (m - low if m > _LEAST_TO_FALL_MICRO else m for m in self.micro)
        return charged, discharged


class CounterTruth:
    """The energy that follows from the reported values of one counter with known restarts, in micro-kWh."""

    __slots__ = ("_base", "_closed", "_epoch", "_high")

    def __init__(self) -> None:
        self._epoch: int | None = None
        self._base = self._high = self._closed = 0

    def report(self, epoch: int, value: int) -> None:
        """Add the next reported value. The first is the baseline; after a restart the baseline is 0."""
        if self._epoch != epoch:
            self._closed = self.micro
            self._base = self._high = value if self._epoch is None else 0
            self._epoch = epoch
        self._high = max(self._high, value)

    @property
    def micro(self) -> int:
        return self._closed + self._high - self._base


def counted_kwh(values: Iterable[float | None]) -> Decimal:
    """The energy that follows from a counter's values, in the order of device time; restarts are inferred.

    A decrease of more than a tenth is a restart, and the new value is energy. A smaller decrease is jitter: neither it
    nor the increase back to the previous value is energy. Absent values are ignored.
    """
    total, high, previous = Decimal(), Decimal(), None
    for value in (Decimal(repr(value)) for value in values if value is not None):
        if previous is None:
            high = value
        elif value < _RESET_SHARE * previous:
            total, high = total + value, value
        elif value > high:
            total, high = total + value - high, value
        previous = value
    return total
