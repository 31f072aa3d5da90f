"""A vehicle over a period: its own energy, that of the meters that fed it, and what both rest on. Pure.

Times are microseconds since the period's start, energies units.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Literal, NamedTuple

from api.energy.assignments import Assignment, Shares, changes_of, divide
from api.energy.coverage import expected, ratio
from api.energy.curve import Curve, Device, Flow, Segment, energy_in, straddling
from api.energy.efficiency import Compared, Side, compare, divided, sums_about, sums_in
from api.energy.gauge import mean
from api.energy.interval import day_of
from api.energy.spans import Span, difference, intersection, union

IntervalSource = Literal["declared", "observed", "default"]
"""Where a device's interval comes from. An observed one is that of a UTC day."""


class Measured(NamedTuple):
    """What one device measured around a period."""

    curve: Curve
    device: Device
    times: list[int]
    """Of its readings in the period, with or without energy; of a sum that of its first reading."""
    points: list[tuple[int, float]]
    """Times and values of the gauge that was asked for."""
    is_known: bool
    """Whether it has ever reported."""
    gauges: Mapping[str, Sequence[tuple[int, float]]]
    """The same of further gauges by name, where a reading that was read anyway has them."""
    counts: Sequence[int] = ()
    """How many readings there are at each of the times; one where this is empty."""
    areas: Mapping[int, float] = {}
    """See `gauge.mean`."""
    is_declared: bool = False
    """Whether its interval is declared."""

    @property
    def interval_us(self) -> int:
        """The device interval as of its last reading in the period."""
        return self.device.interval_at(self.times[-1]) if self.times else self.device.interval_us

    @property
    def interval_source(self) -> IntervalSource:
        """Where that comes from."""
        if self.is_declared:
            return "declared"
        is_observed = self.times and day_of(self.times[-1], self.device.day_offset) in self.device.by_day
        return "observed" if is_observed else "default"

    def readings(self, span: Span) -> int:
        """How many readings of the period are in a span."""
        first, beyond = bisect_left(self.times, span.start), bisect_left(self.times, span.end)
        return sum(self.counts[first:beyond]) if self.counts else beyond - first


@dataclass(frozen=True)
class Feed:
    """A meter as one vehicle sees it."""

    meter_id: str
    measured: Measured
    vehicle_id: str
    assignments: Sequence[Assignment]
    """Of the meter, to all vehicles, in order."""
    period: Span
    now: int

    @cached_property
    def assigned(self) -> list[Span]:
        """When the meter fed the vehicle, within the period."""
        return intersection(union(a[:2] for a in self.assignments if a.vehicle == self.vehicle_id), [self.period])

    @cached_property
    def expected(self) -> list[Span]:
        """Of that time, what should be covered by now."""
        return intersection(self.assigned, expected(self.period, self.covered, self.now, self.measured.device))

    @property
    def covered(self) -> list[Span]:
        return self.measured.curve.covered

    @property
    def readings(self) -> int:
        """How many there are while the meter fed the vehicle."""
        return sum(self.measured.readings(span) for span in self.assigned)

    @cached_property
    def changes(self) -> list[int]:
        """When the meter begins or ceases to feed the vehicle, also before and after the period."""
        return changes_of(self.vehicle_id, [self.assignments])

    @cached_property
    def shares(self) -> tuple[Shares, Shares]:
        """The meter's energy in and out by vehicle."""
        inward, outward = self.measured.curve.flows
        return divide(inward.segments, self.assignments), divide(outward.segments, self.assignments)

    @cached_property
    def suspect_shares(self) -> tuple[Shares, Shares]:
        """The same of the energy that was withheld."""
        inward, outward = self.measured.curve.flows
        return divide(inward.suspect, self.assignments), divide(outward.suspect, self.assignments)

    @property
    def inward(self) -> list[Segment]:
        """What the vehicle drew."""
        return self.shares[0].of_vehicle.get(self.vehicle_id, [])

    @property
    def outward(self) -> list[Segment]:
        """What the vehicle fed back."""
        return self.shares[1].of_vehicle.get(self.vehicle_id, [])

    def net(self, spans: Sequence[Span]) -> int | None:
        """The vehicle's energy in these spans; None where it was not measured."""
        return self.measured.curve.net(self.inward, self.outward, spans)

    @property
    def divided(self) -> int:
        """The whole energy of the period's intervals in which an assignment to the vehicle begins or ends."""
        return sum(
            segment.units
            for flow in self.measured.curve.flows
            for segment in divided(flow.segments, self.changes)
            if intersection(self.assigned, [Span(segment.start, segment.end)])
        )

    @property
    def unassigned(self) -> int:
        """The meter's energy in the period that belongs to no vehicle."""
        inward, outward = (energy_in(shares.unassigned, [self.period]) for shares in self.shares)
        return inward - outward

    @property
    def withheld(self) -> list[list[Segment]]:
        """The energy in and out that was withheld from the vehicle."""
        return [shares.of_vehicle.get(self.vehicle_id, []) for shares in self.suspect_shares]

    @property
    def suspect(self) -> int:
        """The energy withheld from the vehicle in the period."""
        return sum(energy_in(segments, [self.period]) for segments in self.withheld)


@dataclass(frozen=True)
class Performance:
    """The figures of a vehicle."""

    vehicle: Measured
    feeds: Sequence[Feed]
    changes: Sequence[int]
    """When an assignment to the vehicle begins or ends, also before and after the period."""
    period: Span
    now: int
    detached_days: Sequence[date] = ()
    """Days whose readings exist but cannot be read at the moment."""

    @property
    def dc(self) -> int | None:
        """Net energy into the battery."""
        curve = self.vehicle.curve
        return curve.net(curve.flow_in.segments, curve.flow_out.segments, [self.period])

    @property
    def ac(self) -> int | None:
        """Net energy from the meters while they fed the vehicle."""
        measured = [units for feed in self.feeds if (units := feed.net([self.period])) is not None]
        return sum(measured) if measured else None

    @cached_property
    def charge(self) -> Compared:
        return self._compare_charge(self.changes)

    @cached_property
    def discharge(self) -> Compared:
        return self._compare(lambda feed: feed.outward, self.vehicle.curve.flow_out, self.changes)

    def _compare_charge(self, changes: Sequence[int]) -> Compared:
        return self._compare(lambda feed: feed.inward, self.vehicle.curve.flow_in, changes)

    def _compare(self, side: Callable[[Feed], list[Segment]], own: Flow, changes: Sequence[int]) -> Compared:
        sides = [Side(side(feed), feed.assigned, feed.measured.curve) for feed in self.feeds]
        return compare(self.vehicle.curve, own.segments, sides, changes, self.period)

    @property
    def too_coarse(self) -> dict[str | None, list[Span]]:
        """The sums of each meter, under None of the vehicle, that the comparison divides. Empty: all is exact."""
        found: dict[str | None, list[Span]] = {}
        for n, compared in enumerate((self.charge, self.discharge)):
            edges = [edge for span in compared.time for edge in span]
            found.setdefault(None, []).extend(divided(self.vehicle.curve.sums, edges))
            for feed in self.feeds:
                curve = feed.measured.curve
                patchy = sums_in(curve.sums, curve.flows[n].patchy, self.vehicle.curve.covered)
                found.setdefault(feed.meter_id, []).extend([*divided(curve.sums, edges), *patchy])
                found[None].extend(sums_about(self.vehicle.curve.sums, patchy))
        return {name: sums for name, sums in found.items() if sums}

    @property
    def no_efficiency(self) -> str | None:
        """Why charging has no efficiency; None when it has one."""
        if self.charge.ac:
            return None
        if not self.feeds:
            return "no meter was assigned to the vehicle in this period"
        if self.ac is None:
            return "the assigned meters have no readings in this period"
        if self.dc is None:
            return "the vehicle has no readings in this period"
        if not any(energy_in(feed.inward, [self.period]) for feed in self.feeds):
            return "the meters drew no AC energy in this period"
        if self._compare_charge(()).ac:
            return "an assignment begins or ends within each interval in which the meters drew energy"
        return "the vehicle's readings do not cover any time in which the meters drew energy"

    @property
    def mean_gauge(self) -> float | None:
        return mean(self.vehicle.points, *self.period, self.vehicle.device, self.vehicle.areas)

    @cached_property
    def _expected_dc(self) -> list[Span]:
        return expected(self.period, self.vehicle.curve.covered, self.now, self.vehicle.device)

    @property
    def dc_coverage(self) -> float | None:
        return ratio(self.vehicle.curve.covered, self._expected_dc)

    @property
    def ac_coverage(self) -> float | None:
        """Of all meters together; None without a meter."""
        wanted = sum(span.end - span.start for feed in self.feeds for span in feed.expected)
        missing = sum(gap.end - gap.start for meter_id, gap in self.gaps if meter_id is not None)
        return 1 - missing / wanted if wanted else None

    @cached_property
    def gaps(self) -> list[tuple[str | None, Span]]:
        """Where energy is not known: the meter, None for the vehicle itself, and the time."""
        found: list[tuple[str | None, Span]] = [
            (None, gap) for gap in difference(self._expected_dc, self.vehicle.curve.covered)
        ]
        found += [(feed.meter_id, gap) for feed in self.feeds for gap in difference(feed.expected, feed.covered)]
        return found

    @property
    def boundary(self) -> int:
        """The energy of the intervals across the period's edges."""
        own = [flow.segments for flow in self.vehicle.curve.flows]
        fed = [parts for feed in self.feeds for parts in (feed.inward, feed.outward)]
        return sum(straddling(segments, self.period) for segments in [*own, *fed])

    @property
    def divided(self) -> int:
        """The energy of the intervals of meters in which an assignment to the vehicle begins or ends."""
        return sum(feed.divided for feed in self.feeds)

    @property
    def suspect(self) -> int:
        """The energy that was withheld."""
        own = sum(energy_in(flow.suspect, [self.period]) for flow in self.vehicle.curve.flows)
        return own + sum(feed.suspect for feed in self.feeds)

    @property
    def resets(self) -> int:
        own = self.vehicle.curve.resets([self.period])
        return own + sum(feed.measured.curve.resets(feed.assigned) for feed in self.feeds)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing, withheld or lost in a reset."""
        missing = self.gaps or self.detached_days
        return bool(self._expected_dc) and not missing and not self.suspect and not self.resets
