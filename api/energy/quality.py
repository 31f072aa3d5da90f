"""How far the figures of devices can be relied on, and which devices are the worst. Pure.

Times are microseconds since the period's start, energies units.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from math import inf
from typing import Literal, NamedTuple

from api.energy.buckets import NOTHING, Figures

LONGEST_SILENCE = 3
"""A device is silent when its last reading is more than this many of its intervals ago; one that never reported, when
its declaration is."""

Order = Literal["severity", "coverage", "resets", "suspectKwh", "unassignedKwh", "conflicts", "implausible", "ageS"]


class Quality(NamedTuple):
    """What is wrong with one device in a period."""

    kind: str
    id: str
    site: str | None
    """Declared for it."""
    figures: Figures
    unassigned: int | None
    """Net energy that belongs to no vehicle; None for a kind that is not assigned."""
    conflicts: int
    implausible: int
    interval_us: int
    seen_at: int | None
    """The last reading before `as_of`; None when there is none."""
    declared_at: int | None
    """When the register first had it; None when it is not declared."""
    as_of: int
    """The end of the period, or now if that is earlier."""

    @property
    def coverage(self) -> float | None:
        """Covered time / elapsed time; None while no time has elapsed."""
        return _coverage(self.figures)

    @property
    def age_us(self) -> int | None:
        """The time since the last reading."""
        return None if self.seen_at is None else self.as_of - self.seen_at

    @property
    def is_silent(self) -> bool:
        """Whether a reading is overdue: the first one from the declaration on, or always without a declaration."""
        since = self.declared_at if self.seen_at is None else self.seen_at
        return since is None or self.as_of - since > LONGEST_SILENCE * self.interval_us

    @property
    def severity(self) -> float:
        """The part of the time that is not covered, and 1 for each other kind of fault: from 0 to 6.

        Unassigned energy is no fault of a device.
        """
        missing = 0 if self.coverage is None else 1 - self.coverage
        found = self.figures
        return missing + sum(map(bool, (self.is_silent, found.suspect, found.resets, self.conflicts, self.implausible)))


class Totals(NamedTuple):
    """The sums over devices."""

    devices: int
    silent: int
    never_seen: int
    """Without any reading before the end of the period."""
    faulty: int
    """Devices whose severity is not 0."""
    figures: Figures
    unassigned: int
    conflicts: int
    implausible: int

    @property
    def coverage(self) -> float | None:
        """Over the time of all devices; None while no time has elapsed."""
        return _coverage(self.figures)


def totals(devices: Sequence[Quality]) -> Totals:
    """The sums of all of them."""
    return Totals(
        len(devices),
        sum(device.is_silent for device in devices),
        sum(device.seen_at is None for device in devices),
        sum(device.severity > 0 for device in devices),
        reduce(Figures.plus, (device.figures for device in devices), NOTHING),
        sum(device.unassigned or 0 for device in devices),
        sum(device.conflicts for device in devices),
        sum(device.implausible for device in devices),
    )


def _coverage(figures: Figures) -> float | None:
    return figures.covered / figures.expected if figures.expected else None


class Place(NamedTuple):
    """Where a device stands in a list: the less, the worse. No two devices have the same."""

    figure: float
    """The figure by which the list is ordered, negative where a higher one is worse."""
    severity: float
    """Negative."""
    kind: str
    id: str


def place(device: Quality, order: Order) -> Place:
    """A device's place in the list of an order."""
    return Place(_FIGURES[order](device), -device.severity, device.kind, device.id)


def worst_first(devices: Iterable[Quality], order: Order, after: Place | None) -> list[Quality]:
    """The devices after a place, or all of them, the worst first."""
    places = ((place(device, order), device) for device in devices)
    return [device for at, device in sorted(places) if after is None or at > after]


_FIGURES: dict[Order, Callable[[Quality], float]] = {
    "severity": lambda device: -device.severity,
    "coverage": lambda device: inf if device.coverage is None else device.coverage,
    "resets": lambda device: -device.figures.resets,
    "suspectKwh": lambda device: -device.figures.suspect,
    # Of either sign: feeding back for nobody is as wrong as drawing for nobody.
    "unassignedKwh": lambda device: -abs(device.unassigned or 0),
    "conflicts": lambda device: -device.conflicts,
    "implausible": lambda device: -device.implausible,
    "ageS": lambda device: -inf if device.age_us is None else -device.age_us,
}
