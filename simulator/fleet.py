"""The fleet: seeded vehicles and meters, stepped minute by minute. The same seed and start produce the same bytes.

A vehicle's interval energy is the energy through its charging port: positive while it charges, negative while it feeds
the grid, zero while it drives (although its state of charge falls). Delivered DC over consumed AC is then the charging
efficiency. Energies are integers in micro-kWh, so that sums do not depend on their order.

Each device has a separate random sequence for its profile, so the fleet behaves the same with all profiles.
"""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random
from typing import NamedTuple

from bridge.contract import KIND_OF, METER, VEHICLE, Kind
from bridge.reading import DeviceId, device_id
from simulator import physics
from simulator.counters import CounterTruth
from simulator.profiles import PLAIN, Shares, profile_of
from simulator.reporter import MICRO, Report, Reporter, Value
from simulator.vehicle import Vehicle

REGISTERS: dict[Kind, tuple[str, str]] = {
    VEHICLE: ("kwhChargedRegister", "kwhDischargedRegister"),
    METER: ("kwhImportRegister", "kwhExportRegister"),
}
"""For each kind the counters of positive and of negative energy."""
_CHARGER_KW = ((2.3, 1), (3.7, 1), (7.4, 1), (11.0, 3), (11.0, 3), (22.0, 3))
_HOME_SHARE = 0.8


class Device(NamedTuple):
    """A device of the fleet."""

    kind: str
    id: DeviceId


class Assignment(NamedTuple):
    """From `valid_from` on the meter feeds this vehicle (index into the fleet's devices), or none."""

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
    """A smart meter at one charging point. `owner` is the vehicle of this home, `guest` another one."""

    __slots__ = ("charger_kw", "no_load_v", "owner", "phases", "plugged", "standby_kw")

    def __init__(self, random: Random, owner: int | None) -> None:
        self.charger_kw, self.phases = random.choice(_CHARGER_KW)
        self.no_load_v = physics.MAINS_V + random.uniform(-3, 3)
        self.standby_kw = random.uniform(0.007, 0.012)
        self.owner = owner
        self.plugged: int | None = None

    @property
    def feeds(self) -> int | None:
        """The vehicle whose energy this meter counts: the one that is plugged in, otherwise the owner."""
        return self.owner if self.plugged is None else self.plugged


class Fleet:
    """Vehicles are devices 0 to `vehicles` - 1, meters follow. `start` is a whole minute in UTC."""

    def __init__(
        self, seed: int, vehicles: int, meters: int, start: datetime, name: str = "", shares: Shares = PLAIN
    ) -> None:
        self._random = Random(seed)
        self._start = start
        self._minute = 0
        ids = [f"{name}EV_{n:05d}" for n in range(vehicles)], [f"{name}METER_{n:05d}" for n in range(meters)]
        self.devices = [
            Device(kind.name, device_id(i)) for kind, own in zip((VEHICLE, METER), ids, strict=True) for i in own
        ]
        self._vehicles = [Vehicle(self._random) for _ in range(vehicles)]
        self._meters = [Meter(self._random, n if n < vehicles else None) for n in range(meters)]
        self._free = set(range(meters))
        self._seconds_ms = [self._random.randrange(60_000) for _ in self.devices]
        self._order = sorted(range(len(self.devices)), key=self._seconds_ms.__getitem__)
        self._heads = [f'{{"{KIND_OF[device.kind].id_field}":"{device.id}",' for device in self.devices]
        self._reporters = [
            _reporter(device, Random(f"profile {seed} {n}"), shares) for n, device in enumerate(self.devices)
        ]
        self.delivered_micro = [0] * len(self.devices)
        """Truth: interval energy of the readings emitted so far, in micro-kWh, by device."""
        self.consumed_micro = [0] * vehicles
        """Truth: interval energy of the meters that fed each vehicle, in micro-kWh."""
        self.counted: dict[int, tuple[CounterTruth, CounterTruth]] = {}
        """Truth: energy that follows from the registers of the readings emitted so far, by device with registers."""
        for number, vehicle in enumerate(self._vehicles):
            self._replug(number, vehicle)

    @property
    def _minute_of_day(self) -> int:
        return (self._start.hour * 60 + self._start.minute + self._minute) % 1440

    def step(self) -> list[Assignment]:
        """Simulate a minute. Returns the assignments that are valid from its beginning: at first those of all."""
        minute_of_day = self._minute_of_day
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
        # A meter may change twice in a minute; its last vehicle is assigned.
        return [Assignment(vehicles + meter, valid_from, self._meters[meter].feeds) for meter in dict.fromkeys(moved)]

    def emissions(self) -> Iterator[Emission]:
        """The readings of the simulated minute, in the order in which they are due."""
        minute = self._minute - 1
        prefix = (self._start + timedelta(minutes=minute)).isoformat()[:17]
        for report, device in self._reports():
            self._count(device, report)
            values = ",".join([f'"{name}":{_text(value)}' for name, value in report.values.items()])
            at = f"{prefix}{_seconds_text(report.at_ms)}Z"
            payload = f'{self._heads[device]}{values},"timestamp":"{at}"}}'.encode()
            yield Emission(minute * 60 + report.at_ms / 1000, minute, device, payload)

    def _reports(self) -> list[tuple[Report, int]]:
        """The readings of all devices, in the order in which they are due."""
        minute_of_day, vehicles = (self._minute_of_day - 1) % 1440, len(self._vehicles)
        reports = []
        for device in self._order:
            micro, gauges = self._of_vehicle(device) if device < vehicles else self._of_meter(device - vehicles)
            own = self._reporters[device].reports(minute_of_day, self._seconds_ms[device], micro, gauges)
            reports += [(report, device) for report in own]
        reports.sort(key=lambda one: one[0].at_ms)
        return reports

    def _of_vehicle(self, number: int) -> tuple[int, dict[str, float]]:
        vehicle = self._vehicles[number]
        return vehicle.dc_micro, {
            "soc": round(vehicle.soc, 2),
            "batteryTemp": round(vehicle.battery_temp_c, 1),
            "powerKw": vehicle.dc_micro * 60 / MICRO,
        }

    def _of_meter(self, number: int) -> tuple[int, dict[str, float]]:
        meter = self._meters[number]
        ac_kw = meter.standby_kw
        if meter.plugged is not None:
            ac_kw += self._vehicles[meter.plugged].ac_kw
        voltage = physics.sagging_v(meter.no_load_v, ac_kw, meter.phases) + self._random.random() - 0.5
        return round(ac_kw / 60 * MICRO), {"voltage": round(voltage, 1), "powerKw": round(ac_kw, 3)}

    def _count(self, device: int, report: Report) -> None:
        """Add an emitted reading to the truth."""
        self.delivered_micro[device] += report.interval_micro
        meter = device - len(self._vehicles)
        if meter >= 0 and (fed := self._meters[meter].feeds) is not None:
            self.consumed_micro[fed] += report.interval_micro
        if report.counters:
            truths = self.counted.setdefault(device, (CounterTruth(), CounterTruth()))
            for truth, value in zip(truths, report.counters, strict=True):
                if value is not None:
                    truth.report(report.epoch, value)

    def _replug(self, number: int, vehicle: Vehicle) -> list[int]:
        """Unplug the vehicle, and plug it in where it parks. Returns the meters that now feed another vehicle."""
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
        """Usually the home meter, otherwise any free one."""
        if number in self._free and self._random.random() < _HOME_SHARE:
            return number
        while True:
            meter = self._random.randrange(len(self._meters))
            if meter in self._free:
                return meter


def _text(value: Value) -> str:
    """A value as JSON."""
    return repr(value) if type(value) is float else json.dumps(value)


def _reporter(device: Device, random: Random, shares: Shares) -> Reporter:
    kind = KIND_OF[device.kind]
    return Reporter(kind, profile_of(kind, shares, random), REGISTERS[kind], random)


def _seconds_text(ms: int) -> str:
    """Seconds in the format of `format_timestamp`: a fraction, in microseconds, only if it is not 0."""
    seconds, fraction_ms = divmod(ms, 1000)
    return f"{seconds:02d}" + (f".{fraction_ms:03d}000" if fraction_ms else "")
