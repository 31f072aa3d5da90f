"""A1: how long the keeper's session in PostgreSQL takes to judge every rule for 100,000 devices."""

import time

import asyncpg

from bridge.alarms.judge import Judge
from bridge.keeper.leader import leading
from bridge.settings.keeper import KeeperSettings
from bridge.store.session import Connection
from tests.bench.machine import Db, Machine
from tests.bench.report import Figure

_ROUNDS = 9
DEVICES = 100_000
"""Vehicles and meters, half each; every second one is declared, every meter is assigned."""
_FILL = """
CREATE TEMPORARY TABLE bench_now AS SELECT date_bin('15 min', now(), 'epoch') AS until;
INSERT INTO vehicle_live_status (vehicle_id, ts, received_at, soc, battery_temp)
SELECT 'EV_' || lpad(n::text, 6, '0'), now(), now(), 20 + n % 60, 20 + n % 30 FROM generate_series(1, {half}) AS n;
INSERT INTO meter_live_status (meter_id, ts, received_at, voltage)
SELECT 'METER_' || lpad(n::text, 6, '0'), now(), now(), 225 + n % 10 FROM generate_series(1, {half}) AS n;
INSERT INTO device (kind, id, interval_s, rated_kw, site)
SELECT 'vehicle', 'EV_' || lpad(n::text, 6, '0'), 60, 150, 'Site ' || n % 50 FROM generate_series(1, {half}, 2) AS n
UNION ALL
SELECT 'meter', 'METER_' || lpad(n::text, 6, '0'), 60, 150, 'Site ' || n % 50 FROM generate_series(1, {half}, 2) AS n;
INSERT INTO meter_assignment (meter_id, valid_from, vehicle_id)
SELECT 'METER_' || lpad(n::text, 6, '0'), '2026-01-01Z', 'EV_' || lpad(n::text, 6, '0')
FROM generate_series(1, {half}) AS n;
SELECT ensure_quarter_partition(t::regclass, (until - interval '1 hour')::date),
       ensure_quarter_partition(t::regclass, until::date)
FROM bench_now, unnest(ARRAY['vehicle_quarter', 'meter_quarter']) AS t;
INSERT INTO vehicle_quarter (vehicle_id, bucket, readings, first_us, last_us, is_even, interval_in, steepest_kw)
SELECT 'EV_' || lpad(n::text, 6, '0'), until - q * interval '15 min', 15, 0, 840000000, true, 1800000000000, 100
FROM bench_now, generate_series(1, {half}) AS n, generate_series(1, 4) AS q;
INSERT INTO meter_quarter (meter_id, bucket, readings, first_us, last_us, is_even, interval_in, steepest_kw)
SELECT 'METER_' || lpad(n::text, 6, '0'), until - q * interval '15 min', 15, 0, 840000000, true, 2000000000000, 100
FROM bench_now, generate_series(1, {half}) AS n, generate_series(1, 4) AS q;
UPDATE quarter_mark SET marked_until = until, closed_until = until FROM bench_now;
"""
_FRESH = """
UPDATE vehicle_live_status SET ts = now(), received_at = now();
UPDATE meter_live_status SET ts = now(), received_at = now();
"""


async def a1(machine: Machine) -> list[Figure]:
    """The run every 15 s, in which the live rows are judged, and the one after each quarter hour, with energies."""
    half = (DEVICES // 10 if machine.quick else DEVICES) // 2
    with machine.database() as url:
        db: Db = await asyncpg.connect(url, command_timeout=600)
        try:
            await db.execute(_FILL.format(half=half))
            await db.execute("VACUUM ANALYZE")
            async with leading(KeeperSettings(database_url=url)) as session:
                found = [await _round(db, session) for _ in range(_ROUNDS)]
            if await db.fetchval("SELECT count(*) FROM alarm"):
                raise RuntimeError("a device that is well has an alarm")
        finally:
            await db.close()
    whole, live = (sorted(each) for each in zip(*found, strict=True))
    return [
        _figure("A1", f"judging {2 * half:,} devices", live),
        _figure("A1 quarter", "the same and their energy", whole),
    ]


async def _round(db: Db, session: Connection) -> tuple[float, float]:
    """Seconds of a run that judges everything, and of the next one."""
    await db.execute(_FRESH)
    judge = Judge(KeeperSettings(), 60.0)
    times = []
    for _ in range(2):
        began = time.perf_counter()
        await judge.run(session)
        times.append(time.perf_counter() - began)
    return times[0], times[1]


def _figure(key: str, measure: str, times: list[float]) -> Figure:
    detail = f"rounds {times[0]:.2f} to {times[-1]:.2f}"
    return Figure(key, measure, times[len(times) // 2], 1.0, 0.5, True, " s", detail=detail)
