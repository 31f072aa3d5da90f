"""Efficiency compares like with like: both sides of the same time."""

from collections.abc import Sequence
from typing import NamedTuple

from api.energy.curve import Curve, Segment, energy_in
from api.energy.spans import Span, chained, difference, intersection, union


class Side(NamedTuple):
    """One meter's energy for a vehicle: its assigned segments of a direction, and the assigned time that is covered."""

    segments: Sequence[Segment]
    assigned: Sequence[Span]
    covered: Sequence[Span]


class Compared(NamedTuple):
    """The energy of both sides over the time in which they can be compared, units."""

    ac: int
    dc: int


def _active(segments: Sequence[Segment]) -> list[Span]:
    return chained([segment.start for segment in segments], [segment.end for segment in segments])


def compare(vehicle: Curve, dc_segments: Sequence[Segment], meters: Sequence[Side], period: Span) -> Compared:
    """AC and DC over the time in which a meter had energy to show, and it and the vehicle are covered.

    Of several meters assigned at a time all are covered: what one of them did not measure reached the battery too.
    """
    active = union(span for side in meters for span in _active(side.segments))
    time = intersection(intersection(active, [period]), vehicle.covered)
    for side in meters:
        time = difference(time, difference(side.assigned, side.covered))
    return Compared(sum(energy_in(side.segments, time) for side in meters), energy_in(dc_segments, time))
