"""Runs the simulated fleet: minute by minute, through the faults, into the lanes."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime

from rich.console import Console

from bridge.contract import KIND_OF
from bridge.reading import format_timestamp
from simulator.carriers import Carriers, Route, carriers
from simulator.faults import FaultRates, Faults
from simulator.fleet import REGISTERS, Emission, Fleet
from simulator.ledger import LedgerWriter
from simulator.pacing import Pacer
from simulator.profiles import Shares
from simulator.tally import Tally

_UNBOUNDED_MINUTES = 60 * 24 * 3650


@dataclass(frozen=True)
class Plan:
    """What to simulate. `minutes` None: until stopped. `speed` 1 is real time, 0 unlimited."""

    seed: int
    vehicles: int
    meters: int
    name: str
    start: datetime
    minutes: int | None
    speed: float
    rates: FaultRates
    shares: Shares
    prepare: bool
    """Generate all readings before the first is sent, to measure the receiver."""


async def run(plan: Plan, route: Route, stop: asyncio.Event, console: Console) -> Tally:
    """Simulate until all minutes are over or `stop` is set; then send delayed messages and wait for all acks."""
    fleet = Fleet(plan.seed, plan.vehicles, plan.meters, plan.start, plan.name, plan.shares)
    via_http = [route.is_http(number % route.connections) for number in range(len(fleet.devices))]
    faults = Faults(plan.seed, plan.rates, plan.minutes or _UNBOUNDED_MINUTES, via_http)
    info = {**asdict(plan), "mode": "run", "start": format_timestamp(plan.start)}
    async with carriers(route, fleet.devices, info, stop, console) as lanes:
        await _simulate(plan, fleet, faults, lanes, stop)
        for message in faults.rest():
            await lanes.carry(message)
        await lanes.drained()
        _write_truth(fleet, lanes.ledger)
        lanes.ledger.close(complete=True)
    return lanes.tally


def _write_truth(fleet: Fleet, ledger: LedgerWriter) -> None:
    for device, delivered in enumerate(fleet.delivered_micro):
        is_vehicle = device < len(fleet.consumed_micro)
        ledger.truth(device, delivered, fleet.consumed_micro[device] if is_vehicle else 0)
    for device, truths in fleet.counted.items():
        registers = REGISTERS[KIND_OF[fleet.devices[device].kind]]
        for register, truth in zip(registers, truths, strict=True):
            ledger.counted(device, register, truth.micro)


async def _simulate(plan: Plan, fleet: Fleet, faults: Faults, lanes: Carriers, stop: asyncio.Event) -> None:
    emissions = _emissions(plan, fleet, lanes, stop)
    if plan.prepare:
        emissions = iter(list(emissions))
    pacer = Pacer(plan.speed)
    for emission in emissions:
        # The truth includes this reading, so it is sent even when the run is stopped during the wait.
        await pacer.stopped_before(emission.due_s, stop)
        for message in faults.befall(emission.minute, emission.device, emission.payload):
            await lanes.carry(message)


def _emissions(plan: Plan, fleet: Fleet, lanes: Carriers, stop: asyncio.Event) -> Iterator[Emission]:
    """The fleet's readings until all minutes are over or `stop` is set; also queues assignments for the API."""
    for minute in itertools.count():
        if minute == plan.minutes:
            return
        assignments = fleet.step()
        if lanes.registrar is not None:
            lanes.registrar.register(assignments)
        for emission in fleet.emissions():
            yield emission
            if stop.is_set():
                return
