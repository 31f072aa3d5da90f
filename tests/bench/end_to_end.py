"""T1, T3, T4, T5, T12: from publish to commit, compared with the rate that Mosquitto's own client receives."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from local.mosquitto import Mosquitto
from local.nats import Nats
from tests.bench.load import Load, this_minute
from tests.bench.machine import (
    Flood,
    Machine,
    RunningBridge,
    Source,
    count_rows,
    flood,
    mosquitto_sub,
    result_of,
    run_flood,
)
from tests.bench.report import Figure, median_ratio
from tests.bench.writes import copy_rate

DEVICES = 10_000
_LOOK_EVERY_S = 0.2  # each check costs the bridge a page of metrics


class Run(NamedTuple):
    """One flood through a bridge: readings/s to the last commit, CPU per reading (us), peak memory (MB)."""

    rate: float
    cpu_us: float
    memory_mb: float


def a_load(machine: Machine, devices: int = DEVICES) -> Load:
    """Number of messages: large enough that start and end do not matter, small in a quick run."""
    return Load(150_000 if machine.quick else 400_000, devices, this_minute())


async def until(condition: Callable[[], bool]) -> float:
    """The time (monotonic) at which a condition on the bridge holds."""
    while not condition():  # noqa: ASYNC110 - another process's state
        await asyncio.sleep(_LOOK_EVERY_S)
    return time.monotonic()


async def through(machine: Machine, load: Load, database_url: str) -> Run:
    """Flood a new broker with a bridge, until everything is committed to the database."""
    with machine.broker() as broker, machine.bridge(database_url, broker) as bridge:
        return await flooded(broker, [bridge], load)


async def flooded(to: Mosquitto | Nats, bridges: Sequence[RunningBridge], load: Load) -> Run:
    """Flood a broker or a stream, until the bridges have committed everything."""
    before_s = sum(bridge.cpu_s() for bridge in bridges)
    return await finished(bridges, load, await run_flood(to, load), before_s)


async def finished(bridges: Sequence[RunningBridge], load: Load, sent: Flood, before_s: float) -> Run:
    """Wait until all of a flood is committed; return its time and cost since the begin."""

    def counted(*outcomes: str) -> int:
        return sum(bridge.counted(*outcomes) for bridge in bridges)

    done = await until(lambda: counted("stored", "duplicate", "rejected") >= load.readings)
    cpu_us = (sum(bridge.cpu_s() for bridge in bridges) - before_s) / load.readings * 1e6
    if counted("stored") != load.readings:
        raise RuntimeError("the bridge did not store every reading of the flood")
    return Run(load.readings / (done - sent.began), cpu_us, max(bridge.peak_memory_mb() for bridge in bridges))


async def into_fresh_database(machine: Machine, load: Load) -> Run:
    """A flood into an empty history; every reading must be there afterwards, once."""
    with machine.database() as url:
        run = await through(machine, load, url)
        await require_once(url, load)
        return run


async def require_once(database_url: str, load: Load) -> None:
    """Raise unless the history has every reading of the load, and nothing else."""
    if await count_rows(database_url) != load.readings:
        raise RuntimeError("readings are missing from the history, or are stored twice")


async def merely_received(machine: Machine, load: Load) -> float:
    """Messages/s that mosquitto_sub receives of the same flood."""
    with machine.broker() as broker:
        async with mosquitto_sub(broker, load.messages) as receiver, flood(broker, load) as process:
            sent = Flood(**await result_of(process))
            await receiver.wait()
            return load.messages / (time.monotonic() - sent.began)


async def t1_t3(machine: Machine) -> list[Figure]:
    """End to end, compared with mosquitto_sub, and the bridge's CPU."""
    load = a_load(machine)
    runs = [(await merely_received(machine, load), await into_fresh_database(machine, load)) for _ in range(3)]
    ratio, rounds = median_ratio([(run.rate, received) for received, run in runs])
    received, run = runs[-1]
    ceiling = f"{await machine.ceiling():,.0f}/s"
    cpu_us = sorted(run.cpu_us for _, run in runs)
    made_of = f"{run.rate:,.0f}/s : {received:,.0f}/s; {rounds}"
    each = " ".join(f"{us:.1f}" for us in cpu_us)
    return [
        Figure("T1", "end to end : mosquitto_sub", ratio, 0.9, 1.0, ceiling=ceiling, detail=made_of),
        Figure("T3", "bridge CPU a reading", cpu_us[1], 12, 8, True, " us", ceiling, f"rounds {each}"),
    ]


async def t4(machine: Machine) -> list[Figure]:
    """Draining a backlog, compared with end to end."""
    load = Load(1_000_000, DEVICES, this_minute())
    runs = [(await drain(machine, load), await into_fresh_database(machine, a_load(machine))) for _ in range(2)]
    ratio, rounds = median_ratio([(drained.rate, run.rate) for drained, run in runs])
    drained, run = runs[-1]
    made_of = f"{drained.rate:,.0f}/s : {run.rate:,.0f}/s; {rounds}; {drained.cpu_us:.1f} us a reading"
    memory_mb = max(drained.memory_mb for drained, _ in runs)
    ceiling = "broker's queue"
    return [
        Figure("T4", "backlog of 1,000,000 : end to end", ratio, 1.2, 1.5, ceiling=ceiling, detail=made_of),
        Figure("T4 memory", "bridge's peak meanwhile", memory_mb, 200, 120, lower=True, unit=" MB", ceiling=ceiling),
    ]


async def drain(machine: Machine, load: Load) -> Run:
    """Queue a backlog in a broker while the bridge is stopped, and let it store that."""
    with machine.database() as url, machine.broker() as broker:
        with machine.bridge(url, broker):
            pass  # creates the session
        await run_flood(broker, load)
        return await drained(machine, url, broker, load)


async def drained(machine: Machine, database_url: str, source: Source, load: Load) -> Run:
    """Let a bridge store a backlog. The time is measured from the first commit to the last."""
    with machine.bridge(database_url, source) as bridge:
        began = await until(lambda: bridge.counted("stored") > 0)
        before, before_s = bridge.counted("stored"), bridge.cpu_s()
        done = await until(lambda: bridge.counted("stored") >= load.readings)
        count = load.readings - before
        run = Run(count / (done - began), (bridge.cpu_s() - before_s) / count * 1e6, bridge.peak_memory_mb())
    await require_once(database_url, load)
    return run


async def t5(machine: Machine) -> list[Figure]:
    """Arrays of 100 readings a publish, compared with plain COPY."""
    load = Load(5_000, 5_000, this_minute(), per_message=100)
    runs = [(await into_fresh_database(machine, load), await copy_rate(machine)) for _ in range(3)]
    ratio, rounds = median_ratio([(run.rate, copied) for run, copied in runs])
    run, copied = runs[-1]
    made_of = f"{run.rate:,.0f}/s : {copied:,.0f}/s; {rounds}; {run.cpu_us:.1f} us a reading"
    with machine.broker() as broker:
        alone = (await run_flood(broker, load)).rate
    return [Figure("T5", "arrays of 100 : COPY", ratio, 0.4, 0.6, ceiling=f"{alone:,.0f}/s", detail=made_of)]


async def t12(machine: Machine) -> list[Figure]:
    """The same flood again: no new row, and the rate compared with the first time."""
    load = a_load(machine)
    runs = [await _again(machine, load) for _ in range(2)]
    ratio, rounds = median_ratio(runs)
    again, fresh = runs[-1]
    made_of = f"{again:,.0f}/s : {fresh:,.0f}/s; {rounds}; 0 new rows"
    ceiling = f"{await machine.ceiling():,.0f}/s"
    return [Figure("T12", "full replay : fresh", ratio, 0.5, 1.0, ceiling=ceiling, detail=made_of)]


async def _again(machine: Machine, load: Load) -> tuple[float, float]:
    """The rates of the second and of the first time."""
    with machine.database() as url, machine.broker() as broker, machine.bridge(url, broker) as bridge:
        fresh = await flooded(broker, [bridge], load)
        sent = await run_flood(broker, load)
        done = await until(lambda: bridge.counted("duplicate", "rejected", "stored") >= 2 * load.readings)
        if bridge.counted("duplicate") != load.readings or await count_rows(url) != load.readings:
            raise RuntimeError("a replay of what is stored must store nothing, and count every reading as duplicate")
        return load.readings / (done - sent.began), fresh.rate
