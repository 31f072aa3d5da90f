"""The summaries of hours, which are composed of quarter hours when these are closed, and again when one is made again.

Six hours are composed of hours in the same way. `composed_until` follows `closed_until`, and `six_hours_until` follows
`composed_until`. An hour before its mark is composed again in the transaction that makes one of its quarter hours
again, so that no statement sees one without the other. An hour from its mark on is not read, so it does not matter what
is stored of it.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from bridge.contract import Kind
from bridge.keeper.chunks import by_devices, ensure_months, paced
from bridge.keeper.hour_sql import HOURS, SIX_HOURS, Level, compose_sql, recompose_sql
from bridge.keeper.pace import Pace
from bridge.store.session import Connection

LEVELS = (HOURS, SIX_HOURS)
"""Each is composed of the one before it."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_DEVICE_HOURS = 40_000
"""Devices x hours that are composed in one transaction."""
_MOST_HOURS = 240
"""Hours that are composed in one step."""
_MARKS = """
SELECT greatest({mark}, '0001-01-02 00:00+00') AS composed_until,
       date_bin({length}, greatest({parts_mark}, '0001-01-02 00:00+00'), '0001-01-01 00:00+00') AS closed_until
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
_COMPOSED = "UPDATE quarter_mark SET {mark} = $2{later} WHERE kind = $1"
# What is composed of hours that are composed again, because somebody has put back a mark, is composed again too.
_LATER = ", {mark} = least({mark}, date_bin({length}, $3, '0001-01-01 00:00+00'))"


class Hours:
    """Composes the hours, or the six hours, of one kind."""

    def __init__(self, kind: Kind, level: Level) -> None:
        self._kind, self._level = kind, level
        self._step = Pace(_MOST_HOURS, 1)
        self._chunk = Pace(_MOST_DEVICE_HOURS, _MOST_DEVICE_HOURS // 4)

    async def compose(self, connection: Connection) -> bool:
        """Compose the next hours whose parts are closed; whether there are more."""
        kind, level = self._kind, self._level
        composed, closed = await self._marks(connection)
        if composed >= closed:
            return False
        begin = min(closed, max(composed, await self._first(connection, composed) or closed))
        until = min(closed, begin + self._step.size * level.length)
        with paced(self._step):
            await ensure_months(connection, level.table(kind), begin, until)
            await by_devices(connection, kind, compose_sql(kind, level), begin, until, level.length, self._chunk)
        await self._move_marks(connection, begin, until)
        return until < closed

    async def _marks(self, connection: Connection) -> tuple[datetime, datetime]:
        """Until when they are composed, and until when they can be."""
        level = self._level
        sql = _MARKS.format(mark=level.mark, length=level.interval, parts_mark=level.parts_mark)
        composed, closed = await connection.fetchrow(sql, self._kind.name)  # type: ignore[misc]
        return composed, closed

    async def _move_marks(self, connection: Connection, begin: datetime, until: datetime) -> None:
        later = [level for level in LEVELS if level.parts_mark == self._level.mark]
        put_back = "".join(_LATER.format(mark=level.mark, length=level.interval) for level in later)
        sql = _COMPOSED.format(mark=self._level.mark, later=put_back)
        await connection.execute(sql, self._kind.name, until, *([begin] if later else []))

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
        length = self._level.length
        composed, _ = await self._marks(connection)
        found = {(device, quarter - (quarter - _EPOCH) % length) for device, quarter in quarters}
        hours = [(device, hour) for device, hour in found if hour + length <= composed]
        if hours:
            devices, begins = [list(column) for column in zip(*hours, strict=True)]
            sql = recompose_sql(self._kind, self._level)
            await connection.execute(sql, min(begins), max(begins) + length, devices, begins)
