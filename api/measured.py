"""The readings of devices as the energy algebra takes them: of a period, and the neighbours that its edges need.

Quarter hours that are over are taken from their summaries where these may stand for the readings
(`api.energy.quarter`), all else from the history. Times are microseconds since the period's start. The neighbours are
the last reading before the period and the first one after it, for each measure that the device has ever sent; they are
looked for within 31 days. All devices of an answer are read together: most of the time of a small statement is its
round trip.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from api.database import Connection
from api.device_reading import DeviceReading, Row
from api.energy.interval import DAY_US
from api.energy.performance import Measured
from api.energy.spans import Span
from api.measured_sql import (
    Neighbour,
    Question,
    Statement,
    Wanted,
    about_sql,
    detached_days_of,
    detached_sql,
    far_neighbours_sql,
    measures_of_energy,
    readings_sql,
    summaries_sql,
)
from api.period import Period
from api.problems import invalid
from api.read_limit import refuse_readings
from bridge.contract import Kind

_MOST_READINGS = 300_000
"""Readings of one device that an answer is made of, besides summaries: 208 days of one a minute."""
_MOST_AT_ONCE = 1_000_000
"""The same of all devices."""
_IN_A_THREAD = 5_000
"""From so many readings on a curve is made in a thread, so that other requests are answered meanwhile."""


async def detached_days(c: Connection, kinds: Sequence[Kind], period: Period) -> list[date]:
    """Days of the period whose readings exist, but in a partition that was detached from the history."""
    statement = Statement()
    rows = await c.fetch(detached_sql(kinds, period, statement), *statement.arguments)
    return detached_days_of(row[0] for row in rows)


async def measured(c: Connection, question: Question, device: str, default_interval_s: float) -> Measured:
    """What one device measured in and around a period, as exact as the question needs it."""
    return (await Readers(c, [(question, device)], default_interval_s).read())[0]


class _Found(NamedTuple):
    """The rows of one statement by device."""

    readings: Mapping[int, list[Row]]
    neighbours: Mapping[int, list[Row]]


class Readers:
    """Reads devices for questions about one period; again, in more detail, where a figure turns out to need it.

    The questions about devices of one kind ask for the same gauges.
    """

    def __init__(self, c: Connection, asked: Sequence[tuple[Question, str]], default_interval_s: float) -> None:
        self._c = c
        self._questions = [question for question, _ in asked]
        self._devices = [DeviceReading(question, device, default_interval_s) for question, device in asked]
        self.days_read = 0.0
        """Elapsed time of which readings were read, days x devices."""

    @property
    def detached_days(self) -> list[date]:
        """Days of the period whose readings exist, but in a partition that was detached from the history."""
        return self._devices[0].detached_days

    async def read(self) -> list[Measured]:
        """What each device measured, judged by what is declared about it, else what is observed, else the defaults."""
        await self._ask_about()
        await self._summarize()
        details = [start for device in self._devices for start in device.compared]
        spans = {n: device.first_spans(details) for n, device in enumerate(self._devices) if device.sent}
        found = await self._fetch(spans, [one for n in spans for one in self._neighbours_of(n)])
        for n, rows in found.readings.items():
            self._devices[n].take_rows(rows)
        neighbours = await self._with_far_ones(found.neighbours, spans)
        await self._settle_intervals(spans, neighbours)
        await self._read_more({n: self._devices[n].broken_spans() for n in spans})
        return [await _made(device) for device in self._devices]

    async def refine(self, spans: Mapping[int, Iterable[Span]]) -> dict[int, Measured]:
        """The same with the readings of the quarter hours that have a part in these spans of time, by the device's
        place in the list."""
        await self._read_more({n: self._devices[n].spans_within(wanted) for n, wanted in spans.items()})
        return {n: await _made(self._devices[n]) for n in spans}

    async def _ask_about(self) -> None:
        asked = [(n, device.name, device.question) for n, device in enumerate(self._devices)]
        for row in await self._ask(about_sql(asked)):
            self._devices[row[0]].know(row)

    async def _summarize(self) -> None:
        wanted = [
            Wanted(n, device.name, device.summarized)
            for n, device in enumerate(self._devices)
            if device.sent and device.summarized.start < device.summarized.end
        ]
        if not wanted:
            return
        rows: dict[int, list[Row]] = defaultdict(list)
        for row in await self._ask(summaries_sql(wanted, self._questions)):
            rows[row[-1]].append(row)
        for n, own in rows.items():
            self._devices[n].take_summaries(own)

    def _neighbours_of(self, n: int) -> list[Neighbour]:
        """Those to look for: after the period only where the device has reported since."""
        device = self._devices[n]
        question = device.question
        asked = [
            m.column for m in (*measures_of_energy(question.kind), question.gauge) if m and m.column in device.sent
        ]
        sides = [True, False] if device.newest is not None and device.newest >= question.span_us else [True]
        return [Neighbour(n, device.name, column, is_before) for column in asked for is_before in sides]

    async def _settle_intervals(self, asked: Iterable[int], neighbours: Mapping[int, list[Row]]) -> None:
        """Observe the intervals that are not declared, with the readings of further days where that needs them."""
        missing = {n: self._devices[n].unobserved_spans(neighbours.get(n, ())) for n in asked}
        found = (await self._fetch(missing)).readings
        for n in missing:
            self._devices[n].settle_intervals(found.get(n, ()), neighbours.get(n, ()))

    async def _with_far_ones(self, near: Mapping[int, list[Row]], asked: Iterable[int]) -> Mapping[int, list[Row]]:
        """The neighbours, also those that are more than a day from the period."""
        far = [
            one
            for n in asked
            for one in self._neighbours_of(n)
            if not self._devices[n].has_neighbour(one, near.get(n, ()))
        ]
        if not far:
            return near
        found = {n: [*rows] for n, rows in near.items()}
        for row in await self._ask(far_neighbours_sql(far, self._questions, [device.sent for device in self._devices])):
            found.setdefault(row[-1], []).append(row)
        return found

    async def _read_more(self, spans: Mapping[int, Sequence[Span]]) -> None:
        for n, rows in (await self._fetch(spans)).readings.items():
            self._devices[n].take_rows(rows)

    async def _fetch(self, spans: Mapping[int, Sequence[Span]], neighbours: Sequence[Neighbour] = ()) -> _Found:
        """The readings of these spans, and neighbours within a day, by device. Raises 422 for too many."""
        wanted = [
            Wanted(n, self._devices[n].name, span) for n, own in spans.items() for span in own if span.start < span.end
        ]
        self._count_days(wanted)
        found = _Found(defaultdict(list), defaultdict(list))
        if not wanted and not neighbours:
            return found
        statement = readings_sql(wanted, neighbours, self._questions, [device.sent for device in self._devices])
        rows = await self._ask(statement, f" LIMIT {_MOST_AT_ONCE + 1}")
        if len(rows) > _MOST_AT_ONCE:
            raise invalid(
                "from", f"an answer would need more than {_MOST_AT_ONCE:,} readings; ask for a shorter period"
            )
        for row in rows:
            (found.neighbours if row[-2] else found.readings)[row[-1]].append(row)
        for n, own_rows in found.readings.items():
            self._count_readings(self._devices[n], len(own_rows))
        return found

    def _count_days(self, wanted: Sequence[Wanted]) -> None:
        for one in wanted:
            now = self._questions[one.n].period.us(datetime.now(UTC))
            self.days_read += max(0, min(one.span.end, now) - one.span.start) / DAY_US
        refuse_readings(self.days_read)

    def _count_readings(self, device: DeviceReading, count: int) -> None:
        device.readings_read += count
        if device.readings_read > _MOST_READINGS:
            reason = f"{device.name} has more than {_MOST_READINGS:,} readings that this answer needs"
            raise invalid("from", reason)

    async def _ask(self, statement: Statement, limit: str = "") -> Any:
        return await self._c.fetch(statement.text + limit, *statement.arguments)


async def _made(device: DeviceReading) -> Measured:
    if device.size < _IN_A_THREAD:
        return device.measured()
    return await asyncio.to_thread(device.measured)
