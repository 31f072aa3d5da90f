"""T10: from publish to visible in the live table, compared with a one-row commit, at a fifth of full load."""

import asyncio
import time
from datetime import UTC, datetime

import asyncpg

from local.mosquitto import Mosquitto
from tests.bench.end_to_end import DEVICES, a_load, into_fresh_database
from tests.bench.load import Load, this_minute
from tests.bench.machine import Db, Machine, flood, result_of
from tests.bench.publisher import Publisher, publish_packet
from tests.bench.report import Figure, percentile

_PROBE = "PROBE"
_LOOK_EVERY_S = 0.0005


async def t10(machine: Machine) -> list[Figure]:
    """Each probe's publish is followed by a commit of one row, so that both meet the same load."""
    full = (await into_fresh_database(machine, a_load(machine))).rate
    seconds = 15 if machine.quick else 45
    load = Load(int(full / 5 * seconds), DEVICES, this_minute())
    with machine.database() as url, machine.broker() as broker, machine.bridge(url, broker):
        async with flood(broker, load, rate=full / 5) as process:
            flooding = asyncio.create_task(result_of(process))
            visible, commits = await _probe(url, broker, flooding)
            sent = await flooding
    ratio = percentile(visible, 0.99) / percentile(commits, 0.99)
    shown = [f"{percentile(values, p) * 1e3:.1f}" for values in (visible, commits) for p in (0.5, 0.99)]
    made_of = f"p50 {shown[0]} p99 {shown[1]} ms : p50 {shown[2]} p99 {shown[3]} ms; "
    made_of += f"{len(visible)} probes at {sent['rate']:,.0f}/s"
    ceiling = f"{await machine.ceiling():,.0f}/s"
    return [Figure("T10", "visible live p99 : one-row commit p99", ratio, 20, 8, True, ceiling=ceiling, detail=made_of)]


async def _probe(url: str, broker: Mosquitto, until: "asyncio.Task[object]") -> tuple[list[float], list[float]]:
    """Seconds until each probe was visible, and seconds that each one-row commit took."""
    db: Db = await asyncpg.connect(url)
    publisher = await Publisher.open(broker.url, "bench-probe")
    await db.execute("CREATE TABLE one_row (at timestamptz NOT NULL)")
    visible: list[float] = []
    commits: list[float] = []
    try:
        await asyncio.sleep(1)  # the flood has reached its pace
        while not until.done():
            visible.append(await _until_visible(db, publisher, len(visible) % 60_000 + 1))
            began = time.perf_counter()
            await db.execute("INSERT INTO one_row VALUES (now())")
            commits.append(time.perf_counter() - began)
    finally:
        publisher.close()
        await db.close()
    return visible, commits


async def _until_visible(db: Db, publisher: Publisher, packet_id: int) -> float:
    at = datetime.now(UTC)
    payload = f'{{"meterId":"{_PROBE}","kwhConsumedAc":1,"voltage":230,"timestamp":"{at.isoformat()}"}}'
    began = time.perf_counter()
    publisher.send(publish_packet(f"fleet/meter/{_PROBE}/telemetry", payload.encode(), packet_id))
    while await db.fetchval("SELECT ts FROM meter_live_status WHERE meter_id = $1", _PROBE) != at:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_EVERY_S)
    return time.perf_counter() - began
