"""The summaries of hours, which are composed of quarter hours when these are closed, and again when one is made again.

`composed_until` follows `closed_until`. An hour before it is composed again in the transaction that makes one of its
quarter hours again, so that no statement sees one without the other. An hour from it on is not read, so it does not
matter what is stored of it.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from bridge.contract import Kind
from bridge.keeper.chunks import by_devices, ensure_months, paced
from bridge.keeper.hour_sql import compose_sql, recompose_sql
from bridge.keeper.pace import Pace
from bridge.store.session import Connection

_HOUR = timedelta(hours=1)
_MOST_DEVICE_HOURS = 40_000
"""Devices x hours that are composed in one transaction."""
_MOST_HOURS = 240
"""Hours that are composed in one step."""
_MARKS = """
SELECT greatest(composed_until, '0001-01-02 00:00+00') AS composed_until,
       date_trunc('hour', greatest(closed_until, '0001-01-02 00:00+00'), 'UTC') AS closed_until
FROM quarter_mark WHERE kind = $1
"""
# Of partitions, of whose names the day or the month is a part.
_FIRST = """
SELECT (SELECT to_date(right(min(c.relname), 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC'
        FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = $1::text::regclass) AS day,
       (SELECT to_date(right(min(c.relname), 6), 'YYYYMM')::timestamp AT TIME ZONE 'UTC'
        FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = $2::text::regclass) AS month
"""
_ARE_OLDER = """
SELECT EXISTS (SELECT FROM {live} l CROSS JOIN LATERAL (
    SELECT FROM {quarter} q WHERE q.{device} = l.{device} AND bucket < $1 LIMIT 1) AS q)
"""
_COMPOSED = "UPDATE quarter_mark SET composed_until = $2 WHERE kind = $1"


class Hours:
    """Composes the hours of one kind."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._step = Pace(_MOST_HOURS, 1)
        self._chunk = Pace(_MOST_DEVICE_HOURS, _MOST_DEVICE_HOURS // 4)

    async def compose(self, connection: Connection) -> bool:
        """Compose the next hours whose quarter hours are closed; whether there are more."""
        kind = self._kind
        composed, closed = await connection.fetchrow(_MARKS, kind.name)  # type: ignore[misc]
        if composed >= closed:
            return False
        begin = min(closed, max(composed, await self._first(connection, composed) or closed))
        until = min(closed, begin + self._step.size * _HOUR)
        with paced(self._step):
            await ensure_months(connection, kind.hour_table, begin, until)
            await by_devices(connection, kind, compose_sql(kind), begin, until, _HOUR, self._chunk)
        await connection.execute(_COMPOSED, kind.name, until)
        return bool(until < closed)

    async def _first(self, connection: Connection, composed: datetime) -> datetime | None:
        """An instant from which on all quarter hours are that are not composed yet; None if there is none.

        They may be older than the history, whose days an operator may drop.
        """
        kind = self._kind
        day: datetime | None
        month: datetime | None
        day, month = await connection.fetchrow(_FIRST, kind.history_table, kind.quarter_table)  # type: ignore[misc]
        if day is None or month is None or max(month, composed) >= day:
            return month
        sql = _ARE_OLDER.format(live=kind.live_table, quarter=kind.quarter_table, device=kind.id_column)
        return month if await connection.fetchval(sql, day) else day

    async def recompose(self, connection: Connection, quarters: Iterable[tuple[str, datetime]]) -> None:
        """Compose again the hours of these quarter hours, each of a device, as far as they have been composed."""
        kind = self._kind
        composed, _ = await connection.fetchrow(_MARKS, kind.name)  # type: ignore[misc]
        found = {(device, quarter.replace(minute=0)) for device, quarter in quarters}
        hours = [(device, hour) for device, hour in found if hour + _HOUR <= composed]
        if hours:
            devices, begins = [list(column) for column in zip(*hours, strict=True)]
            await connection.execute(recompose_sql(kind), min(begins), max(begins) + _HOUR, devices, begins)
