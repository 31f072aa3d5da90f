"""One device in an answer: which of its readings are needed, and what it measured. Pure; `api.measured` asks.

Times are microseconds since the period's start.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import UTC, date
from functools import cached_property
from itertools import pairwise
from operator import attrgetter, itemgetter
from typing import Any

from api.energy.curve import Curve, Device, Reading, curve_of, curve_of_intervals
from api.energy.interval import DAY_US, QUARTER_US, Group, day_of, groups_of, intervals_by_day, shows_interval
from api.energy.performance import Measured
from api.energy.quarter import Quarter, areas_of, changes_of, energy_of, points_of, quarters_of, whole_quarters
from api.energy.spans import Span, difference, intersection, overlaps, union
from api.energy.units import US_PER_S, register_units_of
from api.measured_sql import (
    US,
    Neighbour,
    Question,
    detached_days_of,
    measures_of_energy,
    observed_days,
    offset_of,
    registers_since,
)
from api.period import EARLIEST, LATEST

Row = Any
"""A reading: time, interval, registers in and out, gauges. asyncpg's, or a tuple."""
_at = itemgetter(0)
_start = attrgetter("start")


class DeviceReading:
    """What is known of a device while its readings are fetched, in the order of the methods."""

    def __init__(self, question: Question, device: str, default_interval_s: float) -> None:
        self.question = question
        self.name = device
        self.is_known = False
        self.sent: set[str] = set()
        """The columns of the question that it has ever sent."""
        self.newest: int | None = None
        """Its newest reading of all."""
        self.detached_days: list[date] = []
        """Days of the period whose readings exist, but in a partition that was detached from the history."""
        self.readings_read = 0
        self._device = Device(round(default_interval_s * US_PER_S), question.kind.rated_kw)
        self._is_declared = False
        self._away: list[date] = []
        """Detached days in and around the period."""
        self._closed = 0
        self._rows: list[Row] = []
        """In the order of time, each once."""
        self._summaries: list[Quarter] = []
        self._dirty: set[int] = set()
        self._quarters: dict[int, Quarter] = {}
        """Those that stand for their readings, by their start."""
        self._apart = set(question.cuts)
        """The starts of those that are not taken together with the one before."""
        self._groups: list[Group] = []
        """Of the readings that are known before intervals are observed."""

    def know(self, row: Row) -> None:
        """Take a row of `about_sql`."""
        _, self.is_known, sent, interval_s, rated_kw, self.newest, self._closed, detached = row
        self._away = detached_days_of(detached)
        self.detached_days = [day for day in self._away if self.question.period.has_day(day)]
        measures = self.question.measures
        self.sent = {measure.column for measure, is_sent in zip(measures, sent, strict=True) if is_sent}
        self._is_declared = interval_s is not None
        self._device = Device(
            self._device.interval_us if interval_s is None else round(interval_s * US_PER_S),
            rated_kw or self.question.kind.rated_kw,
            day_offset=offset_of(self.question.period, DAY_US),
        )

    @property
    def _asked(self) -> Span:
        return Span(0, self.question.span_us)

    @cached_property
    def _since(self) -> int:
        """The begin of the readings that figures are made from: registers need some from before the period."""
        _, *registers = measures_of_energy(self.question.kind)
        is_register = any(m is not None and m.column in self.sent for m in registers)
        return registers_since(self.question.period) if is_register else 0

    @cached_property
    def _read(self) -> Span:
        """The time of which readings are read: where no interval is declared with the days that show it."""
        if self._is_declared:
            return Span(self._since, self.question.span_us)
        days = observed_days(self.question.period)
        is_newest = self.newest is None or self.newest < self.question.span_us
        return Span(min(self._since, days.start), self.question.span_us if is_newest else days.end)

    @cached_property
    def summarized(self) -> Span:
        """The whole quarter hours that may be taken from summaries; empty when there is none."""
        return Span(*whole_quarters(*self._read, self.question.offset, self._closed))

    def take_summaries(self, rows: Sequence[Row]) -> None:
        """Take rows of `summaries_sql`."""
        self._summaries = sorted([Quarter._make(row) for row in rows if row[1] is not None], key=_at)
        self._dirty = {row[0] for row in rows if row[1] is None}

    @property
    def compared(self) -> list[int]:
        """The starts of quarter hours whose readings the question needs because it compares their energy."""
        return changes_of(self._summaries) if self.question.is_compared else []

    def first_spans(self, details: Iterable[int]) -> list[Span]:
        """The spans whose readings are needed, with the quarter hours that start at `details`."""
        question, summarized = self.question, self.summarized
        divided = quarters_of([*self._asked, *question.cuts], question.offset) | self._dirty | set(details)
        rated_kw = self._device.rated_kw
        self._quarters = {
            q.start: q
            for q in self._summaries
            if q.start not in divided and q.is_usable(rated_kw) and not (self._away and self._is_detached(q))
        }
        in_detail = {q.start for q in self._summaries if q.start not in self._quarters} | self._dirty
        spans = [Span(self._read.start, summarized.start), Span(summarized.end, self._read.end)]
        return union([*spans, *(Span(start, start + QUARTER_US) for start in in_detail)])

    def _is_detached(self, quarter: Quarter) -> bool:
        """Whether its readings cannot be read: an answer does not depend on whether there is a summary."""
        start = self.question.period.start + quarter.start * US
        return start.astimezone(UTC).date() in self._away

    def take_rows(self, rows: Iterable[Row]) -> None:
        """Take readings of `readings_sql`, in any order."""
        self._rows = _ordered([*self._rows, *rows])

    def unobserved_spans(self, neighbours: Iterable[Row]) -> list[Span]:
        """The time of which readings are still needed to observe intervals, given the readings next to the period.

        A day with few readings is observed with the day before it. The interval of a reading on another day matters
        when it is the first one after the period, or the last one before a period without readings.
        """
        if self._is_declared:
            return []
        self._groups = groups = self._grouped()
        read, offset = self._read, self._device.day_offset
        start = day_of(0, offset)
        first = [group for group in groups if start <= group.start < start + DAY_US]
        missing = [] if not first or shows_interval(first) else [Span(start - DAY_US, start)]
        is_empty = not any(0 <= group.first < self.question.span_us for group in groups)
        for at, *_ in neighbours:
            is_outside = at >= read.end or (is_empty and at < start)
            if is_outside:
                missing.append(Span(day_of(at, offset) - DAY_US, day_of(at, offset) + DAY_US))
        known = self.question.period
        return intersection(difference(union(missing), [read]), [Span(known.us(EARLIEST), known.us(LATEST))])

    def settle_intervals(self, rows: Sequence[Row], neighbours: Iterable[Row]) -> None:
        """Observe the intervals with these readings of `unobserved_spans`, and forget what was read for that only.

        `neighbours` are the readings next to the period.
        """
        if not self._is_declared:
            groups = self._grouped(rows) if rows else self._groups
            self._device = self._device._replace(by_day=intervals_by_day(groups, self._device.day_offset))
        start, end = self._since, self.question.span_us
        self._rows = self._rows[bisect_left(self._rows, start, key=_at) : bisect_left(self._rows, end, key=_at)]
        self._quarters = {at: quarter for at, quarter in self._quarters.items() if start <= at < end}
        self.take_rows(_nearest(neighbours, self.question.span_us))

    def _grouped(self, others: Sequence[Row] = ()) -> list[Group]:
        """The readings with energy by quarter hour, in order."""
        rows = _ordered([*self._rows, *others]) if others else self._rows
        groups = groups_of([row[0] for row in rows if _has_energy(row)], self.question.offset)
        return sorted([*groups, *(quarter for quarter in self._quarters.values() if quarter.has_energy)], key=_start)

    def has_neighbour(self, wanted: Neighbour, rows: Iterable[Row]) -> bool:
        """Whether one of these rows is on the side of the period and has the measure that is looked for."""
        energy = measures_of_energy(self.question.kind)
        columns = [None if m is None else m.column for m in (*energy, self.question.gauge)]
        at = columns.index(wanted.column) + 1
        return any(row[at] is not None and (row[0] < 0) == wanted.is_before for row in rows)

    def broken_spans(self) -> list[Span]:
        """The spans whose readings are needed because two readings are further apart than an interval covers."""
        shortest = self._device.shortest_gap_us
        wide = (q for q in self._quarters.values() if q.widest > shortest)
        return self._instead([q for q in wide if not q.is_unbroken(self._device)])

    def spans_within(self, spans: Iterable[Span]) -> list[Span]:
        """The quarter hours with a part in these spans, whose readings were not read yet.

        Those that were taken together are taken apart first, and their readings are read only if they are still asked
        for then.
        """
        wanted = union(spans)
        asked = [q for q in self._quarters.values() if overlaps(Span(q.start, q.end), wanted)]
        if not self.question.is_whole:
            return self._instead(asked)
        single = [q for q in asked if q.start in self._apart]
        self._apart |= {at for q in asked for at in (q.start, q.end)}
        return self._instead(single)

    def _instead(self, quarters: Sequence[Quarter]) -> list[Span]:
        for quarter in quarters:
            del self._quarters[quarter.start]
        return union(Span(q.start, q.end) for q in quarters)

    @property
    def size(self) -> int:
        """How many readings and summaries there are."""
        return len(self._rows) + len(self._quarters)

    def measured(self) -> Measured:
        """What the device measured."""
        quarters = sorted(self._quarters.values())
        span_us = self.question.span_us
        times = [(row[0], 1) for row in self._rows if 0 <= row[0] < span_us]
        times = sorted([*times, *((q.first, q.readings) for q in quarters)]) if quarters else times
        return Measured(
            self._curve(quarters),
            self._device,
            [at for at, _ in times],
            sorted([*_points(self._rows, 4), *points_of(quarters)]),
            self.is_known,
            {m.name: _points(self._rows, n) for n, m in enumerate(self.question.gauges, start=5)},
            [count for _, count in times] if quarters else (),
            areas_of(quarters),
            self._is_declared,
        )

    def _curve(self, quarters: Sequence[Quarter]) -> Curve:
        interval, *registers = measures_of_energy(self.question.kind)
        if not quarters and interval is not None and not any(m and m.column in self.sent for m in registers):
            known = [row for row in self._rows if row[1] is not None]
            return curve_of_intervals([row[0] for row in known], [row[1] for row in known], self._device)
        if any(m and m.column in self.sent for m in registers):
            readings = [Reading(row[0], row[1], _register(row[2]), _register(row[3])) for row in self._rows]
        else:
            readings = [Reading(row[0], row[1]) for row in self._rows]
        if self.question.is_whole or self.question.are_flows_read:
            readings += energy_of(quarters, self._apart, self._device)
        else:
            readings += [reading for quarter in quarters for reading in quarter.energy()]
        return curve_of(sorted(readings, key=_at), self._device)


def _has_energy(row: Row) -> bool:
    return row[1] is not None or row[2] is not None or row[3] is not None


def _nearest(rows: Iterable[Row], span_us: int) -> list[Row]:
    """Readings before and after the period with those values only that are the nearest of their measure.

    A reading that was found for one measure may have a value of another one, further from the period than the nearest.
    """
    rows = list(rows)
    before = _ordered(row for row in rows if row[0] < 0)[::-1]
    after = _ordered(row for row in rows if row[0] >= span_us)
    found: list[Row] = []
    for own in (before, after):
        seen = {0}
        for row in own:
            found.append((row[0], *(None if n in seen else row[n] for n in range(1, len(row)))))
            seen |= {n for n in range(1, len(row)) if row[n] is not None}
    return found


def _ordered(rows: Iterable[Row]) -> list[Row]:
    """In the order of time, each once."""
    ordered = sorted(rows, key=_at)
    return ordered[:1] + [row for before, row in pairwise(ordered) if row[0] != before[0]]


def _points(rows: Sequence[Row], column: int) -> list[tuple[int, float]]:
    return [(row[0], row[column]) for row in rows if row[column] is not None]


def _register(kwh: float | None) -> int | None:
    return None if kwh is None else register_units_of(kwh)
