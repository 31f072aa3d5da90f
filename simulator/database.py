"""What the database holds of some devices. Reads with plain SQL against the contract's tables."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

import asyncpg

from bridge.reading import Kind

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Tables(NamedTuple):
    """Names of one kind's tables and columns, and the fields of its readings in the columns' order."""

    history: str
    live: str
    device: str
    energy: str
    values: tuple[str, ...]
    fields: tuple[str, ...]
    id_field: str


TABLES: dict[Kind, Tables] = {
    "vehicle": Tables(
        "vehicle_telemetry_history",
        "vehicle_live_status",
        "vehicle_id",
        "kwh_delivered_dc",
        ("soc", "kwh_delivered_dc", "battery_temp"),
        ("soc", "kwhDeliveredDc", "batteryTemp"),
        "vehicleId",
    ),
    "meter": Tables(
        "meter_telemetry_history",
        "meter_live_status",
        "meter_id",
        "kwh_consumed_ac",
        ("kwh_consumed_ac", "voltage"),
        ("kwhConsumedAc", "voltage"),
        "meterId",
    ),
}

Period: TypeAlias = tuple[datetime, datetime]
"""First and last device time, both included."""


async def history(connection: Connection, kind: Kind, devices: Sequence[str], period: Period) -> list[Any]:
    """Rows of (device, ts, extra, values...)."""
    t = TABLES[kind]
    sql = (
        f"SELECT {t.device}, ts, extra, {', '.join(t.values)} FROM {t.history} "  # noqa: S608
        f"WHERE {t.device} = ANY($1) AND ts BETWEEN $2 AND $3"
    )
    return await connection.fetch(sql, devices, *period)


async def energy(connection: Connection, kind: Kind, devices: Sequence[str], period: Period) -> dict[str, Decimal]:
    """Sum of each device's energy in kWh; the sum is decimal, so its order does not matter."""
    t = TABLES[kind]
    sql = (
        f"SELECT {t.device}, sum({t.energy}::numeric) FROM {t.history} "  # noqa: S608
        f"WHERE {t.device} = ANY($1) AND ts BETWEEN $2 AND $3 GROUP BY 1"
    )
    return {row[0]: row[1] for row in await connection.fetch(sql, devices, *period)}


async def stale_live(connection: Connection, kind: Kind, devices: Sequence[str]) -> list[str]:
    """Devices whose live row is not the newest of their history, with its values, or is not there."""
    t = TABLES[kind]
    columns = ("ts", *t.values, "extra")
    newest = ", ".join(f"n.{c}" for c in columns)
    live = ", ".join(f"l.{c}" for c in columns)
    sql = (
        f"SELECT d.id FROM unnest($1::text[]) d(id) "  # noqa: S608
        f"LEFT JOIN LATERAL (SELECT * FROM {t.history} h WHERE h.{t.device} = d.id ORDER BY ts DESC LIMIT 1) n ON true "
        f"LEFT JOIN {t.live} l ON l.{t.device} = d.id WHERE ({newest}) IS DISTINCT FROM ({live})"
    )
    return [row["id"] for row in await connection.fetch(sql, devices)]


_ASSIGNED_ENERGY = """
SELECT a.vehicle_id, sum(h.kwh_consumed_ac::numeric)
FROM (SELECT meter_id, vehicle_id, valid_from,
             lead(valid_from) OVER (PARTITION BY meter_id ORDER BY valid_from) AS valid_until
      FROM meter_assignment WHERE meter_id = ANY($1)) a
JOIN meter_telemetry_history h ON h.meter_id = a.meter_id AND h.ts >= a.valid_from
     AND (a.valid_until IS NULL OR h.ts < a.valid_until)
WHERE a.vehicle_id IS NOT NULL AND h.ts BETWEEN $2 AND $3
GROUP BY 1
"""


async def consumed(connection: Connection, meters: Sequence[str], period: Period) -> dict[str, Decimal]:
    """AC energy by vehicle in kWh: of these meters, while each was assigned to it."""
    return {row[0]: row[1] for row in await connection.fetch(_ASSIGNED_ENERGY, meters, *period)}


_REJECTS = """
SELECT source, topic, device, reason, payload, received_at FROM rejected_message WHERE device = ANY($1)
"""


async def rejects(connection: Connection, devices: Sequence[str]) -> list[Any]:
    """Rejected messages of these devices."""
    return await connection.fetch(_REJECTS, devices)


async def present(connection: Connection, kind: Kind, identities: Sequence[tuple[str, datetime]]) -> int:
    """How many of these identities are in the history."""
    t = TABLES[kind]
    sql = (
        f"SELECT count(*) FROM unnest($1::text[], $2::timestamptz[]) g(id, ts) "  # noqa: S608
        f"JOIN {t.history} h ON h.{t.device} = g.id AND h.ts = g.ts"
    )
    count: int = await connection.fetchval(sql, [i[0] for i in identities], [i[1] for i in identities])
    return count
