"""Efficiency compares like with like: both sides of the same time.

An interval in which an assignment to the vehicle begins or ends is not compared. Nobody knows how its energy lies on
the two sides of that instant: a meter that charges from the begin of an assignment on has all of it after that, and a
vehicle that sends at other times has another part of its own.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, TypeVar

from api.energy.curve import Curve, Segment, energy_in
from api.energy.spans import Span, chained, difference, intersection, overlaps, union

_Timed = TypeVar("_Timed", Span, Segment)


class Side(NamedTuple):
    """One meter's energy for a vehicle: its assigned segments of a direction, when it is assigned, and its curve."""

    segments: Sequence[Segment]
    assigned: Sequence[Span]
    curve: Curve


class Compared(NamedTuple):
    """The energy of both sides over the time in which they can be compared, units."""

    ac: int
    dc: int
    time: Sequence[Span]


def _active(segments: Sequence[Segment]) -> list[Span]:
    return chained([segment.start for segment in segments], [segment.end for segment in segments])


def compare(
    vehicle: Curve, dc_segments: Sequence[Segment], meters: Sequence[Side], changes: Iterable[int], period: Span
) -> Compared:
    """AC and DC over the time in which a meter had energy to show, and it and the vehicle are covered.

    Of several meters assigned at a time all are covered: what one of them did not measure reached the battery too.
    `changes` are the instants at which an assignment to the vehicle begins or ends: intervals across one are left out.
    """
    active = union(span for side in meters for span in _active(side.segments))
    time = intersection(intersection(active, [period]), vehicle.covered)
    for side in meters:
        time = difference(time, difference(side.assigned, side.curve.covered))
    time = difference(time, _cut([vehicle, *(side.curve for side in meters)], changes))
    return Compared(sum(energy_in(side.segments, time) for side in meters), energy_in(dc_segments, time), time)


def _cut(curves: Iterable[Curve], changes: Iterable[int]) -> list[Span]:
    """The time of the segments that one of these instants divides."""
    instants = list(changes)
    flows = (flow.segments for curve in curves for flow in curve.flows) if instants else ()
    return union(segment[:2] for segments in flows for segment in divided(segments, instants))


def divided(spans: Sequence[_Timed], instants: Iterable[int]) -> list[_Timed]:
    """Those that one of these instants divides. They are in order and do not overlap."""
    found: dict[_Timed, None] = {}
    for at in instants:
        n = bisect_left(spans, (at,)) - 1
        if n >= 0 and at < spans[n].end:
            found[spans[n]] = None
    return list(found)


def sums_in(sums: Sequence[Span], ends: Collection[int], time: Sequence[Span]) -> list[Span]:
    """The sums with one of these ends that have a part in a set of time."""
    return [one for one in sums if one.end in ends and overlaps(one, time)] if ends else []


def sums_about(sums: Sequence[Span], spans: Sequence[Span]) -> list[Span]:
    """The sums that have a part in one of these spans, which are in order and do not overlap."""
    return [one for one in sums if overlaps(one, spans)] if spans else []
