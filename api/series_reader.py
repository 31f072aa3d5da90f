"""Reads the columns of a series: quarter hours that are over from their summaries, and from the readings all else.

Readings are read of the period's edges, of the time that is not summarized yet, of quarter hours that lack a late
reading, and of those whose summary does not tell what is asked.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from api.database import Connection
from api.energy.spans import Span, union
from api.live import never_seen
from api.measured import detached_days
from api.period import EARLIEST, Period
from api.problems import invalid
from api.series_columns import QUARTER, Columns, Values, joined, quarter_before
from api.series_sql import readings_sql, summaries_sql
from bridge.contract import Kind, Measure

_US = timedelta(microseconds=1)
_TOGETHER = timedelta(days=31)
"""Spans that begin within this time are read by one statement, which has the partitions of the time between them."""
_ABOUT = """
SELECT {sent}, greatest((SELECT closed_until FROM quarter_mark WHERE kind = $2), $3) AS closed
FROM {live} WHERE {device} = $1
"""


class Device(NamedTuple):
    """A device and what is asked about it."""

    kind: Kind
    name: str
    measures: Sequence[Measure]


Found = dict[str, dict[int, Values]]
"""By the measure's name, the columns that have a reading of it."""


async def read_series(c: Connection, device: Device, columns: Columns, most_days: float) -> Found:
    """The values of each column that has some.

    Raises 404 for a device that never reported, and 422 when more than `most_days` would have to be read as readings.
    """
    about = await _about(c, device)
    sent = device._replace(measures=[m for m in device.measures if about[m.column]])
    found: Found = {m.name: {} for m in device.measures}
    if not sent.measures:
        return found
    first, beyond = _summarized(columns, about["closed"])
    buckets = await _add_summaries(c, sent, columns, first, beyond, most_days, found)
    whole = columns.period
    spans = _spans(whole, [(whole.start, first), (beyond, whole.end), *((b, b + QUARTER) for b in buckets)])
    _refuse_too_many(spans, most_days, sent)
    for together in _chunks(spans):
        around = Period(together[0].start, together[-1].end)
        sql = readings_sql(sent.kind, sent.measures, around)
        bounds = [s.start for s in together], [s.end for s in together]
        for row in await c.fetch(sql, sent.name, columns.start, columns.width_us, *bounds):
            _add(found, sent, row)
    return found


async def _about(c: Connection, device: Device) -> Any:
    """Which of the measures the device has ever sent, and until when quarter hours are summarized."""
    kind = device.kind
    sent = ", ".join(f"{m.column} IS NOT NULL AS {m.column}" for m in device.measures)
    sql = _ABOUT.format(sent=sent, live=kind.live_table, device=kind.id_column)
    about = await c.fetchrow(sql, device.name, kind.name, EARLIEST)
    if about is None:
        raise never_seen(kind, device.name)
    return about


def _summarized(columns: Columns, closed: datetime) -> tuple[datetime, datetime]:
    """The first quarter hour that may be taken from its summary, and the end of the last one."""
    period = columns.period
    first = quarter_before(period.start + QUARTER - _US)
    beyond = min(quarter_before(period.end), closed)
    return (first, beyond) if columns.are_quarters and first < beyond else (period.start, period.start)


async def _add_summaries(
    c: Connection, device: Device, columns: Columns, first: datetime, beyond: datetime, most_days: float, found: Found
) -> list[datetime]:
    """Add what summaries tell; returns the quarter hours whose readings are needed instead."""
    if first >= beyond:
        return []
    kind, most = device.kind, int(most_days * (timedelta(days=1) / QUARTER)) + 1
    days = await detached_days(c, [kind], columns.period)
    sql = summaries_sql(kind, device.measures, columns.period)
    rows = await c.fetch(sql, device.name, columns.start, columns.width_us, first, beyond, days, most)
    for row in rows:
        if row["n"] is not None:
            _add(found, device, row)
    return [row["bucket"] for row in rows if row["n"] is None]


def _add(found: Found, device: Device, row: Any) -> None:
    size = len(Values._fields)
    for n, measure in enumerate(device.measures):
        values = Values(*row[1 + n * size : 1 + (n + 1) * size])
        if values.readings:
            own = found[measure.name]
            own[row["n"]] = joined(own[row["n"]], values) if row["n"] in own else values


def _spans(period: Period, bounds: Iterable[tuple[datetime, datetime]]) -> list[Period]:
    """The time between any of these bounds, in order."""
    spans = union(Span(period.us(start), period.us(end)) for start, end in bounds)
    return [Period(period.start + s.start * _US, period.start + s.end * _US) for s in spans]


def _refuse_too_many(spans: Sequence[Period], most_days: float, device: Device) -> None:
    """Time to come does not count: it has no readings, except those of a clock that is ahead."""
    now = datetime.now(UTC)
    if sum(span.elapsed_s(now) for span in spans) <= timedelta(days=most_days).total_seconds():
        return
    intervals = [m.name for m in device.measures if m.sort == "interval"]
    others = f", or leave out {intervals[0]}, which is in no summary" if intervals else ""
    reason = f"more than {most_days:g} days would have to be read from single readings: ask for less time{others}"
    raise invalid("from", reason)


def _chunks(spans: Sequence[Period]) -> Iterator[list[Period]]:
    """Spans that are near each other."""
    chunk: list[Period] = []
    for span in spans:
        if chunk and span.start - chunk[0].start > _TOGETHER:
            yield chunk
            chunk = []
        chunk.append(span)
    if chunk:
        yield chunk
