"""A device's curve cut into buckets: figures that add up, over the buckets and over devices. Pure.

All figures are differences of what was reached at the buckets' edges, so those of adjacent buckets add up exactly to
those of the whole, wherever the edges are. The curve is that of the whole period: a register's highest value is carried
from bucket to bucket.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from operator import add, sub
from typing import NamedTuple

from api.energy.assignments import Assignment, divide
from api.energy.curve import Curve, Flow, Segment, straddling
from api.energy.spans import Span, intersection, union


class Figures(NamedTuple):
    """Of one bucket, for one device or the sum of several. Energies in units, times in microseconds."""

    measured: int = 0
    """Devices of which anything is known in the bucket."""
    inward: int = 0
    outward: int = 0
    boundary: int = 0
    """The whole energy of the segments across the bucket's edges."""
    suspect: int = 0
    resets: int = 0
    covered: int = 0
    """Of `expected`, the time in which energy is known."""
    expected: int = 0

    @property
    def net(self) -> int:
        return self.inward - self.outward

    def plus(self, other: "Figures") -> "Figures":
        """The sum, field by field."""
        return Figures(*map(add, self, other))


NOTHING = Figures()


def figures(curve: Curve, edges: Sequence[int], expected: Sequence[Span]) -> list[Figures]:
    """Of the bucket between each two edges, which are in order. `expected` is the time that should be covered."""
    columns = (
        _energies(curve.flow_in.segments, edges),
        _energies(curve.flow_out.segments, edges),
        [sum(straddling(flow.segments, Span(*bucket)) for flow in curve.flows) for bucket in pairwise(edges)],
        map(add, *(_energies(flow.suspect, edges) for flow in curve.flows)),
        map(add, *(_differences([bisect_right(flow.resets, edge) for edge in edges]) for flow in curve.flows)),
        _times(intersection(curve.covered, expected), edges),
        _times(expected, edges),
    )
    known = zip(_times(curve.covered, edges), _readings(curve.at, edges), columns[0], columns[1], strict=True)
    return [Figures(int(any(what)), *values) for what, *values in zip(known, *columns, strict=True)]


def share(curve: Curve, assignments: Sequence[Assignment], vehicle: str) -> Curve:
    """What of a meter's curve belongs to a vehicle: a curve again."""
    assigned = union(a[:2] for a in assignments if a.vehicle == vehicle)

    def of_flow(flow: Flow) -> Flow:
        segments, suspect = (
            divide(each, assignments).of_vehicle.get(vehicle, []) for each in (flow.segments, flow.suspect)
        )
        resets = [at for s in assigned for at in _within(flow.resets, s.start + 1, s.end + 1)]
        return Flow(segments, intersection(flow.covered, assigned), suspect, resets)

    at = [at for s in assigned for at in _within(curve.at, *s)]
    return Curve(of_flow(curve.flow_in), of_flow(curve.flow_out), intersection(curve.covered, assigned), at)


def unassigned(curve: Curve, assignments: Sequence[Assignment], edges: Sequence[int]) -> list[int]:
    """A meter's net energy in each bucket that belongs to no vehicle."""
    inward, outward = (_energies(divide(flow.segments, assignments).unassigned, edges) for flow in curve.flows)
    return list(map(sub, inward, outward))


def _within(times: Sequence[int], start: int, end: int) -> Sequence[int]:
    return times[bisect_left(times, start) : bisect_left(times, end)]


def _readings(times: Sequence[int], edges: Sequence[int]) -> list[int]:
    return _differences([bisect_left(times, edge) for edge in edges])


def _times(spans: Sequence[Span], edges: Sequence[int]) -> list[int]:
    """How much of the spans lies in each bucket."""
    return _energies([Segment(start, end, end - start) for start, end in spans], edges)


def _energies(segments: Sequence[Segment], edges: Sequence[int]) -> list[int]:
    """The energy in each bucket. Segments are in order, without overlap."""
    reached: list[int] = []
    before = n = 0
    for edge in edges:
        while n < len(segments) and segments[n].end <= edge:
            before += segments[n].units
            n += 1
        reached.append(before + (segments[n].until(edge) if n < len(segments) else 0))
    return _differences(reached)


def _differences(values: Sequence[int]) -> list[int]:
    return [after - before for before, after in pairwise(values)]
