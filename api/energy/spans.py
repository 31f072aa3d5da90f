"""Sets of time as sorted lists of half-open spans [start, end) that do not touch each other. Microseconds."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """From `start` up to, and not including, `end`."""

    start: int
    end: int


def union(spans: Iterable[tuple[int, int]]) -> list[Span]:
    """All of the given spans, in any order, joined where they overlap or touch; empty ones are dropped."""
    joined: list[Span] = []
    start = end = None
    for first, last in sorted(spans):
        if first >= last:
            continue
        if end is None or first > end:
            if start is not None and end is not None:
                joined.append(Span(start, end))
            start, end = first, last
        elif last > end:
            end = last
    if start is not None and end is not None:
        joined.append(Span(start, end))
    return joined


def chained(starts: Sequence[int], ends: Sequence[int]) -> list[Span]:
    """Spans that are in order, without overlap and not empty, joined where one begins as the one before it ends."""
    breaks = [n for n, start in enumerate(starts[1:], 1) if start != ends[n - 1]]
    firsts, lasts = [0, *breaks], [*(n - 1 for n in breaks), len(ends) - 1]
    return [Span(starts[first], ends[last]) for first, last in zip(firsts, lasts, strict=True)] if starts else []


def intersection(first: Sequence[Span], second: Sequence[Span]) -> list[Span]:
    """What lies in both sets."""
    common: list[Span] = []
    n = m = 0
    while n < len(first) and m < len(second):
        start, end = max(first[n].start, second[m].start), min(first[n].end, second[m].end)
        if start < end:
            common.append(Span(start, end))
        if first[n].end <= second[m].end:
            n += 1
        else:
            m += 1
    return common


def difference(whole: Sequence[Span], taken: Sequence[Span]) -> list[Span]:
    """What lies in the first set and not in the second."""
    left: list[Span] = []
    m = 0
    for start, end in whole:
        while m < len(taken) and taken[m].end <= start:
            m += 1
        at, n = start, m
        while n < len(taken) and taken[n].start < end:
            if at < taken[n].start:
                left.append(Span(at, taken[n].start))
            at = max(at, taken[n].end)
            n += 1
        if at < end:
            left.append(Span(at, end))
    return left


def within(span: Span, others: Sequence[Span]) -> list[Span]:
    """The parts of a span that lie in a set."""
    start, end = span
    first = bisect_left(others, (start,))
    if first and others[first - 1].end > start:
        first -= 1
    return intersection([span], others[first : bisect_left(others, (end,), first)])


def overlaps(span: Span, others: Sequence[Span]) -> bool:
    """Whether a part of a span lies in a set."""
    start, end = span
    before_end = bisect_left(others, (end,))
    return start < end and before_end > 0 and others[before_end - 1].end > start


def duration(spans: Iterable[Span]) -> int:
    """The length of a set, microseconds."""
    return sum(end - start for start, end in spans)
