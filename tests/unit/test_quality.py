"""How devices are judged, and in which order: for each fault, and for any devices."""

from collections.abc import Sequence
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.energy.buckets import NOTHING, Figures
from api.energy.quality import Order, Quality, place, totals, worst_first

HOUR = 3_600_000_000
MINUTE = 60_000_000
COMPLETE = Figures(measured=1, inward=5, covered=HOUR, expected=HOUR)
GOOD = Quality(
    kind="meter",
    id="M",
    site=None,
    figures=COMPLETE,
    unassigned=0,
    conflicts=0,
    implausible=0,
    interval_us=MINUTE,
    seen_at=HOUR - MINUTE,
    declared_at=None,
    as_of=HOUR,
)
ORDERS: tuple[Order, ...] = get_args(Order)


def device(id_: str = "M", **changes: Any) -> Quality:
    """A device without faults, but for these."""
    own = {name: changes.pop(name) for name in set(changes) & set(Figures._fields)}
    return GOOD._replace(id=id_, figures=COMPLETE._replace(**own), **changes)


def ids(devices: Sequence[Quality]) -> list[str]:
    return [each.id for each in devices]


@pytest.mark.parametrize(
    ("faults", "severity"),
    [
        ({}, 0),
        ({"covered": HOUR // 4}, 0.75),
        ({"covered": 0, "expected": 0}, 0),
        ({"suspect": 1}, 1),
        ({"resets": 3}, 1),
        ({"conflicts": 100}, 1),
        ({"implausible": 2}, 1),
        ({"seen_at": HOUR - 4 * MINUTE}, 1),
        ({"seen_at": None, "covered": 0}, 2),
        ({"unassigned": 10**15}, 0),
        ({"unassigned": None}, 0),
        ({"suspect": 1, "resets": 1, "conflicts": 1, "implausible": 1, "seen_at": None, "covered": 0}, 6),
    ],
)
def test_severity_is_the_missing_time_and_one_for_each_other_fault(faults: dict[str, Any], severity: float) -> None:
    assert device(**faults).severity == severity


@pytest.mark.parametrize(
    ("seen_at", "interval_us", "silent"),
    [
        (HOUR - 3 * MINUTE, MINUTE, False),
        (HOUR - 3 * MINUTE - 1, MINUTE, True),
        (HOUR - 45 * MINUTE, 15 * MINUTE, False),
        (-30 * HOUR, 24 * HOUR, False),
        (None, 24 * HOUR, True),
    ],
)
def test_device_is_silent_after_three_intervals(seen_at: int | None, interval_us: int, silent: bool) -> None:
    assert device(seen_at=seen_at, interval_us=interval_us).is_silent is silent


@pytest.mark.parametrize(
    ("declared_at", "silent"),
    [(HOUR - 3 * MINUTE, False), (HOUR - 3 * MINUTE - 1, True), (HOUR + MINUTE, False), (None, True)],
)
def test_device_that_never_reported_is_silent_three_intervals_after_its_declaration(
    declared_at: int | None, silent: bool
) -> None:
    assert device(seen_at=None, declared_at=declared_at).is_silent is silent
    assert not device(declared_at=-HOUR).is_silent


def test_coverage_and_age_are_unknown_where_nothing_is() -> None:
    """Before the period began, and of a device that has never reported."""
    found = device(covered=0, expected=0, seen_at=None)
    assert (found.coverage, found.age_us) == (None, None)
    assert device().age_us == MINUTE


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("severity", ["never", "jump", "gap", "clash", "idle", "back"]),
        ("coverage", ["never", "gap", "jump", "clash", "idle", "back"]),
        ("suspectKwh", ["jump", "never", "gap", "clash", "idle", "back"]),
        ("unassignedKwh", ["back", "clash", "never", "jump", "gap", "idle"]),
        ("ageS", ["never", "gap", "jump", "clash", "idle", "back"]),
    ],
)
def test_worst_device_is_the_first_of_an_order(order: Order, expected: list[str]) -> None:
    """Where a figure is equal, the severity decides, then the kind and the id."""
    devices = [
        device("back", unassigned=-7, kind="vehicle"),
        device("idle"),
        device("clash", unassigned=5, implausible=0, kind="meter", covered=HOUR - 1),
        device("gap", covered=HOUR // 2, seen_at=HOUR - 2 * MINUTE),
        device("jump", suspect=9, covered=HOUR - MINUTE),
        device("never", covered=0, seen_at=None),
    ]
    assert ids(worst_first(devices, order, None)) == expected
    assert ids(worst_first(reversed(devices), order, None)) == expected


def test_totals_are_the_sums_of_all_devices() -> None:
    found = totals(
        [
            device("A", covered=HOUR // 2, suspect=3, resets=1, unassigned=10, conflicts=2),
            device("B", unassigned=-4, implausible=5),
            device("C", kind="vehicle", unassigned=None, covered=0, seen_at=None),
            device("D", kind="vehicle", unassigned=None),
        ]
    )
    assert (found.devices, found.faulty, found.silent, found.never_seen) == (4, 3, 1, 1)
    assert (found.figures.suspect, found.figures.resets, found.unassigned) == (3, 1, 6)
    assert (found.conflicts, found.implausible) == (2, 5)
    assert found.coverage == 2.5 / 4


def test_totals_of_no_device_are_zero() -> None:
    found = totals([])
    assert (found.devices, found.faulty, found.figures, found.coverage) == (0, 0, NOTHING, None)


_few = st.integers(0, 2)
any_devices = st.lists(
    st.builds(
        lambda id_, kind, figures, unassigned, conflicts, seen_at: GOOD._replace(
            id=id_, kind=kind, figures=figures, unassigned=unassigned, conflicts=conflicts, seen_at=seen_at
        ),
        st.text("ABC", min_size=1, max_size=3),
        st.sampled_from(["meter", "vehicle"]),
        st.builds(
            lambda suspect, resets, covered: COMPLETE._replace(suspect=suspect, resets=resets, covered=covered),
            _few,
            _few,
            st.integers(0, 4).map(lambda quarters: quarters * HOUR // 4),
        ),
        st.none() | st.integers(-2, 2),
        _few,
        st.none() | st.integers(0, HOUR - 1),
    ),
    max_size=12,
    unique_by=lambda each: (each.kind, each.id),
)


@given(any_devices, st.sampled_from(ORDERS), st.integers(1, 5))
def test_pages_are_the_whole_list_without_repetition(devices: list[Quality], order: Order, limit: int) -> None:
    whole, paged = worst_first(devices, order, None), list[Quality]()
    after = None
    while page := worst_first(devices, order, after)[:limit]:
        paged += page
        after = place(page[-1], order)
    assert paged == whole
    assert len({(each.kind, each.id) for each in paged}) == len(devices)
