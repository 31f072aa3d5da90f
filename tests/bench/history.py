"""A long history, made by the server itself: every device's minutes of the last days, in its partitions."""

import asyncio
import sys
import time
from datetime import UTC, date, datetime, timedelta

import asyncpg

from bridge.contract import METER, VEHICLE
from bridge.store.tables import TABLES, Table
from tests.bench.load import seed_columns
from tests.bench.machine import Db, Machine

DAYS = 7
_SESSIONS = 2
# Each device has its own second, and half of one more: no flood's whole second meets it. The lateral series keeps the
# order of the key, so that the rows are appended to the index.
_ROWS = """
INSERT INTO {partition} ({device}, ts, {values})
SELECT '{prefix}' || lpad(d::text, 6, '0'), t, {made}
FROM generate_series({first}, {devices} - 1, 2) AS d CROSS JOIN LATERAL generate_series(
    {begin}::timestamptz + (d % 60 + 0.5) * interval '1 s', {end}::timestamptz - interval '1 us', '60 s') AS t
"""
_MADE = {"vehicle": "d % 101, (d % 77) / 10.0, 20 + (d + extract(minute FROM t)) % 30", "meter": "(d % 77) / 9.0, 230"}
_LIVE = """
INSERT INTO {live} ({device}, ts, received_at, {values})
SELECT '{prefix}' || lpad(t::text, 6, '0'), now() - interval '1 day', now(), {made}
FROM generate_series({first}, {devices} - 1, 2) AS t
"""
_ASSIGNED = """
INSERT INTO meter_assignment (meter_id, valid_from, vehicle_id)
SELECT 'METER_' || lpad((v + 1)::text, 6, '0'), now() - interval '60 days', 'EV_' || lpad(v::text, 6, '0')
FROM generate_series(0, $1 - 1, 2) AS v
"""


def devices_of(rows: int) -> int:
    """How many devices, vehicles and meters in turns, have this many minutes in a week."""
    return max(2, rows // (DAYS * 1440) // 2 * 2)


async def long_history(machine: Machine) -> str:
    """The URL of the run's large history, made when it is first asked for."""
    if machine.long_history is None:
        url = machine.make_database()
        await fill(url, machine.rows)
        machine.postgres.sql("CHECKPOINT")
        machine.long_history = url
    return machine.long_history


async def fill(url: str, rows: int) -> None:
    """Make a week's history of about `rows` rows up to this minute, vacuumed and analysed."""
    began = time.monotonic()
    devices, end = devices_of(rows), datetime.now(UTC).replace(second=0, microsecond=0)
    days = [(end - timedelta(days=n)).date() for n in range(DAYS, -1, -1)]  # as they come: the last is in the caches
    waiting = [(table, day) for day in days for table in TABLES]
    db: Db = await asyncpg.connect(url)
    try:
        await _prepare(db, devices, waiting)
        async with asyncio.TaskGroup() as sessions:
            for _ in range(_SESSIONS):
                sessions.create_task(_fill_days(url, devices, end, waiting))
        # Only now: what one session has filled is not visible to all while the other is still in its transaction.
        await db.execute("VACUUM (ANALYZE) vehicle_telemetry_history, meter_telemetry_history")
        await db.execute("VACUUM (ANALYZE) vehicle_live_status, meter_live_status, meter_assignment")
    finally:
        await db.close()
    sys.stderr.write(f"   {devices * DAYS * 1440:,} rows made in {time.monotonic() - began:.0f} s\n")


async def _prepare(db: Db, devices: int, partitions: list[tuple[Table, date]]) -> None:
    for table, day in partitions:
        await db.execute("SELECT ensure_partition($1::text::regclass, $2)", table.history, day)
    for table in TABLES:
        made = "50, 1, 25" if table.kind is VEHICLE else "1, 230"
        await db.execute(_LIVE.format(live=table.live, made=made, **_of(table, devices)))
    await db.execute(_ASSIGNED, devices)


async def _fill_days(url: str, devices: int, end: datetime, waiting: list[tuple[Table, date]]) -> None:
    """Fill partition after partition until none is left for this session."""
    db: Db = await asyncpg.connect(url)
    try:
        while waiting:
            table, day = waiting.pop(0)
            partition = f"{table.history}_{day:%Y%m%d}"
            midnight = datetime.combine(day, datetime.min.time(), UTC)
            begin, stop = max(midnight, end - timedelta(days=DAYS)), min(midnight + timedelta(days=1), end)
            span = {"begin": f"'{begin.isoformat()}'", "end": f"'{stop.isoformat()}'", "made": _MADE[table.kind.name]}
            await db.execute(_ROWS.format(partition=partition, **span, **_of(table, devices)))
    finally:
        await db.close()


def _of(table: Table, devices: int) -> dict[str, object]:
    first, prefix = (1, "METER_") if table.kind is METER else (0, "EV_")
    values = ", ".join(seed_columns(table.kind))
    return {"device": table.device_column, "values": values, "first": first, "prefix": prefix, "devices": devices}
