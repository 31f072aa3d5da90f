"""Readings as the pictures have them, in the units of the algebra."""

from collections.abc import Sequence

from api.energy.assignments import Assignment
from api.energy.curve import Device, Reading, Segment, curve_of
from api.energy.performance import Feed, Measured
from api.energy.spans import Span
from api.energy.units import kwh_of, register_units_of, units_of

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
EVERY_MINUTE = Device(MINUTE, 500)
QUARTERLY = Device(15 * MINUTE, 1000)


def intervals(values: Sequence[float | None], step: int, first: int) -> list[Reading]:
    """Interval readings in kWh, one a step; None is a lost one. Times in microseconds."""
    return [Reading(first + n * step, units_of(v)) for n, v in enumerate(values) if v is not None]


def import_register(values: Sequence[float | None]) -> list[Reading]:
    """Readings of a meter's register in kWh, one a minute from 0 on; None is a lost one."""
    return [Reading(n * MINUTE, register_in=register_units_of(v)) for n, v in enumerate(values) if v is not None]


def measured(readings: Sequence[Reading], device: Device = EVERY_MINUTE) -> Measured:
    """What a device that has ever reported measured."""
    return Measured(curve_of(readings, device), device, [reading.at for reading in readings], [], True, {})


def feed(readings: Sequence[Reading], period: Span) -> Feed:
    """A meter that feeds the vehicle V all the time."""
    return Feed("M", measured(readings), "V", [Assignment(-DAY, 2 * DAY, "V")], period, period.end)


def kw(segment: Segment) -> float:
    """The mean power of a segment."""
    return kwh_of(segment.units) * HOUR / (segment.end - segment.start)
