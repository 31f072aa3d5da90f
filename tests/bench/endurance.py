"""T13: a hundred times the design load for minutes: nothing is lost, and neither lag nor memory grows."""

import asyncio
import time
from statistics import linear_regression
from typing import NamedTuple

from tests.bench.end_to_end import until
from tests.bench.load import Load, this_minute
from tests.bench.machine import Machine, RunningBridge, count_rows, flood, result_of
from tests.bench.questions import RATE
from tests.bench.report import Figure

_DEVICES = 1_000_000
_LOOK_EVERY_S = 1.0
_HELD = 0.98
"""Below this part of the rate the load generator or the broker was the limit."""


class Sample(NamedTuple):
    """The bridge at one moment: monotonic clock, readings stored, resident memory (MB)."""

    at: float
    stored: int
    memory_mb: float


async def t13(machine: Machine) -> list[Figure]:
    """A steady load; lag is the age of the last reading stored, as the load's pace makes it."""
    load = Load(int(RATE * 60 * machine.minutes), _DEVICES, this_minute())
    with machine.database() as url:
        with machine.broker() as broker, machine.bridge(url, broker) as bridge:
            async with flood(broker, load, rate=RATE) as process:
                flooding = asyncio.create_task(result_of(process))
                samples = await _watch(bridge, flooding)
                sent = await flooding
            await until(lambda: bridge.counted("stored", "duplicate", "rejected") >= load.readings)
        if await count_rows(url) != load.readings:
            raise RuntimeError("readings of the steady load are missing, or are stored twice")
    return _figures(samples, sent, load.readings)


async def _watch(bridge: RunningBridge, until_done: "asyncio.Task[dict[str, float]]") -> list[Sample]:
    samples: list[Sample] = []
    while not until_done.done():
        samples.append(Sample(time.monotonic(), bridge.counted("stored"), bridge.memory_mb()))
        await asyncio.sleep(_LOOK_EVERY_S)
    return samples


def _figures(samples: list[Sample], sent: dict[str, float], readings: int) -> list[Figure]:
    """The slopes without the first fifth, in which caches and the live tables fill."""
    settled = samples[len(samples) // 5 :]
    minutes = [(sample.at - sent["began"]) / 60 for sample in settled]
    lags_s = [sample.at - sent["began"] - sample.stored / RATE for sample in settled]
    memory = [sample.memory_mb for sample in settled]
    held = "" if sent["rate"] >= _HELD * RATE else "; THE LOAD DID NOT HOLD ITS PACE"
    made_of = f"{readings:,} stored once, none lost; {sent['rate']:,.0f}/s{held}; "
    lag = f"lag {lags_s[0]:.2f} to {lags_s[-1]:.2f} s, at most {max(lags_s):.2f} s"
    used = f"{memory[0]:.0f} to {memory[-1]:.0f} MB, at most {max(memory):.0f} MB"
    slopes = [linear_regression(minutes, values).slope for values in (lags_s, memory)]
    ceiling = f"{sent['rate']:,.0f}/s"
    return [
        Figure("T13 lag", "lag's growth", slopes[0], 0.1, 0.02, True, " s/min", ceiling, made_of + lag),
        Figure("T13 memory", "bridge memory's growth", slopes[1], 2, 0.5, True, " MB/min", ceiling, used),
    ]
