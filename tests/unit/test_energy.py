"""The energy algebra: the cases of DESIGN 5, and its laws for any readings."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.energy.assignments import Assignment, divide
from api.energy.curve import Curve, Device, Reading, Segment, curve_of, energy_in, straddling
from api.energy.efficiency import Side, compare
from api.energy.gauge import mean
from api.energy.spans import Span, difference, duration, intersection, union
from api.energy.units import UNITS_PER_KWH, register_units_of, units_of

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
EVERY_MINUTE = Device(MINUTE, 500)
QUARTERLY = Device(15 * MINUTE, 1000)


def kwh(units: int) -> float:
    return units / UNITS_PER_KWH


def intervals(values: Sequence[float], step: int = MINUTE, first: int = MINUTE) -> list[Reading]:
    """Interval readings, one a step."""
    return [Reading(first + n * step, units_of(value)) for n, value in enumerate(values)]


def registers(values: Sequence[float | None], step: int = MINUTE) -> list[Reading]:
    """Register readings, one a step; None is a lost one."""
    return [
        Reading(n * step, register_in=register_units_of(value)) for n, value in enumerate(values) if value is not None
    ]


def total(curve: Curve) -> float:
    return kwh(sum(segment.units for segment in curve.flow_in.segments))


def test_period_takes_its_part_of_an_interval_across_its_edge() -> None:
    flow = curve_of(intervals([4, 4, 4, 4], 15 * MINUTE, 15 * MINUTE), QUARTERLY).flow_in
    start, end = 7 * MINUTE + MINUTE // 2, HOUR
    assert (kwh(flow.units(start, end)), kwh(straddling(flow.segments, Span(start, end)))) == (14.0, 4.0)


def test_lost_register_reading_is_healed_by_the_next() -> None:
    curve = curve_of(registers([100.0, 101.0, None, 103.5]), EVERY_MINUTE)
    assert total(curve) == 3.5
    assert curve.covered == [(0, 3 * MINUTE)]


def test_register_reset_counts_what_it_shows_since() -> None:
    curve = curve_of(registers([17.0, 17.6, 0.2, 0.9]), EVERY_MINUTE)
    assert (total(curve), curve.flow_in.resets) == (1.5, [2 * MINUTE])


def test_register_jitter_is_no_reset_and_adds_nothing() -> None:
    curve = curve_of(registers([10.0, 9.9, 9.8, 10.0, 10.1]), EVERY_MINUTE)
    assert (total(curve), curve.flow_in.resets) == (0.1, [])


def test_register_jump_is_withheld_and_moves_the_base() -> None:
    curve = curve_of(registers([10.0, 9334.0, 9334.1]), EVERY_MINUTE)
    assert total(curve) == 0.1
    assert [kwh(segment.units) for segment in curve.flow_in.suspect] == [9324.0]
    assert curve.covered == [(MINUTE, 2 * MINUTE)]


def test_reset_to_an_implausible_value_counts_nothing() -> None:
    curve = curve_of(registers([20000.0, 15000.0, 15000.5]), EVERY_MINUTE)
    assert (total(curve), curve.flow_in.resets) == (0.5, [MINUTE])
    assert curve.covered == [(MINUTE, 2 * MINUTE)]


def test_first_register_reading_is_a_baseline() -> None:
    assert total(curve_of(registers([4711.0]), EVERY_MINUTE)) == 0


def test_register_counts_where_a_reading_has_both() -> None:
    both = [Reading(n * MINUTE, units_of(0.4), register_units_of(10 + n / 2)) for n in range(4)]
    assert total(curve_of(both, EVERY_MINUTE)) == 1.5
    between = [both[0], Reading(MINUTE // 2, units_of(0.2)), *both[1:], Reading(4 * MINUTE, units_of(0.25))]
    assert total(curve_of(between, EVERY_MINUTE)) == 1.75


def test_discharge_register_leaves_the_interval_its_charge() -> None:
    readings = [Reading(n * MINUTE, units_of(v), register_out=register_units_of(n / 10)) for n, v in enumerate([1, 2])]
    curve = curve_of(readings, EVERY_MINUTE)
    assert (total(curve), kwh(sum(s.units for s in curve.flow_out.segments))) == (3.0, 0.1)


def test_complete_day_of_quarters_is_covered() -> None:
    curve = curve_of(intervals([1] * 96, 15 * MINUTE, 15 * MINUTE), QUARTERLY)
    assert curve.covered == [(0, DAY)]


def test_burst_covers_its_own_time_only() -> None:
    tenth = MINUTE // 600
    curve = curve_of(intervals([1e-6] * 9000, tenth, tenth), EVERY_MINUTE)
    assert duration(intersection(curve.covered, [Span(0, DAY)])) == 900 * 1_000_000


def test_gap_is_what_lies_beyond_an_interval_and_a_half() -> None:
    readings = [*intervals([1, 1, 1]), Reading(4 * MINUTE + MINUTE // 2, 0), Reading(10 * MINUTE, 0)]
    curve = curve_of(readings, EVERY_MINUTE)
    assert curve.covered == [(0, 4 * MINUTE + MINUTE // 2), (9 * MINUTE, 10 * MINUTE)]


QUARTER_TO_TEN = 9 * HOUR + 45 * MINUTE


def shares(segment: Segment, *assigned: tuple[int, int, str]) -> dict[str | None, float]:
    divided = divide([segment], [Assignment(*a) for a in assigned])
    found: dict[str | None, float] = {v: kwh(sum(s.units for s in parts)) for v, parts in divided.of_vehicle.items()}
    return found | ({None: kwh(sum(s.units for s in divided.unassigned))} if divided.unassigned else {})


def test_assignment_takes_an_interval_that_ends_with_it() -> None:
    ends_at_ten = Segment(QUARTER_TO_TEN, 10 * HOUR, 5 * UNITS_PER_KWH)
    assert shares(ends_at_ten, (9 * HOUR, 10 * HOUR, "A")) == {"A": 5.0}


def test_interval_is_divided_among_assignments_and_nobody_takes_nothing() -> None:
    after_ten = Segment(10 * HOUR, 10 * HOUR + 15 * MINUTE, 6 * UNITS_PER_KWH)
    five_past = 10 * HOUR + 5 * MINUTE
    assert shares(after_ten, (9 * HOUR, five_past, "A"), (five_past, 11 * HOUR, "B")) == {"A": 2.0, "B": 4.0}
    assert shares(after_ten, (9 * HOUR, five_past, "A")) == {"A": 6.0}
    assert shares(after_ten, (9 * HOUR, 10 * HOUR, "A")) == {None: 6.0}


def compared(ac: Sequence[Reading], dc: Sequence[Reading], assigned: Span, out: bool = False) -> tuple[float, float]:
    meter, vehicle = curve_of(ac, EVERY_MINUTE), curve_of(dc, EVERY_MINUTE)
    flow, own = (meter.flow_out, vehicle.flow_out) if out else (meter.flow_in, vehicle.flow_in)
    parts = divide(flow.segments, [Assignment(*assigned, "V")]).of_vehicle.get("V", [])
    side = Side(parts, [assigned], meter)
    found = compare(vehicle, own.segments, [side], [*assigned], Span(0, DAY))
    return round(kwh(found.ac), 9), round(kwh(found.dc), 9)


CHARGE_AC, CHARGE_DC, DRIVE = [1.0] * 10, [0.9] * 10, [-0.6] * 10 + [0.1] * 10


def test_efficiency_leaves_out_driving_and_other_meters() -> None:
    ac = intervals(CHARGE_AC + [0.0] * 40)
    assert compared(ac, intervals(CHARGE_DC + DRIVE + [0.8] * 10), Span(0, 10 * MINUTE)) == (10.0, 9.0)
    assert compared(ac, intervals(CHARGE_DC + DRIVE + [0.8] * 10), Span(0, DAY)) == (10.0, 9.0)


def test_efficiency_leaves_out_where_one_side_is_silent() -> None:
    assert compared(intervals(CHARGE_AC), intervals(CHARGE_DC[:5]), Span(0, DAY)) == (5.0, 4.5)
    assert compared(intervals(CHARGE_AC[:4]), intervals(CHARGE_DC), Span(0, DAY)) == (4.0, 3.6)


def test_discharge_has_its_own_ratio() -> None:
    ac, dc = intervals([1.0] * 10 + [-0.37] * 10), intervals([0.93] * 10 + [-0.4] * 10)
    assert compared(ac, dc, Span(0, DAY)) == (10.0, 9.3)
    assert compared(ac, dc, Span(0, DAY), out=True) == (3.7, 4.0)


def test_mean_takes_the_parts_of_lines_across_the_edges() -> None:
    points = [(6 * HOUR, 0.0), (8 * HOUR, 20.0), (10 * HOUR, 0.0)]
    assert mean(points, 7 * HOUR, 9 * HOUR, Device(2 * HOUR, 100)) == 15.0
    assert mean(points, 6 * HOUR + HOUR // 2, 7 * HOUR + HOUR // 2, Device(2 * HOUR, 100)) == 10.0


def test_mean_is_over_the_measured_time_only() -> None:
    trips = [(n * MINUTE, 10.0) for n in range(31)] + [(9 * HOUR + n * MINUTE, 40.0) for n in range(11)]
    assert mean(trips, 0, DAY, EVERY_MINUTE) == 17.5
    assert mean([(HOUR, 7.0)], 0, DAY, EVERY_MINUTE) == 7.0
    assert mean(trips, 2 * HOUR, 3 * HOUR, EVERY_MINUTE) is None


def plain_mean(points: Sequence[tuple[int, float]], start: int, end: int, longest: int) -> float | None:
    """Line by line, as the rule says."""
    area = measured = 0.0
    for (t0, v0), (t1, v1) in pairwise(points):
        left, right = max(t0, start), min(t1, end)
        if left < right and t1 - t0 <= longest:
            middle = v0 + (v1 - v0) * ((left + right) / 2 - t0) / (t1 - t0)
            area, measured = area + middle * (right - left), measured + right - left
    return area / measured if measured else None


# -- laws

temperatures = st.lists(st.tuples(st.integers(0, 200), st.integers(-40, 90)), max_size=30, unique_by=lambda p: p[0])


@given(temperatures.map(sorted), st.integers(0, 200), st.integers(1, 200))
def test_mean_is_that_of_its_lines(points: list[tuple[int, float]], start: int, span: int) -> None:
    points = [(at * MINUTE, value) for at, value in points]
    first, last = start * MINUTE + 1, (start + span) * MINUTE
    found, wanted = mean(points, first, last, EVERY_MINUTE), plain_mean(points, first, last, 10 * MINUTE)
    assert wanted is None or found == pytest.approx(wanted, abs=1e-9)


times = st.lists(st.integers(0, 3_000), min_size=0, max_size=40, unique=True).map(sorted)
energy = st.none() | st.integers(-(10**13), 10**13)
counter = st.none() | st.integers(0, 10**14)


@st.composite
def any_readings(draw: st.DrawFn) -> list[Reading]:
    return [Reading(at * 10_000_000, draw(energy), draw(counter), draw(counter)) for at in draw(times)]


edges = st.lists(st.integers(-(10**9), 31 * 10**9), min_size=2, max_size=8, unique=True).map(sorted)


@given(any_readings(), edges)
def test_parts_of_a_period_add_up_to_it(readings: list[Reading], at: list[int]) -> None:
    for flow in curve_of(readings, EVERY_MINUTE).flows:
        parts = sum(flow.units(start, end) for start, end in pairwise(at))
        assert parts == flow.units(at[0], at[-1])
        assert flow.units(-(10**12), 10**12) == sum(segment.units for segment in flow.segments)


@given(any_readings())
def test_segments_are_in_order_and_do_not_overlap(readings: list[Reading]) -> None:
    for flow in curve_of(readings, EVERY_MINUTE).flows:
        assert all(segment.start < segment.end and segment.units > 0 for segment in flow.segments)
        assert all(first.end <= second.start for first, second in pairwise(flow.segments))


@given(any_readings(), edges, st.lists(st.sampled_from("ABC"), min_size=8, max_size=8))
def test_assigned_and_unassigned_energy_is_all_of_the_meters(
    readings: list[Reading], at: list[int], vehicles: list[str]
) -> None:
    assigned = [Assignment(*given) for given in zip(at[::2], at[1::2], vehicles, strict=False)]
    flow = curve_of(readings, EVERY_MINUTE).flow_in
    divided = divide(flow.segments, assigned)
    parts = [part for own in divided.of_vehicle.values() for part in own] + divided.unassigned
    assert sum(part.units for part in parts) == sum(segment.units for segment in flow.segments)
    for vehicle, own in divided.of_vehicle.items():
        spans = union((a.start, a.end) for a in assigned if a.vehicle == vehicle)
        assert difference(union((part.start, part.end) for part in own), spans) == []


spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


@given(spans, spans)
def test_sets_of_time_are_sets(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    def members(given: Sequence[tuple[int, int]]) -> set[int]:
        return {at for start, end in given for at in range(start, end)}

    a, b = union(first), union(second)
    assert members(a) == members(first)
    assert members(intersection(a, b)) == members(a) & members(b)
    assert members(difference(a, b)) == members(a) - members(b)
    assert all(one.end < other.start for one, other in pairwise(a))


@given(any_readings(), spans)
def test_energy_in_a_set_is_that_of_its_spans(readings: list[Reading], given: list[tuple[int, int]]) -> None:
    flow = curve_of(readings, EVERY_MINUTE).flow_in
    time = union((start * 500_000_000, end * 500_000_000) for start, end in given)
    assert energy_in(flow.segments, time) == sum(flow.units(start, end) for start, end in time)
