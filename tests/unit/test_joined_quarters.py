"""Adjacent quarter hours in which energy flows evenly are one sum, and the curve is that of their readings."""

from itertools import groupby, pairwise

from hypothesis import given
from hypothesis import strategies as st

from api.energy.curve import Curve, Device, Reading, curve_of, energy_in
from api.energy.interval import QUARTER_US
from api.energy.quarter import Quarter, changes_of, energy_of
from api.energy.spans import Span

MINUTE = 60_000_000
DEVICE = Device(MINUTE, 100.0)


@st.composite
def histories(draw: st.DrawFn) -> list[Reading]:
    """Readings about once a minute, some of them lost, with energy that begins, ends and turns at any time."""
    found: list[Reading] = []
    for at, flow in enumerate(
        flow for flow, count in draw(st.lists(st.tuples(flows, st.integers(1, 40)), max_size=8)) for _ in range(count)
    ):
        if draw(st.integers(0, 30)):
            found.append(Reading(at * MINUTE + 7_000_000, flow * draw(st.integers(1, 9))))
    return found


flows = st.sampled_from([0, 0, 1, -1])


def quarter(start: int, readings: list[Reading]) -> Quarter:
    """The summary of a quarter hour, as the keeper makes it of interval readings."""
    first, last, units = readings[0], readings[-1], [reading.interval or 0 for reading in readings]
    rest = units[1:]
    return Quarter(
        start,
        len(readings),
        first.at,
        last.at,
        max((after.at - before.at for before, after in pairwise(readings)), default=0),
        True,
        units[0],
        sum(u for u in rest if u > 0),
        -sum(u for u in rest if u < 0),
        sum(u > 0 for u in rest),
        sum(u < 0 for u in rest),
        *(None, None, None, None),
        *(0, 0, 0.0),
        *(None, None, None, None),
    )


def quarters(history: list[Reading]) -> list[Quarter]:
    """Those that may stand for their readings: two of these are nowhere further apart than an interval covers."""
    found = [quarter(start, list(own)) for start, own in groupby(history, key=lambda r: r.at - r.at % QUARTER_US)]
    return [each for each in found if each.is_unbroken(DEVICE)]


def curve(history: list[Reading], summaries: list[Quarter], apart: set[int]) -> Curve:
    starts = {each.start for each in summaries}
    others = [reading for reading in history if reading.at - reading.at % QUARTER_US not in starts]
    return curve_of(sorted([*others, *energy_of(summaries, apart, DEVICE)]), DEVICE)


@given(histories(), st.sets(st.integers(0, 25)))
def test_sums_of_quarter_hours_have_the_energy_and_the_coverage_of_their_readings(
    history: list[Reading], apart: set[int]
) -> None:
    exact = curve_of(history, DEVICE)
    joined = curve(history, quarters(history), {n * QUARTER_US for n in apart})

    assert joined.covered == exact.covered
    edges = [-QUARTER_US, *(at for one in joined.sums for at in one), 100 * QUARTER_US]
    for flow, own in zip(joined.flows, exact.flows, strict=True):
        for span in map(Span._make, pairwise(sorted(edges))):
            assert energy_in(flow.segments, [span]) == energy_in(own.segments, [span])
    for edge in apart:
        assert not any(one.start < edge * QUARTER_US < one.end for one in joined.sums)


@given(histories())
def test_a_joined_sum_begins_and_ends_where_energy_begins_and_ceases_to_flow(history: list[Reading]) -> None:
    exact = curve_of(history, DEVICE)
    joined = curve(history, quarters(history), set())
    for flow, own in zip(joined.flows, exact.flows, strict=True):
        sums = [s for s in flow.segments if Span(s.start, s.end) in joined.sums and s.end - s.start > QUARTER_US]
        for one in sums:
            assert sum(s.end - s.start for s in own.segments if one.start <= s.start and s.end <= one.end) == (
                one.end - one.start
            )


def test_a_day_without_energy_is_one_sum() -> None:
    idle = [Reading(n * MINUTE, 0) for n in range(1440)]
    first, others = energy_of(quarters(idle), set(), DEVICE)
    assert (first.at, others.since, others.at, others.interval) == (0, 0, 1439 * MINUTE, 0)


def test_quarter_hours_are_not_joined_across_a_missing_one() -> None:
    idle = [Reading(n * MINUTE, 0) for n in range(60) if not 15 <= n < 30]
    assert len(energy_of(quarters(idle), set(), DEVICE)) == 4


def test_a_charge_from_one_quarter_hour_to_another_changes_at_the_last_readings_without_and_with_energy() -> None:
    charge = quarters([Reading(n * MINUTE, 5 if 30 <= n < 60 else 0) for n in range(90)])
    assert changes_of(charge) == [QUARTER_US, 3 * QUARTER_US]
    # The energy of a reading flowed before it: that of the first one in the third quarter hour, in the second.


def test_a_charge_after_the_first_reading_of_a_quarter_hour_changes_within_it() -> None:
    charge = quarters([Reading(n * MINUTE, 5 if 31 <= n < 61 else 0) for n in range(90)])
    assert changes_of(charge) == [2 * QUARTER_US, 4 * QUARTER_US]
