"""How often a device reports, seen from its readings.

The readings of each quarter hour are taken together: the times between them are averaged. So the interval can be seen
from summaries of quarter hours as from the readings, and a lost reading does not change it.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
QUARTER_US = 900_000_000
_FEWEST_GAPS = 3


class Group(NamedTuple):
    """Readings of one quarter hour."""

    quarter: int
    """Its start."""
    first: int
    last: int
    readings: int


def groups_of(times: Iterable[int], offset: int) -> list[Group]:
    """Times in order, grouped by quarter hour. `offset` is the start of a quarter hour."""
    found: list[Group] = []
    for quarter, own in groupby(times, key=lambda at: at - (at - offset) % QUARTER_US):
        at = list(own)
        found.append(Group(quarter, at[0], at[-1], len(at)))
    return found


def observed_interval(groups: Sequence[Group]) -> int | None:
    """The median time between readings in the day that ends with the last one, microseconds.

    None when there are fewer than three gaps: they would say little. `groups` are in the order of time.
    """
    if not groups:
        return None
    since = groups[-1].quarter - DAY_US
    own = [group for group in groups if group.quarter >= since]
    gaps: list[tuple[int, int]] = []
    before: Group | None = None
    for group in own:
        if before is not None:
            gaps.append((group.first - before.last, 1))
        if group.readings > 1:
            gaps.append(((group.last - group.first) // (group.readings - 1), group.readings - 1))
        before = group
    return _median(sorted(gaps), sum(count for _, count in gaps))


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
