"""Profiles of real devices: which measures they report, how often, and with which errors. Pure and seeded."""

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from bridge.contract import Kind

MINUTE_S, FAST_S, SLOW_S = 60, 10, 900


@dataclass(frozen=True)
class Shares:
    """The share of the devices to which each property applies, 0 to 1."""

    registers: float = 0.0
    """They send counters, half of them in addition to the interval energy, half instead of it; they lose readings."""
    no_temperature: float = 0.0
    """Vehicles that do not send the battery temperature."""
    no_voltage: float = 0.0
    """Meters that do not send the voltage."""
    power: float = 0.0
    """They also send the mean power of the minute."""
    fast: float = 0.0
    """They send every 10 s."""
    slow: float = 0.0
    """They send every 15 min."""
    sentinels: float = 0.0
    """A gauge occasionally has a value that means "no value": 65535, -127, "unknown", null."""
    counters_as_intervals: float = 0.0
    """They send a counter in the field of the interval energy."""
    partial: float = 0.0
    """Their readings lack measures, each time others."""


PLAIN = Shares()
REAL = Shares(0.3, 0.1, 0.1, 0.3, 0.1, 0.2, 0.1, 0.05, 0.1)

_SWITCHED_GAUGES = {"no_temperature": "batteryTemp", "no_voltage": "voltage", "power": "powerKw"}


class Profile(NamedTuple):
    """The properties of one device."""

    gauges: tuple[str, ...]
    """The measures that it sends, by their names in the contract."""
    every_s: int = MINUTE_S
    has_interval: bool = True
    has_registers: bool = False
    has_sentinels: bool = False
    is_counter: bool = False
    """The field of the interval energy contains a counter."""
    is_partial: bool = False


def profile_of(kind: Kind, shares: Shares, random: Random) -> Profile:
    """Draw a device's profile. Each share has a separate draw, so changing one changes no other property."""
    is_counter, has_registers, instead = random.random(), random.random(), random.random()
    pace, has_sentinels = random.random(), random.random()
    lacks = {
        name
        for option, name in _SWITCHED_GAUGES.items()
        if (random.random() < getattr(shares, option)) != (option == "power")
    }
    is_partial = random.random() < shares.partial
    counts = is_counter < shares.counters_as_intervals
    registers = has_registers < shares.registers and not counts
    return Profile(
        gauges=tuple(m.name for m in kind.of_sort("gauge") if m.name not in lacks),
        every_s=FAST_S if pace < shares.fast else SLOW_S if pace < shares.fast + shares.slow else MINUTE_S,
        has_interval=not registers or instead < 0.5,
        has_registers=registers,
        has_sentinels=has_sentinels < shares.sentinels,
        is_counter=counts,
        is_partial=is_partial,
    )
