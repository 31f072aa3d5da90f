"""The summary of a device's readings in a quarter hour, and when it may stand for them. Pure.

A summary gives the same figures as its readings unless one of these holds, and then the readings are read instead:
a figure divides the quarter hour; its readings differ in what they have, or a register falls; two of them are further
apart than an interval covers; a register may rise more than rated power allows.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from api.energy.curve import PLAUSIBLE, Device, Reading
from api.energy.interval import QUARTER_US, Group
from api.energy.units import register_units_of

_MARGIN = 0.99
"""A rise up to this part of the most that is plausible is plausible in whole numbers too."""
_LEAST_RATED_KW = 0.1


class GaugeQuarter(NamedTuple):
    """One gauge in a quarter hour."""

    readings: int | None
    """Readings that have it; None for none of them."""
    first: float | None
    """None when only a part of the readings have it."""
    last: float | None
    area: float | None
    """Twice the area under the lines between the readings; None when two of them are far apart."""


class Quarter(NamedTuple):
    """Columns of a quarter hour's summary; times are microseconds since the period's start, energies units."""

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
    register_in: tuple[float, float] | None
    """First and last value."""
    register_out: tuple[float, float] | None
    rises_in: int
    rises_out: int
    steepest_kw: float
    gauge: GaugeQuarter | None
    """The gauge that was asked for."""

    @property
    def end(self) -> int:
        return self.start + QUARTER_US

    @property
    def has_energy(self) -> bool:
        return self.interval_first is not None or self.register_in is not None or self.register_out is not None

    @property
    def group(self) -> Group:
        """Its readings with energy, for the observed interval."""
        return Group(self.start, self.first, self.last, self.readings)

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
        gauge = self.gauge
        if not self.is_even or (gauge and gauge.readings and (gauge.first is None or gauge.area is None)):
            return False
        if not self.steepest_kw:
            return True
        most_kw = rated_kw * PLAUSIBLE[0] / PLAUSIBLE[1] * _MARGIN
        return rated_kw >= _LEAST_RATED_KW and self.steepest_kw <= most_kw

    def is_unbroken(self, device: Device) -> bool:
        """Whether no two of its readings are further apart than an interval covers."""
        return self.interval_first is None or self.widest <= device.longest_gap(self.first)

    def energy(self) -> Iterable[Reading]:
        """Its first reading, and the sum of the others."""
        interval, register_in, register_out = self.interval_first, self.register_in, self.register_out
        if interval is None and register_in is None and register_out is None:
            return ()
        first = Reading(self.first, interval, _value(register_in, 0), _value(register_out, 0))
        if self.readings == 1:
            return (first,)
        count = self.readings - 1
        steps_in = self.steps_in if register_in is None else self.rises_in
        steps_out = self.steps_out if register_out is None else self.rises_out
        others = Reading(
            self.last,
            None if interval is None else self.interval_in,
            _value(register_in, 1),
            _value(register_out, 1),
            self.first,
            self.interval_out,
            0 < steps_in < count,
            0 < steps_out < count,
        )
        return first, others

    def points(self) -> Sequence[tuple[int, float]]:
        """The first and the last value of the gauge."""
        gauge = self.gauge
        if gauge is None or gauge.first is None or gauge.last is None:
            return ()
        return [(self.first, gauge.first), (self.last, gauge.last)][: self.readings]


def quarters_of(instants: Iterable[int], offset: int, length: int = QUARTER_US) -> set[int]:
    """The starts of the quarter hours that these instants divide. `offset` is the start of one.

    `length` may be that of an hour, here and in `whole_quarters`.
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
    return {q.last: q.gauge.area for q in quarters if q.gauge and q.gauge.area is not None and q.readings > 1}


def _value(register: tuple[float, float] | None, n: int) -> int | None:
    return None if register is None else register_units_of(register[n])
