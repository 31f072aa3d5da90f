"""The duty that makes the summaries of quarter hours, of those that are over and of those that lack a late reading.

Closing quarter hours takes three steps, so that no reading is missed: the mark moves ahead, and readings before it are
marked dirty from then on; every transaction that may not have seen this ends; the summaries are made from what is
stored. Each step may be the last one of this process: the next one continues from the marks. Summaries are replaced,
never added to.
"""

import asyncio
import time
from datetime import datetime, timedelta

from bridge.contract import KINDS, Kind
from bridge.errors import StoreUnavailable
from bridge.keeper.port import Duty, Figure
from bridge.keeper.quarter_sql import clean_sql, close_sql
from bridge.store.database_errors import asking
from bridge.store.session import Connection

EVERY_S = 15.0
_MOST_MARKS = 2_000
"""Marks that are cleaned in one transaction."""
_DEVICE_MINUTES = 300_000
"""Devices x minutes that are summarized in one transaction."""
_LONGEST_STEP = timedelta(days=1)
_POLL_S = 0.01
_MARKS = """
SELECT greatest(marked_until, '0001-01-02 00:00+00') AS marked_until,
       greatest(closed_until, '0001-01-02 00:00+00') AS closed_until,
       date_bin('15 minutes', now() - $2::interval, '1970-01-01 00:00+00') AS over
FROM quarter_mark WHERE kind = $1
"""
_MARK = "UPDATE quarter_mark SET marked_until = greatest(marked_until, $2) WHERE kind = $1"
_CLOSED = "UPDATE quarter_mark SET closed_until = $2 WHERE kind = $1"
# Of the first partition, of whose name the day is a part.
_FIRST_DAY = """
SELECT to_date(right(min(c.relname), 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC'
FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = $1::text::regclass
"""
# Every transaction that has inserted into the history holds this lock until it ends.
_WRITERS = """
SELECT pid, virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted AND pid <> pg_backend_pid()
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND relation = $1::text::regclass
"""
_LAST_OF_CHUNK = "SELECT max(id) FROM (SELECT {device} AS id FROM {live} WHERE {device} > $1 ORDER BY 1 LIMIT $2) AS d"
_DIRTY = "SELECT ctid, date_trunc('month', bucket)::date AS month FROM {dirty} WHERE bucket < $1 LIMIT $2"
_PARTITION = "SELECT ensure_quarter_partition($1::text::regclass, $2)"
_BACKLOG = "SELECT count(*) FROM (SELECT FROM {dirty} LIMIT 1000000) AS d"


class Quarters:
    """Makes summaries. One instance lives as long as the process; its figures are those of its last run."""

    def __init__(self, delay_s: float, timeout_s: float) -> None:
        """Quarter hours are closed `delay_s` after their end; a writer's transaction is awaited up to `timeout_s`."""
        self._delay = timedelta(seconds=delay_s)
        self._timeout_s = timeout_s
        self._behind_s = dict.fromkeys(KINDS, 0.0)
        self._dirty = dict.fromkeys(KINDS, 0)

    @property
    def duty(self) -> Duty:
        """The duty, and what it tells about itself."""
        figures = (
            Figure(
                "fleet_keeper_quarters_behind_seconds",
                "Time from the end of the last summarized quarter hour to the end of the last one that is over.",
                lambda kind: self._behind_s[kind],
            ),
            Figure(
                "fleet_keeper_dirty_quarters",
                "Marks of quarter hours whose summary lacks a late reading.",
                lambda kind: float(self._dirty[kind]),
            ),
        )
        return Duty("quarters", EVERY_S, self.run, figures)

    async def run(self, connection: Connection) -> bool:
        """One step of each kind. Raises `StoreUnavailable` when a writer's transaction does not end."""
        more = False
        for kind in KINDS:
            with asking():
                more |= await self._close(connection, kind)
                more |= await self._clean(connection, kind)
        return more

    async def _close(self, connection: Connection, kind: Kind) -> bool:
        """Summarize the next quarter hours that are over, at most a day of them; whether there are more."""
        marked, closed, over = await connection.fetchrow(_MARKS, kind.name, self._delay)  # type: ignore[misc]
        self._behind_s[kind] = max(0.0, (over - closed).total_seconds())
        until = await self._next(connection, kind, closed, over) if marked <= closed else marked
        if until <= closed:
            return False
        await connection.execute(_MARK, kind.name, until)
        await self._writers_ended(connection, kind)
        await self._summarize(connection, kind, closed, until)
        await connection.execute(_CLOSED, kind.name, until)
        self._behind_s[kind] = max(0.0, (over - until).total_seconds())
        return bool(until < over)

    async def _next(self, connection: Connection, kind: Kind, closed: datetime, over: datetime) -> datetime:
        """Where the next step ends: a day later, but not before there is something to summarize."""
        first = await connection.fetchval(_FIRST_DAY, kind.history_table)
        return over if first is None else min(over, max(first, closed) + _LONGEST_STEP)

    async def _writers_ended(self, connection: Connection, kind: Kind) -> None:
        """Wait for the end of every transaction that has inserted into the history by now."""
        deadline = time.monotonic() + self._timeout_s
        writers = {tuple(row) for row in await connection.fetch(_WRITERS, kind.history_table)}
        while writers:
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"a transaction that writes to {kind.history_table} does not end")
            await asyncio.sleep(_POLL_S)
            writers &= {tuple(row) for row in await connection.fetch(_WRITERS, kind.history_table)}

    async def _summarize(self, connection: Connection, kind: Kind, since: datetime, until: datetime) -> None:
        """In chunks of devices, so that no transaction is long."""
        first = await connection.fetchval(_FIRST_DAY, kind.history_table)
        if first is None:
            return
        month = max(first, since)
        while month < until:
            await connection.fetchval(_PARTITION, kind.quarter_table, month.date())
            month = (month.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0)
        minutes = (until - max(first, since)) / timedelta(minutes=1)
        count = max(1, int(_DEVICE_MINUTES / max(1.0, minutes)))
        chunk = _LAST_OF_CHUNK.format(device=kind.id_column, live=kind.live_table)
        after = ""
        while (last := await connection.fetchval(chunk, after, count)) is not None:
            await connection.execute(close_sql(kind), since, until, after, last)
            after = last

    async def _clean(self, connection: Connection, kind: Kind) -> bool:
        """Make summaries again that lack a late reading; whether there are more."""
        _, closed, _ = await connection.fetchrow(_MARKS, kind.name, self._delay)  # type: ignore[misc]
        marks = await connection.fetch(_DIRTY.format(dirty=kind.dirty_table), closed, _MOST_MARKS)
        for month in {row["month"] for row in marks}:
            await connection.fetchval(_PARTITION, kind.quarter_table, month)
        if marks:
            await connection.fetchval(clean_sql(kind), [row["ctid"] for row in marks])
        self._dirty[kind] = await connection.fetchval(_BACKLOG.format(dirty=kind.dirty_table))
        return len(marks) == _MOST_MARKS
