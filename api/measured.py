"""The readings of a device as the energy algebra takes them: of a period, and the neighbours that its edges need.

Times are microseconds since the period's start. The neighbours are the last reading before the period and the first
one after it, for each measure that the device has ever sent; they are looked for within 31 days.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

from api.database import Connection
from api.energy.curve import Curve, Device, Reading, curve_of, curve_of_intervals
from api.energy.interval import DAY_US, observed_interval
from api.energy.performance import Measured
from api.energy.units import US_PER_S, register_units_of
from api.period import EARLIEST, LATEST, Period
from bridge.contract import Kind, Measure

Row = Any
"""asyncpg's: time, interval, registers in and out, gauges."""
_at = itemgetter(0)
_NEIGHBOURS = timedelta(days=31)
MOST_DEVICE_DAYS = 400
"""A request reads at most this many days of readings: devices x days of the period, each device at least one day.
Until summaries exist, figures are made from the readings."""
_DETACHED = """
SELECT relname::text FROM pg_class
WHERE relname BETWEEN $1 AND $2 AND relkind = 'r' AND NOT relispartition
  AND relnamespace = current_schema()::regnamespace
"""
_ABOUT = """
SELECT l.{device} IS NOT NULL AS is_known, {sent}, d.interval_s, d.rated_kw
FROM (SELECT $2::text AS id) AS asked
LEFT JOIN {live} l ON l.{device} = asked.id LEFT JOIN device d ON d.kind = $1 AND d.id = asked.id
"""


def measures_of_energy(kind: Kind) -> tuple[Measure | None, Measure | None, Measure | None]:
    """The interval, and the registers of energy in and out, as far as devices of the kind have them."""
    registers = kind.of_sort("register")
    register_in = next((measure for measure in registers if measure.sign > 0), None)
    register_out = next((measure for measure in registers if measure.sign < 0), None)
    return kind.interval, register_in, register_out


def with_neighbours(period: Period) -> Period:
    """The period and the time around it in which neighbours are looked for."""
    start = period.start - min(_NEIGHBOURS, period.start - EARLIEST)
    return Period(start, period.end + min(_NEIGHBOURS, LATEST - period.end))


async def detached_days(c: Connection, kinds: Sequence[Kind], period: Period) -> list[date]:
    """Days of the period whose readings exist, but in a partition that was detached from the history."""
    first, last = (f"{instant.astimezone(UTC):%Y%m%d}" for instant in (period.start, period.end))
    days: set[date] = set()
    for kind in kinds:
        names = await c.fetch(_DETACHED, f"{kind.history_table}_{first}", f"{kind.history_table}_{last}")
        days |= {datetime.strptime(row[0][-8:], "%Y%m%d").date() for row in names}  # noqa: DTZ007  # a date
    return sorted(days)


class Question(NamedTuple):
    """Readings of one kind around a period; one gauge with them if it is named."""

    kind: Kind
    period: Period
    gauge: Measure | None = None
    gauges: tuple[Measure, ...] = ()
    """Further gauges of the same rows; no neighbours are looked for on their account."""

    @property
    def span_us(self) -> int:
        return (self.period.end - self.period.start) // timedelta(microseconds=1)

    @property
    def earlier_sql(self) -> str:
        """The times of readings with energy in the day before the period. $1 is the device, $2 the period's start."""
        measures = " OR ".join(f"{m.column} IS NOT NULL" for m in measures_of_energy(self.kind) if m is not None)
        day = Period(self.period.start - min(timedelta(days=1), self.period.start - EARLIEST), self.period.start)
        return (
            f"SELECT (tstzrange_subdiff(ts, $2) * 1e6)::int8 FROM {self.kind.history_table} "  # noqa: S608
            f"WHERE {self.kind.id_column} = $1 AND ts >= $2 - interval '1 day' AND ts < $2 AND {day.days_sql()} "
            f"AND ({measures})"
        )

    def sql(self, sent: Sequence[str]) -> str:
        """The statement for a device that has sent these columns. $1 is the device, $2 and $3 are the period."""
        columns = [self._column(m, sent) for m in (*measures_of_energy(self.kind), self.gauge, *self.gauges)]
        asked = [m.column for m in (*measures_of_energy(self.kind), self.gauge) if m is not None and m.column in sent]
        select = (
            f"SELECT (tstzrange_subdiff(ts, $2) * 1e6)::int8 AS at, {', '.join(columns)} "  # noqa: S608
            f"FROM {self.kind.history_table} WHERE {self.kind.id_column} = $1 AND "
        )
        near = with_neighbours(self.period)
        parts = [f"({select} ts >= $2 AND ts < $3 AND {self.period.days_sql()} ORDER BY {self.kind.id_column}, ts)"]
        for column in asked:
            days = f"{near.days_sql()} AND {column} IS NOT NULL ORDER BY {self.kind.id_column}"
            parts.append(f"({select} ts < $2 AND {days} DESC, ts DESC LIMIT 1)")
            parts.append(f"({select} ts >= $3 AND {days}, ts LIMIT 1)")
        return " UNION ALL ".join(parts)

    def _column(self, measure: Measure | None, sent: Sequence[str]) -> str:
        if measure is None or measure.column not in sent:
            return "NULL"
        return f"({measure.column} * 1e12)::int8" if measure.sort == "interval" else measure.column


async def measured(c: Connection, question: Question, device: str, default_interval_s: float) -> Measured:
    """What the device measured, judged with what is declared about it, else what is observed, else the defaults."""
    kind = question.kind
    wanted = [m.column for m in (*measures_of_energy(kind), question.gauge, *question.gauges) if m is not None]
    sent_sql = ", ".join(f"l.{column} IS NOT NULL AS {column}" for column in wanted)
    about = await c.fetchrow(
        _ABOUT.format(sent=sent_sql, live=kind.live_table, device=kind.id_column), kind.name, device
    )
    assert about is not None
    sent = [column for column in wanted if about[column]]
    rows = await _rows(c, question, sent, device)
    if about["interval_s"] is not None:
        interval_us = round(about["interval_s"] * US_PER_S)
    else:
        observed = await _observed(c, question, device, rows) if sent else None
        interval_us = observed or round(default_interval_s * US_PER_S)
    found = Device(interval_us, about["rated_kw"] or kind.rated_kw)
    span_us = question.span_us
    times = [row[0] for row in rows if 0 <= row[0] < span_us]
    gauges = {m.name: _points(rows, n) for n, m in enumerate(question.gauges, start=5)}
    return Measured(_curve(rows, sent, kind, found), found, times, _points(rows, 4), about["is_known"], gauges)


async def _rows(c: Connection, question: Question, sent: Sequence[str], device: str) -> list[Row]:
    """The rows of the period and its neighbours in the order of time, each once."""
    rows: list[Row] = await c.fetch(question.sql(sent), device, question.period.start, question.period.end)
    ordered = sorted(rows, key=_at)
    return [row for n, row in enumerate(ordered) if not n or row[0] != ordered[n - 1][0]]


def _curve(rows: Sequence[Row], sent: Sequence[str], kind: Kind, device: Device) -> Curve:
    interval, *registers = measures_of_energy(kind)
    if interval is not None and not any(m is not None and m.column in sent for m in registers):
        known = [row for row in rows if row[1] is not None]
        return curve_of_intervals([row[0] for row in known], [row[1] for row in known], device)
    return curve_of([Reading(row[0], row[1], _register(row[2]), _register(row[3])) for row in rows], device)


async def _observed(c: Connection, question: Question, device: str, rows: Sequence[Row]) -> int | None:
    """The interval that the readings with energy show; those of the day before too when the period is shorter."""
    span_us = question.span_us
    times = [row[0] for row in rows if row[1] is not None or row[2] is not None or row[3] is not None]
    if span_us < DAY_US:
        earlier = await c.fetch(question.earlier_sql, device, question.period.start)
        times = sorted({row[0] for row in earlier}.union(times))
    return observed_interval(times, before=span_us)


def _points(rows: Sequence[Row], column: int) -> list[tuple[int, float]]:
    return [(row[0], row[column]) for row in rows if row[column] is not None]


def _register(kwh: float | None) -> int | None:
    return None if kwh is None else register_units_of(kwh)
