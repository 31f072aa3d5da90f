"""How often a device reports, seen from its readings.

The readings of each quarter hour are taken together: the times between them are averaged. So the interval can be seen
from summaries of quarter hours as from the readings, and a lost reading does not change it.

An observed interval belongs to a UTC day. So it does not depend on the period that is asked for, and the figures of
adjacent periods add up.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple, Protocol

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
SIX_HOURS_US = 6 * HOUR_US
QUARTER_US = 900_000_000
_FEWEST_GAPS = 3


class Group(Protocol):
    """Readings of one quarter hour: the times of the first and the last one, and how many there are."""

    @property
    def start(self) -> int:
        """The start of the quarter hour."""

    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...
    @property
    def readings(self) -> int: ...


class _Times(NamedTuple):
    """The group of some times."""

    start: int
    readings: int
    first: int
    last: int


def groups_of(times: Iterable[int], offset: int) -> list[Group]:
    """Times in order, grouped by quarter hour. `offset` is the start of a quarter hour."""
    found: list[Group] = []
    for quarter, own in groupby(times, key=lambda at: at - (at - offset) % QUARTER_US):
        at = list(own)
        found.append(_Times(quarter, len(at), at[0], at[-1]))
    return found


def day_of(at: int, offset: int) -> int:
    """The start of the UTC day of an instant. `offset` is the start of one."""
    return at - (at - offset) % DAY_US


def intervals_by_day(groups: Sequence[Group], offset: int) -> dict[int, int]:
    """The observed interval of each UTC day, by its start, microseconds: the median time between the day's readings.

    A day with fewer than three gaps is taken together with the day before; a day for which that is not enough either
    has none. `groups` are in the order of time; `offset` is the start of a UTC day.
    """
    if not groups:
        return {}
    starts = [group.start for group in groups]
    found: dict[int, int] = {}
    before: Sequence[Group] = ()
    for day in range(day_of(starts[0], offset), starts[-1] + 1, DAY_US):
        own = groups[bisect_left(starts, day) : bisect_left(starts, day + DAY_US)]
        interval = (_observed(own) or _observed([*before, *own])) if own else None
        if interval is not None:
            found[day] = interval
        before = own
    return found


def shows_interval(groups: Sequence[Group]) -> bool:
    """Whether there are enough gaps between these readings to observe an interval."""
    return sum(group.readings for group in groups) > _FEWEST_GAPS


def _observed(groups: Sequence[Group]) -> int | None:
    """The median time between readings; None when there are fewer than three gaps: they would say little."""
    gaps: dict[int, int] = {}
    last = None
    for group in groups:
        if last is not None:
            gaps[group.first - last] = gaps.get(group.first - last, 0) + 1
        last, count = group.last, group.readings - 1
        if count:
            gap = (last - group.first) // count
            gaps[gap] = gaps.get(gap, 0) + count
    return _median(sorted(gaps.items()), sum(gaps.values()))


def _median(gaps: Sequence[tuple[int, int]], count: int) -> int | None:
    """The lower median of gaps, each with how many there are of it."""
    if count < _FEWEST_GAPS:
        return None
    passed = 0
    for gap, own in gaps:
        passed += own
        if 2 * passed >= count:
            return gap
    raise AssertionError("unreachable")
