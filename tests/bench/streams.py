"""S1, S3 from JetStream, S4, S5: a JetStream cluster of three nodes on this machine, instead of a broker."""

import contextlib
import time
from collections.abc import Mapping
from typing import NamedTuple

from tests.bench.end_to_end import DEVICES, Run, flooded, into_fresh_database, require_once
from tests.bench.load import Load, this_minute
from tests.bench.machine import Flood, Machine, flood, result_of, worker
from tests.bench.outage import longest, longest_pause_s
from tests.bench.report import Figure, median_ratio

_NODES = 3
_PARTITIONS = {"FLEET_NATS_PARTITIONS": "4"}


def _a_load(machine: Machine) -> Load:
    """Smaller than that of T1: three nodes of NATS write each message, so that a flood takes longer."""
    return Load(50_000 if machine.quick else 150_000, DEVICES, this_minute())


class _Round(NamedTuple):
    received: float
    stream: Run
    mqtt: Run


async def s1_s3(machine: Machine) -> list[Figure]:
    """End to end from the stream, compared with a bare consumer; the bridge's CPU, compared with that from MQTT."""
    runs = [await _round(machine, _a_load(machine)) for _ in range(3)]
    ratio, rounds = median_ratio([(run.stream.rate, run.received) for run in runs])
    cpu, cpu_rounds = median_ratio([(run.stream.cpu_us, run.mqtt.cpu_us) for run in runs])
    last = runs[-1]
    made_of = f"{last.stream.rate:,.0f}/s : {last.received:,.0f}/s; {rounds}"
    cost = f"{last.stream.cpu_us:.1f} us : {last.mqtt.cpu_us:.1f} us; {cpu_rounds}"
    return [
        Figure("S1", "JetStream end to end : bare consumer", ratio, 0.7, 0.9, detail=made_of),
        Figure("S3 JetStream", "bridge CPU from JetStream : MQTT", cpu, 4, 1.5, lower=True, detail=cost),
    ]


async def _round(machine: Machine, load: Load) -> _Round:
    return _Round(
        await _merely_received(machine, load),
        await _from_stream(machine, load, 1, {}),
        await into_fresh_database(machine, load),
    )


async def _from_stream(machine: Machine, load: Load, bridges: int, settings: Mapping[str, str]) -> Run:
    """A flood through bridges that share the stream into an empty history."""
    with contextlib.ExitStack() as opened:
        url = opened.enter_context(machine.database())
        servers = opened.enter_context(machine.nats(_NODES))
        running = [opened.enter_context(machine.bridge(url, servers, settings)) for _ in range(bridges)]
        run = await flooded(servers, running, load)
        if not all(bridge.counted("stored") for bridge in running):
            raise RuntimeError("a bridge has stored nothing")
        await require_once(url, load)
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
    """A flood through two bridges that share the stream, compared with one; nodes and flood keep both cores busy."""
    load = _a_load(machine)
    runs = [[await _from_stream(machine, load, bridges, _PARTITIONS) for bridges in (2, 1)] for _ in range(3)]
    ratio, rounds = median_ratio([(two.rate, one.rate) for two, one in runs])
    two, one = runs[-1]
    made_of = f"{two.rate:,.0f}/s : {one.rate:,.0f}/s; {rounds}; {two.cpu_us:.1f} us : {one.cpu_us:.1f} us a reading"
    return [Figure("S4", "two bridges on one stream : one", ratio, 0.95, 1.2, detail=made_of)]


async def s5(machine: Machine) -> list[Figure]:
    """How long no reading of a killed bridge's devices is stored."""
    pauses_s = [await _taken_over(machine) for _ in range(3)]
    return [longest("S5", "takeover of a killed bridge's devices", pauses_s, 5, 2)]


async def _taken_over(machine: Machine) -> float:
    with (
        machine.database() as url,
        machine.nats(_NODES) as servers,
        machine.bridge(url, servers, _PARTITIONS) as killed,
        machine.bridge(url, servers, _PARTITIONS),
    ):
        return await longest_pause_s(servers, killed, killed.process.kill, url)
