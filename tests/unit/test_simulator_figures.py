"""The oracle of `verify`: the cases that docs/figures.md gives, and the API's own computation, which shares no code."""

from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.energy import calendar
from api.energy import curve as api_curve
from api.energy import interval as api_interval
from api.energy.assignments import Assignment, divide
from api.energy.buckets import figures as bucket_figures
from api.energy.spans import Span as ApiSpan
from simulator.expected_figures import bucket_of_meter, own_side, share_of
from simulator.figures import (
    SECOND_US,
    Assigned,
    Curve,
    Point,
    Span,
    common,
    curve_of,
    divided,
    due_until,
    energy,
    joined,
    length,
    register_kwh,
    without,
)
from simulator.local_time import Bucket, edges, us_of, zones_for

MINUTE, HOUR = 60 * SECOND_US, 3600 * SECOND_US
DAY = Span(0, 24 * HOUR)
RATED_KW = 100.0
Register = Sequence[float | None]


def kwh(value: float) -> Fraction:
    return Fraction(repr(value))


def curve(points: Sequence[Point], period: Span = DAY, rated_kw: float = RATED_KW, interval_s: float = 60) -> Curve:
    return curve_of(points, period, rated_kw, interval_s)


def meter(values: Sequence[float], every: int = 15 * MINUTE, first: int = 0) -> list[Point]:
    """Interval readings, stamped at the end of each interval."""
    return [Point(first + (n + 1) * every, kwh(value)) for n, value in enumerate(values)]


def total(of: Curve, start: int, end: int) -> float:
    return float(energy(of.into.parts, start, end) - energy(of.out.parts, start, end))


def test_interval_belongs_to_the_time_before_its_stamp_and_is_divided_at_an_edge() -> None:
    found = curve(meter([4.0] * 8))
    assert total(found, 15 * MINUTE // 2, HOUR) == 14
    assert total(found, 0, HOUR) == 16


@pytest.mark.parametrize(
    ("assigned", "a", "b", "none"),
    [
        ([(0, 5, "A"), (5, 60, "B")], 2, 4, 0),
        ([(0, 5, "A"), (5, 60, None)], 6, 0, 0),
        ([(0, 5, "A")], 6, 0, 0),
        ([(15, 60, "A")], 0, 0, 6),
    ],
)
def test_interval_is_divided_among_its_assignments_by_time(
    assigned: list[tuple[int, int, str | None]], a: int, b: int, none: int
) -> None:
    parts = curve(meter([6.0]), interval_s=900).into.parts
    given_to = [Assigned(start * MINUTE, end * MINUTE, vehicle) for start, end, vehicle in assigned]
    shares = [sum(part.kwh for part in divided(parts, given_to, vehicle)) for vehicle in ("A", "B", None)]
    assert shares == [a, b, none]


@pytest.mark.parametrize(
    ("values", "due", "resets", "withheld"),
    [
        ([100.0, 101.0, None, 103.5], 3.5, 0, 0),
        ([17.0, 17.6, 0.2, 0.9], 1.5, 1, 0),
        ([10.0, 9.9, 9.8, 10.0, 10.1], 0.1, 0, 0),
        ([10.0, 9334.0, 9334.1], 0.1, 0, 9324),
        ([4711.0], 0, 0, 0),
        ([10.0, 9.0, 10.0, 10.5], 0.5, 0, 0),
        ([10.0, 8.9, 9.0], 9.0, 1, 0),
        ([100.0, 80.0, 80.5], 0.5, 1, 0),
    ],
)
def test_register_counts_its_rises(values: Register, due: float, resets: int, withheld: float) -> None:
    points = [Point(n * MINUTE, None, register_kwh(v)) for n, v in enumerate(values, 1) if v is not None]
    found = curve(points, rated_kw=600)
    assert total(found, *DAY) == pytest.approx(due, abs=1e-15)
    assert len(found.into.resets) == resets
    assert sum(part.kwh for part in found.into.withheld) == kwh(withheld)


def test_register_counts_instead_of_the_interval_and_only_of_its_direction() -> None:
    points = [Point(n * MINUTE, kwh(-0.5 if n == 2 else 1.0), Fraction(n, 2)) for n in range(1, 4)]
    found = curve(points)
    assert (energy(found.into.parts, *DAY), energy(found.out.parts, *DAY)) == (Fraction(1), kwh(0.5))


@pytest.mark.parametrize(
    ("points", "until", "due"),
    [
        (meter([1.0] * 96), 24 * HOUR, 1),
        (meter([0.0] * 9000, SECOND_US // 10), 24 * HOUR, Fraction(900, 86400)),
        (meter([0.0] * 60, 30 * SECOND_US), HOUR, Fraction(1, 2)),
    ],
)
def test_coverage_is_covered_time(points: list[Point], until: int, due: Fraction) -> None:
    own = own_side("M", curve(points, Span(0, until)))
    assert bucket_of_meter(own, own, 0, until, until)["coverage"] == due


def test_time_after_the_last_reading_is_due_once_the_next_one_is_overdue() -> None:
    found = curve(meter([1.0] * 8, MINUTE))
    assert due_until(found, DAY, now=9 * MINUTE) == 8 * MINUTE
    assert due_until(found, DAY, now=10 * MINUTE) == 10 * MINUTE
    assert due_until(found, Span(0, 5 * MINUTE), now=HOUR) == 5 * MINUTE


spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6)


@given(spans, spans)
def test_sets_of_time_are_those_of_their_instants(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    def instants(some: Sequence[tuple[int, int]]) -> set[int]:
        return {at for start, end in some for at in range(start, end)}

    a, b = joined(first), joined(second)
    assert instants(a) == instants(first)
    assert all(one.end < other.start for one, other in pairwise(a))
    assert instants(without(a, b)) == instants(first) - instants(second)
    assert instants(common(a, b)) == instants(first) & instants(second)
    assert length(a, 10, 30) == len(instants(first) & set(range(10, 30)))


register = st.none() | st.sampled_from([0.0, 0.5, 89.9, 90.0, 99.9, 100.0, 100.1, 101.25, 5000.0])
readings = st.lists(
    st.tuples(
        st.sampled_from([1, 30, 60, 60, 60, 90, 91, 900, 4000]),
        st.none() | st.sampled_from([0.0, 0.25, -0.125, 1.000001]),
        register,
        register,
    ),
    max_size=30,
)


@settings(max_examples=500, deadline=None)
@given(readings, st.integers(0, 5000), st.integers(1, 9000), st.integers(1, 9000))
def test_answer_of_the_oracle_is_that_of_the_api(
    steps: list[tuple[int, float | None, float | None, float | None]], start_s: int, length_s: int, assigned_s: int
) -> None:
    """Two computations of the same rules, for readings with every kind of gap, jump, reset and missing measure."""
    at, points = 0, list[Point]()
    for step_s, *values in steps:
        at += step_s * SECOND_US
        points.append(Point(at, *(None if value is None else kwh(value) for value in values)))
    period = Span(start_s * SECOND_US, (start_s + length_s) * SECOND_US)
    cuts = [period.start, period.start + length_s * SECOND_US // 3, period.end]
    found = curve_of(points, period, RATED_KW, 60)
    theirs = _curve_of_the_api(points, period)
    own, due = own_side("M", found), [due_until(found, period, at)] * 2
    given_to = [Assigned(0, assigned_s * SECOND_US, "A"), Assigned(assigned_s * SECOND_US, 2**62, None)]
    answers = bucket_figures(theirs, cuts, [ApiSpan(period.start, due[0])] if due[0] > period.start else [])
    share = divide(theirs.flow_in.segments, [Assignment(0, assigned_s * SECOND_US, "A")])
    for (start, end), answer in zip(pairwise(cuts), answers, strict=True):
        mine = bucket_of_meter(own, share_of("M", found, given_to, None), start, end, due[0])
        assert answer.measured == own.is_known(start, end)
        assert Fraction(answer.inward - answer.outward, 10**12) == _about(own.net(start, end))
        assert Fraction(answer.suspect, 10**12) == _about(mine["suspectKwh"])
        assert Fraction(answer.boundary, 10**12) == mine["boundaryKwh"]
        assert answer.resets == mine["resets"]
        assert (Fraction(answer.covered, answer.expected) if answer.expected else None) == mine["coverage"]
        for vehicle, parts in (("A", share.of_vehicle.get("A", [])), (None, share.unassigned)):
            units = api_curve.energy_in(parts, [ApiSpan(start, end)])
            due_kwh = energy(divided(found.into.parts, given_to, vehicle), start, end)
            assert Fraction(units, 10**12) == _about(due_kwh)


class _about:  # noqa: N801  # reads as `pytest.approx` does
    """Equal to a fraction to a few units of 1e-12 kWh: the API divides intervals in whole units."""

    def __init__(self, value: Fraction | int | None) -> None:
        assert value is not None
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fraction) and abs(other - self._value) <= Fraction(3, 10**12)

    def __repr__(self) -> str:
        return f"{float(self._value):.15g}"

    __hash__ = None  # type: ignore[assignment]


def _curve_of_the_api(points: Sequence[Point], period: Span) -> api_curve.Curve:
    """With what the API reads: the period, of each measure the last value before it and the first one after it, and if
    there are registers four hours before it."""
    is_register = any(p.register_in is not None or p.register_out is not None for p in points)
    since = period.start // (15 * MINUTE) * 15 * MINUTE - 4 * HOUR if is_register else period.start
    values: dict[int, list[int | None]] = {}
    for measure in range(3):
        kwhs = [(p.at, (p.interval, p.register_in, p.register_out)[measure]) for p in points]
        given = [(at, int(value * 10**12)) for at, value in kwhs if value is not None]
        before = [one for one in given if one[0] < period.start][-1:]
        after = [one for one in given if one[0] >= period.end][:1]
        for at, units in [*before, *(one for one in given if since <= one[0] < period.end), *after]:
            values.setdefault(at, [None] * 3)[measure] = units
    groups = api_interval.groups_of([p.at for p in points if p.has_energy], 0)
    readings = [api_curve.Reading(at, each[0], each[1], each[2]) for at, each in sorted(values.items())]
    return api_curve.curve_of(readings, api_curve.Device(MINUTE, RATED_KW, api_interval.intervals_by_day(groups, 0)))


ZONES = [
    *("Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "America/Havana"),
    *("Asia/Kathmandu", "Pacific/Chatham", "America/Santiago", "UTC"),
]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("bucket", ["hour", "day"])
@pytest.mark.parametrize("day", ["2026-03-28", "2026-10-24", "2011-12-29", "2026-04-04", "2026-10-31", "2026-09-05"])
def test_buckets_are_those_of_the_calendar(zone: str, bucket: Bucket, day: str) -> None:
    start = us_of(datetime.fromisoformat(f"{day}T04:07:11.5+00:00"))
    period = Span(start, start + 60 * HOUR)
    first, last = (datetime.fromtimestamp(at / 1e6, UTC) for at in period)
    assert edges(period, bucket, ZoneInfo(zone)) == [
        us_of(at) for at in calendar.edges(first, last, bucket, ZoneInfo(zone))
    ]


def test_zones_have_a_midnight_and_a_change_of_the_clock_in_the_period_if_there_are_such() -> None:
    start = us_of(datetime(2026, 10, 25, 0, 30, tzinfo=UTC))
    half, changing = zones_for(Span(start, start + 3 * HOUR))
    assert changing.key == "Europe/Berlin"
    assert len(edges(Span(start, start + 3 * HOUR), "day", half)) == 3
    offset = datetime(2026, 10, 25, tzinfo=half).utcoffset()
    assert offset is not None
    assert offset.total_seconds() % 3600
