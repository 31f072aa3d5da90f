"""Converts the measurements of each minute to the readings of the device's profile. Pure and seeded."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from bridge.contract import Kind
from simulator.counters import Counters
from simulator.profiles import FAST_S, MINUTE_S, SLOW_S, Profile

MICRO = 1_000_000
SENTINELS: tuple[float | str | None, ...] = (65535, -127, "unknown", None)
_SENTINEL_RATE, _LOST_RATE, _ABSENT_RATE = 0.1, 0.02, 0.2
_COUNTER_LIMIT_MICRO = 1000 * MICRO
"""A counter sent as an interval stays below the interval's limit; otherwise every reading would be rejected."""

Value = float | str | None


Sent = tuple[int | None, int | None]


class Report(NamedTuple):
    """One reading: milliseconds within the minute, its values by name, and its energies for the truth."""

    at_ms: int
    values: dict[str, Value]
    interval_micro: int
    """The value of the interval field; 0 without one."""
    counters: Sent | None
    """The values of the registers, in micro-kWh: positive and negative energy; None where the reading lacks one."""
    epoch: int
    """Number of earlier resets of the counters."""


class Reporter:
    """Reports for one device. `registers` are the measures that count positive and negative energy."""

    def __init__(self, kind: Kind, profile: Profile, registers: tuple[str, str], random: Random) -> None:
        assert kind.interval is not None
        sent = {*profile.gauges, *(registers if profile.has_registers else ())}
        if profile.has_interval:
            sent.add(kind.interval.name)
        self._names = [measure.name for measure in kind.measures if measure.name in sent]
        self._is_plain = profile == Profile(profile.gauges)
        self._interval = kind.interval.name
        self._profile, self._registers, self._random = profile, registers, random
        self._counters = Counters(random) if profile.has_registers else None
        self._since_micro = 0
        """Energy since the last report, signed."""
        self._wrong_micro = random.randrange(5 * MICRO, 900 * MICRO) if profile.is_counter else 0

    def reports(self, minute_of_day: int, at_ms: int, micro: int, gauges: Mapping[str, float]) -> list[Report]:
        """The readings for a minute with this energy. `at_ms` is the device's time of sending within the minute."""
        if self._is_plain:
            return [Report(at_ms, self._values(micro, gauges), micro, None, 0)]
        if self._counters is not None:
            self._counters.maybe_restart()
        if self._profile.every_s == FAST_S:
            parts = split(micro, MINUTE_S // FAST_S)
            first_ms = at_ms % (FAST_S * 1000)
        else:
            parts, first_ms = [micro], at_ms
        reports: list[Report] = []
        for number, part in enumerate(parts):
            self._add(part)
            if self._profile.every_s == SLOW_S and minute_of_day % (SLOW_S // MINUTE_S):
                continue
            if self._is_lost():
                self._since_micro = 0
            else:
                reports.append(self._report(first_ms + number * FAST_S * 1000, gauges))
        return reports

    def _add(self, micro: int) -> None:
        self._since_micro += micro
        if self._counters is not None:
            self._counters.add(micro)
        if self._profile.is_counter:
            self._wrong_micro = (self._wrong_micro + abs(micro)) % _COUNTER_LIMIT_MICRO

    def _is_lost(self) -> bool:
        return self._counters is not None and self._random.random() < _LOST_RATE

    def _report(self, at_ms: int, gauges: Mapping[str, float]) -> Report:
        interval_micro = self._wrong_micro if self._profile.is_counter else self._since_micro
        counters = None if self._counters is None else self._counters.read()
        values = self._partial(self._values(interval_micro, gauges, counters or ()))
        if values.keys() - self._profile.gauges:  # a reading needs one measure that is not refused
            values |= self._spoiled()
        if self._interval in values or not self._profile.has_interval:
            self._since_micro = 0  # else the next reading has this energy too
        epoch = 0 if self._counters is None else self._counters.epoch
        interval_sent = interval_micro if self._interval in values else 0
        return Report(at_ms, values, interval_sent, self._sent(counters, values), epoch)

    def _sent(self, counters: tuple[int, int] | None, values: Mapping[str, Value]) -> Sent | None:
        """The counters that the reading has."""
        if counters is None:
            return None
        charged, discharged = (
            micro if name in values else None for name, micro in zip(self._registers, counters, strict=True)
        )
        return charged, discharged

    def _partial(self, values: dict[str, Value]) -> dict[str, Value]:
        """The measures that a reading of this device has this time, at least one."""
        if not self._profile.is_partial:
            return values
        left = {name: value for name, value in values.items() if self._random.random() >= _ABSENT_RATE}
        return left or values

    def _spoiled(self) -> dict[str, Value]:
        """A gauge with a value that is none, occasionally."""
        if not (self._profile.has_sentinels and self._profile.gauges and self._random.random() < _SENTINEL_RATE):
            return {}
        gauge = self._random.choice(self._profile.gauges)
        return {gauge: self._random.choice(SENTINELS)}

    def _values(
        self, interval_micro: int, gauges: Mapping[str, float], counters: Sequence[int] = ()
    ) -> dict[str, Value]:
        """The values that the device sends, in the order of the contract, without gauges that are not simulated."""
        known = {**gauges, self._interval: interval_micro / MICRO}
        if counters:
            known |= {name: micro / MICRO for name, micro in zip(self._registers, counters, strict=True)}
        return {name: known[name] for name in self._names if name in known}


def split(micro: int, parts: int) -> list[int]:
    """Integer parts that are as equal as possible; their sum is exactly `micro`."""
    each, rest = divmod(micro, parts)
    return [each + (number < rest) for number in range(parts)]
