"""Simulates a vehicle: it drives, parks, plugs in, charges or feeds the grid, and its battery warms and cools."""

from random import Random
from typing import Literal

from simulator import physics

Phase = Literal["driving", "parked", "plugged"]

_LEAST_MICRO = 100
"""Below 100 micro-kWh a minute (6 W) the charger stops."""
_EXPORT_HOURS = range(17, 21)
_EXPORT_KW = 3.7
_EXPORT_FLOOR_SOC = 60.0
_MINUTES: dict[Phase, tuple[int, int]] = {"driving": (8, 60), "parked": (10, 240), "plugged": (30, 480)}


class Vehicle:
    """The state of one vehicle. `meter` is the charging point where it is plugged in; the fleet sets it."""

    __slots__ = (
        "_exports",
        "_left_minutes",
        "_phase",
        "_speed_kw",
        "_target_soc",
        "ac_kw",
        "battery_temp_c",
        "capacity_kwh",
        "dc_micro",
        "meter",
        "soc",
    )

    def __init__(self, random: Random) -> None:
        self.capacity_kwh = random.choice((40.0, 52.0, 60.0, 64.0, 77.0, 100.0))
        self.soc = random.uniform(15, 95)
        self.battery_temp_c = random.uniform(8, 25)
        self._target_soc = random.choice((80.0, 90.0, 100.0, 100.0))
        self._exports = random.random() < 0.1
        self._phase: Phase = random.choice(("driving", "parked", "plugged", "plugged", "plugged"))
        self._left_minutes = random.randint(1, _MINUTES[self._phase][1])
        self._speed_kw = random.uniform(6, 24)
        self.meter: int | None = None
        self.dc_micro = 0
        """Energy through the charging port in the last minute, in micro-kWh, signed."""
        self.ac_kw = 0.0
        """Energy that its charger drew from (negative: fed into) the grid in the last minute."""

    @property
    def wants_plug(self) -> bool:
        return self._phase == "plugged"

    def pass_minute(self, random: Random, minute_of_day: int, ambient_c: float, charger_kw: float) -> bool:
        """Simulate a minute with this charger (0 kW: none). True when it has moved and may plug in elsewhere.

        It moves at the end of the minute, so that the minute's energy belongs to one meter.
        """
        moved = self._left_minutes == 0
        if moved:
            self._next_phase(random)
            charger_kw = 0.0
        self._left_minutes -= 1
        dc_kw = self._port_kw(minute_of_day, charger_kw) if charger_kw else 0.0
        self.dc_micro = _settled(round(dc_kw / 60 * 1e6))
        dc_kw = self.dc_micro * 60 / 1e6
        self.ac_kw = physics.ac_of_dc_kw(dc_kw, self.battery_temp_c)
        self._run_battery(dc_kw, ambient_c)
        return moved

    def _port_kw(self, minute_of_day: int, charger_kw: float) -> float:
        if self._exports and minute_of_day // 60 in _EXPORT_HOURS and self.soc > _EXPORT_FLOOR_SOC:
            return -min(_EXPORT_KW, charger_kw)
        if self.soc >= self._target_soc:
            return 0.0
        offered_kw = physics.dc_of_ac_kw(charger_kw, self.battery_temp_c)
        room_kw = (self._target_soc - self.soc) / 100 * self.capacity_kwh * 60
        return min(offered_kw, physics.accepted_kw(self.capacity_kwh, self.soc), room_kw)

    def _run_battery(self, port_kw: float, ambient_c: float) -> None:
        driven_kw = self._speed_kw if self._phase == "driving" else 0.0
        self.soc = max(0.0, self.soc + (port_kw - driven_kw) / 60 / self.capacity_kwh * 100)
        heat_kw = physics.battery_heat_kw(self.capacity_kwh, port_kw - driven_kw, abs(self.ac_kw - port_kw))
        self.battery_temp_c = physics.next_temp_c(self.battery_temp_c, ambient_c, heat_kw, self.capacity_kwh)

    def _next_phase(self, random: Random) -> None:
        if self._phase != "driving" and self.soc > 10:
            self._phase = "driving"
        else:
            self._phase = "plugged" if self.soc < 30 or random.random() < 0.7 else "parked"
        self._left_minutes = random.randint(*_MINUTES[self._phase])


def _settled(micro: int) -> int:
    return micro if abs(micro) >= _LEAST_MICRO else 0
