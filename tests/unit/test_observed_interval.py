"""The observed interval is a property of a UTC day: figures of adjacent periods add up, however a device reports."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.energy.coverage import expected
from api.energy.curve import Device, Reading, curve_of, energy_in
from api.energy.interval import DAY_US, groups_of, intervals_by_day
from api.energy.spans import Span, duration, intersection

SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000


def seen(times: Sequence[int], offset: int = 0) -> dict[int, int]:
    return intervals_by_day(groups_of(times, offset), offset)


def every(step: int, first: int, beyond: int) -> list[int]:
    return list(range(first, beyond, step))


@pytest.mark.parametrize(
    ("times", "found"),
    [
        ([], {}),
        (every(15 * MINUTE, 0, DAY_US), {0: 15 * MINUTE}),
        ([*every(MINUTE, 0, 20 * HOUR), *every(15 * MINUTE, 20 * HOUR, DAY_US)], {0: MINUTE}),
        (every(8 * HOUR, 0, 3 * DAY_US), {DAY_US: 8 * HOUR, 2 * DAY_US: 8 * HOUR}),
        ([HOUR, 2 * HOUR, 3 * HOUR], {}),
        ([HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR], {0: HOUR}),
        ([*every(MINUTE, 0, HOUR), DAY_US + HOUR], {0: MINUTE, DAY_US: MINUTE}),
        ([*every(MINUTE, 0, HOUR), 2 * DAY_US + HOUR], {0: MINUTE}),
        ([*every(SECOND // 10, 0, 15 * MINUTE)], {0: SECOND // 10}),
    ],
    ids=[
        "none",
        "quarter hours",
        "most are minutes",
        "three a day",
        "two gaps",
        "three gaps",
        "day before",
        "not",
        "fast",
    ],
)
def test_interval_is_that_of_a_day_or_of_two(times: list[int], found: dict[int, int]) -> None:
    assert seen(times) == found


def test_days_begin_at_midnight_utc_wherever_the_period_begins() -> None:
    times = [*every(MINUTE, HOUR, 2 * HOUR), *every(HOUR, 3 * HOUR, 8 * HOUR)]
    assert seen(times, 2 * HOUR) == {2 * HOUR - DAY_US: MINUTE, 2 * HOUR: HOUR}


steps = st.lists(
    st.tuples(st.sampled_from([10 * SECOND, MINUTE, 15 * MINUTE, HOUR, 9 * HOUR, 30 * HOUR]), st.integers(1, 60)),
    min_size=1,
    max_size=8,
)


@given(steps, st.lists(st.integers(0, 5 * DAY_US), max_size=6))
def test_figures_of_adjacent_periods_add_up(own: list[tuple[int, int]], cuts: list[int]) -> None:
    """Each period is answered from the readings that it needs: with the rest of its days, and with its neighbours."""
    times = [HOUR]
    for step, count in own:
        times += every(step, times[-1] + step, times[-1] + step * count + 1)
    edges = sorted({0, *cuts, 5 * DAY_US})
    whole = figures(times, Span(edges[0], edges[-1]))
    parts = [figures(times, Span(*pair)) for pair in pairwise(edges)]
    assert [sum(column) for column in zip(*parts, strict=True)] == list(whole)


def figures(times: Sequence[int], period: Span) -> tuple[int, int, int]:
    """Energy, covered and expected time of a period, of readings of which each has as many units as its number."""
    now = 40 * DAY_US
    known = [at for at in times if at < period.end] + [at for at in times if at >= period.end][:1]
    device = Device(MINUTE, 1e9, seen(times))
    curve = curve_of([Reading(at, n + 7) for n, at in enumerate(known)], device)
    wanted = expected(period, curve.covered, now, device)
    return (
        energy_in(curve.flow_in.segments, [period]),
        duration(intersection(curve.covered, [period])),
        duration(wanted),
    )
