"""Which vehicle a meter's energy belongs to.

A segment that several assignments overlap is divided among them by time; time in which the meter was not assigned has
no share of a segment that an assignment overlaps. What no assignment overlaps is unassigned energy.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from api.energy.curve import Segment
from api.energy.spans import union


class Assignment(NamedTuple):
    """A meter feeds a vehicle from `start` up to, and not including, `end`."""

    start: int
    end: int
    vehicle: str


def edges_of(assignments: Sequence[Assignment]) -> list[int]:
    """The instants at which one begins or ends."""
    return [edge for assignment in assignments for edge in (assignment.start, assignment.end)]


def changes_of(vehicle: str, assigned: Iterable[Sequence[Assignment]]) -> list[int]:
    """The instants at which one of these meters begins or ceases to feed a vehicle, in order."""
    own = [union(a[:2] for a in assignments if a.vehicle == vehicle) for assignments in assigned]
    return sorted({edge for spans in own for span in spans for edge in span})


class Shares(NamedTuple):
    """A meter's segments cut by its assignments."""

    of_vehicle: dict[str, list[Segment]]
    unassigned: list[Segment]


def divide(segments: Sequence[Segment], assignments: Sequence[Assignment]) -> Shares:
    """The parts of the segments, which add up to the whole. Assignments are in order, without overlap."""
    of_vehicle: dict[str, list[Segment]] = {}
    unassigned: list[Segment] = []
    first = 0
    for segment in segments:
        while first < len(assignments) and assignments[first].end <= segment.start:
            first += 1
        if (
            first < len(assignments)
            and assignments[first].start <= segment.start
            and segment.end <= assignments[first].end
        ):
            of_vehicle.setdefault(assignments[first].vehicle, []).append(segment)
            continue
        overlapping = _overlapping(segment, assignments, first)
        if not overlapping:
            unassigned.append(segment)
        for vehicle, part in _parts(segment, overlapping):
            of_vehicle.setdefault(vehicle, []).append(part)
    return Shares(of_vehicle, unassigned)


def _overlapping(segment: Segment, assignments: Sequence[Assignment], first: int) -> list[Assignment]:
    found: list[Assignment] = []
    for assignment in assignments[first:]:
        if assignment.start >= segment.end:
            break
        found.append(
            Assignment(max(assignment.start, segment.start), min(assignment.end, segment.end), assignment.vehicle)
        )
    return found


def _parts(segment: Segment, overlapping: Sequence[Assignment]) -> list[tuple[str, Segment]]:
    """The segment's energy over the assigned time alone, cut where the assignment changes."""
    assigned = sum(a.end - a.start for a in overlapping)
    parts: list[tuple[str, Segment]] = []
    passed = given = 0
    for start, end, vehicle in overlapping:
        passed += end - start
        units = segment.units * passed // assigned - given
        given += units
        parts.append((vehicle, Segment(start, end, units)))
    return parts
