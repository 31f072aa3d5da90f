"""The mean of a gauge over the time in which it was measured."""

from collections.abc import Sequence
from itertools import pairwise

LEAST_LINE_US = 600 * 1_000_000
"""Readings up to ten minutes apart are joined by a line, however short the device's interval is."""


def mean(points: Sequence[tuple[int, float]], start: int, end: int, interval_us: int) -> float | None:
    """The mean in [start, end) of the straight lines between readings that are near each other.

    Readings are near up to 1.5 device intervals, ten minutes at least. Parts of lines that cross the period's edges
    belong to it. Without a line in the period the mean is that of the readings in it; None without any. `points` are
    in the order of time and may lie outside of the period.
    """
    longest = max(LEAST_LINE_US, interval_us * 3 // 2)
    near = [(p, q) for p, q in pairwise(points) if q[0] - p[0] <= longest and q[0] > start and p[0] < end]
    doubled = measured = 0.0
    for n in (0, -1) if len(near) > 1 else range(len(near)):  # only the outer lines can cross an edge
        (t0, v0), (t1, v1) = near[n]
        left, right = max(t0, start), min(t1, end)
        slope = (v1 - v0) / (t1 - t0)
        doubled += (2 * v0 + slope * (left + right - 2 * t0)) * (right - left)
        measured += right - left
    doubled += sum((v0 + v1) * (t1 - t0) for (t0, v0), (t1, v1) in near[1:-1])
    measured += sum(t1 - t0 for (t0, _), (t1, _) in near[1:-1])
    if measured:
        return doubled / (2 * measured)
    values = [value for at, value in points if start <= at < end]
    return sum(values) / len(values) if values else None
