"""The fleet: seeded vehicles and meters, stepped minute by minute. The same seed and start give the same bytes.

A vehicle's `kwhDeliveredDc` is what passes its charging port: positive while it charges, negative while it feeds the
grid, zero while it drives (its state of charge falls all the same). Delivered DC over consumed AC is then the
efficiency of charging. Energies are whole micro-kWh, so that sums are exact whatever their order.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random
from typing import NamedTuple

from bridge.reading import DeviceId, Kind, device_id
from simulator import physics
from simulator.vehicle import Vehicle

MICRO = 1_000_000
_CHARGER_KW = ((2.3, 1), (3.7, 1), (7.4, 1), (11.0, 3), (11.0, 3), (22.0, 3))
_HOME_SHARE = 0.8


class Device(NamedTuple):
    """A device of the fleet."""

    kind: Kind
    id: DeviceId


class Assignment(NamedTuple):
    """From `valid_from` on the meter feeds this vehicle (index into the fleet's devices), or nobody."""

    meter: int
    valid_from: datetime
    vehicle: int | None


class Emission(NamedTuple):
    """One reading: seconds after the fleet's start, its device's index and its payload."""

    due_s: float
    minute: int
    device: int
    payload: bytes


class Meter:
    """A smart meter at one charging point. `owner` is the vehicle that lives there, `guest` one that does not."""

    __slots__ = ("charger_kw", "no_load_v", "owner", "phases", "plugged", "standby_kw")

    def __init__(self, random: Random, owner: int | None) -> None:
        self.charger_kw, self.phases = random.choice(_CHARGER_KW)
        self.no_load_v = physics.MAINS_V + random.uniform(-3, 3)
        self.standby_kw = random.uniform(0.007, 0.012)
        self.owner = owner
        self.plugged: int | None = None

    @property
    def feeds(self) -> int | None:
        """Whose energy this meter counts: who is plugged in, else who lives here."""
        return self.owner if self.plugged is None else self.plugged


class Fleet:
    """Vehicles are devices 0 to `vehicles` - 1, meters follow. `start` is a whole minute in UTC."""

    def __init__(self, seed: int, vehicles: int, meters: int, start: datetime, name: str = "") -> None:
        self._random = Random(seed)
        self._start = start
        self._minute = 0
        ids = [f"{name}EV_{n:05d}" for n in range(vehicles)], [f"{name}METER_{n:05d}" for n in range(meters)]
        self.devices = [Device("vehicle", device_id(i)) for i in ids[0]] + [
            Device("meter", device_id(i)) for i in ids[1]
        ]
        self._vehicles = [Vehicle(self._random) for _ in range(vehicles)]
        self._meters = [Meter(self._random, n if n < vehicles else None) for n in range(meters)]
        self._free = set(range(meters))
        self._seconds_ms = [self._random.randrange(60_000) for _ in self.devices]
        self._order = sorted(range(len(self.devices)), key=self._seconds_ms.__getitem__)
        self._heads = [f'{{"{device.kind}Id":"{device.id}",' for device in self.devices]
        self._tails = [f'{_seconds_text(ms)}Z"}}' for ms in self._seconds_ms]
        self.delivered_micro = [0] * len(self.devices)
        """Truth: energy of the readings emitted so far, in micro-kWh, by device."""
        self.consumed_micro = [0] * vehicles
        """Truth: AC of the meters that fed each vehicle, in micro-kWh."""
        for number, vehicle in enumerate(self._vehicles):
            self._replug(number, vehicle)

    def step(self) -> list[Assignment]:
        """Let a minute pass. Returns the assignments that hold from its beginning on: at first every meter's."""
        minute_of_day = (self._start.hour * 60 + self._start.minute + self._minute) % 1440
        ambient_c = physics.ambient_temp_c(minute_of_day)
        changed: list[int] = []
        for number, vehicle in enumerate(self._vehicles):
            meter = None if vehicle.meter is None else self._meters[vehicle.meter]
            if vehicle.pass_minute(self._random, minute_of_day, ambient_c, meter.charger_kw if meter else 0.0):
                changed += self._replug(number, vehicle)
        valid_from = self._start + timedelta(minutes=self._minute)
        self._minute += 1
        moved = changed if self._minute > 1 else range(len(self._meters))
        vehicles = len(self._vehicles)
        # One meter may change twice in a minute; what holds is who it feeds in the end.
        return [Assignment(vehicles + meter, valid_from, self._meters[meter].feeds) for meter in dict.fromkeys(moved)]

    def emissions(self) -> Iterator[Emission]:
        """The readings of the minute that has passed, in the order in which they are due."""
        minute = self._minute - 1
        prefix = (self._start + timedelta(minutes=minute)).isoformat()[:17]
        vehicles = len(self._vehicles)
        for device in self._order:
            is_vehicle = device < vehicles
            values = self._vehicle_values(device) if is_vehicle else self._meter_values(device - vehicles)
            payload = f'{self._heads[device]}{values},"timestamp":"{prefix}{self._tails[device]}'.encode()
            yield Emission(minute * 60 + self._seconds_ms[device] / 1000, minute, device, payload)

    def _vehicle_values(self, number: int) -> str:
        vehicle = self._vehicles[number]
        micro = vehicle.dc_micro
        self.delivered_micro[number] += micro
        return (
            f'"soc":{round(vehicle.soc, 2)!r},"kwhDeliveredDc":{micro / MICRO!r},'
            f'"batteryTemp":{round(vehicle.battery_temp_c, 1)!r}'
        )

    def _meter_values(self, number: int) -> str:
        meter = self._meters[number]
        ac_kw = meter.standby_kw
        if meter.plugged is not None:
            ac_kw += self._vehicles[meter.plugged].ac_kw
        micro = round(ac_kw / 60 * MICRO)
        self.delivered_micro[len(self._vehicles) + number] += micro
        if (fed := meter.feeds) is not None:
            self.consumed_micro[fed] += micro
        voltage = physics.sagging_v(meter.no_load_v, ac_kw, meter.phases) + self._random.random() - 0.5
        return f'"kwhConsumedAc":{micro / MICRO!r},"voltage":{round(voltage, 1)!r}'

    def _replug(self, number: int, vehicle: Vehicle) -> list[int]:
        """Unplug, and plug in again where the vehicle wants to be. Returns the meters that feed another vehicle now."""
        before = {}
        if vehicle.meter is not None:
            before[vehicle.meter] = self._meters[vehicle.meter].feeds
            self._meters[vehicle.meter].plugged = None
            self._free.add(vehicle.meter)
            vehicle.meter = None
        if vehicle.wants_plug and self._free:
            chosen = self._choose(number)
            before.setdefault(chosen, self._meters[chosen].feeds)
            self._occupy(number, vehicle, chosen)
        return [meter for meter, fed in before.items() if self._meters[meter].feeds != fed]

    def _occupy(self, number: int, vehicle: Vehicle, meter: int) -> None:
        self._free.remove(meter)
        self._meters[meter].plugged = number
        vehicle.meter = meter

    def _choose(self, number: int) -> int:
        """Home mostly, else wherever there is room."""
        if number in self._free and self._random.random() < _HOME_SHARE:
            return number
        while True:
            meter = self._random.randrange(len(self._meters))
            if meter in self._free:
                return meter


def _seconds_text(ms: int) -> str:
    """Seconds as `format_timestamp` writes them: a fraction, in microseconds, only where there is one."""
    seconds, fraction_ms = divmod(ms, 1000)
    return f"{seconds:02d}" + (f".{fraction_ms:03d}000" if fraction_ms else "")
