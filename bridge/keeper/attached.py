"""The duty that notices days of the history that were attached after their quarter hours had been closed.

A day that an operator detaches and attaches again was closed, or its marks were cleaned, while its readings were not
visible. Every quarter hour of it is marked, so that it is summarized again.
"""

from datetime import date

from bridge.contract import KINDS, Kind
from bridge.keeper.port import Duty
from bridge.store.database_errors import asking
from bridge.store.session import Connection

EVERY_S = 15.0
_DEVICES = 20_000
"""Devices whose quarter hours of a day are marked in one transaction."""
_FORGET = "DELETE FROM quarter_day WHERE kind = $1 AND NOT day = ANY ($2)"
_NEW = "SELECT day FROM unnest($2::date[]) AS d(day) EXCEPT SELECT day FROM quarter_day WHERE kind = $1 ORDER BY day"
_KNOW = "INSERT INTO quarter_day (kind, day) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_CLOSED = "SELECT closed_until > $2::date::timestamp AT TIME ZONE 'UTC' FROM quarter_mark WHERE kind = $1"
_ATTACHED = """
SELECT to_date(right(c.relname, 8), 'YYYYMMDD') FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
WHERE inhparent = $1::text::regclass AND NOT inhdetachpending
"""
_MARK = """
WITH chosen AS (SELECT {device} AS device FROM {live} WHERE {device} > $2 ORDER BY {device} LIMIT $3),
marked AS (
    INSERT INTO {dirty} ({device}, bucket)
    SELECT device, bucket FROM chosen CROSS JOIN quarter_mark m CROSS JOIN LATERAL generate_series(
        $1::date::timestamp AT TIME ZONE 'UTC',
        least(($1::date + 1)::timestamp AT TIME ZONE 'UTC', m.closed_until) - interval '15 minutes',
        interval '15 minutes') AS bucket
    WHERE m.kind = '{kind}'
)
SELECT max(device) FROM chosen
"""


async def _run(connection: Connection) -> bool:
    with asking():
        for kind in KINDS:
            attached = [row[0] for row in await connection.fetch(_ATTACHED, kind.history_table)]
            await connection.execute(_FORGET, kind.name, attached)
            for row in await connection.fetch(_NEW, kind.name, attached):
                await _notice(connection, kind, row["day"])
    return False


async def _notice(connection: Connection, kind: Kind, day: date) -> None:
    """Mark what is closed of a day, and know it from then on. A mark that is made twice does no harm."""
    if await connection.fetchval(_CLOSED, kind.name, day):
        mark = _MARK.format(device=kind.id_column, live=kind.live_table, dirty=kind.dirty_table, kind=kind.name)
        after: str | None = ""
        while after is not None:
            after = await connection.fetchval(mark, day, after, _DEVICES)
    await connection.execute(_KNOW, kind.name, day)


attached_days = Duty("attached_days", EVERY_S, _run)
