"""S1, S3, S4, S5: a JetStream cluster of three nodes on this machine, instead of a broker."""

import asyncio
import contextlib
import time
from typing import NamedTuple

import asyncpg

from tests.bench.end_to_end import Run, a_load, finished, into_fresh_database, until
from tests.bench.load import Load, this_minute
from tests.bench.machine import (
    Db,
    Flood,
    Machine,
    RunningBridge,
    count_rows,
    flood,
    result_of,
    run_flood,
    worker,
)
from tests.bench.report import Figure, median_ratio
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


async def s1_s3(machine: Machine) -> list[Figure]:
    """End to end from the stream, compared with a bare consumer; the bridge's CPU, compared with that from MQTT."""
    load = a_load(machine)
    runs = [await _round(machine, load) for _ in range(3)]
    ratio, rounds = median_ratio([(run.stream.rate, run.received) for run in runs])
    cpu, cpu_rounds = median_ratio([(run.stream.cpu_us, run.mqtt.cpu_us) for run in runs])
    last = runs[-1]
    made_of = f"{last.stream.rate:,.0f}/s : {last.received:,.0f}/s; {rounds}"
    cost = f"{last.stream.cpu_us:.1f} us : {last.mqtt.cpu_us:.1f} us; {cpu_rounds}"
    ceiling = "NATS, three nodes"
    return [
        Figure("S1", "JetStream end to end : bare consumer", ratio, 0.7, 0.9, ceiling=ceiling, detail=made_of),
        Figure("S3", "bridge CPU from JetStream : MQTT", cpu, 4, 1.5, lower=True, ceiling=ceiling, detail=cost),
    ]


class _Round(NamedTuple):
    received: float
    stream: Run
    mqtt: Run


async def _round(machine: Machine, load: Load) -> _Round:
    return _Round(
        await _merely_received(machine, load),
        await _from_stream(machine, load),
        await into_fresh_database(machine, load),
    )


async def _from_stream(machine: Machine, load: Load) -> Run:
    with machine.database() as url, machine.nats(_NODES) as servers, machine.bridge(url, servers) as bridge:
        before_s = bridge.cpu_s()
        run = await finished(bridge, load, await run_flood(servers, load), before_s)
        if await count_rows(url) != load.readings:
            raise RuntimeError("readings are missing from the history, or are stored twice")
        return run


async def _merely_received(machine: Machine, load: Load) -> float:
    """Messages/s that a bare consumer receives of the same flood."""
    with machine.nats(_NODES) as servers:
        order: dict[str, object] = {"url": servers.bridge_url, "count": load.messages, "replicas": _NODES}
        async with worker("tests.bench.nats_receiver", order) as receiver, flood(servers, load) as process:
            sent = Flood(**await result_of(process))
            await receiver.wait()
            return load.messages / (time.monotonic() - sent.began)


async def s4(machine: Machine) -> list[Figure]:
    """A backlog that two bridges drain, compared with one."""
    load = Load(150_000 if machine.quick else 400_000, 10_000, this_minute())
    rounds_ = [(await _drained(machine, load, 2), await _drained(machine, load, 1)) for _ in range(3)]
    ratio, rounds = median_ratio(rounds_)
    two, one = rounds_[-1]
    made_of = f"{two:,.0f}/s : {one:,.0f}/s; {rounds}"
    return [Figure("S4", "two bridges on one stream : one", ratio, 0.95, 1.2, ceiling="two cores", detail=made_of)]


async def _drained(machine: Machine, load: Load, bridges: int) -> float:
    """Readings/s from the first commit to the last."""
    with contextlib.ExitStack() as opened:
        url = opened.enter_context(machine.database())
        servers = opened.enter_context(machine.nats(_NODES))
        with machine.bridge(url, servers, _PARTITIONS):
            pass  # makes the stream and its consumers
        await run_flood(servers, load)
        running = [opened.enter_context(machine.bridge(url, servers, _PARTITIONS)) for _ in range(bridges)]
        db: Db = await asyncpg.connect(url)
        try:
            return await _rate(db, running, load)
        finally:
            await db.close()


async def _rate(db: Db, running: list[RunningBridge], load: Load) -> float:
    def stored() -> int:
        return sum(bridge.counted("stored") for bridge in running)

    began, before = time.monotonic(), stored()
    done = await until(lambda: stored() >= load.readings)
    if await db.fetchval(_ROWS) != load.readings:
        raise RuntimeError("the backlog did not arrive whole")
    return (load.readings - before) / (done - began)


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
