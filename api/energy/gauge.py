"""The mean of a gauge over the time in which it was measured."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from api.energy.curve import Device

LEAST_LINE_US = 600 * 1_000_000
"""Readings up to ten minutes apart are joined by a line, however short the device's interval is."""


def mean(
    points: Sequence[tuple[int, float]],
    start: int,
    end: int,
    device: Device,
    areas: Mapping[int, float] | None = None,
) -> float | None:
    """The mean in [start, end) of the straight lines between readings that are near each other.

    Readings are near up to 1.5 device intervals of the later one, ten minutes at least. Parts of lines that cross the
    period's edges belong to it. Without a line in the period the mean is that of the readings in it; None without any.
    `points` are in the order of time and may lie outside of the period. `areas` are twice the areas of several lines
    together, by the time of the point in which they end, from the point before it; they lie in the period.
    """
    known = areas or {}
    near = [
        (p, q)
        for p, q in pairwise(points)
        if q[0] > start and p[0] < end and (q[0] in known or _is_near(q[0] - p[0], q[0], device))
    ]
    doubled = measured = 0.0
    for (t0, v0), (t1, v1) in near:
        if t1 in known:
            doubled += known[t1]
            measured += t1 - t0
            continue
        if start <= t0 and t1 <= end:
            doubled += (v0 + v1) * (t1 - t0)
            measured += t1 - t0
            continue
        left, right = max(t0, start), min(t1, end)
        slope = (v1 - v0) / (t1 - t0)
        doubled += (2 * v0 + slope * (left + right - 2 * t0)) * (right - left)
        measured += right - left
    if measured:
        return doubled / (2 * measured)
    values = [value for at, value in points if start <= at < end]
    return sum(values) / len(values) if values else None


def _is_near(gap: int, at: int, device: Device) -> bool:
    return gap <= LEAST_LINE_US or gap <= device.longest_gap(at)
