"""Efficiency compares energy of the same time: nothing of an interval in which an assignment begins or ends."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import cycle, pairwise
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.energy.assignments import Assignment, changes_of
from api.energy.curve import Device, Reading, curve_of
from api.energy.performance import Feed, Measured, Performance
from api.energy.sessions import Party
from api.energy.spans import Span
from api.energy.units import UNITS_PER_KWH, units_of

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
FIVE, QUARTER = 5 * MINUTE, 15 * MINUTE
MINUTELY, QUARTERLY = Device(MINUTE, 500), Device(QUARTER, 1000)
WHOLE = Span(0, HOUR)


def intervals(*values: float, step: int = MINUTE, first: int | None = None) -> list[Reading]:
    """Interval readings, one a step, the first one at the end of the first step unless it is said otherwise."""
    return [Reading((step if first is None else first) + n * step, units_of(value)) for n, value in enumerate(values)]


def measured(readings: Sequence[Reading], device: Device) -> Measured:
    return Measured(curve_of(readings, device), device, [r.at for r in readings], [], True, {})


class Meter(NamedTuple):
    readings: Sequence[Reading]
    assigned: Sequence[tuple[int, int, str]]
    device: Device = MINUTELY


def performance(dc: Sequence[Reading], *meters: Meter, period: Span = WHOLE, own: Device = MINUTELY) -> Performance:
    """Vehicle V with its meters."""
    assigned = [[Assignment(*one) for one in meter.assigned] for meter in meters]
    feeds = [
        Feed(f"M{n}", measured(meter.readings, meter.device), "V", given_to, period, DAY)
        for n, (meter, given_to) in enumerate(zip(meters, assigned, strict=True))
    ]
    return Performance(measured(dc, own), feeds, changes_of("V", assigned), period, DAY)


def charge(figures: Performance) -> tuple[float, float]:
    """AC and DC, kWh."""
    return figures.charge.ac / UNITS_PER_KWH, figures.charge.dc / UNITS_PER_KWH


HALF = MINUTE // 2


def test_interval_in_which_an_assignment_begins_is_not_compared() -> None:
    """The charge begins with the assignment, in the middle of a minute of the meter and of one of the vehicle."""
    ac = intervals(0.0, 0.5, *[1.0] * 8, first=HALF)
    dc = intervals(0.0, 0.675, *[0.9] * 8, first=HALF + MINUTE // 4)
    figures = performance(dc, Meter(ac, [(MINUTE, DAY, "V")]))
    assert charge(figures) == pytest.approx((7.75, 6.975))
    assert figures.ac == units_of(8.5)


def test_interval_in_which_an_assignment_ends_is_not_compared() -> None:
    ac = intervals(*[1.0] * 8, 0.5, 0.0, first=HALF)
    dc = intervals(*[0.9] * 8, 0.225, 0.0, first=HALF + MINUTE // 4)
    figures = performance(dc, Meter(ac, [(-DAY, 8 * MINUTE, "V")]))
    assert charge(figures) == pytest.approx((7.5, 6.75))
    assert figures.ac == units_of(8.0)


def test_interval_across_a_hand_over_is_compared_with_neither_vehicle() -> None:
    ac = Meter(
        intervals(6.0, 6.0, 9.0, step=QUARTER), [(-DAY, QUARTER + FIVE, "A"), (QUARTER + FIVE, DAY, "V")], QUARTERLY
    )
    dc = intervals(*[0.0] * 20, *[0.54] * 25)
    assert charge(performance(dc, ac)) == pytest.approx((9.0, 8.1))
    other = ac._replace(assigned=[(start, end, {"A": "V"}.get(vehicle, "B")) for start, end, vehicle in ac.assigned])
    assert charge(performance(intervals(*[0.36] * 20, *[0.0] * 25), other)) == pytest.approx((6.0, 5.4))


def test_interval_beside_a_gap_between_assignments_is_not_compared() -> None:
    """From minute 15 to 30 the meter feeds V for five minutes, nobody for five minutes, and V again."""
    ac = Meter(intervals(6.0, 6.0, 6.0, step=QUARTER), [(-DAY, 20 * MINUTE, "V"), (25 * MINUTE, DAY, "V")], QUARTERLY)
    assert charge(performance(intervals(*[0.36] * 45), ac)) == pytest.approx((12.0, 10.8))


def test_assignment_that_follows_itself_changes_nothing() -> None:
    ac = Meter(intervals(6.0, 6.0, step=QUARTER), [(-DAY, 20 * MINUTE, "V"), (20 * MINUTE, DAY, "V")], QUARTERLY)
    assert charge(performance(intervals(*[0.36] * 30), ac)) == pytest.approx((12.0, 10.8))


def test_interval_of_the_vehicle_across_a_change_of_its_meters_is_not_compared() -> None:
    """A vehicle that sends each quarter of an hour, at meters that send each minute."""
    first = Meter(intervals(*[0.4] * 20, *[0.0] * 25), [(-DAY, 20 * MINUTE, "V")])
    second = Meter(intervals(*[0.0] * 20, *[1.0] * 25), [(20 * MINUTE, DAY, "V")])
    figures = performance(intervals(5.4, 11.0, 13.5, step=QUARTER), first, second, own=QUARTERLY)
    assert charge(figures) == pytest.approx((6.0 + 15.0, 5.4 + 13.5))


def test_change_outside_of_the_period_counts() -> None:
    """Else the figures of two adjacent periods would not add up to those of both."""
    meters = [
        Meter(intervals(*[0.4] * 20, *[0.0] * 25), [(-DAY, 20 * MINUTE, "V")]),
        Meter(intervals(*[0.0] * 20, *[1.0] * 25), [(20 * MINUTE, DAY, "V")]),
    ]
    dc = intervals(5.4, 11.0, 13.5, step=QUARTER)
    parts = [
        performance(dc, *meters, period=Span(*span), own=QUARTERLY)
        for span in ((0, 25 * MINUTE), (25 * MINUTE, HOUR), (0, HOUR))
    ]
    acs, dcs = zip(*map(charge, parts), strict=True)
    assert (acs[0] + acs[1], dcs[0] + dcs[1]) == pytest.approx((acs[2], dcs[2]))


def test_reason_when_an_assignment_cuts_all_that_was_drawn() -> None:
    ac = Meter(intervals(0.0, 6.0, step=QUARTER), [(20 * MINUTE, DAY, "V")], QUARTERLY)
    figures = performance(intervals(*[0.0] * 20, *[0.54] * 10), ac)
    assert charge(figures) == (0, 0)
    assert figures.no_efficiency == "an assignment begins or ends within each interval in which the meters drew energy"


def test_session_has_the_efficiency_of_what_no_assignment_cuts() -> None:
    ac = intervals(0.0, 0.5, *[1.0] * 8, first=HALF)
    dc = intervals(0.0, 0.675, *[0.9] * 8, first=HALF + MINUTE // 4)
    figures = performance(dc, Meter(ac, [(MINUTE, DAY, "V")]))
    (session,) = Party("V", figures.vehicle, figures.feeds, figures.changes, figures.period).sessions()
    assert session.ac == units_of(8.5)
    assert session.efficiency == pytest.approx(0.9, rel=1e-9)


# -- an independent computation, half a minute by half a minute

TICKS = 90


class Drawn(NamedTuple):
    """A device's interval readings in ticks of half a minute: (time, energy), and how often it sends."""

    readings: Sequence[tuple[int, int]]
    step: int

    def parts(self) -> list[tuple[int, int, int]]:
        """Begin, end and energy of each interval."""
        before = [None, *(at for at, _ in self.readings)]
        return [
            (last if last is not None and 2 * (at - last) <= 3 * self.step else at - self.step, at, energy)
            for last, (at, energy) in zip(before, self.readings, strict=False)
        ]


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    step = draw(st.sampled_from([2, 2, 6, 30]))
    first = draw(st.integers(1, step))
    at = range(first, TICKS, step)
    energies = draw(st.lists(st.sampled_from([None, 0, 360_360, 720_720, -360_360]), min_size=3, max_size=12))
    return Drawn([(n, e) for n, e in zip(at, cycle(energies), strict=False) if e is not None], step)


@st.composite
def assigned(draw: st.DrawFn) -> list[tuple[int, int, str]]:
    edges = sorted(draw(st.sets(st.integers(0, TICKS), max_size=6)))
    who = [draw(st.sampled_from(["V", "V", "W", ""])) for _ in edges]
    return [(start, end, vehicle) for (start, end), vehicle in zip(pairwise(edges), who, strict=False) if vehicle]


def model(
    vehicle: Drawn, meters: Sequence[tuple[Drawn, Sequence[tuple[int, int, str]]]], period: tuple[int, int], sign: int
) -> tuple[Fraction, Fraction]:
    """AC and DC that are compared."""

    def feeds(given_to: Sequence[tuple[int, int, str]], tick: int) -> bool:
        return any(start <= tick < end and vehicle == "V" for start, end, vehicle in given_to)

    changes = {n for _, own in meters for n in range(TICKS + 1) if feeds(own, n - 1) != feeds(own, n)}

    def at(device: Drawn, tick: int) -> tuple[int, int, int] | None:
        return next((part for part in device.parts() if part[0] <= tick < part[1]), None)

    def is_cut(part: tuple[int, int, int] | None) -> bool:
        return part is not None and part[2] != 0 and any(part[0] < n < part[1] for n in changes)

    ac = dc = Fraction()
    for tick in range(*period):
        own, fed = at(vehicle, tick), [(at(device, tick), given_to) for device, given_to in meters]
        if own is None or is_cut(own) or any(is_cut(part) for part, _ in fed):
            continue
        mine = [part for part, given_to in fed if feeds(given_to, tick)]
        drew = [part[2] * sign for part in mine if part is not None]
        if None in mine or not any(energy > 0 for energy in drew):
            continue
        ac += sum(Fraction(max(0, p[2] * sign), p[1] - p[0]) for p in mine if p is not None)
        dc += Fraction(max(0, own[2] * sign), own[1] - own[0])
    return ac, dc


@given(
    drawn(),
    st.lists(st.tuples(drawn(), assigned()), min_size=1, max_size=2),
    st.tuples(st.integers(0, TICKS // 2), st.integers(TICKS // 2, TICKS)),
)
def test_compared_energy_is_that_of_the_model(
    vehicle: Drawn, meters: list[tuple[Drawn, list[tuple[int, int, str]]]], period: tuple[int, int]
) -> None:
    def readings(device: Drawn) -> list[Reading]:
        return [Reading(at * HALF, energy) for at, energy in device.readings]

    figures = performance(
        readings(vehicle),
        *(
            Meter(
                readings(device),
                [(start * HALF, end * HALF, name) for start, end, name in given_to],
                Device(device.step * HALF, 1000),
            )
            for device, given_to in meters
        ),
        period=Span(period[0] * HALF, period[1] * HALF),
        own=Device(vehicle.step * HALF, 500),
    )
    for sign, found in ((1, figures.charge), (-1, figures.discharge)):
        # Energies are divided in whole units, of an interval a few times.
        assert (found.ac, found.dc) == pytest.approx(model(vehicle, meters, period, sign), abs=200), sign
