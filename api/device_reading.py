"""One device in an answer: which of its readings are needed, and what it measured. Pure; `api.measured` asks.

Times are microseconds since the period's start.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import UTC, date
from itertools import pairwise
from operator import itemgetter
from typing import Any

from api.energy.curve import Curve, Device, Reading, curve_of, curve_of_intervals
from api.energy.interval import QUARTER_US, groups_of, observed_interval
from api.energy.performance import Measured
from api.energy.quarter import GaugeQuarter, Quarter, areas_of, quarters_of, whole_quarters
from api.energy.spans import Span, overlaps, union
from api.energy.units import US_PER_S, register_units_of
from api.measured_sql import US, Neighbour, Question, detached_days_of, measures_of_energy, observed_since

Row = Any
"""A reading: time, interval, registers in and out, gauges. asyncpg's, or a tuple."""
_at = itemgetter(0)


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
        self._declared_us: int | None = None
        self._interval_us: int | None = None
        self._closed = 0
        self._rows: list[Row] = []
        """In the order of time, each once."""
        self._summaries: list[Quarter] = []
        self._dirty: set[int] = set()
        self._quarters: dict[int, Quarter] = {}
        """Those that stand for their readings, by their start."""

    def know(self, row: Row) -> None:
        """Take a row of `about_sql`."""
        _, self.is_known, sent, interval_s, rated_kw, self.newest, self._closed, detached = row
        self.detached_days = detached_days_of(detached)
        measures = self.question.measures
        self.sent = {measure.column for measure, is_sent in zip(measures, sent, strict=True) if is_sent}
        self._declared_us = None if interval_s is None else round(interval_s * US_PER_S)
        self._device = Device(self._declared_us or self._device.interval_us, rated_kw or self.question.kind.rated_kw)

    @property
    def looks_back(self) -> bool:
        """Whether readings before the period are read anyway, because they show the interval."""
        return self._since < 0

    @property
    def _since(self) -> int:
        return 0 if self._declared_us is not None else observed_since(self.question.period)

    @property
    def summarized(self) -> Span:
        """The whole quarter hours that may be taken from summaries; empty when there is none."""
        question = self.question
        return Span(*whole_quarters(self._since, question.span_us, question.offset, self._closed))

    def take_summaries(self, rows: Sequence[Row]) -> None:
        """Take rows of `summaries_sql`."""
        self._summaries = sorted(_quarter(row[:-1]) for row in rows if row[1] is not None)
        self._dirty = {row[0] for row in rows if row[1] is None}

    @property
    def patchy(self) -> list[int]:
        """The starts of quarter hours whose readings the question needs because it compares their energy."""
        return [q.start for q in self._summaries if q.is_patchy] if self.question.is_compared else []

    def first_spans(self, details: Iterable[int]) -> list[Span]:
        """The spans whose readings are needed, with the quarter hours that start at `details`."""
        question, summarized = self.question, self.summarized
        divided = quarters_of([0, *question.cuts], question.offset) | self._dirty | set(details)
        for quarter in self._summaries:
            if (
                quarter.start not in divided
                and quarter.is_usable(self._device.rated_kw)
                and not self._is_detached(quarter)
            ):
                self._quarters[quarter.start] = quarter
        in_detail = {q.start for q in self._summaries if q.start not in self._quarters} | self._dirty
        spans = [Span(self._since, summarized.start), Span(summarized.end, question.span_us)]
        return union([*spans, *(Span(start, start + QUARTER_US) for start in in_detail)])

    def _is_detached(self, quarter: Quarter) -> bool:
        """Whether its readings cannot be read: an answer does not depend on whether there is a summary."""
        if not self.detached_days:
            return False
        start = self.question.period.start + quarter.start * US
        return start.astimezone(UTC).date() in self.detached_days

    def take_rows(self, rows: Iterable[Row]) -> None:
        """Take readings of `readings_sql`, in any order."""
        self._rows = _ordered([*self._rows, *rows])

    def is_interval_known(self, earlier: Iterable[Row] = ()) -> bool:
        """Whether the interval is declared, or shown by the readings so far and these from before the period."""
        self._interval_us = self._declared_us or self._observed(_ordered([*earlier, *self._rows]))
        return self._interval_us is not None

    def settle_interval(self) -> None:
        """Judge with the interval that is known, else the default, and forget what was read to observe it."""
        self._device = self._device._replace(interval_us=self._interval_us or self._device.interval_us)
        self._rows = self._rows[bisect_left(self._rows, 0, key=_at) :]
        self._quarters = {start: quarter for start, quarter in self._quarters.items() if start >= 0}

    def _observed(self, rows: Sequence[Row]) -> int | None:
        times = [row[0] for row in rows if _has_energy(row)]
        groups = groups_of(times, self.question.offset)
        groups += [quarter.group for quarter in self._quarters.values() if quarter.has_energy]
        return observed_interval(sorted(groups))

    def take_neighbours(self, rows: Iterable[Row]) -> None:
        """Take the readings next to the period."""
        self.take_rows(_nearest(rows, self.question.span_us))

    def has_neighbour(self, wanted: Neighbour, rows: Iterable[Row]) -> bool:
        """Whether one of these rows is on the side of the period and has the measure that is looked for."""
        energy = measures_of_energy(self.question.kind)
        columns = [None if m is None else m.column for m in (*energy, self.question.gauge)]
        at = columns.index(wanted.column) + 1
        return any(row[at] is not None and (row[0] < 0) == wanted.is_before for row in rows)

    def broken_spans(self) -> list[Span]:
        """The spans whose readings are needed because two readings are further apart than an interval covers."""
        return self._instead([q for q in self._quarters.values() if not q.is_unbroken(self._device)])

    def spans_within(self, spans: Iterable[Span]) -> list[Span]:
        """The quarter hours with a part in these spans, whose readings were not read yet."""
        wanted = union(spans)
        return self._instead([q for q in self._quarters.values() if overlaps(Span(q.start, q.end), wanted)])

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
            sorted([*_points(self._rows, 4), *(point for q in quarters for point in q.points())]),
            self.is_known,
            {m.name: _points(self._rows, n) for n, m in enumerate(self.question.gauges, start=5)},
            [count for _, count in times] if quarters else (),
            areas_of(quarters),
            "declared" if self._declared_us else "observed" if self._interval_us else "default",
        )

    def _curve(self, quarters: Sequence[Quarter]) -> Curve:
        interval, *registers = measures_of_energy(self.question.kind)
        if not quarters and interval is not None and not any(m and m.column in self.sent for m in registers):
            known = [row for row in self._rows if row[1] is not None]
            return curve_of_intervals([row[0] for row in known], [row[1] for row in known], self._device)
        readings = [Reading(row[0], row[1], _register(row[2]), _register(row[3])) for row in self._rows]
        readings += [reading for quarter in quarters for reading in quarter.energy()]
        return curve_of(sorted(readings, key=_at), self._device)


def _quarter(row: Row) -> Quarter:
    start, readings, first, last, widest, is_even, *numbers = row
    units, (in_first, in_last, out_first, out_last, rises_in, rises_out, steepest) = numbers[:5], numbers[5:12]
    gauge = GaugeQuarter(*numbers[12:])
    return Quarter(
        start,
        readings,
        start + first,
        start + last,
        widest,
        is_even,
        units[0],
        units[1],
        units[2],
        units[3],
        units[4],
        None if in_first is None else (in_first, in_last),
        None if out_first is None else (out_first, out_last),
        rises_in,
        rises_out,
        steepest,
        gauge,
    )


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
