"""S5, S7: a steady flood in the middle of which something is killed, and for how long nothing is stored then."""

import asyncio
from collections.abc import Callable

import asyncpg

from local.mosquitto import Mosquitto
from local.nats import Nats
from tests.bench.load import Load, this_minute
from tests.bench.machine import Db, RunningBridge, count_rows, flood, result_of
from tests.bench.report import Figure
from tests.until import until

_RATE, _SECONDS = 1_000, 12
_DEVICES = _RATE // 10  # each sends ten readings a second
_STRIKE_AFTER_S = 5.0
_PAUSE = """
SELECT extract(epoch FROM max(pause))::float8 FROM (
    SELECT received_at - lag(received_at) OVER (PARTITION BY id ORDER BY received_at) AS pause FROM (
        SELECT vehicle_id AS id, received_at FROM vehicle_telemetry_history
        UNION ALL SELECT meter_id, received_at FROM meter_telemetry_history) AS reading) AS following
"""


async def longest_pause_s(
    to: Mosquitto | Nats, bridge: RunningBridge, strike: Callable[[], object], database_url: str
) -> float:
    """The longest time in which no reading of a device was stored. All of them must be in this database afterwards.

    `strike` is called after the bridge has stored some.
    """
    load = Load(_RATE * _SECONDS, _DEVICES, this_minute())
    async with flood(to, load, _RATE) as process:
        sending = asyncio.create_task(result_of(process))
        await asyncio.sleep(_STRIKE_AFTER_S)
        if not bridge.counted("stored"):
            raise RuntimeError("the bridge has stored nothing before the outage")
        strike()
        await sending
    await until(lambda: _is_whole(database_url, load), timeout_s=60)
    db: Db = await asyncpg.connect(database_url)
    try:
        return float(await db.fetchval(_PAUSE))
    finally:
        await db.close()


async def _is_whole(database_url: str, load: Load) -> bool:
    return await count_rows(database_url) == load.readings


def longest(key: str, measure: str, pauses_s: list[float], must: float, aim: float) -> Figure:
    """The figure of the longest of the rounds' pauses."""
    rounds = "rounds " + " ".join(f"{pause_s:.2f}" for pause_s in sorted(pauses_s))
    return Figure(key, measure, max(pauses_s), must, aim, True, " s", detail=rounds)
