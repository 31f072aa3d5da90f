"""What the version before one contract does in its database: its statements, word for word from its commit (d2d287d).

They are the reference that migrations 0005 and later are held against, so nothing here follows the contract.
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg

from bridge.store.migrate import migrations

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Row = tuple[Any, ...]

MIGRATIONS = ("0001_tables", "0002_partitions", "0003_security", "0004_roles")
WRITER_SESSION = {
    "application_name": "fleet-bridge",
    "jit": "off",
    "timezone": "UTC",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_custom_plan",
}
READER_SESSION = {
    "application_name": "fleet-api",
    "jit": "off",
    "timezone": "UTC",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
}
COLUMNS = {
    "vehicle": ["vehicle_id", "ts", "soc", "kwh_delivered_dc", "battery_temp", "extra"],
    "meter": ["meter_id", "ts", "kwh_consumed_ac", "voltage", "extra"],
}
STAGE_SQL = {
    "vehicle": "CREATE TEMPORARY TABLE IF NOT EXISTS staged_vehicle ON COMMIT DELETE ROWS AS "
    "SELECT vehicle_id, ts, soc, kwh_delivered_dc, battery_temp, extra FROM vehicle_live_status WITH NO DATA",
    "meter": "CREATE TEMPORARY TABLE IF NOT EXISTS staged_meter ON COMMIT DELETE ROWS AS "
    "SELECT meter_id, ts, kwh_consumed_ac, voltage, extra FROM meter_live_status WITH NO DATA",
}
LOOK_UP_SQL = {
    "vehicle": "SELECT g.position, found.same FROM unnest($1::text[], $2::timestamptz[], $3::float8[], $4::float8[], "
    "$5::float8[], $6::jsonb[]) WITH ORDINALITY "
    "AS g(vehicle_id, ts, soc, kwh_delivered_dc, battery_temp, extra, position) CROSS JOIN LATERAL "
    "(SELECT h.soc IS NOT DISTINCT FROM g.soc AND h.kwh_delivered_dc IS NOT DISTINCT FROM g.kwh_delivered_dc "
    "AND h.battery_temp IS NOT DISTINCT FROM g.battery_temp AND h.extra IS NOT DISTINCT FROM g.extra AS same "
    "FROM vehicle_telemetry_history h WHERE h.vehicle_id = g.vehicle_id AND h.ts = g.ts "
    "AND h.ts BETWEEN $7 AND $8 OFFSET 0) AS found",
    "meter": "SELECT g.position, found.same FROM unnest($1::text[], $2::timestamptz[], $3::float8[], $4::float8[], "
    "$5::jsonb[]) WITH ORDINALITY AS g(meter_id, ts, kwh_consumed_ac, voltage, extra, position) CROSS JOIN LATERAL "
    "(SELECT h.kwh_consumed_ac IS NOT DISTINCT FROM g.kwh_consumed_ac AND h.voltage IS NOT DISTINCT FROM g.voltage "
    "AND h.extra IS NOT DISTINCT FROM g.extra AS same FROM meter_telemetry_history h "
    "WHERE h.meter_id = g.meter_id AND h.ts = g.ts AND h.ts BETWEEN $6 AND $7 OFFSET 0) AS found",
}
UPSERT_LIVE_SQL = {
    "vehicle": "INSERT INTO vehicle_live_status AS live "
    "(vehicle_id, ts, soc, kwh_delivered_dc, battery_temp, extra, received_at) "
    "SELECT vehicle_id, ts, soc, kwh_delivered_dc, battery_temp, extra, now() FROM staged_vehicle "
    "ON CONFLICT (vehicle_id) DO UPDATE SET received_at = excluded.received_at, ts = excluded.ts, "
    "soc = excluded.soc, kwh_delivered_dc = excluded.kwh_delivered_dc, battery_temp = excluded.battery_temp, "
    "extra = excluded.extra WHERE excluded.ts > live.ts",
    "meter": "INSERT INTO meter_live_status AS live (meter_id, ts, kwh_consumed_ac, voltage, extra, received_at) "
    "SELECT meter_id, ts, kwh_consumed_ac, voltage, extra, now() FROM staged_meter "
    "ON CONFLICT (meter_id) DO UPDATE SET received_at = excluded.received_at, ts = excluded.ts, "
    "kwh_consumed_ac = excluded.kwh_consumed_ac, voltage = excluded.voltage, extra = excluded.extra "
    "WHERE excluded.ts > live.ts",
}
AT_ONCE_SQL = (
    "WITH vehicle_history AS (INSERT INTO vehicle_telemetry_history "
    "(vehicle_id, ts, soc, kwh_delivered_dc, battery_temp, extra) "
    "SELECT vehicle_id, ts, soc, kwh_delivered_dc, battery_temp, extra FROM "
    "unnest($1::text[], $2::timestamptz[], $3::float8[], $4::float8[], $5::float8[], $6::jsonb[]) "
    "AS g(vehicle_id, ts, soc, kwh_delivered_dc, battery_temp, extra)  RETURNING 1), "
    "vehicle_live AS (INSERT INTO vehicle_live_status AS live "
    "(vehicle_id, ts, soc, kwh_delivered_dc, battery_temp, extra, received_at) "
    "SELECT DISTINCT ON (vehicle_id) vehicle_id, ts, soc, kwh_delivered_dc, battery_temp, extra, now() FROM "
    "unnest($1::text[], $2::timestamptz[], $3::float8[], $4::float8[], $5::float8[], $6::jsonb[]) "
    "AS g(vehicle_id, ts, soc, kwh_delivered_dc, battery_temp, extra) "
    "WHERE (SELECT count(*) FROM vehicle_history) >= 0 ORDER BY vehicle_id, ts DESC "
    "ON CONFLICT (vehicle_id) DO UPDATE SET received_at = excluded.received_at, ts = excluded.ts, "
    "soc = excluded.soc, kwh_delivered_dc = excluded.kwh_delivered_dc, battery_temp = excluded.battery_temp, "
    "extra = excluded.extra WHERE excluded.ts > live.ts RETURNING 1), "
    "meter_history AS (INSERT INTO meter_telemetry_history (meter_id, ts, kwh_consumed_ac, voltage, extra) "
    "SELECT meter_id, ts, kwh_consumed_ac, voltage, extra FROM "
    "unnest($7::text[], $8::timestamptz[], $9::float8[], $10::float8[], $11::jsonb[]) "
    "AS g(meter_id, ts, kwh_consumed_ac, voltage, extra) "
    "WHERE (SELECT count(*) FROM vehicle_live) >= 0 RETURNING 1), "
    "meter_live AS (INSERT INTO meter_live_status AS live "
    "(meter_id, ts, kwh_consumed_ac, voltage, extra, received_at) "
    "SELECT DISTINCT ON (meter_id) meter_id, ts, kwh_consumed_ac, voltage, extra, now() FROM "
    "unnest($7::text[], $8::timestamptz[], $9::float8[], $10::float8[], $11::jsonb[]) "
    "AS g(meter_id, ts, kwh_consumed_ac, voltage, extra) "
    "WHERE (SELECT count(*) FROM meter_history) >= 0 ORDER BY meter_id, ts DESC "
    "ON CONFLICT (meter_id) DO UPDATE SET received_at = excluded.received_at, ts = excluded.ts, "
    "kwh_consumed_ac = excluded.kwh_consumed_ac, voltage = excluded.voltage, extra = excluded.extra "
    "WHERE excluded.ts > live.ts RETURNING 1) SELECT count(*) FROM meter_live"
)
REJECT_SQL = (
    "INSERT INTO rejected_message (id, received_at, source, topic, device, reason, detail, payload) "
    "SELECT id, $2, source, topic, device, reason, detail, payload FROM unnest($1::uuid[], $3::text[], $4::text[], "
    "$5::text[], $6::text[], $7::text[], $8::bytea[]) AS g(id, source, topic, device, reason, detail, payload) "
    "ON CONFLICT (id) DO NOTHING"
)
PARTITION_SQL = "SELECT ensure_partition($1::text::regclass, $2)"
LIVE_SQL = {
    "vehicle": "SELECT vehicle_id, soc, kwh_delivered_dc, battery_temp, ts, received_at, extra "
    "FROM vehicle_live_status WHERE vehicle_id > $1 ORDER BY vehicle_id LIMIT $2",
    "meter": "SELECT meter_id, kwh_consumed_ac, voltage, ts, received_at, extra "
    "FROM meter_live_status WHERE meter_id > $1 ORDER BY meter_id LIMIT $2",
}
HISTORY_SQL = {
    "vehicle": "SELECT vehicle_id, soc, kwh_delivered_dc, battery_temp, ts, received_at, extra "
    "FROM vehicle_telemetry_history WHERE vehicle_id = $1 AND ts >= $2 AND ts < $3 AND {days} ORDER BY ts LIMIT $4",
    "meter": "SELECT meter_id, kwh_consumed_ac, voltage, ts, received_at, extra "
    "FROM meter_telemetry_history WHERE meter_id = $1 AND ts >= $2 AND ts < $3 AND {days} ORDER BY ts LIMIT $4",
}
PERFORMANCE_SQL = """
SELECT NULL AS meter_id, NULL::timestamptz AS period_from, NULL::timestamptz AS period_to, count(*) AS readings,
       sum((kwh_delivered_dc * 1e12)::int8) AS units,
       string_agg(point_send(point(tstzrange_subdiff(ts, $2), battery_temp)), NULL) AS points
FROM (SELECT vehicle_id, ts, kwh_delivered_dc, battery_temp FROM vehicle_telemetry_history
      WHERE vehicle_id = $1 AND ts >= $2 AND ts < $3 AND {days} ORDER BY vehicle_id, ts) AS reading
UNION ALL
SELECT assigned.meter_id, assigned.period_from, assigned.period_to, measured.readings, measured.units, NULL
FROM (SELECT a.meter_id, greatest(a.valid_from, $2) AS period_from,
             least($3, (SELECT min(n.valid_from) FROM meter_assignment n
                        WHERE n.meter_id = a.meter_id AND n.valid_from > a.valid_from)) AS period_to
      FROM meter_assignment a WHERE a.vehicle_id = $1 AND a.valid_from < $3 OFFSET 0) AS assigned
CROSS JOIN LATERAL (
    SELECT count(*) AS readings, sum((kwh_consumed_ac * 1e12)::int8) AS units
    FROM (SELECT meter_id, ts, kwh_consumed_ac FROM meter_telemetry_history
          WHERE meter_id = assigned.meter_id AND ts >= assigned.period_from AND ts < assigned.period_to
            AND ts >= $2 AND ts < $3 AND {days} ORDER BY meter_id, ts) AS reading) AS measured
WHERE assigned.period_from < assigned.period_to
ORDER BY meter_id NULLS FIRST, period_from
"""


async def migrate(url: str) -> None:
    """Make the version's schema in an empty database, as its `migrate` did: it kept no checksums."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_migration "
                "(name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
            )
            for name in MIGRATIONS:
                await connection.execute(migrations()[name])
                await connection.execute("INSERT INTO schema_migration (name) VALUES ($1)", name)
            await connection.execute("SELECT grant_roles()")
    finally:
        await connection.close()


async def connect_writer(url: str) -> Connection:
    """The connection of the version's store."""
    connection = await asyncpg.connect(url, command_timeout=30, server_settings=WRITER_SESSION)
    for sql in STAGE_SQL.values():
        await connection.execute(sql)
    return connection


async def store_many(connection: Connection, rows: dict[str, list[Row]]) -> None:
    """Partitions, then history and live rows by COPY in one transaction. Rows are in the order of device and time."""
    await ensure_partitions(connection, rows)
    async with connection.transaction():
        for kind, own in rows.items():
            columns = COLUMNS[kind]
            await connection.copy_records_to_table(f"{kind}_telemetry_history", records=own, columns=columns)
            newest = {row[0]: row for row in own}.values()
            await connection.copy_records_to_table(f"staged_{kind}", records=newest, columns=columns)
            await connection.execute(UPSERT_LIVE_SQL[kind])


async def store_few(connection: Connection, rows: dict[str, list[Row]]) -> None:
    """The same in one statement."""
    await ensure_partitions(connection, rows)
    parameters = [column for kind in COLUMNS for column in zip(*rows[kind], strict=True)]
    await connection.execute(AT_ONCE_SQL, *parameters)


async def ensure_partitions(connection: Connection, rows: dict[str, list[Row]]) -> None:
    for kind, own in rows.items():
        for day in {row[1].date() for row in own}:
            await connection.fetchval(PARTITION_SQL, f"{kind}_telemetry_history", day)


async def look_up(connection: Connection, kind: str, rows: Sequence[Row]) -> list[bool]:
    """Of the rows that are in the history: whether all of their values are equal."""
    columns = list(zip(*rows, strict=True))
    found = await connection.fetch(LOOK_UP_SQL[kind], *columns, min(columns[1]), max(columns[1]))
    return [row["same"] for row in found]


async def reject(connection: Connection, count: int) -> None:
    """Keep rejected messages."""
    ids = [uuid.uuid4() for _ in range(count)]
    texts = [["mqtt"] * count, ["t"] * count, [None] * count, ["not_json"] * count, ["why"] * count]
    await connection.execute(REJECT_SQL, ids, datetime.now(UTC), *texts, [b"x"] * count)


async def ask(connection: Connection, device: str, meter: str, start: datetime, end: datetime) -> int:
    """Every question of the version's API; the number of rows that answered."""
    days = f"ts >= '{start.date()} 00:00+00' AND ts < '{end.date() + timedelta(days=1)} 00:00+00'"
    rows = len(await connection.fetch(LIVE_SQL["vehicle"], "", 100)) + len(
        await connection.fetch(LIVE_SQL["meter"], "", 100)
    )
    for kind, name in (("vehicle", device), ("meter", meter)):
        rows += len(await connection.fetch(HISTORY_SQL[kind].format(days=days), name, start, end, 1_000))
    return rows + len(await connection.fetch(PERFORMANCE_SQL.format(days=days), device, start, end))
