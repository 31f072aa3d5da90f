"""The readings of a device as the energy algebra takes them: of a period, and the neighbours that its edges need.

Quarter hours that are over are taken from their summaries where these may stand for the readings
(`api.energy.quarter`), all else from the history. Times are microseconds since the period's start. The neighbours are
the last reading before the period and the first one after it, for each measure that the device has ever sent; they are
looked for within 31 days.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

from api.database import Connection
from api.energy.curve import Curve, Device, Reading, curve_of, curve_of_intervals
from api.energy.interval import DAY_US, QUARTER_US, groups_of, observed_interval
from api.energy.performance import Measured
from api.energy.quarter import GaugeQuarter, Quarter, areas_of, quarters_of, whole_quarters
from api.energy.spans import Span, overlaps, union
from api.energy.units import US_PER_S, register_units_of
from api.period import EARLIEST, LATEST, Period
from api.problems import invalid
from api.read_limit import refuse_readings
from bridge.contract import Kind, Measure

Row = Any
"""asyncpg's: time, interval, registers in and out, gauges."""
_at = itemgetter(0)
_NEIGHBOURS = timedelta(days=31)
_DAY = timedelta(days=1)
_LONG_ENOUGH = timedelta(hours=6)
_US = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_RANGES = 12
_MOST_READINGS = 300_000
"""Readings of one device that an answer is made of, besides summaries: 208 days of one a minute."""
_IN_A_THREAD = 5_000
"""From so many readings on a curve is made in a thread, so that other requests are answered meanwhile."""
_DETACHED = """
SELECT relname::text FROM unnest($1::name[], $2::name[]) AS days(first, last)
JOIN pg_class ON relname BETWEEN first AND last AND relkind = 'r' AND NOT relispartition
  AND relnamespace = current_schema()::regnamespace
"""
_ABOUT = """
SELECT l.{device} IS NOT NULL AS is_known, {sent}, d.interval_s, d.rated_kw,
       (tstzrange_subdiff(greatest(m.closed_until, '0001-01-02 00:00+00'), $3) * 1e6)::int8 AS closed
FROM (SELECT $2::text AS id) AS asked
LEFT JOIN {live} l ON l.{device} = asked.id LEFT JOIN device d ON d.kind = $1 AND d.id = asked.id
LEFT JOIN quarter_mark m ON m.kind = $1
"""
_SUMMARY = (
    "readings, first_us, last_us, coalesce(widest_us, 0), is_even, interval_first, coalesce(interval_in, 0), "
    "coalesce(interval_out, 0), coalesce(steps_in, 0), coalesce(steps_out, 0), register_in_first, register_in_last, "
    "register_out_first, register_out_last, coalesce(rises_in, 0), coalesce(rises_out, 0), coalesce(steepest_kw, 0)"
)


def measures_of_energy(kind: Kind) -> tuple[Measure | None, Measure | None, Measure | None]:
    """The interval, and the registers of energy in and out, as far as devices of the kind have them."""
    return kind.interval, kind.register_in, kind.register_out


def with_neighbours(period: Period) -> Period:
    """The period and the time around it in which neighbours are looked for."""
    start = period.start - min(_NEIGHBOURS, period.start - EARLIEST)
    return Period(start, period.end + min(_NEIGHBOURS, LATEST - period.end))


async def detached_days(c: Connection, kinds: Sequence[Kind], period: Period) -> list[date]:
    """Days of the period whose readings exist, but in a partition that was detached from the history."""
    first, last = (f"{instant.astimezone(UTC):%Y%m%d}" for instant in (period.start, period.end - _US))
    tables = [kind.history_table for kind in kinds]
    names = await c.fetch(_DETACHED, [f"{t}_{first}" for t in tables], [f"{t}_{last}" for t in tables])
    return sorted({datetime.strptime(row[0][-8:], "%Y%m%d").date() for row in names})  # noqa: DTZ007  # a date


def offset_of(period: Period) -> int:
    """The start of the quarter hour in which a period starts."""
    return -((period.start - _EPOCH) // _US % QUARTER_US)


def observed_since(period: Period) -> int:
    """From when on the readings show the interval of a device: for a short period from a day before it."""
    return 0 if period.end - period.start >= _LONG_ENOUGH else max(-DAY_US, period.us(EARLIEST))


class Question(NamedTuple):
    """What is asked of the devices of one kind."""

    kind: Kind
    period: Period
    gauge: Measure | None = None
    """A gauge whose mean over the period is asked for."""
    gauges: tuple[Measure, ...] = ()
    """Further gauges of the same readings; no neighbours are looked for on their account."""
    cuts: Sequence[int] = ()
    """Where figures are divided, besides at the period's edges: microseconds since its start."""
    details: Sequence[int] = ()
    """The starts of quarter hours of which the readings are needed."""
    is_compared: bool = False
    """Whether the readings are needed where energy flowed in a part of a quarter hour only."""
    detached_days: Sequence[date] = ()

    @property
    def span_us(self) -> int:
        return self.period.us(self.period.end)

    @property
    def offset(self) -> int:
        return offset_of(self.period)

    def rows_sql(self, sent: Sequence[str], days: str) -> str:
        """The readings of some spans of time, in any order, for a device that has sent these columns.

        $1 is the device, $2 the period's start, $3 and $4 are the spans' bounds. OFFSET 0 keeps the planner from
        joining the spans with all readings of the days.
        """
        return (
            f"SELECT r.* FROM unnest($3::timestamptz[], $4::timestamptz[]) AS s(since, until) CROSS JOIN LATERAL "  # noqa: S608
            f"({self._select(sent)} ts >= since AND ts < until AND ({days}) OFFSET 0) AS r"
        )

    def neighbours_sql(self, sent: Sequence[str]) -> str:
        """The readings next to the period. $1 is the device, $2 and $3 are the period."""
        asked = [m.column for m in (*measures_of_energy(self.kind), self.gauge) if m is not None and m.column in sent]
        days, select = with_neighbours(self.period).days_sql(), self._select(sent)
        parts: list[str] = []
        for column in asked:
            known = f"{days} AND {column} IS NOT NULL ORDER BY {self.kind.id_column}"
            parts.append(f"({select} ts < $2 AND {known} DESC, ts DESC LIMIT 1)")
            parts.append(f"({select} ts >= $3 AND {known}, ts LIMIT 1)")
        return " UNION ALL ".join(parts)

    def quarters_sql(self) -> str:
        """The summaries and the marks of a device's quarter hours from $3 up to $4; $2 is the period's start.

        Both at once: the keeper deletes a mark and replaces the summary in one transaction.
        """
        kind, gauge = self.kind, "NULL, NULL, NULL, NULL"
        if self.gauge is not None:
            column = self.gauge.column
            gauge = f"{column}_readings, {column}_first, {column}_last, {column}_area"
        start = "(tstzrange_subdiff(bucket, $2) * 1e6)::int8"
        key = f"{kind.id_column} = $1 AND bucket >= $3 AND bucket < $4"
        nothing = ", ".join(["NULL"] * 21)
        return (
            f"SELECT {start} AS start, {_SUMMARY}, {gauge} FROM {kind.quarter_table} "  # noqa: S608
            f"WHERE {key} AND {self._months_sql()} "
            f"UNION ALL SELECT {start}, {nothing} FROM {kind.dirty_table} WHERE {key}"
        )

    def _select(self, sent: Sequence[str]) -> str:
        columns = [self._column(m, sent) for m in (*measures_of_energy(self.kind), self.gauge, *self.gauges)]
        return (
            f"SELECT (tstzrange_subdiff(ts, $2) * 1e6)::int8 AS at, {', '.join(columns)} "  # noqa: S608
            f"FROM {self.kind.history_table} WHERE {self.kind.id_column} = $1 AND "
        )

    def _column(self, measure: Measure | None, sent: Sequence[str]) -> str:
        if measure is None or measure.column not in sent:
            return "NULL"
        return f"({measure.column} * 1e12)::int8" if measure.sort == "interval" else measure.column

    def _months_sql(self) -> str:
        """Constants, which prune partitions when the statement is planned."""
        start = self.period.start - min(_DAY, self.period.start - EARLIEST)
        return Period(start, self.period.end).days_sql("bucket")


class DeviceReader:
    """Reads a device for a question; again, in more detail, where a figure turns out to need it."""

    def __init__(self, c: Connection, question: Question, device: str, default_interval_s: float) -> None:
        self._c = c
        self._question = question
        self._name = device
        self._default_interval_us = round(default_interval_s * US_PER_S)
        self._about: Any = None
        self._sent: list[str] = []
        self._device = Device(self._default_interval_us, question.kind.rated_kw)
        self._rows: list[Row] = []
        """In the order of time, each once."""
        self.patchy: list[int] = []
        """The starts of quarter hours that were read in detail because the question compares its energy."""
        self._readings_read = 0
        self.days_read = 0.0
        """Elapsed time of which readings were read, days."""
        self._quarters: dict[int, Quarter] = {}
        """Those that stand for their readings, by their start."""

    async def read(self) -> Measured:
        """What the device measured, judged with what is declared about it, else what is observed, else the defaults."""
        question = self._question
        self._about = await self._ask_about()
        rated_kw = self._about["rated_kw"] or question.kind.rated_kw
        self._device = Device(self._default_interval_us, rated_kw)
        if not self._sent:
            return await self._made()
        declared = self._about["interval_s"]
        since = 0 if declared is not None else observed_since(question.period)
        first, beyond = self._whole_quarters(since)
        summaries, dirty = await self._summaries(first, beyond)
        divided = quarters_of([0, *question.cuts], question.offset) | dirty | set(question.details)
        if question.is_compared:
            self.patchy = [q.start for q in summaries if q.is_patchy]
            divided |= set(self.patchy)
        usable = [q for q in summaries if q.is_usable(rated_kw) and not self._is_detached(q)]
        self._quarters = {q.start: q for q in usable if q.start not in divided}
        in_detail = {q.start for q in summaries if q.start not in self._quarters} | dirty
        spans = [Span(since, first), Span(beyond, question.span_us), *(Span(q, q + QUARTER_US) for q in in_detail)]
        self._rows = await self._fetch(union(spans))
        interval_us = round(declared * US_PER_S) if declared is not None else await self._observed(since)
        self._device = Device(interval_us, rated_kw)
        self._drop_before(0)
        self._rows = _ordered([*self._rows, *_nearest(await self._neighbours(), question.span_us)])
        await self._read_instead([q for q in self._quarters.values() if not q.is_unbroken(self._device)])
        return await self._made()

    async def refine(self, spans: Iterable[Span]) -> Measured:
        """The same with the readings of the quarter hours that have a part in these spans of time."""
        wanted = union(spans)
        await self._read_instead([q for q in self._quarters.values() if overlaps(Span(q.start, q.end), wanted)])
        return await self._made()

    async def _made(self) -> Measured:
        if len(self._rows) + len(self._quarters) < _IN_A_THREAD:
            return self._measured()
        return await asyncio.to_thread(self._measured)

    async def _ask_about(self) -> Any:
        question, kind = self._question, self._question.kind
        wanted = [m.column for m in (*measures_of_energy(kind), question.gauge, *question.gauges) if m is not None]
        sent = ", ".join(f"l.{column} IS NOT NULL AS {column}" for column in wanted)
        sql = _ABOUT.format(sent=sent, live=kind.live_table, device=kind.id_column)
        about = await self._c.fetchrow(sql, kind.name, self._name, question.period.start)
        assert about is not None
        self._sent = [column for column in wanted if about[column]]
        return about

    def _whole_quarters(self, since: int) -> tuple[int, int]:
        """The start of the first quarter hour and the end of the last one that may be taken from summaries."""
        question = self._question
        return whole_quarters(since, question.span_us, question.offset, self._about["closed"])

    async def _summaries(self, first: int, beyond: int) -> tuple[list[Quarter], set[int]]:
        """Summaries of the quarter hours, and the starts of those that lack a reading."""
        if first >= beyond:
            return [], set()
        question = self._question
        start = question.period.start
        rows = await self._c.fetch(
            question.quarters_sql(), self._name, start, start + first * _US, start + beyond * _US
        )
        found = [_quarter(row) for row in rows if row[1] is not None]
        return sorted(found), {row[0] for row in rows if row[1] is None}

    def _is_detached(self, quarter: Quarter) -> bool:
        """Whether its readings cannot be read: an answer does not depend on whether there is a summary."""
        days = self._question.detached_days
        return bool(days) and (self._question.period.start + quarter.start * _US).astimezone(UTC).date() in days

    async def _fetch(self, spans: Sequence[Span]) -> list[Row]:
        """The readings of these spans, in the order of time."""
        if not spans:
            return []
        start = self._question.period.start
        now = self._question.period.us(datetime.now(UTC))
        self.days_read += sum(max(0, min(s.end, now) - s.start) for s in spans) / DAY_US
        refuse_readings(self.days_read)
        since, until = [start + s.start * _US for s in spans], [start + s.end * _US for s in spans]
        sql = self._question.rows_sql(self._sent, _days_sql(since, until))
        rows = await self._c.fetch(f"{sql} LIMIT {_MOST_READINGS + 1}", self._name, start, since, until)
        self._readings_read += len(rows)
        if self._readings_read > _MOST_READINGS:
            raise invalid("from", f"{self._name} has more than {_MOST_READINGS:,} readings that this answer needs")
        return sorted(rows, key=_at)

    async def _neighbours(self) -> list[Row]:
        period = self._question.period
        sql = self._question.neighbours_sql(self._sent)
        return await self._c.fetch(sql, self._name, period.start, period.end) if sql else []

    async def _read_instead(self, quarters: Sequence[Quarter]) -> None:
        """Read the readings of quarter hours that no longer stand for them."""
        for quarter in quarters:
            del self._quarters[quarter.start]
        rows = await self._fetch(union(Span(q.start, q.end) for q in quarters))
        self._rows = _ordered([*self._rows, *rows])

    async def _observed(self, since: int) -> int:
        """The interval that the readings with energy before the period's end show, from a day before it if need be."""
        if (found := self._observed_in(self._rows)) is None and since == 0:
            earlier = await self._fetch([Span(max(-DAY_US, self._question.period.us(EARLIEST)), 0)])
            found = self._observed_in([*earlier, *self._rows])
        return found or self._default_interval_us

    def _observed_in(self, rows: Sequence[Row]) -> int | None:
        times = [row[0] for row in rows if _has_energy(row)]
        groups = [*groups_of(times, self._question.offset), *(q.group for q in self._quarters.values() if q.has_energy)]
        return observed_interval(sorted(groups))

    def _drop_before(self, at: int) -> None:
        """Forget what was only read to observe the interval."""
        self._rows = self._rows[bisect_left(self._rows, at, key=_at) :]
        self._quarters = {start: quarter for start, quarter in self._quarters.items() if start >= at}

    def _measured(self) -> Measured:
        quarters = sorted(self._quarters.values())
        span_us = self._question.span_us
        times = [(row[0], 1) for row in self._rows if 0 <= row[0] < span_us]
        times = sorted([*times, *((q.first, q.readings) for q in quarters)]) if quarters else times
        return Measured(
            self._curve(quarters),
            self._device,
            [at for at, _ in times],
            sorted([*_points(self._rows, 4), *(point for q in quarters for point in q.points())]),
            self._about["is_known"],
            {m.name: _points(self._rows, n) for n, m in enumerate(self._question.gauges, start=5)},
            [count for _, count in times] if quarters else (),
            areas_of(quarters),
        )

    def _curve(self, quarters: Sequence[Quarter]) -> Curve:
        interval, *registers = measures_of_energy(self._question.kind)
        if not quarters and interval is not None and not any(m and m.column in self._sent for m in registers):
            known = [row for row in self._rows if row[1] is not None]
            return curve_of_intervals([row[0] for row in known], [row[1] for row in known], self._device)
        readings = [Reading(row[0], row[1], _register(row[2]), _register(row[3])) for row in self._rows]
        readings += [reading for quarter in quarters for reading in quarter.energy()]
        return curve_of(sorted(readings, key=_at), self._device)


async def measured(c: Connection, question: Question, device: str, default_interval_s: float) -> Measured:
    """What the device measured in and around a period, as exact as the question needs it."""
    return await DeviceReader(c, question, device, default_interval_s).read()


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


def _nearest(rows: Sequence[Row], span_us: int) -> list[Row]:
    """Readings before and after the period with those values only that are the nearest of their measure.

    A reading that was found for one measure may have a value of another one, further from the period than the nearest.
    """
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


def _days_sql(since: Sequence[datetime], until: Sequence[datetime]) -> str:
    """A condition for the days of some spans in order, with constants: these prune partitions when it is planned."""
    days = union(
        (first.astimezone(UTC).toordinal(), (beyond - _US).astimezone(UTC).toordinal() + 1)
        for first, beyond in zip(since, until, strict=True)
    )
    if not days:
        return "false"
    if len(days) > _MOST_RANGES:
        days = [Span(days[0].start, days[-1].end)]
    return " OR ".join(
        f"ts >= '{date.fromordinal(first)} 00:00+00' AND ts < '{date.fromordinal(beyond)} 00:00+00'"
        for first, beyond in days
    )


def _points(rows: Sequence[Row], column: int) -> list[tuple[int, float]]:
    return [(row[0], row[column]) for row in rows if row[column] is not None]


def _register(kwh: float | None) -> int | None:
    return None if kwh is None else register_units_of(kwh)
