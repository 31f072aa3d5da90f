"""Efficiency compares like with like: both sides of the same time."""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import NamedTuple

from api.energy.curve import Curve, Segment, energy_in
from api.energy.spans import Span, chained, difference, intersection, overlaps, union


class Side(NamedTuple):
    """One meter's energy for a vehicle: its assigned segments of a direction, and the assigned time that is covered."""

    segments: Sequence[Segment]
    assigned: Sequence[Span]
    covered: Sequence[Span]


class Compared(NamedTuple):
    """The energy of both sides over the time in which they can be compared, units."""

    ac: int
    dc: int
    time: Sequence[Span]


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
    return Compared(sum(energy_in(side.segments, time) for side in meters), energy_in(dc_segments, time), time)


def divided(sums: Sequence[Span], time: Sequence[Span]) -> list[Span]:
    """The sums that an edge of a set of time divides."""
    starts = [one.start for one in sums]
    found: dict[Span, None] = {}
    for at in (edge for span in time for edge in span):
        n = bisect_left(starts, at) - 1
        if n >= 0 and at < sums[n].end:
            found[sums[n]] = None
    return list(found)


def sums_in(sums: Sequence[Span], ends: Collection[int], time: Sequence[Span]) -> list[Span]:
    """The sums with one of these ends that have a part in a set of time."""
    return [one for one in sums if one.end in ends and overlaps(one, time)] if ends else []


def sums_about(sums: Sequence[Span], spans: Sequence[Span]) -> list[Span]:
    """The sums that have a part in one of these spans, which are in order and do not overlap."""
    return [one for one in sums if overlaps(one, spans)] if spans else []
