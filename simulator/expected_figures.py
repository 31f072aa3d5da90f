"""The figures that the API must answer, by the names of its answers; `simulator.figures` has the rules.

A number is a `Fraction` or an `int`; None is what was not measured.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from simulator.figures import (
    Assigned,
    Curve,
    Part,
    Span,
    common,
    divided,
    due_until,
    energy,
    joined,
    length,
    straddling,
    without,
)

Figures = dict[str, Fraction | int | None]


@dataclass(frozen=True)
class Side:
    """What of a device belongs to the subject of a question: all that a vehicle measured, or its share of a meter."""

    id: str
    curve: Curve
    into: Sequence[Part]
    out: Sequence[Part]
    withheld: Sequence[Sequence[Part]]
    """Of each direction."""
    assigned: Sequence[Span]
    """When the meter fed the subject; of a device's own energy: always."""

    def net(self, start: int, end: int) -> Fraction:
        return energy(self.into, start, end) - energy(self.out, start, end)

    @cached_property
    def covered(self) -> list[Span]:
        """Where its energy is known, in the assigned time."""
        return self.curve.covered if self.assigned is _ALWAYS else common(self.curve.covered, self.assigned)

    def moved(self, start: int, end: int) -> Fraction:
        """Energy in both directions."""
        return energy(self.into, start, end) + energy(self.out, start, end)

    def suspect(self, start: int, end: int) -> Fraction:
        """Energy that was withheld."""
        return sum((energy(parts, start, end) for parts in self.withheld), Fraction())

    def boundary(self, start: int, end: int) -> Fraction:
        return straddling(self.into, start, end) + straddling(self.out, start, end)

    def resets(self, start: int, end: int) -> int:
        """Resets that were found in the assigned time after `start`, up to and including `end`."""
        spans = [(max(start, s.start), min(end, s.end)) for s in self.assigned]
        found = [at for flow in (self.curve.into, self.curve.out) for at in flow.resets]
        return sum(first < at <= last for first, last in spans for at in found)

    def is_known(self, start: int, end: int) -> bool:
        """Whether anything of it was measured in this time."""
        spans = [(max(start, s.start), min(end, s.end)) for s in self.assigned]
        known = any(first < last and self.curve.is_known(first, last) for first, last in spans)
        return known or self.moved(start, end) > 0


_ALWAYS = [Span(-(2**62), 2**62)]


def own_side(device: str, curve: Curve) -> Side:
    """All that a device measured."""
    withheld = [curve.into.withheld, curve.out.withheld]
    return Side(device, curve, curve.into.parts, curve.out.parts, withheld, _ALWAYS)


def share_of(meter: str, curve: Curve, assignments: Sequence[Assigned], vehicle: str | None) -> Side:
    """A vehicle's share of a meter; of None: what belongs to no vehicle."""
    into, out = (divided(flow.parts, assignments, vehicle) for flow in (curve.into, curve.out))
    withheld = [divided(flow.withheld, assignments, vehicle) for flow in (curve.into, curve.out)]
    assigned = joined(a[:2] for a in assignments if a.vehicle is not None and vehicle in (None, a.vehicle))
    return Side(meter, curve, into, out, withheld, without(_ALWAYS, assigned) if vehicle is None else assigned)


def bucket_of_vehicle(own: Side, shares: Sequence[Side], start: int, end: int, due: int) -> Figures:
    """An item of `of=vehicles`; `due` is until when the vehicle should be covered."""
    both = [own, *shares]
    is_known = own.is_known(start, end)
    return {
        "kwhAc": _sum(shares, start, end),
        "kwhDc": own.net(start, end) if is_known else None,
        "kwhIn": energy(own.into, start, end) if is_known else None,
        "kwhOut": energy(own.out, start, end) if is_known else None,
        "coverage": _coverage(own, start, end, due),
        "boundaryKwh": sum((side.boundary(start, end) for side in both), Fraction()),
        "suspectKwh": _suspect(both, start, end),
        "resets": sum(side.resets(start, end) for side in both),
    }


def bucket_of_meter(own: Side, unassigned: Side, start: int, end: int, due: int) -> Figures:
    """An item of `of=meters`."""
    is_known = own.is_known(start, end)
    return {
        "kwhAc": own.net(start, end) if is_known else None,
        "kwhIn": energy(own.into, start, end) if is_known else None,
        "kwhOut": energy(own.out, start, end) if is_known else None,
        "coverage": _coverage(own, start, end, due),
        "boundaryKwh": own.boundary(start, end),
        "suspectKwh": _suspect([own], start, end),
        "unassignedKwh": unassigned.net(start, end) if is_known else None,
        "resets": own.resets(start, end),
    }


def changes_of(vehicle: str, meters: Iterable[Sequence[Assigned]]) -> list[int]:
    """When a vehicle's meters begin and cease to feed it, by the assignments of each."""
    own = [joined(a[:2] for a in assigned if a.vehicle == vehicle) for assigned in meters]
    return [at for spans in own for span in spans for at in span]


def performance(
    own: Side, shares: Sequence[Side], unassigned: Sequence[Side], changes: Sequence[int], period: Span, now: int
) -> Figures:
    """The answer about a vehicle whose meters in the period are those of `shares`."""
    start, end = period
    both = [own, *shares]
    due = [(share, due_until(share.curve, period, now)) for share in shares]
    wanted = sum(length(share.assigned, start, until) for share, until in due)
    covered = sum(length(share.covered, start, until) for share, until in due)
    charged, discharged = (_compared(own, shares, changes, period, outward=outward) for outward in (False, True))
    return {
        "totalKwhConsumedAc": _sum(shares, start, end),
        "totalKwhDeliveredDc": own.net(start, end) if own.is_known(start, end) else None,
        "chargeKwhAc": charged[0],
        "chargeKwhDc": charged[1],
        "dischargeKwhAc": discharged[0],
        "dischargeKwhDc": discharged[1],
        "dcCoverage": _coverage(own, start, end, due_until(own.curve, period, now)),
        "acCoverage": Fraction(covered, wanted) if wanted else None,
        "boundaryKwh": sum((side.boundary(start, end) for side in both), Fraction()),
        "suspectKwh": _suspect(both, start, end),
        "unassignedKwh": sum((side.net(start, end) for side in unassigned), Fraction()),
        "resets": sum(side.resets(start, end) for side in both),
    }


def session(own: Side | None, shares: Sequence[Side], span: Span) -> Figures:
    """The figures of a session in which these meters took part."""
    both = [*shares, *([own] if own is not None else [])]
    return {
        "kwhAc": sum((share.net(*span) for share in shares), Fraction()) if shares else None,
        "kwhDc": own.net(*span) if own is not None and own.is_known(*span) else None,
        "suspectKwh": _suspect(both, *span),
        "resets": sum(
            span.start < at <= span.end
            for side in both
            for flow in (side.curve.into, side.curve.out)
            for at in flow.resets
        ),
    }


def _compared(
    own: Side, shares: Sequence[Side], changes: Sequence[int], period: Span, *, outward: bool
) -> tuple[Fraction, Fraction]:
    """AC and DC over the time in which a meter has energy of a direction, and all that are assigned, and the vehicle,
    are covered; without the intervals in which the vehicle's meters change."""
    flows = [share.out if outward else share.into for share in shares]
    time = common(common(joined(p[:2] for parts in flows for p in parts), [period]), own.curve.covered)
    for share in shares:
        time = without(time, without(share.assigned, share.covered))
    parts = [part for side in (own, *shares) for flow in (side.curve.into, side.curve.out) for part in flow.parts]
    time = without(time, joined(part[:2] for part in parts if any(part.start < at < part.end for at in changes)))
    dc = own.out if outward else own.into
    return (
        sum((energy(parts, *span) for parts in flows for span in time), Fraction()),
        sum((energy(dc, *span) for span in time), Fraction()),
    )


def _sum(sides: Sequence[Side], start: int, end: int) -> Fraction | None:
    """Their net energy together, if any of it was measured."""
    known = [side.net(start, end) for side in sides if side.is_known(start, end)]
    return sum(known, Fraction()) if known else None


def _coverage(side: Side, start: int, end: int, due: int) -> Fraction | None:
    until = min(end, due)
    return Fraction(length(side.covered, start, until), until - start) if until > start else None


def _suspect(sides: Sequence[Side], start: int, end: int) -> Fraction:
    return sum((side.suspect(start, end) for side in sides), Fraction())
