"""S6: a streaming replica on this machine, under a steady load of readings: its lag, and figures from it.

Both servers, the bridge, the broker and the devices share the processors, so figures from the replica are not faster
for being asked elsewhere: the ratio says what the way through the replica costs.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import asyncpg

from local.replica import Replica
from tests.bench.end_to_end import DEVICES, until
from tests.bench.history import devices_of, long_history
from tests.bench.http_servers import Client, RunningApi, api
from tests.bench.load import Load, this_minute
from tests.bench.machine import Db, Machine, flood, result_of
from tests.bench.questions import RATE, Times, in_turns, random_vehicle
from tests.bench.report import Figure, median_ratio, percentile

_SECONDS = 60
_ASKED = 200
_LOOK_EVERY_S = 0.05
_REPLAYED_EVERY_S = 0.002
_REPLAYED = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
_ANSWERS = "fleet_replica_answers_total"


async def s6(machine: Machine) -> list[Figure]:
    """The lag, and the p99 of a vehicle's last day over HTTP from the replica and from the primary by turns."""
    url, devices = await long_history(machine), devices_of(machine.rows)
    name = url.rsplit("/", 1)[1]
    async with contextlib.AsyncExitStack() as opened:
        replica = opened.enter_context(_replica(machine))
        of_replica = await opened.enter_async_context(
            api(machine, url, {"FLEET_READ_DATABASE_URL": replica.url(name, "api")})
        )
        of_primary = await opened.enter_async_context(api(machine, url))
        lags, rounds, rate = await _loaded(machine, url, replica.url(name), of_replica, of_primary, devices)
        answers = _answers(of_replica)
    asked = sum(len(times.asked) for times in rounds)
    if answers < 0.99 * asked:
        raise RuntimeError(f"only {answers} of {asked} answers were the replica's")
    ratio, shown = median_ratio([times.p99s for times in rounds])
    of_lag = f"p50 {percentile(lags, 0.5):.3f} s, greatest {max(lags):.3f} s of {len(lags)}; load {rate:,.0f}/s"
    lag = percentile(lags, 0.99)
    of_times = f"{rounds[-1].shown()}; {shown}; {answers} answers of the replica"
    return [
        Figure("S6 lag", f"replica lag p99 at {RATE:,} readings/s", lag, 1, 0.3, True, " s", detail=of_lag),
        Figure("S6", "figures p99 from the replica : from the primary, loaded", ratio, 1.0, 0.7, True, detail=of_times),
    ]


def _answers(running: RunningApi) -> int:
    """How many answers its replica gave."""
    metrics = running.get("/metrics", running.key)
    return int(sum(float(line.split()[1]) for line in metrics.splitlines() if line.startswith(f"{_ANSWERS} ")))


@contextlib.contextmanager
def _replica(machine: Machine) -> Iterator[Replica]:
    replica = Replica(machine.directory / "replica", machine.postgres)
    replica.start()
    try:
        yield replica
    finally:
        replica.stop()


async def _loaded(
    machine: Machine, url: str, replica_url: str, of_replica: RunningApi, of_primary: RunningApi, devices: int
) -> tuple[list[float], list[Times], float]:
    """Ask both by turns and look at the lag while a bridge stores a steady load; the lags, the times and the rate."""
    load = Load(RATE * _SECONDS, DEVICES, this_minute())
    rounds: list[Times] = []
    from_replica, from_primary = (partial(_ask, Client(running), devices) for running in (of_replica, of_primary))
    with machine.broker() as broker, machine.bridge(url, broker) as bridge:
        async with flood(broker, load, rate=RATE) as process:
            flooding = asyncio.create_task(result_of(process))
            # A loop of its own, because the clients block this one.
            looking = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(_lags(url, replica_url, flooding))))
            await asyncio.sleep(1)
            while not flooding.done():
                rounds.append(await in_turns(from_replica, from_primary, _ASKED))
                await asyncio.sleep(_LOOK_EVERY_S)  # the clients do not let the loop see that the flood has ended
            sent, lags = await flooding, await looking
        await until(lambda: bridge.counted("stored", "duplicate", "rejected") >= load.readings)
    return lags, rounds[:-1] or rounds, sent["rate"]  # the last one outlasted the load


async def _ask(client: Client, devices: int) -> None:
    found = json.loads(await client.get(f"/v1/analytics/performance/{random_vehicle(devices)}"))
    if not found["readings"]:
        raise RuntimeError("an answer has no readings")


async def _lags(url: str, replica_url: str, flooding: asyncio.Task[dict[str, Any]]) -> list[float]:
    """How long the replica takes until it shows what was committed at an instant."""
    lags: list[float] = []
    primary: Db = await asyncpg.connect(url)
    replica: Db = await asyncpg.connect(replica_url)
    try:
        while not flooding.done():
            began = time.perf_counter()
            end = await primary.fetchval("SELECT pg_current_wal_flush_lsn()::text")
            while not await replica.fetchval(_REPLAYED, end):  # noqa: ASYNC110
                await asyncio.sleep(_REPLAYED_EVERY_S)
            lags.append(time.perf_counter() - began)
            await asyncio.sleep(_LOOK_EVERY_S)
    finally:
        await primary.close()
        await replica.close()
    return lags
