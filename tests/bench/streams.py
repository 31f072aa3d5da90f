"""S5: a JetStream cluster of three nodes on this machine, instead of a broker."""

import asyncio
import contextlib

import asyncpg

from tests.bench.load import Load, this_minute
from tests.bench.machine import (
    Db,
    Machine,
    flood,
    result_of,
)
from tests.bench.report import Figure
from tests.until import until as until_met

_NODES = 3
_PARTITIONS = {"FLEET_NATS_PARTITIONS": "4"}
_RATE, _SECONDS = 1_000, 12
_KILL_AFTER_S = 5.0
_ROWS = "SELECT (SELECT count(*) FROM vehicle_telemetry_history) + (SELECT count(*) FROM meter_telemetry_history)"
_GAP = """
SELECT extract(epoch FROM max(gap))::float8 FROM (
    SELECT received_at - lag(received_at) OVER (PARTITION BY id ORDER BY received_at) AS gap FROM (
        SELECT vehicle_id AS id, received_at FROM vehicle_telemetry_history
        UNION ALL SELECT meter_id, received_at FROM meter_telemetry_history) AS reading) AS following
"""


async def s5(machine: Machine) -> list[Figure]:
    """How long no reading of a killed bridge's devices is stored; each device sends ten readings a second."""
    gaps = sorted([await _taken_over(machine) for _ in range(3)])
    rounds = "rounds " + " ".join(f"{gap:.2f}" for gap in gaps)
    return [Figure("S5", "takeover of a killed bridge's devices", gaps[-1], 5, 2, True, " s", detail=rounds)]


async def _taken_over(machine: Machine) -> float:
    load = Load(_RATE * _SECONDS, _RATE // 10, this_minute())
    with contextlib.ExitStack() as opened:
        url = opened.enter_context(machine.database())
        servers = opened.enter_context(machine.nats(_NODES))
        killed = opened.enter_context(machine.bridge(url, servers, _PARTITIONS))
        opened.enter_context(machine.bridge(url, servers, _PARTITIONS))
        async with flood(servers, load, _RATE) as process:
            sending = asyncio.create_task(result_of(process))
            await asyncio.sleep(_KILL_AFTER_S)
            if not killed.counted("stored"):
                raise RuntimeError("the bridge to be killed has stored nothing")
            killed.process.kill()
            await sending
        db: Db = await asyncpg.connect(url)
        try:
            await until_met(lambda: _is_whole(db, load), timeout_s=60)
            return float(await db.fetchval(_GAP))
        finally:
            await db.close()


async def _is_whole(db: Db, load: Load) -> bool:
    rows: int = await db.fetchval(_ROWS)
    return rows == load.readings
