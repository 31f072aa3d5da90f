"""The sessions of a vehicle, and of a meter that feeds none, with the figures of each. Pure.

`api.energy.stretches` says when they are; here is what flowed in that time. The energy of the sessions and the energy
outside of them add up to the period's, because both are differences of the same curves.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from api.energy.curve import Segment, energy_in, overlapping
from api.energy.efficiency import Side, compare, divided
from api.energy.performance import Feed, Measured
from api.energy.spans import Span, difference, duration, intersection, union
from api.energy.stretches import LONGEST_PAUSE_US, Points, charging, drawing, flows, signed
from api.energy.units import UNITS_PER_KWH, US_PER_S, kwh_of

ALGORITHM = "inflow", 3
"""Name and version. The version rises when the same readings would give other sessions or figures."""
_HOUR_US = 3600 * US_PER_S
LEAST_UNITS = UNITS_PER_KWH // 10
"""What moves no more than 0.1 kWh is a step of a register or stand-by, unless it reaches the period's edge."""


@dataclass(frozen=True)
class Unassigned(Feed):
    """A meter in the time in which it feeds no vehicle; `vehicle_id` is empty."""

    @cached_property
    def assigned(self) -> list[Span]:
        return difference([self.period], union(a[:2] for a in self.assignments))

    @property
    def inward(self) -> list[Segment]:
        return self.shares[0].unassigned

    @property
    def outward(self) -> list[Segment]:
        return self.shares[1].unassigned

    @property
    def withheld(self) -> list[list[Segment]]:
        return [shares.unassigned for shares in self.suspect_shares]


@dataclass(frozen=True)
class Party:
    """Whose sessions are asked for: a vehicle with the meters that feed it, or one meter in its unassigned time."""

    vehicle_id: str | None
    vehicle: Measured | None
    feeds: Sequence[Feed]
    changes: Sequence[int]
    """When an assignment to the vehicle begins or ends, also before and after the period."""
    period: Span

    @property
    def own(self) -> Measured | None:
        """What the vehicle measured, if it has ever reported."""
        return self.vehicle if self.vehicle is not None and self.vehicle.is_known else None

    def sessions(self) -> list["Session"]:
        """In the order of time."""
        return [session for span in self._spans() if (session := self._session(span)).is_worth_listing]

    def near_flow(self) -> list[Span]:
        """The time near to a flow of energy: from the longest pause before it to the longest pause after it, inclusive.

        A flow out of the vehicle at no meter is no such flow: driving matters only where it is near to another one,
        and there its readings are read. Elsewhere a sum says that the vehicle drove in a quarter hour.

        The sessions are the same from any curves that have the readings of this time, and sums of readings elsewhere
        (`curve.Reading`). A sum without energy has no segment, and covers what its readings cover; no reset and no
        withheld energy is in a sum. A session consists of segments and pauses, so it and the time around it in which
        its gauges are looked for are near a flow; so is a run of inflow, whose odometer tells recuperation. Sums with
        energy, but for driving, are near themselves, and their readings have energy only where the sums had it.
        """
        own = [] if self.vehicle is None else [self.vehicle.curve.flow_in.segments]
        fed = [segments for feed in self.feeds for segments in (feed.inward, feed.outward)]
        return union(
            (segment.start - LONGEST_PAUSE_US, segment.end + LONGEST_PAUSE_US + 1)
            for segments in [*own, *fed]
            for segment in segments
        )

    def _spans(self) -> list[Span]:
        ac = [signed(feed.inward, feed.outward) for feed in self.feeds]
        changes = sorted({edge for feed in self.feeds for span in feed.assigned for edge in span})
        if self.vehicle is None:
            return drawing(ac[0], changes, self.period)
        inward, outward = self.vehicle.curve.flows
        odometer = self.vehicle.gauges.get("odometerKm", ())
        return charging(signed(inward.segments, outward.segments), ac, changes, odometer, self.period)

    def _session(self, span: Span) -> "Session":
        return Session(self, span, [feed for feed in self.feeds if _took_part(feed, span)])


@dataclass(frozen=True)
class Session:
    """One session; energies are units, times microseconds since the period's start."""

    party: Party
    span: Span
    feeds: Sequence[Feed]
    """The meters that took part."""

    @property
    def meter_ids(self) -> list[str]:
        return [feed.meter_id for feed in self.feeds]

    @cached_property
    def ac(self) -> int | None:
        """Net energy from the meters that took part; None without any."""
        return sum(_net(feed.inward, feed.outward, self.span) for feed in self.feeds) if self.feeds else None

    @cached_property
    def dc(self) -> int | None:
        """Net energy into the battery; None where it was not measured."""
        if self.party.own is None:
            return None
        curve = self.party.own.curve
        inward, outward = curve.flow_in.segments, curve.flow_out.segments
        # Energy beside a direction that is withheld is not covered, but it is there and counts.
        return _net(inward, outward, self.span) or curve.net(inward, outward, [self.span])

    @property
    def is_worth_listing(self) -> bool:
        """Whether it moved more than a step of a register, or may be a part of a session that did."""
        period = self.party.period
        reaches_edge = self.span.start <= period.start or self.span.end >= period.end
        return reaches_edge or sum(energy_in(own, [self.span]) for pair in self._flows for own in pair) > LEAST_UNITS

    @property
    def _flows(self) -> list[tuple[Sequence[Segment], Sequence[Segment]]]:
        """Energy in and out of each meter that took part; without any, of the vehicle."""
        if self.feeds or self.party.own is None:
            return [(feed.inward, feed.outward) for feed in self.feeds]
        inward, outward = self.party.own.curve.flows
        return [(inward.segments, outward.segments)]

    @property
    def efficiency(self) -> float | None:
        """DC / AC over the time in which both sides are covered, as `api.energy.efficiency` has it."""
        if self.party.own is None or not self.feeds:
            return None
        curve = self.party.own.curve
        sides = [
            Side(overlapping(feed.inward, *self.span), feed.assigned, feed.measured.curve) for feed in self.party.feeds
        ]
        compared = compare(curve, curve.flow_in.segments, sides, self.party.changes, self.span)
        return compared.dc / compared.ac if compared.ac else None

    @property
    def mean_kw(self) -> float:
        """Of the meters, else of the vehicle."""
        return _kw((self.dc or 0) if self.ac is None else self.ac, self.span)

    @property
    def peak_kw(self) -> float:
        """The highest power that the one meter, else the vehicle, reported; without any the highest mean power of a
        segment. Where energy only flowed back, the lowest."""
        measured: list[Measured | None] = [feed.measured for feed in self.feeds] or [self.party.own]
        reported = measured[0].gauges.get("powerKw", ()) if len(measured) == 1 and measured[0] else ()
        powers = [value for _, value in _between(reported, self.span)] or [_kw(s.units, s) for s in self._segments]
        return max(powers) if max(powers) > 0 else min(powers)

    @property
    def _segments(self) -> list[Segment]:
        """What flowed, of several meters together: whole intervals, also where an assignment covers a part of one."""
        span = self.span
        curves = [feed.measured.curve for feed in self.feeds]
        if not curves and self.party.own is not None:
            curves = [self.party.own.curve]
        flows = ([overlapping(flow.segments, *span) for flow in curve.flows] for curve in curves)
        own = [signed(inward, outward) for inward, outward in flows]
        if len(own) == 1:
            return own[0]
        edges = sorted({min(max(at, span.start), span.end) for segments in own for s in segments for at in s[:2]})
        spans = [Span(*pair) for pair in pairwise(edges)]
        return [Segment(*span, sum(energy_in(segments, [span]) for segments in own)) for span in spans]

    def at_begin(self, gauge: str) -> float | None:
        """The vehicle's gauge: the last value at or before the begin, else the first one in the session."""
        before = _between(self._points(gauge), Span(self.span.start - LONGEST_PAUSE_US, self.span.start))
        within = _between(self._points(gauge), self.span)
        return before[-1][1] if before else within[0][1] if within else None

    def at_end(self, gauge: str) -> float | None:
        """The vehicle's gauge: the first value at or after the end, else the last one in the session."""
        after = _between(self._points(gauge), Span(self.span.end, self.span.end + LONGEST_PAUSE_US))
        within = _between(self._points(gauge), self.span)
        return after[0][1] if after else within[-1][1] if within else None

    def _points(self, gauge: str) -> Points:
        return () if self.party.own is None else self.party.own.gauges.get(gauge, ())

    @property
    def coverage(self) -> float:
        """The part of the time in which the vehicle, if it reports at all, and the meters are covered."""
        known = [self.span]
        for covered in self._covered:
            known = intersection(known, covered)
        return duration(known) / (self.span.end - self.span.start)

    @property
    def _covered(self) -> list[list[Span]]:
        own = [] if self.party.own is None else [self.party.own.curve.covered]
        return own + [feed.covered for feed in self.feeds]

    @property
    def is_open_at_start(self) -> bool:
        """Whether it may have begun earlier: it reaches the period's edge, or nothing is known of the time before."""
        return self.span.start <= self.party.period.start or not self._is_known(self.span.start - 1)

    @property
    def is_open_at_end(self) -> bool:
        """Whether it may have gone on: it reaches the period's edge, or nothing is known of the time after."""
        return self.span.end >= self.party.period.end or not self._is_known(self.span.end)

    def _is_known(self, at: int) -> bool:
        """Whether one of those who took part is covered in this microsecond."""
        covered = [feed.covered for feed in self.feeds]
        if self.party.own is not None and self.dc:
            covered.append(self.party.own.curve.covered)
        return any(intersection([Span(at, at + 1)], spans) for spans in covered)

    @property
    def resets(self) -> int:
        """Resets of the registers of those who took part."""
        own = 0 if self.party.own is None else self.party.own.curve.resets([self.span])
        return own + sum(feed.measured.curve.resets([self.span]) for feed in self.feeds)

    @property
    def divided(self) -> int:
        """The whole energy of the intervals of meters, in the session, in which an assignment begins or ends."""
        return sum(
            segment.units
            for feed in self.feeds
            for flow in feed.measured.curve.flows
            for segment in divided(overlapping(flow.segments, *self.span), feed.changes)
        )

    @property
    def suspect(self) -> int:
        """The energy that was withheld, of the vehicle and the meters that took part."""
        own = [] if self.party.own is None else [flow.suspect for flow in self.party.own.curve.flows]
        withheld = own + [segments for feed in self.feeds for segments in feed.withheld]
        return sum(energy_in(segments, [self.span]) for segments in withheld)


def _took_part(feed: Feed, span: Span) -> bool:
    """Whether more than stand-by flowed through the meter."""
    return any(flows(s) for segments in (feed.inward, feed.outward) for s in overlapping(segments, *span))


def _net(inward: Sequence[Segment], outward: Sequence[Segment], span: Span) -> int:
    return energy_in(inward, [span]) - energy_in(outward, [span])


def _between(points: Points, span: Span) -> Points:
    """The values from the begin to the end, both included."""
    return points[bisect_left(points, (span.start,)) : bisect_left(points, (span.end + 1,))]


def _kw(units: int, span: Span | Segment) -> float:
    return kwh_of(units) * _HOUR_US / (span.end - span.start)
