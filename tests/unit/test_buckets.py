"""Buckets: where they begin in a time zone, and that their figures add up."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.energy.assignments import Assignment
from api.energy.buckets import NOTHING, Figures, figures, share, unassigned
from api.energy.calendar import BucketName, edges
from api.energy.curve import Device, Reading, curve_of, energy_in
from api.energy.spans import Span, difference, duration, intersection, union
from tests.unit.test_energy import any_readings

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
ZONES = [
    *("UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe", "Africa/Cairo"),
    *("America/Havana", "Pacific/Apia", "America/Sao_Paulo", "Asia/Kathmandu", "America/Toronto"),
]


def local(zone: str, *at: int) -> datetime:
    return datetime(*at, tzinfo=ZoneInfo(zone))  # type: ignore[arg-type,misc]


def lengths(start: datetime, end: datetime, bucket: BucketName, zone: str) -> list[timedelta]:
    return [b - a for a, b in pairwise(edges(start, end, bucket, ZoneInfo(zone)))]


def texts(start: datetime, end: datetime, bucket: BucketName, zone: str) -> list[str]:
    return [at.astimezone(ZoneInfo(zone)).strftime("%d %H:%M") for at in edges(start, end, bucket, ZoneInfo(zone))]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", (2026, 10, 25), 25),
        ("Europe/Berlin", (2026, 3, 29), 23),
        ("Europe/Berlin", (2026, 6, 1), 24),
        ("Australia/Lord_Howe", (2026, 4, 5), 24.5),
        ("Australia/Lord_Howe", (2026, 10, 4), 23.5),
        ("Africa/Cairo", (2026, 4, 24), 23),  # the clock skips midnight
        ("America/Havana", (2026, 11, 1), 25),  # has two midnights
        ("America/Toronto", (1919, 3, 31), 23.5),  # 23:30 of the day before was 00:30
        ("Asia/Kolkata", (2026, 10, 25), 24),
    ],
)
def test_day_is_as_long_as_the_zones_date(zone: str, day: tuple[int, int, int], hours: float) -> None:
    noon = local(zone, *day, 12)
    days = edges(noon - 3 * timedelta(days=1), noon + 3 * timedelta(days=1), "day", ZoneInfo(zone))
    (found,) = [b - a for a, b in pairwise(days) if a <= noon < b]
    assert found == hours * HOUR


def test_skipped_date_has_no_bucket() -> None:
    start, end = local("Pacific/Apia", 2011, 12, 28), local("Pacific/Apia", 2012, 1, 1)
    assert texts(start, end, "day", "Pacific/Apia") == ["28 00:00", "29 00:00", "31 00:00", "01 00:00"]
    assert lengths(start, end, "day", "Pacific/Apia") == [24 * HOUR] * 3


def test_hours_are_those_of_the_local_clock() -> None:
    start, end = local("Asia/Kolkata", 2026, 2, 10, 9, 10), local("Asia/Kolkata", 2026, 2, 10, 11, 30)
    assert texts(start, end, "hour", "Asia/Kolkata") == ["10 09:10", "10 10:00", "10 11:00", "10 11:30"]
    assert start.astimezone(UTC).minute == 40


@pytest.mark.parametrize(("bucket", "count"), [("hour", 25), ("15m", 100)])
def test_repeated_hour_is_a_bucket_of_its_own(bucket: BucketName, count: int) -> None:
    start, end = local("Europe/Berlin", 2026, 10, 25), local("Europe/Berlin", 2026, 10, 26)
    assert (
        lengths(start, end, bucket, "Europe/Berlin") == [(end.astimezone(UTC) - start.astimezone(UTC)) / count] * count
    )


def test_change_of_the_clock_by_half_an_hour_ends_a_bucket() -> None:
    zone = "Australia/Lord_Howe"
    spring = local(zone, 2026, 10, 4, 1), local(zone, 2026, 10, 4, 4)
    assert texts(*spring, "hour", zone) == ["04 01:00", "04 02:30", "04 03:00", "04 04:00"]
    autumn = local(zone, 2026, 4, 5, 1), local(zone, 2026, 4, 5, 3)
    assert texts(*autumn, "hour", zone) == ["05 01:00", "05 01:30", "05 02:00", "05 03:00"]


def test_weeks_begin_on_monday_and_months_with_the_first() -> None:
    start, end = local("Europe/Berlin", 2026, 11, 12, 5), local("Europe/Berlin", 2027, 1, 20)
    weeks = edges(start, end, "week", ZoneInfo("Europe/Berlin"))
    assert all(at.astimezone(ZoneInfo("Europe/Berlin")).weekday() == 0 for at in weeks[1:-1])
    assert texts(start, end, "week", "Europe/Berlin")[:3] == ["12 05:00", "16 00:00", "23 00:00"]
    assert texts(start, end, "month", "Europe/Berlin") == ["12 05:00", "01 00:00", "01 00:00", "20 00:00"]


def test_edges_at_the_ends_of_the_calendar() -> None:
    last, first = datetime(9999, 12, 30, tzinfo=UTC), datetime(1, 1, 2, tzinfo=UTC)
    for bucket in get_args(BucketName):
        for zone in ("Pacific/Kiritimati", "Etc/GMT+12"):
            assert edges(last - HOUR, last, bucket, ZoneInfo(zone))[-1] == last
            assert edges(first, first + HOUR, bucket, ZoneInfo(zone))[0] == first


instants = st.datetimes(datetime(1900, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@settings(deadline=None)  # 70 days of quarter hours on a busy machine
@given(
    instants, st.timedeltas(MINUTE, timedelta(days=70)), st.sampled_from(ZONES), st.sampled_from(get_args(BucketName))
)
def test_edges_divide_the_period(start: datetime, span: timedelta, zone: str, bucket: BucketName) -> None:
    found = edges(start, start + span, bucket, ZoneInfo(zone))
    assert (found[0], found[-1]) == (start, start + span)
    assert all(a < b for a, b in pairwise(found))
    inner = [at.astimezone(ZoneInfo(zone)) for at in found[1:-1]]
    changed = [
        at.utcoffset() != (at.astimezone(UTC) - timedelta(seconds=1)).astimezone(at.tzinfo).utcoffset() for at in inner
    ]
    for at, after_change in zip(inner, changed, strict=True):
        aligned = at.minute % 15 == 0 if bucket == "15m" else at.minute == 0
        assert after_change or (aligned and at.second == 0)
        assert bucket in ("15m", "hour") or at.hour == 0 or after_change


# -- figures

EVERY_MINUTE = Device(60_000_000, 500)
instants_us = st.integers(-(10**9), 31 * 10**9)
any_edges = st.lists(instants_us, min_size=2, max_size=9, unique=True).map(sorted)
spans = st.lists(st.tuples(instants_us, instants_us), max_size=6).map(union)


def whole(parts: list[Figures]) -> Figures:
    found = NOTHING
    for part in parts:
        found = found.plus(part)
    return found


@given(any_readings(), any_edges, spans)
def test_buckets_add_up_to_the_total(readings: list[Reading], at: list[int], expected: list[Span]) -> None:
    curve = curve_of(readings, EVERY_MINUTE)
    parts, (total,) = figures(curve, at, expected), figures(curve, [at[0], at[-1]], expected)
    found = whole(parts)
    assert found._replace(measured=0, boundary=0) == total._replace(measured=0, boundary=0)
    assert any(part.measured for part in parts) == bool(total.measured)
    assert all(part.measured or not part.net for part in parts)


@given(any_readings(), any_edges, spans)
def test_bucket_has_the_figures_of_its_span(readings: list[Reading], at: list[int], expected: list[Span]) -> None:
    curve = curve_of(readings, EVERY_MINUTE)
    for bucket, part in zip(map(Span._make, pairwise(at)), figures(curve, at, expected), strict=True):
        assert part.inward == curve.flow_in.units(*bucket)
        assert part.outward == curve.flow_out.units(*bucket)
        assert part.suspect == sum(energy_in(flow.suspect, [bucket]) for flow in curve.flows)
        assert part.resets == curve.resets([bucket])
        assert part.covered == duration(intersection(intersection(curve.covered, expected), [bucket]))
        assert part.expected == duration(intersection(expected, [bucket]))


@given(any_readings(), any_edges, any_edges, st.lists(st.sampled_from("ABC"), min_size=9, max_size=9))
def test_shares_and_unassigned_energy_add_up_to_the_meters(
    readings: list[Reading], at: list[int], changes: list[int], vehicles: list[str]
) -> None:
    """Over all time: a bucket's edge within an interval divides the vehicle's part, not the interval."""
    curve = curve_of(readings, EVERY_MINUTE)
    assigned = [Assignment(a, b, v) for (a, b), v in zip(pairwise(changes), vehicles, strict=False)][::2]
    always = [-(10**12), *at, 10**12]
    of_vehicles = [whole(figures(share(curve, assigned, v), always, [])) for v in "ABC"]
    rest = sum(unassigned(curve, assigned, always))
    assert sum(each.net for each in of_vehicles) + rest == whole(figures(curve, always, [])).net
    for v in "ABC":
        own = union(a[:2] for a in assigned if a.vehicle == v)
        assert difference(share(curve, assigned, v).covered, own) == []
