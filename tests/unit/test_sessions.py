"""When sessions are and what they add up to, for driving as it is and for any readings."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.energy.assignments import Assignment, changes_of
from api.energy.curve import Device, Reading, curve_of, energy_in
from api.energy.performance import Feed, Measured
from api.energy.sessions import Party, Session, Unassigned
from api.energy.spans import Span, difference, intersection, union
from api.energy.stretches import LONGEST_PAUSE_US, joined
from api.energy.units import UNITS_PER_KWH, kwh_of, register_units_of, units_of
from tests.unit.test_energy import DAY, EVERY_MINUTE, HOUR, MINUTE, any_readings, intervals

WHOLE = Span(0, DAY)
TRAFFIC = [-0.6, 0.1, -0.5, 0.0, 0.0, -0.2, 0.15, 0.05, -0.7]
DOWNHILL = [-0.4, 0.2, 0.3, 0.1, 0.25, -0.1, 0.3, 0.2, -0.5]
Gauges = Mapping[str, Sequence[tuple[int, float]]]


def measured(readings: Sequence[Reading], device: Device = EVERY_MINUTE, gauges: Gauges | None = None) -> Measured:
    times = [reading.at for reading in readings]
    return Measured(curve_of(readings, device), device, times, [], bool(readings), gauges or {})


def party(
    dc: Sequence[Reading],
    *meters: Sequence[Reading],
    assigned: Sequence[Sequence[Assignment]] = (),
    gauges: Gauges | None = None,
    period: Span = WHOLE,
) -> Party:
    """Vehicle V with its meters, which are assigned to it all day unless it is said otherwise."""
    whole = [[Assignment(-DAY, 2 * DAY, "V")]] * len(meters)
    feeds = [
        Feed(f"M{n}", measured(readings), "V", own, period, DAY)
        for n, (readings, own) in enumerate(zip(meters, assigned or whole, strict=True))
    ]
    changes = changes_of("V", (feed.assignments for feed in feeds))
    return Party("V", measured(dc, gauges=gauges), feeds, changes, period)


def minutes(sessions: Sequence[Session]) -> list[tuple[float, float]]:
    return [(s.span.start / MINUTE, s.span.end / MINUTE) for s in sessions]


@pytest.mark.parametrize(
    "drive",
    [
        TRAFFIC,
        DOWNHILL,
        TRAFFIC * 20,
        [0.2, *TRAFFIC],
        [*TRAFFIC, 0.3, *[0.0] * 60],
        [*TRAFFIC, *[0.0] * 10, 0.2, *[0.0] * 60],
        [-0.01, 0.05, 0.3, 0.3, 0.3, 0.0, 0.0, -0.8],
        [-0.3, *[0.4] * 5, -0.3],
    ],
    ids=[
        "traffic",
        "downhill",
        "hours",
        "braking first",
        "braking last",
        "parked twice",
        "a hill at once",
        "5 minutes",
    ],
)
def test_driving_is_no_session(drive: list[float]) -> None:
    assert party(intervals(drive)).sessions() == []
    assert party(intervals(drive), intervals([0.0] * len(drive))).sessions() == []


def test_longer_inflow_between_drives_is_charging() -> None:
    assert minutes(party(intervals([*TRAFFIC, *[0.4] * 6, *TRAFFIC])).sessions()) == [(9, 15)]


def test_inflow_is_judged_with_that_beyond_a_pause() -> None:
    tapering = [*[0.8] * 20, *[0.0] * 10, *[0.4] * 3, *TRAFFIC]
    assert minutes(party(intervals(tapering)).sessions()) == [(0, 33)]


def test_short_inflow_far_from_driving_is_charging() -> None:
    assert minutes(party(intervals([*TRAFFIC, *[0.0] * 16, *[0.4] * 3, *[0.0] * 16, *TRAFFIC])).sessions()) == [
        (25, 28)
    ]


def test_inflow_with_a_rising_odometer_is_recuperation() -> None:
    descent = [-0.5, *[0.3] * 20, -0.5]
    standing = {"odometerKm": [(n * MINUTE, 500.0) for n in range(23)]}
    rolling = {"odometerKm": [(n * MINUTE, 500.0 + n // 2) for n in range(23)]}
    assert minutes(party(intervals(descent), gauges=standing).sessions()) == [(1, 21)]
    assert party(intervals(descent), gauges=rolling).sessions() == []


def test_inflow_after_the_meter_fell_silent_is_charging() -> None:
    dc = intervals([*[0.9] * 10, *TRAFFIC])
    assert minutes(party(dc, intervals([1.0] * 7)).sessions()) == [(0, 10)]


def test_registers_of_both_directions_count_by_their_difference() -> None:
    """While driving, both registers of a vehicle rise in the same minute."""
    charged, discharged, readings = 100.0, 50.0, []
    for n, (plus, minus) in enumerate([(0.0, 0.0)] + [(0.1, 0.6)] * 10 + [(0.8, 0.0)] * 10 + [(0.2, 0.3)] * 5):
        charged, discharged = charged + plus, discharged + minus
        readings.append(Reading(n * MINUTE, None, register_units_of(charged), register_units_of(discharged)))
    (session,) = party(readings).sessions()
    assert minutes([session]) == [(10, 20)]
    assert kwh_of(session.dc or 0) == pytest.approx(8.0)


@pytest.mark.parametrize(("pause", "sessions"), [(15, 1), (16, 2)])
def test_pause_of_more_than_a_quarter_of_an_hour_ends_a_session(pause: int, sessions: int) -> None:
    charge = [*[0.5] * 5, *[0.0] * pause, *[0.5] * 5]
    assert len(party([], intervals(charge)).sessions()) == sessions
    silent = [*intervals([0.5] * 5), *intervals([0.5] * 5, first=(6 + pause) * MINUTE)]
    assert len(party([], silent).sessions()) == sessions


def test_drive_within_the_pause_ends_a_session() -> None:
    charge = [*[0.5] * 5, *[0.0] * 8, *[0.5] * 5]
    assert minutes(party(intervals([0.0] * 5 + [-0.5] * 6), intervals(charge)).sessions()) == [(0, 5), (13, 18)]
    assert minutes(party(intervals([0.0] * 5 + [-0.001] * 6), intervals(charge)).sessions()) == [(0, 18)]


def test_battery_may_feed_the_heating_while_the_meter_draws() -> None:
    dc = intervals([0.5] * 5 + [-0.1] * 5 + [0.5] * 5)
    assert minutes(party(dc, intervals([0.6] * 15)).sessions()) == [(0, 15)]


def test_change_between_meters_divides_a_session() -> None:
    change = 5 * MINUTE
    first, second = [Assignment(-DAY, change, "V")], [Assignment(change, DAY, "V")]
    both = party(intervals([0.9] * 10), intervals([1.0] * 5), intervals([1.0] * 10), assigned=[first, second])
    found = both.sessions()
    assert [(s.meter_ids, kwh_of(s.ac or 0), kwh_of(s.dc or 0)) for s in found] == [
        (["M0"], 5.0, 4.5),
        (["M1"], 5.0, 4.5),
    ]


def test_session_at_several_meters_has_their_power_together() -> None:
    (found,) = party([], intervals([1.0] * 10), intervals([0.5] * 10, first=6 * MINUTE)).sessions()
    assert (found.meter_ids, minutes([found]), round(found.peak_kw, 9)) == (["M0", "M1"], [(0, 15)], 90.0)


def test_energy_beside_a_withheld_direction_counts() -> None:
    readings = [Reading(0, None, 10 * UNITS_PER_KWH, 0), Reading(20 * MINUTE, None, 15 * UNITS_PER_KWH, 10**16)]
    (found,) = party(readings, period=Span(MINUTE, 9 * MINUTE)).sessions()
    assert (kwh_of(found.dc or 0), found.coverage, found.suspect > 0) == (2.0, 0.0, True)


def test_meter_without_vehicle_has_sessions_that_outflow_ends() -> None:
    meter = measured(intervals([0.5] * 5 + [-0.5] * 2 + [0.5] * 5))
    own = Unassigned("M", meter, "", [Assignment(9 * MINUTE, HOUR, "V")], WHOLE, DAY)
    assert minutes(Party(None, None, [own], (), WHOLE).sessions()) == [(0, 5), (7, 9)]


# -- laws


def spans_of(edges: Sequence[int]) -> list[Span]:
    return [Span(*pair) for pair in list(pairwise(edges))[::2]]


instants = st.lists(st.integers(0, 200), max_size=20, unique=True).map(sorted)


@given(instants, instants, instants)
def test_joined_time_is_divided_where_it_should_and_nowhere_else(
    edges: list[int], ends: list[int], cuts: list[int]
) -> None:
    unit = LONGEST_PAUSE_US // 10
    active = union((start * unit, end * unit) for start, end in spans_of(edges))
    stops = difference(union((start * unit, end * unit) for start, end in spans_of(ends)), active)
    at = [cut * unit for cut in cuts]
    found = joined(active, stops, at)
    assert difference(active, union(found)) == []
    assert intersection(union(found), stops) == []
    assert not any(span.start < cut < span.end for span in found for cut in at)
    for one, other in pairwise(found):
        assert one.end <= other.start
        between = Span(one.end, other.start)
        ended = intersection([between], stops) or any(one.end <= cut <= other.start for cut in at)
        assert ended or other.start - one.end > LONGEST_PAUSE_US


stretches = st.tuples(st.sampled_from([None, -0.7, -0.3, -0.001, 0.0, 0.0, 0.1, 0.4, 0.9]), st.integers(1, 25))


@st.composite
def any_hours(draw: st.DrawFn) -> list[Reading]:
    """A device that sends each minute, or is silent, as intervals or as registers that may be reset."""
    values = [value for value, count in draw(st.lists(stretches, max_size=12)) for _ in range(count)]
    offset = draw(st.integers(0, 59)) * 1_000_000
    if draw(st.booleans()):
        return [Reading(n * MINUTE + offset, units_of(v)) for n, v in enumerate(values) if v is not None]
    plus, minus, readings = draw(st.integers(0, 10**13)), draw(st.integers(0, 10**13)), []
    for n, value in enumerate(values):
        if value is not None:
            plus, minus = (
                plus + units_of(max(value, 0.0)),
                minus + units_of(max(-value, 0.0) + draw(st.sampled_from([0.0, 0.1]))),
            )
            readings.append(Reading(n * MINUTE + offset, None, plus, minus))
        elif draw(st.integers(0, 9)) == 0:
            plus = 0
    return readings


@st.composite
def any_party(draw: st.DrawFn) -> Party:
    """A vehicle and up to two meters that are assigned to it at times."""
    readings = any_hours() | any_readings()
    meters = [draw(readings) for _ in range(draw(st.integers(0, 2)))]
    edges = st.lists(st.integers(-10, 300), min_size=2, max_size=8, unique=True).map(sorted)
    assigned = [
        [
            Assignment(start * MINUTE // 2, end * MINUTE // 2, draw(st.sampled_from("VVW")))
            for start, end in spans_of(draw(edges))
        ]
        for _ in meters
    ]
    bounds = st.sampled_from(
        [WHOLE, Span(-HOUR, 2 * HOUR), Span(20 * MINUTE + 1, 90 * MINUTE - 1), Span(0, 7 * MINUTE)]
    )
    return party(draw(readings), *meters, assigned=assigned, period=draw(bounds))


@given(any_party())
def test_sessions_and_what_is_outside_are_the_whole(asked: Party) -> None:
    found = asked.sessions()
    spans = [session.span for session in found]
    outside = difference([asked.period], union(spans))
    assert asked.vehicle is not None
    for flow in asked.vehicle.curve.flows:
        assert energy_in(flow.segments, spans) + energy_in(flow.segments, outside) == flow.units(*asked.period)
    curve = asked.vehicle.curve
    net = energy_in(curve.flow_in.segments, outside) - energy_in(curve.flow_out.segments, outside)
    whole = curve.flow_in.units(*asked.period) - curve.flow_out.units(*asked.period)
    assert sum(session.dc or 0 for session in found) + net == whole
    ac = 0
    for feed in asked.feeds:
        elsewhere = difference([asked.period], union(s.span for s in found if feed.meter_id in s.meter_ids))
        ac += energy_in(feed.inward, elsewhere) - energy_in(feed.outward, elsewhere)
    total = sum(energy_in(f.inward, [asked.period]) - energy_in(f.outward, [asked.period]) for f in asked.feeds)
    assert sum(session.ac or 0 for session in found) + ac == total


@given(any_party())
def test_sessions_lie_apart_within_the_period(asked: Party) -> None:
    found = asked.sessions()
    assert all(asked.period.start <= s.span.start < s.span.end <= asked.period.end for s in found)
    assert all(one.span.end <= other.span.start for one, other in pairwise(found))
    assert all(0 <= s.coverage <= 1 for s in found)
    assert [s.span for s in asked.sessions()] == [s.span for s in found]
    for session in found:
        assert (session.ac is not None) == bool(session.meter_ids)
        assert min(session.mean_kw, 0) - 1e-6 <= session.peak_kw or session.peak_kw < 0
