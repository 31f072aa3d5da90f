"""Sends recordings through the lanes, with their original times or shifted so that they end now."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from rich.console import Console

from bridge.contract import METER, VEHICLE
from bridge.formats.contract_json import encode
from bridge.reading import DeviceId, Reading, device_id
from simulator.carriers import Carriers, Route, carriers
from simulator.converters import CONVERTERS, detect, shift
from simulator.fleet import Assignment, Device
from simulator.message import single
from simulator.pacing import Pacer
from simulator.tally import Tally

_MINUTE = timedelta(minutes=1)


def recorded(files: Sequence[Path], form: str | None, name: str, end: datetime | None) -> list[Reading]:
    """All readings of these files in the order of time; with `end` shifted so that the newest is at `end`.

    For a recording without device ids, the name of its file is used. Raises `NotARecording` and `OSError`.
    """
    readings: list[Reading] = []
    for file in files:
        readings += CONVERTERS[form or detect(file)](file, named_after(file, name))
    if end is not None:
        readings = shift(readings, end)
    return sorted(readings, key=lambda reading: reading.timestamp)


def named_after(file: Path, name: str) -> DeviceId:
    """The device id for a recording without one: `name` and the file's name without its extension."""
    return device_id(re.sub(r"[^A-Za-z0-9_-]", "-", name + file.stem)[:64])


async def replay(
    readings: Sequence[Reading],
    files: Sequence[Path],
    speed: float,
    route: Route,
    stop: asyncio.Event,
    console: Console,
) -> Tally:
    """Send the readings until all are acknowledged, or until `stop` is set."""
    devices = {Device(reading.kind.name, reading.device): None for reading in readings}
    numbers = {device: number for number, device in enumerate(devices)}
    info = {"mode": "replay", "files": [file.name for file in files], "speed": speed}
    async with carriers(route, list(devices), info, stop, console, len(readings)) as lanes:
        if lanes.registrar is not None:
            lanes.registrar.register(pairing(readings, numbers))
        await _send(readings, numbers, Pacer(speed), lanes, stop)
        await lanes.drained()
        lanes.ledger.close(complete=not stop.is_set())
    return lanes.tally


async def _send(
    readings: Sequence[Reading], numbers: Mapping[Device, int], pacer: Pacer, lanes: Carriers, stop: asyncio.Event
) -> None:
    for reading in readings:
        if stop.is_set() or await pacer.stopped_before(
            (reading.timestamp - readings[0].timestamp).total_seconds(), stop
        ):
            return
        await lanes.carry(single(numbers[Device(reading.kind.name, reading.device)], encode(reading)))


def pairing(readings: Sequence[Reading], numbers: Mapping[Device, int]) -> list[Assignment]:
    """One vehicle and one meter are two sides of a charging session: assign the meter from its first minute."""
    vehicles = [number for device, number in numbers.items() if device.kind == "vehicle"]
    meters = [number for device, number in numbers.items() if device.kind == "meter"]
    if len(vehicles) != 1 or len(meters) != 1:
        return []
    since = min(reading.timestamp for reading in readings if reading.kind is METER) - _MINUTE
    return [Assignment(meters[0], since, vehicles[0])]


def totals(readings: Sequence[Reading]) -> list[str]:
    """The recorded energies, one line a device; with one vehicle and one meter also the efficiency."""
    lines = []
    for device in dict.fromkeys((reading.kind, reading.device) for reading in readings):
        own = [reading for reading in readings if (reading.kind, reading.device) == device]
        lines.append(f"{device[0].name} {device[1]}: {len(own):,} readings, {_kwh(own):.4f} kWh")
    meter = [reading for reading in readings if reading.kind is METER]
    vehicle = [reading for reading in readings if reading.kind is VEHICLE]
    if len(lines) == 2 and meter and vehicle and (ac := _kwh(meter)):
        begin, end = meter[0].timestamp, meter[-1].timestamp
        dc = _kwh([reading for reading in vehicle if begin <= reading.timestamp <= end])
        lines.append(f"efficiency while the meter counted: {dc:.4f} / {ac:.4f} kWh = {dc / ac:.4f}")
    return lines


def _kwh(readings: Sequence[Reading]) -> Decimal:
    """The sum of the energies, in decimals, so that its order does not matter."""
    return sum((Decimal(repr(_energy(reading))) for reading in readings), Decimal())


def _energy(reading: Reading) -> float:
    """The interval energy; 0 if the reading has none."""
    interval = reading.kind.interval
    return reading.values().get(interval.name, 0.0) if interval else 0.0
