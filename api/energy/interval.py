"""How often a device reports, seen from its readings."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median_low

DAY_US = 86_400_000_000
_FEWEST_GAPS = 3


def observed_interval(times: Sequence[int], *, before: int) -> int | None:
    """The median time between readings in the day that ends with the last one before an instant, microseconds.

    None when there are fewer than three gaps: they would say little. `times` are in order.
    """
    times = [at for at in times if at < before]
    if not times:
        return None
    gaps = [second - first for first, second in pairwise(times) if first >= times[-1] - DAY_US]
    return median_low(gaps) if len(gaps) >= _FEWEST_GAPS else None
