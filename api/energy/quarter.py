"""The summary of a device's readings in a quarter hour, and when it may stand for them. Pure.

A summary gives the same figures as its readings unless one of these holds, and then the readings are read instead:
a figure divides the quarter hour; its readings differ in what they have, or a register falls; two of them are further
apart than an interval covers; a register may rise more than rated power allows.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from api.energy.curve import PLAUSIBLE, Device, Reading
from api.energy.interval import QUARTER_US
from api.energy.units import register_units_of

_MARGIN = 0.99
"""A rise up to this part of the most that is plausible is plausible in whole numbers too."""
_LEAST_RATED_KW = 0.1


class Quarter(NamedTuple):
    """Columns of a quarter hour's summary; times are microseconds since the period's start, energies units.

    A row of `api.measured_sql.summaries_sql` has the same columns, so that hundreds of them are taken at little cost.
    """

    start: int
    readings: int
    first: int
    last: int
    widest: int
    """Longest time between two readings."""
    is_even: bool
    interval_first: int | None
    interval_in: int
    interval_out: int
    steps_in: int
    steps_out: int
    register_in_first: float | None
    register_in_last: float | None
    register_out_first: float | None
    register_out_last: float | None
    rises_in: int
    rises_out: int
    steepest_kw: float
    gauge_readings: int | None
    """Readings that have the gauge that was asked for; None for none of them."""
    gauge_first: float | None
    """None when only a part of the readings have it."""
    gauge_last: float | None
    gauge_area: float | None
    """Twice the area under the lines between the readings; None when two of them are far apart."""
    n: int = 0
    """The number that the statement gave its device."""

    @property
    def end(self) -> int:
        return self.start + QUARTER_US

    @property
    def has_energy(self) -> bool:
        return not (self.interval_first is self.register_in_first is self.register_out_first is None)

    @property
    def is_patchy(self) -> bool:
        """Whether energy flowed in one direction in a part of its time only, as at the begin of a charge."""
        count = self.readings - 1
        return (
            0 < self.steps_in < count
            or 0 < self.steps_out < count
            or 0 < self.rises_in < count
            or 0 < self.rises_out < count
        )

    def is_usable(self, rated_kw: float) -> bool:
        """Whether it may stand for its readings as far as the interval does not matter."""
        if not self.is_even or (self.gauge_readings and (self.gauge_first is None or self.gauge_area is None)):
            return False
        if not self.steepest_kw:
            return True
        most_kw = rated_kw * PLAUSIBLE[0] / PLAUSIBLE[1] * _MARGIN
        return rated_kw >= _LEAST_RATED_KW and self.steepest_kw <= most_kw

    def is_unbroken(self, device: Device) -> bool:
        """Whether no two of its readings are further apart than an interval covers."""
        return self.interval_first is None or self.widest <= device.longest_gap(self.first)

    def energy(self) -> list[Reading]:
        """Its first reading, and the sum of the others."""
        if not self.has_energy:
            return []
        register_in, register_out = _units(self.register_in_first), _units(self.register_out_first)
        first = Reading(self.first, self.interval_first, register_in, register_out)
        if self.readings == 1:
            return [first]
        count = self.readings - 1
        steps_in = self.steps_in if register_in is None else self.rises_in
        steps_out = self.steps_out if register_out is None else self.rises_out
        others = Reading(
            self.last,
            None if self.interval_first is None else self.interval_in,
            _units(self.register_in_last),
            _units(self.register_out_last),
            self.first,
            self.interval_out,
            0 < steps_in < count,
            0 < steps_out < count,
        )
        return [first, others]

    @property
    def direction(self) -> int | None:
        """1 or -1 if energy flows into or out of the device throughout, 0 if none flows; None if that changes.

        Of interval readings alone, and from the first reading on.
        """
        first = self.interval_first
        if first is None or self.register_in_first is not None or self.register_out_first is not None:
            return None
        if self.readings == 1:
            return _sign(first)
        steps_in, steps_out = self.steps_in, self.steps_out
        if not steps_in and not steps_out:
            return None if self.interval_in or self.interval_out else 0
        if steps_in == self.readings - 1 and not steps_out:
            return 1 if self.interval_in else None
        if steps_out == self.readings - 1 and not steps_in:
            return -1 if self.interval_out else None
        return None


def changes_of(quarters: Sequence[Quarter]) -> list[int]:
    """The starts of the quarter hours in which energy begins or ceases to flow, with their first or last reading too.

    `quarters` are in order.
    """
    found = [quarter.start for quarter in quarters if quarter.is_patchy]
    for before, quarter in pairwise(quarters):
        own = quarter.direction
        if own is not None and own != before.direction:
            found.append(before.start if _sign(quarter.interval_first or 0) == own else quarter.start)
    return found


def energy_of(quarters: Iterable[Quarter], apart: Collection[int], device: Device) -> list[Reading]:
    """The readings of adjacent quarter hours as one sum where energy flows in one direction, or none flows, throughout.

    Those that start at `apart` are not joined with the one before. `quarters` are in order.
    """
    found: list[Reading] = []
    run: list[Quarter] = []
    direction, shortest = None, device.shortest_gap_us
    for quarter in quarters:
        own, first = quarter.direction, quarter.interval_first
        is_alike = own is not None and own == direction and first is not None and _sign(first) == own
        if is_alike and quarter.start == run[-1].start + QUARTER_US and quarter.start not in apart:
            # They are adjacent, so no other reading is between them.
            gap = quarter.first - run[-1].last
            if gap <= shortest or gap <= device.longest_gap(quarter.first):
                run.append(quarter)
                continue
        found += _joined(run)
        run, direction = [quarter], own
    return found + _joined(run)


def points_of(quarters: Iterable[Quarter]) -> list[tuple[int, float]]:
    """The first and the last value of the gauge in each."""
    points: list[tuple[int, float]] = []
    for quarter in quarters:
        if quarter.gauge_first is not None and quarter.gauge_last is not None:
            points.append((quarter.first, quarter.gauge_first))
            if quarter.readings > 1:
                points.append((quarter.last, quarter.gauge_last))
    return points


def quarters_of(instants: Iterable[int], offset: int, length: int = QUARTER_US) -> set[int]:
    """The starts of the quarter hours that these instants divide. `offset` is the start of one.

    `length` may be that of one or six hours, here and in `whole_quarters`.
    """
    return {at - (at - offset) % length for at in instants if (at - offset) % length}


def whole_quarters(since: int, until: int, offset: int, closed: int, length: int = QUARTER_US) -> tuple[int, int]:
    """The start of the first and the end of the last quarter hour from `since` to `until` that is whole and closed.

    Both are `since` when there is none.
    """
    first = since + (offset - since) % length
    beyond = min(until - (until - offset) % length, closed)
    return (since, since) if first >= beyond else (first, beyond)


def areas_of(quarters: Iterable[Quarter]) -> Mapping[int, float]:
    """Twice the area under the gauge from the first to the last reading of each, by the time of the last."""
    return {q.last: q.gauge_area for q in quarters if q.gauge_area is not None and q.readings > 1}


def _joined(run: Sequence[Quarter]) -> list[Reading]:
    """The first reading of the first quarter hour, and the sum of all others."""
    if len(run) < 2:
        return [reading for quarter in run for reading in quarter.energy()]
    firsts = [quarter.interval_first or 0 for quarter in run[1:]]
    inward = sum(quarter.interval_in for quarter in run) + sum(units for units in firsts if units > 0)
    outward = sum(quarter.interval_out for quarter in run) - sum(units for units in firsts if units < 0)
    since = run[0].first
    return [Reading(since, run[0].interval_first), Reading(run[-1].last, inward, since=since, interval_out=outward)]


def _sign(units: int) -> int:
    return (units > 0) - (units < 0)


def _units(kwh: float | None) -> int | None:
    return None if kwh is None else register_units_of(kwh)
