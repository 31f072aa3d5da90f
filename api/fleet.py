"""The figures of many devices by bucket: folded in the database where that needs no judgement (`api.fleet_sql`)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from api.database import Connection
from api.energy.buckets import NOTHING, Figures
from api.energy.interval import DAY_US, HOUR_US, QUARTER_US, SIX_HOURS_US
from api.energy.quarter import quarters_of, whole_quarters
from api.energy.spans import Span
from api.energy.units import US_PER_S
from api.fleet_sql import Days, fold_sql
from api.measured_sql import days_of_spans_sql, observed_days, offset_of, registers_since, with_neighbours
from api.period import EARLIEST, Period
from api.read_limit import Closed
from bridge.contract import Kind

_HOUR = timedelta(hours=1)
_US = timedelta(microseconds=1)
_SHORT_US = 14 * DAY_US
"""For so long a time a statement lists all days rather than those only whose readings are known to be needed."""
_SORTS = """
SELECT g.name, d.interval_s IS NOT NULL, coalesce({registers}, false)
FROM unnest($2::text[]) AS g(name) LEFT JOIN device d ON d.kind = $1 AND d.id = g.name
LEFT JOIN {live} l ON l.{device} = g.name
"""
# The planner does not know how many devices there are, and would compare each with each; their pieces are sorted.
_SESSION = "SET LOCAL enable_nestloop = off; SET LOCAL work_mem = '64MB'"


class Buckets(NamedTuple):
    """The buckets of a request."""

    edges: Sequence[datetime]
    closed: Closed
    now: datetime

    @property
    def period(self) -> Period:
        return Period(self.edges[0], self.edges[-1])

    @property
    def days(self) -> float:
        """Length of the period, at least one."""
        return max(1.0, (self.edges[-1] - self.edges[0]) / timedelta(days=1))


class Folded(NamedTuple):
    """The sums of each key by bucket, and the devices that are not in them."""

    figures: dict[int, list[Figures]]
    others: list[str]


class _Usable(NamedTuple):
    """The summaries of one length that may stand for what they were made from."""

    first: int
    beyond: int
    divided: list[int]
    """The starts of those that may not, within this time."""

    @property
    def span(self) -> Span:
        return Span(self.first, self.beyond)


def _usable(span: Span, cuts: Sequence[int], without: Sequence[int], offset: int, closed: int, length: int) -> _Usable:
    """Of the whole ones in a span, all but those that a cut divides, and those of days `without` readings."""
    first, beyond = whole_quarters(span.start, span.end, offset, closed, length)
    divided = quarters_of([0, *cuts], offset, length)
    for day in without:
        divided |= set(range(day, day + DAY_US, length))
    found = [start for start in sorted(divided) if first <= start < beyond]
    return _Usable(first, beyond, found)


def _worth(usable: _Usable, length: int) -> _Usable:
    """None of them where buckets of the zone begin within most of them."""
    if 2 * len(usable.divided) * length > usable.beyond - usable.first:
        return _Usable(usable.first, usable.first, [])
    return usable


def _listed(before: Span, after: Span, offset: int) -> set[int]:
    """The starts of the days that are read in any case: those without summaries at the edges, or all of a short time.

    Other days are needed where a summary may not be used, which shows when the summaries are read.
    """
    whole = Span(before.start, after.end)
    spans = [whole] if whole.end - whole.start <= _SHORT_US else [before, after]
    return {day for start, end in spans if start < end for day in range(start - (start - offset) % DAY_US, end, DAY_US)}


def _days(period: Period, read: Span, listed: Iterable[int]) -> Days:
    around = Period(period.start + read.start * _US, period.start + read.end * _US)
    neighbours = with_neighbours(period)
    starts = [period.start + start * _US for start in listed]
    return Days(
        days_of_spans_sql((start, start + _US) for start in starts),
        Period(max(EARLIEST, around.start - _HOUR), around.start).days_sql(),
        Period(neighbours.start, around.start).days_sql(),
        Period(around.end, neighbours.end).days_sql(),
        around.days_sql("bucket"),
    )


async def fold(
    c: Connection,
    kind: Kind,
    keys: Mapping[str, int],
    buckets: Buckets,
    away: Sequence[date],
    default_interval_s: float,
) -> Folded:
    """Fold devices of one kind, each under a key; `away` are detached days."""
    sorts = await _sorts(c, kind, list(keys))
    found: dict[int, list[Figures]] = defaultdict(lambda: [NOTHING] * (len(buckets.edges) - 1))
    others: list[str] = []
    async with c.transaction():
        await c.execute(_SESSION)
        for (is_declared, has_registers), devices in sorts.items():
            asked = _Asked(buckets, away, None if is_declared else default_interval_s, has_registers)
            for row in await _rows(c, kind, {device: keys[device] for device in devices}, asked):
                _add(row, found, others)
    return Folded(found, others)


async def _sorts(c: Connection, kind: Kind, devices: Sequence[str]) -> Mapping[tuple[bool, bool], Sequence[str]]:
    """The devices by whether they declare their interval, and whether they have ever sent a register."""
    registers = [f"l.{m.column} IS NOT NULL" for m in (kind.register_in, kind.register_out) if m]
    sql = _SORTS.format(registers=" OR ".join(registers) or "false", live=kind.live_table, device=kind.id_column)
    found: dict[tuple[bool, bool], list[str]] = defaultdict(list)
    for device, is_declared, has_registers in await c.fetch(sql, kind.name, devices):
        found[is_declared, has_registers].append(device)
    return found


class _Asked(NamedTuple):
    """What is folded, of devices of one sort."""

    buckets: Buckets
    away: Sequence[date]
    default_interval_s: float | None
    """None for devices that declare their interval."""
    has_registers: bool

    @property
    def read(self) -> Span:
        """The time whose readings are taken: with what shows intervals, and the highest values of registers."""
        period = self.buckets.period
        days = Span(0, period.us(period.end)) if self.default_interval_s is None else observed_days(period)
        return Span(min(days.start, registers_since(period)), days.end) if self.has_registers else days


async def _rows(c: Connection, kind: Kind, keys: Mapping[str, int], asked: _Asked) -> Sequence[Any]:
    """Rows of `fold_sql`."""
    buckets, read = asked.buckets, asked.read
    period = buckets.period
    span, cuts = period.us(period.end), [period.us(edge) for edge in buckets.edges]
    offset = offset_of(period, DAY_US)
    without = [period.us(datetime(day.year, day.month, day.day, tzinfo=UTC)) for day in asked.away]
    until, hours_until, six_hours_until = (period.us(by_kind[kind.name]) for by_kind in buckets.closed)
    quarters = _usable(read, cuts, without, offset, until, QUARTER_US)
    hours = _worth(_usable(quarters.span, cuts, without, offset, hours_until, HOUR_US), HOUR_US)
    six_hours = _worth(_usable(hours.span, cuts, without, offset, six_hours_until, SIX_HOURS_US), SIX_HOURS_US)
    listed = _listed(Span(read.start, quarters.first), Span(quarters.beyond, read.end), offset)
    listed |= {cut - (cut - offset) % DAY_US for cut in (0, span)}  # an edge divides a quarter hour
    is_declared = asked.default_interval_s is None
    defaults = [] if asked.default_interval_s is None else [round(asked.default_interval_s * US_PER_S)]
    while True:
        rows = await c.fetch(
            fold_sql(kind, _days(period, read, listed), is_declared, asked.has_registers),
            *(list(keys), list(keys.values()), period.start, span, cuts, period.us(buckets.now)),
            *(quarters.first, quarters.beyond, quarters.divided, kind.rated_kw, read.start, offset),
            *(hours.first, hours.beyond, hours.divided, sorted(listed), read.end),
            *(six_hours.first, six_hours.beyond, six_hours.divided, *defaults),
        )
        missing = {int(row["expected"]) for row in rows if row[1] < 0}
        if not missing:
            return rows
        listed |= missing


def _add(row: Any, found: dict[int, list[Figures]], others: list[str]) -> None:
    key, k, is_known, inward, outward, boundary, covered, expected, name = row
    if name is not None:
        others.append(name)
        return
    # Sums are numeric: those of a fleet are larger than int8.
    own = Figures(int(is_known), int(inward), int(outward), int(boundary), covered=int(covered), expected=int(expected))
    found[key][k - 1] = found[key][k - 1].plus(own)
