"""What the database knows about faults of devices beside their energy, for many devices by one query each.

A reading is implausible when ingest warned about it (`bridge.store.ratings`): the energy of its interval is more than
rated power x interval, declared or by default. The warnings are not stored, so they are derived from the history with
what is declared now.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import asyncpg

from api.database import Connection
from api.period import EARLIEST, Period
from bridge.contract import Kind

_LOOK_BACK = timedelta(days=31)
# The newest reading is in the live row. Where it is not before $2, the last one before is looked up in the history.
_DEVICES = """
SELECT g.id, d.site, d.rated_kw, d.interval_s, d.created_at,
       CASE WHEN l.ts < $2 THEN l.ts WHEN l.ts IS NOT NULL THEN (
           SELECT ts FROM {history} h WHERE h.{device} = g.id AND ts >= $3 AND ts < $2 AND {days}
           ORDER BY h.{device} DESC, ts DESC LIMIT 1) END AS seen_at
FROM unnest($1::text[]) WITH ORDINALITY AS g(id, position)
LEFT JOIN device d ON d.kind = '{kind}' AND d.id = g.id LEFT JOIN {live} l ON l.{device} = g.id
ORDER BY g.position
"""
_IMPLAUSIBLE = """
SELECT g.id, found.readings FROM unnest($1::text[], $2::float8[]) AS g(id, most_kwh)
CROSS JOIN LATERAL (
    SELECT count(*) AS readings FROM {history}
    WHERE {device} = g.id AND ts >= $3 AND ts < $4 AND {days} AND abs({interval}) > g.most_kwh
) AS found
"""
# OFFSET 0: each device is looked for in the array once, not each rejected reading.
_CONFLICTS = """
SELECT kind, device, readings FROM (
    SELECT kind, device, count(*) AS readings FROM reading_conflict
    WHERE received_at >= $1 AND received_at < $2 GROUP BY kind, device OFFSET 0
) AS found WHERE device = ANY($3)
"""


class Faults(NamedTuple):
    """Of one device."""

    site: str | None
    seen_at: datetime | None
    """Its last reading before the instant that was asked for."""
    declared_at: datetime | None
    conflicts: int
    """Readings that were rejected in the period, because another one has the same timestamp."""
    implausible: int
    """Readings of the period."""


async def faults_of(
    c: Connection, ids: Mapping[Kind, Sequence[str]], period: Period, as_of: datetime, default_interval_s: float
) -> dict[tuple[Kind, str], Faults]:
    """The faults of each device, in the order in which they are given.

    A last reading is looked for from 31 days before the period on, unless the device has reported none since.
    """
    conflicts = await _conflicts(c, sorted({id_ for own in ids.values() for id_ in own}), period)
    found: dict[tuple[Kind, str], Faults] = {}
    for kind, own in ids.items():
        declared = await c.fetch(*_devices_query(kind, own, period, as_of))
        implausible = await _implausible(c, kind, _most_kwh(kind, declared, default_interval_s), period)
        for id_, site, _, _, declared_at, seen_at in declared:
            rejected = conflicts.get((kind.name, id_), 0)
            found[kind, id_] = Faults(site, seen_at, declared_at, rejected, implausible.get(id_, 0))
    return found


async def _conflicts(c: Connection, ids: Sequence[str], period: Period) -> dict[tuple[str, str], int]:
    """By kind and id: of all kinds at once, because every reject of the period is read for it."""
    rows = await c.fetch(_CONFLICTS, period.start, period.end, ids)
    return {(row["kind"], row["device"]): row["readings"] for row in rows}


def _most_kwh(kind: Kind, declared: Sequence[asyncpg.Record], default_interval_s: float) -> dict[str, float]:
    """The most energy in an interval of each device without a warning."""
    return {
        row["id"]: (row["rated_kw"] or kind.rated_kw) * (row["interval_s"] or default_interval_s) / 3600
        for row in declared
    }


def _devices_query(
    kind: Kind, ids: Sequence[str], period: Period, as_of: datetime
) -> tuple[str, Sequence[str], datetime, datetime]:
    first = min(period.start, as_of)
    first -= min(_LOOK_BACK, first - EARLIEST)
    days = Period(first, as_of).days_sql()
    return _sql(_DEVICES, kind, days), ids, as_of, first


async def _implausible(c: Connection, kind: Kind, most_kwh: Mapping[str, float], period: Period) -> dict[str, int]:
    if kind.interval is None:
        return {}
    sql = _sql(_IMPLAUSIBLE, kind, period.days_sql())
    rows = await c.fetch(sql, list(most_kwh), list(most_kwh.values()), period.start, period.end)
    return {row["id"]: row["readings"] for row in rows}


def _sql(text: str, kind: Kind, days: str) -> str:
    return text.format(
        history=kind.history_table,
        live=kind.live_table,
        device=kind.id_column,
        kind=kind.name,
        interval=kind.interval and kind.interval.column,
        days=days,
    )
