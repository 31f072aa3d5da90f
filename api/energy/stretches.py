"""When a vehicle was charging: the time of its sessions, from what flowed in and out on both sides. Pure.

A session is a maximal stretch of time in which energy flows into the vehicle, or to and from it at an assigned meter,
with pauses of up to 15 minutes. Driving and a change of the assigned meters end it. Recuperation is none: inflow at no
meter that is short and near driving, or while the odometer rises.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise

from api.energy.curve import Segment, energy_in
from api.energy.spans import Span, difference, duration, intersection, overlaps, union, within

MINUTE_US = 60_000_000
LONGEST_PAUSE_US = 15 * MINUTE_US
"""A longer pause ends a session."""
LONGEST_RECUPERATION_US = 5 * MINUTE_US
"""Inflow near driving is recuperation up to this time; without driving near it, never."""
LEAST_DRIVEN_KM = 1.0
"""Inflow in which the odometer rises by this much is recuperation, however long it is."""
IDLE_UNITS_PER_US = 1000, 36
"""0.1 kW: a lower mean power is the stand-by of a meter or a parked vehicle, neither charging nor driving."""

Points = Sequence[tuple[int, float]]


def signed(inward: Sequence[Segment], outward: Sequence[Segment]) -> list[Segment]:
    """Both directions as one: + in, - out. Where both flow at a time, as registers have it, their difference."""
    both = sorted([*inward, *(Segment(start, end, -units) for start, end, units in outward)])
    if all(one.end <= other.start for one, other in pairwise(both)):
        return both
    edges = sorted({edge for start, end, _ in both for edge in (start, end)})
    return [
        Segment(*span, energy_in(inward, [span]) - energy_in(outward, [span])) for span in map(_span, pairwise(edges))
    ]


def charging(
    dc: Sequence[Segment],
    ac: Iterable[Sequence[Segment]],
    changes: Sequence[int],
    odometer: Points,
    period: Span,
) -> list[Span]:
    """The time of a vehicle's sessions in a period, in order.

    `dc` is its own energy, `ac` that of each meter while assigned to it, both as `signed`; `changes` are the instants
    at which the meters that are assigned to it change.
    """
    meters = list(ac)
    fed_back = union(s[:2] for own in meters for s in own if _flows_out(s))
    at_meter = union([*fed_back, *(s[:2] for own in meters for s in own if _flows_in(s))])
    inward = [Span(*s[:2]) for s in dc if _flows_in(s)]
    outward = [Span(*s[:2]) for s in dc if _flows_out(s)]
    to_grid = [span for span in outward if 2 * duration(within(span, fed_back)) >= span.end - span.start]
    driving = difference(difference(union(outward), union(to_grid)), at_meter)
    known = {span for span in inward if overlaps(span, at_meter)}
    alone = union(span for span in inward if span not in known)
    elsewhere = _without_recuperation(alone, driving, at_meter, odometer)
    active = difference(union([*at_meter, *to_grid, *known, *elsewhere]), driving)
    own = sorted([*inward, *to_grid])
    cuts = [_moved(at, own, at_meter) for at in changes]
    return joined(intersection(active, [period]), driving, cuts)


def drawing(ac: Sequence[Segment], changes: Sequence[int], period: Span) -> list[Span]:
    """The time of the sessions of a meter that feeds no vehicle; energy that flows back ends them."""
    active = intersection(union(s[:2] for s in ac if _flows_in(s)), [period])
    return joined(active, union(s[:2] for s in ac if _flows_out(s)), changes)


def joined(active: Sequence[Span], ends: Sequence[Span], cuts: Iterable[int]) -> list[Span]:
    """Active time across its pauses, unless something that ends a session lies in the pause; divided at the cuts."""
    instants = sorted(cuts)
    found: list[Span] = []
    for span in _cut(active, instants):
        last = found[-1] if found else None
        if last is not None and span.start - last.end <= LONGEST_PAUSE_US and not _ended(last, span, ends, instants):
            found[-1] = Span(last.start, span.end)
        else:
            found.append(span)
    return found


def _ended(before: Span, after: Span, ends: Sequence[Span], cuts: Sequence[int]) -> bool:
    """Whether there is an end between two spans."""
    cut = bisect_left(cuts, before.end)
    if cut < len(cuts) and cuts[cut] <= after.start:
        return True
    return overlaps(Span(before.end, after.start), ends)


def _cut(spans: Sequence[Span], instants: Sequence[int]) -> Iterable[Span]:
    for start, end in spans:
        inner = instants[bisect_left(instants, start + 1) : bisect_left(instants, end)]
        yield from map(_span, pairwise([start, *dict.fromkeys(inner), end]))


def _without_recuperation(
    alone: Sequence[Span], driving: Sequence[Span], at_meter: Sequence[Span], odometer: Points
) -> list[Span]:
    """The inflow at no meter that is charging. It is judged with the inflow that only a pause separates from it."""
    kept: list[Span] = []
    for run in joined(alone, union([*driving, *at_meter]), ()):
        inflow = within(run, alone)
        near = Span(run.start - LONGEST_PAUSE_US, run.end + LONGEST_PAUSE_US)
        is_short = duration(inflow) <= LONGEST_RECUPERATION_US and overlaps(near, driving)
        if _borders(run, at_meter) or not (is_short or _driven_km(run, odometer) >= LEAST_DRIVEN_KM):
            kept += inflow
    return kept


def _moved(at: int, own: Sequence[Span], at_meter: Sequence[Span]) -> int:
    """Where a change of the assigned meters cuts.

    An interval of the vehicle is not cut where meters have nothing on one side of the change: the rest of it would
    be a session of its own.
    """
    n = bisect_left(own, (at,))
    if n == 0 or own[n - 1].end <= at:
        return at
    start, end = own[n - 1]
    before, after = overlaps(Span(start, at), at_meter), overlaps(Span(at, end), at_meter)
    if before == after:
        return at
    return end if before else start


def _driven_km(span: Span, odometer: Points) -> float:
    first, last = bisect_left(odometer, (span.start,)), bisect_left(odometer, (span.end + 1,))
    return odometer[last - 1][1] - odometer[first][1] if first < last else 0.0


def flows(segment: Segment) -> bool:
    """Whether it is more than stand-by."""
    return _flows_in(segment) or _flows_out(segment)


def _flows_in(segment: Segment) -> bool:
    return segment.units * IDLE_UNITS_PER_US[1] >= (segment.end - segment.start) * IDLE_UNITS_PER_US[0]


def _flows_out(segment: Segment) -> bool:
    return -segment.units * IDLE_UNITS_PER_US[1] >= (segment.end - segment.start) * IDLE_UNITS_PER_US[0]


def _borders(span: Span, others: Sequence[Span]) -> bool:
    """Whether one of a set begins or ends at the span's edge, or lies within."""
    return overlaps(Span(span.start - 1, span.end + 1), others)


def _span(pair: tuple[int, int]) -> Span:
    return Span(*pair)
