"""Queries the stored data of some devices, with SQL on the contract's tables."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeAlias

import asyncpg

from bridge.contract import METER, Kind

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Period: TypeAlias = tuple[datetime, datetime]
"""First and last device time, both included."""
EVER: Period = (datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC))

ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""What queries raise when the database is unavailable, or refuses the login or a statement."""


async def history(connection: Connection, kind: Kind, devices: Sequence[str], period: Period) -> list[Any]:
    """Rows of (device, ts, extra, measures...) in the order of device time."""
    sql = (
        f"SELECT {kind.id_column}, ts, extra, {', '.join(m.column for m in kind.measures)} "  # noqa: S608
        f"FROM {kind.history_table} WHERE {kind.id_column} = ANY($1) AND ts BETWEEN $2 AND $3 ORDER BY ts"
    )
    return await connection.fetch(sql, devices, *period)


async def energy(connection: Connection, kind: Kind, devices: Sequence[str], period: Period) -> dict[str, Decimal]:
    """Sum of each device's interval energy in kWh; the sum is decimal, so its order does not matter."""
    if kind.interval is None:
        return {}
    sql = (
        f"SELECT {kind.id_column}, coalesce(sum({kind.interval.column}::numeric), 0) FROM {kind.history_table} "  # noqa: S608
        f"WHERE {kind.id_column} = ANY($1) AND ts BETWEEN $2 AND $3 GROUP BY 1"
    )
    return {row[0]: row[1] for row in await connection.fetch(sql, devices, *period)}


async def stale_live(connection: Connection, kind: Kind, devices: Sequence[str]) -> list[str]:
    """Devices whose live row is missing or differs from the one that follows from their history.

    Time and unknown fields are those of the newest row. Of each measure it is the newest value among the rows that
    were newer than the live row when they were stored: those whose ts is greater than that of every row stored before
    (in the order of received_at, then ts: the rows of a transaction count in the order of their ts). If no such row has
    the measure, it is that of a late row: of one in the first transaction with such rows.
    """
    device, columns = kind.id_column, [measure.column for measure in kind.measures]
    firsts = [
        f"min(received_at) FILTER (WHERE {c} IS NOT NULL) OVER (PARTITION BY {device}) AS first_{c}" for c in columns
    ]
    values = [
        f"(array_agg({c} ORDER BY ts DESC) FILTER (WHERE is_newest AND {c} IS NOT NULL))[1] AS {c}, "
        f"array_agg({c}) FILTER (WHERE received_at = first_{c}) AS late_{c}"
        for c in columns
    ]
    wrong = [
        f"CASE WHEN due.{c} IS NULL AND due.late_{c} IS NOT NULL "
        f"THEN NOT coalesce(live.{c} = ANY (due.late_{c}), false) ELSE live.{c} IS DISTINCT FROM due.{c} END"
        for c in columns
    ]
    sql = (
        f"WITH stored AS (SELECT *, ts = max(ts) OVER (PARTITION BY {device} ORDER BY received_at, ts) AS is_newest, "  # noqa: S608
        f"{', '.join(firsts)} FROM {kind.history_table} WHERE {device} = ANY($1)), "
        f"due AS (SELECT {device}, max(ts) AS ts, (array_agg(extra ORDER BY ts DESC))[1] AS extra, {', '.join(values)} "
        f"FROM stored GROUP BY {device}) "
        f"SELECT sent.id FROM unnest($1::text[]) sent(id) LEFT JOIN due ON due.{device} = sent.id "
        f"LEFT JOIN {kind.live_table} live ON live.{device} = sent.id "
        f"WHERE (due.ts, due.extra) IS DISTINCT FROM (live.ts, live.extra) OR {' OR '.join(wrong)}"
    )
    return [row["id"] for row in await connection.fetch(sql, devices)]


async def impossible_live(connection: Connection, kind: Kind, devices: Sequence[str]) -> list[str]:
    """Devices whose live row is not what their history makes of it in any order of storing.

    Time and unknown fields are those of the newest row, and so is each measure that it has. A measure that it lacks
    is that of any row, or none: with several writers it is unknown which of them was first.
    """
    device, history, live = kind.id_column, kind.history_table, kind.live_table
    wrong = ["(newest.ts, newest.extra) IS DISTINCT FROM (live.ts, live.extra)"]
    for column in (measure.column for measure in kind.measures):
        wrong.append(f"live.{column} <> newest.{column} OR (live.{column} IS NULL AND newest.{column} IS NOT NULL)")
        known = f"SELECT FROM {history} h WHERE h.{device} = sent.id AND h.{column} = live.{column}"
        wrong.append(f"(live.{column} IS NOT NULL AND NOT EXISTS ({known}))")
    sql = (
        f"SELECT sent.id FROM unnest($1::text[]) sent(id) LEFT JOIN {live} live ON live.{device} = sent.id "  # noqa: S608
        f"LEFT JOIN LATERAL (SELECT * FROM {history} h WHERE h.{device} = sent.id ORDER BY h.ts DESC LIMIT 1) newest "
        f"ON true WHERE {' OR '.join(wrong)}"
    )
    return [row["id"] for row in await connection.fetch(sql, devices)]


async def others(connection: Connection, kind: Kind, devices: Sequence[str], prefix: str) -> list[str]:
    """Devices other than these whose ids begin with `prefix` and which have readings or a live row."""
    tables = (
        f"SELECT {kind.id_column} AS id FROM {table} "  # noqa: S608
        for table in (kind.history_table, kind.live_table)
    )
    sql = f"SELECT id FROM ({' UNION '.join(tables)}) t WHERE starts_with(id, $2) AND id <> ALL($1)"  # noqa: S608
    return [row["id"] for row in await connection.fetch(sql, devices, prefix)]


async def consumed(connection: Connection, meters: Sequence[str], period: Period) -> dict[str, Decimal]:
    """Interval energy by vehicle in kWh, of these meters' readings while each was assigned to the vehicle."""
    assert METER.interval is not None
    sql = (
        f"SELECT a.vehicle_id, coalesce(sum(h.{METER.interval.column}::numeric), 0) "  # noqa: S608
        "FROM (SELECT meter_id, vehicle_id, valid_from, "
        "lead(valid_from) OVER (PARTITION BY meter_id ORDER BY valid_from) AS valid_until "
        "FROM meter_assignment WHERE meter_id = ANY($1)) a "
        f"JOIN {METER.history_table} h ON h.{METER.id_column} = a.meter_id AND h.ts >= a.valid_from "
        "AND (a.valid_until IS NULL OR h.ts < a.valid_until) "
        "WHERE a.vehicle_id IS NOT NULL AND h.ts BETWEEN $2 AND $3 GROUP BY 1"
    )
    return {row[0]: row[1] for row in await connection.fetch(sql, meters, *period)}


# What devices send by MQTT comes from a broker or from a stream.
_REJECTS = """
SELECT device, received_at, CASE source WHEN 'http' THEN source ELSE 'mqtt' END AS source, reason, payload
FROM rejected_message WHERE device = ANY($1)
"""


async def rejects(connection: Connection, devices: Sequence[str]) -> list[Any]:
    """Rejected messages of these devices."""
    return await connection.fetch(_REJECTS, devices)


_OTHER_REJECTS = """
SELECT reason, payload FROM rejected_message WHERE (device IS NULL OR device <> ALL($1))
AND (starts_with(device, $2) OR position(convert_to($2, 'UTF8') in payload) > 0)
"""


async def other_rejects(connection: Connection, devices: Sequence[str], prefix: str) -> list[Any]:
    """Rejected messages of no device or of others than these, in whose device or payload `prefix` is."""
    return await connection.fetch(_OTHER_REJECTS, devices, prefix)


async def present(connection: Connection, kind: Kind, identities: Sequence[tuple[str, datetime]]) -> int:
    """How many of these identities are in the history."""
    sql = (
        f"SELECT count(*) FROM unnest($1::text[], $2::timestamptz[]) g(id, ts) "  # noqa: S608
        f"JOIN {kind.history_table} h ON h.{kind.id_column} = g.id AND h.ts = g.ts"
    )
    count: int = await connection.fetchval(sql, [i[0] for i in identities], [i[1] for i in identities])
    return count
