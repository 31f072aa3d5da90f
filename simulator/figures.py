"""What the energy figures of a device's readings must be, by the rules of docs/figures.md.

The oracle with which `verify` compares the answers of the API. It shares no code with the API: it is written from the
rules, with exact fractions of a kWh, and is plain rather than fast. Times are microseconds since 1970 UTC.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from statistics import median_low
from typing import NamedTuple

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
NEIGHBOUR_US = 31 * DAY_US
"""How far from a period the readings before and after it may be."""
_ZERO = Fraction()
_LONGEST_GAP = Fraction(3, 2)
_RESET_BELOW = Fraction(9, 10)
_PLAUSIBLE = Fraction(11, 10)
_FEWEST_GAPS = 3
_QUARTER_US = 900 * SECOND_US
_LOOK_BACK_US = 4 * 3600 * SECOND_US


class Span(NamedTuple):
    """The time from `start` up to, and not including, `end`."""

    start: int
    end: int


class Point(NamedTuple):
    """The energy in a stored reading, kWh; None where the reading does not have the measure."""

    at: int
    interval: Fraction | None = None
    register_in: Fraction | None = None
    register_out: Fraction | None = None

    @property
    def has_energy(self) -> bool:
        return (self.interval, self.register_in, self.register_out) != (None, None, None)


class Part(NamedTuple):
    """Energy that flows evenly from `start` to `end`."""

    start: int
    end: int
    kwh: Fraction


class Flow(NamedTuple):
    """One direction of a device; parts in the order of time, without overlap."""

    parts: list[Part]
    withheld: list[Part]
    resets: list[int]
    covered: list[Span]


class Interval(NamedTuple):
    """How often a device reports."""

    seen_us: Mapping[int, int]
    """The interval that is seen on a UTC day, by days since 1970."""
    default_us: int
    """That of all other days."""

    def at(self, us: int) -> int:
        """The interval of a reading, microseconds."""
        return self.seen_us.get(us // DAY_US, self.default_us)


class Curve(NamedTuple):
    """A device's energy in both directions around a period."""

    into: Flow
    out: Flow
    covered: list[Span]
    at: list[int]
    """Times of the readings with energy."""
    interval: "Interval"

    def is_known(self, start: int, end: int) -> bool:
        """Whether anything was measured in this time."""
        return length(self.covered, start, end) > 0 or bisect_left(self.at, start) < bisect_left(self.at, end)


def interval_kwh(value: float) -> Fraction:
    """The value of an interval: rounded to twelve decimals."""
    return round(Fraction(repr(value)), 12)


def register_kwh(value: float) -> Fraction:
    """The value of a register: its first 15 digits."""
    return Fraction(Decimal(f"{value:.15g}"))


def curve_of(points: Sequence[Point], period: Span, rated_kw: float, default_interval_s: float) -> Curve:
    """The curve of a device's readings, which are in the order of time, as far as a period needs it."""
    known = [p for p in points if p.has_energy and period.start - NEIGHBOUR_US <= p.at < period.end + NEIGHBOUR_US]
    interval = Interval(_seen_by_day([p.at for p in points if p.has_energy]), round(default_interval_s * SECOND_US))
    intervals = list(_intervals(known, interval))
    into = _flow(intervals, 1, _around([(p.at, p.register_in) for p in known], period), rated_kw)
    out = _flow(intervals, -1, _around([(p.at, p.register_out) for p in known], period), rated_kw)
    withheld = joined(part[:2] for flow in (into, out) for part in flow.withheld)
    covered = without(joined([*into.covered, *out.covered]), withheld)
    return Curve(into, out, covered, [p.at for p in known], interval)


def _seen_by_day(times: Sequence[int]) -> dict[int, int]:
    """The interval that is seen in a day, or where it has too few gaps with the day before it, by days since 1970."""
    days: dict[int, list[int]] = {}
    for at in times:
        days.setdefault(at // DAY_US, []).append(at)
    seen = {day: _seen_in(own) or _seen_in([*days.get(day - 1, []), *own]) for day, own in days.items()}
    return {day: interval_us for day, interval_us in seen.items() if interval_us is not None}


def _seen_in(times: Sequence[int]) -> int | None:
    """The median time between readings, those of a quarter hour averaged."""
    quarters: dict[int, list[int]] = {}
    for at in times:
        quarters.setdefault(at // _QUARTER_US, []).append(at)
    own = [quarters[n] for n in sorted(quarters)]
    gaps = [after[0] - before[-1] for before, after in pairwise(own)]
    for quarter in own:
        count = len(quarter) - 1
        gaps += [(quarter[-1] - quarter[0]) // count] * count if count else []
    return median_low(gaps) if len(gaps) >= _FEWEST_GAPS else None


def _intervals(known: Sequence[Point], interval: Interval) -> Iterable[Part]:
    """The time and the signed energy of each interval reading."""
    before: int | None = None
    for point in known:
        interval_us = interval.at(point.at)
        is_near = before is not None and point.at - before <= _LONGEST_GAP * interval_us
        start = before if is_near and before is not None else point.at - interval_us
        if point.interval is not None:
            yield Part(start, point.at, point.interval)
        before = point.at


_Values = Sequence[tuple[int, Fraction]]


def _around(values: Iterable[tuple[int, Fraction | None]], period: Span) -> _Values:
    """A register's values from the last one before the period, or some hours before it, to the first one after it."""
    given = [(at, value) for at, value in values if value is not None]
    since = period.start // _QUARTER_US * _QUARTER_US - _LOOK_BACK_US
    first = max(0, min(sum(at < period.start for at, _ in given) - 1, sum(at < since for at, _ in given)))
    return given[first : sum(at < period.end for at, _ in given) + 1]


def _flow(intervals: Sequence[Part], sign: int, register: _Values, rated_kw: float) -> Flow:
    """One direction: the register, and the intervals where it says nothing."""
    parts, withheld, resets, covered = list[Part](), list[Part](), list[int](), list[Span]()
    high = register[0][1] if register else _ZERO
    for (start, before), (end, value) in pairwise(register):
        most = Fraction(rated_kw) * (end - start) / (3600 * SECOND_US) * _PLAUSIBLE
        if value < _RESET_BELOW * before:
            resets.append(end)
            high = value
            if value > most:
                withheld.append(Part(start, end, _ZERO))
                continue
            kwh = value
        elif value - before > most and value > high:
            withheld.append(Part(start, end, value - high))
            high = value
            continue
        else:
            kwh, high = max(_ZERO, value - high), max(high, value)
        covered.append(Span(start, end))
        parts.append(Part(start, end, kwh))
    own = [p for p in intervals if not register or not register[0][0] <= p.end <= register[-1][0]]
    parts += [Part(start, end, sign * kwh) for start, end, kwh in own if sign * kwh > 0]
    covered += [Span(*part[:2]) for part in own]
    return Flow(sorted(part for part in parts if part.kwh), withheld, resets, joined(covered))


def energy(parts: Sequence[Part], start: int, end: int) -> Fraction:
    """The energy of [start, end): a part across an edge is divided by time."""
    return sum(
        (p.kwh * (min(p.end, end) - max(p.start, start)) / (p.end - p.start) for p in _some(parts, start, end)), _ZERO
    )


def straddling(parts: Sequence[Part], start: int, end: int) -> Fraction:
    """The whole energy of the parts across an edge of [start, end)."""
    return sum((p.kwh for p in _some(parts, start, end) if p.start < start or p.end > end), _ZERO)


def _some(parts: Sequence[Part], start: int, end: int) -> Sequence[Part]:
    """The parts that overlap [start, end)."""
    first = bisect_right(parts, start, key=lambda part: part.end)
    return parts[first : bisect_left(parts, end, lo=first, key=lambda part: part.start)]


class Assigned(NamedTuple):
    """A meter feeds this vehicle from `start` up to, and not including, `end`; None: it feeds none."""

    start: int
    end: int
    vehicle: str | None


def divided(parts: Iterable[Part], assignments: Sequence[Assigned], vehicle: str | None) -> list[Part]:
    """A vehicle's share of a meter's parts; of None: what no assignment to any vehicle overlaps."""
    given = [a for a in assignments if a.vehicle is not None]
    shares: list[Part] = []
    for part in parts:
        overlaps = [
            (max(a.start, part.start), min(a.end, part.end), a.vehicle)
            for a in given
            if a.start < part.end and part.start < a.end
        ]
        time = sum(end - start for start, end, _ in overlaps)
        shares += [Part(start, end, part.kwh * (end - start) / time) for start, end, to in overlaps if to == vehicle]
        if not overlaps and vehicle is None:
            shares.append(part)
    return shares


def due_until(curve: Curve, period: Span, now: int) -> int:
    """Until when a period should be covered: not after the last reading while the next one is not overdue."""
    end = min(period.end, now)
    last = max((span.end for span in curve.covered if span.start < end), default=end)
    return last if last < end and now - last <= _LONGEST_GAP * curve.interval.at(last) else end


def joined(spans: Iterable[tuple[int, int]]) -> list[Span]:
    """The union of spans, in order; spans that touch are one."""
    found: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if found and start <= found[-1].end:
            found[-1] = Span(found[-1].start, max(found[-1].end, end))
        else:
            found.append(Span(start, end))
    return found


def without(spans: Sequence[Span], taken: Sequence[Span]) -> list[Span]:
    """What lies in `spans` and not in `taken`; both are unions."""
    for start, end in taken:
        cut = [(s.start, min(s.end, start)) for s in spans] + [(max(s.start, end), s.end) for s in spans]
        spans = joined(cut)
    return list(spans)


def common(first: Sequence[Span], second: Sequence[Span]) -> list[Span]:
    """What lies in both unions."""
    return without(first, without(first, second))


def length(spans: Iterable[Span], start: int, end: int) -> int:
    """How much of [start, end) lies in these spans."""
    return sum(max(0, min(s.end, end) - max(s.start, start)) for s in spans)
