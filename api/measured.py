"""The readings of a device as the energy algebra takes them: of a period, and the neighbours that its edges need.

Times are microseconds since the period's start. The neighbours are the last reading before the period and the first
one after it, for each measure that the device has ever sent; they are looked for within 31 days.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from api.database import Connection
from api.energy.curve import Device, Reading, curve_of
from api.energy.interval import DAY_US, observed_interval
from api.energy.performance import Measured
from api.energy.units import US_PER_S, register_units_of
from api.period import EARLIEST, LATEST, Period
from bridge.contract import Kind, Measure

_NEIGHBOURS = timedelta(days=31)
_SENT = "SELECT {sent} FROM {live} WHERE {device} = $1"
_DECLARED = "SELECT interval_s, rated_kw FROM device WHERE kind = $1 AND id = $2"


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
    kind, period = question.kind, question.period
    wanted = [m.column for m in (*measures_of_energy(kind), question.gauge, *question.gauges) if m is not None]
    sent_sql = ", ".join(f"{column} IS NOT NULL AS {column}" for column in wanted)
    live = await c.fetchrow(_SENT.format(sent=sent_sql, live=kind.live_table, device=kind.id_column), device)
    declared = await c.fetchrow(_DECLARED, kind.name, device)
    sent = [] if live is None else [column for column in wanted if live[column]]
    rows = sorted({tuple(row) for row in await c.fetch(question.sql(sent), device, period.start, period.end)})
    readings = [Reading(at, kwh, _register(plus), _register(minus)) for at, kwh, plus, minus, *_ in rows]
    if declared is not None and declared["interval_s"] is not None:
        interval_us = round(declared["interval_s"] * US_PER_S)
    else:
        observed = await _observed(c, question, device, readings) if sent else None
        interval_us = observed or round(default_interval_s * US_PER_S)
    found = Device(interval_us, (declared and declared["rated_kw"]) or kind.rated_kw)
    times = [row[0] for row in rows if 0 <= row[0] < question.span_us]
    gauges = {m.name: _points(rows, n) for n, m in enumerate(question.gauges, start=5)}
    return Measured(curve_of(readings, found), found, times, _points(rows, 4), live is not None, gauges)


async def _observed(c: Connection, question: Question, device: str, readings: Sequence[Reading]) -> int | None:
    """The interval that the readings with energy show; those of the day before too when the period is shorter."""
    times = [reading.at for reading in readings if (reading.interval, *reading[2:]) != (None, None, None)]
    if question.span_us < DAY_US:
        earlier = await c.fetch(question.earlier_sql, device, question.period.start)
        times = sorted({row[0] for row in earlier}.union(times))
    return observed_interval(times, before=question.span_us)


def _points(rows: Sequence[tuple[Any, ...]], column: int) -> list[tuple[int, float]]:
    return [(row[0], row[column]) for row in rows if row[column] is not None]


def _register(kwh: float | None) -> int | None:
    return None if kwh is None else register_units_of(kwh)
