"""The faults of real devices and networks. Pure and seeded; the readings themselves are not changed.

Every fault is sent in addition to a valid reading or delays it, and never replaces it: a device that sent a malformed
message or had a wrong clock sends the correct reading afterwards. So the history must contain the simulated truth
exactly with any faults enabled. A reading has at most one fault.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from random import Random

from bridge.contract import KINDS
from bridge.formats.contract_json import encode
from bridge.formats.payload import PAYLOADS
from bridge.formats.port import MAX_READINGS_PER_MESSAGE
from bridge.reading import Reading
from simulator.malformed import ANYWHERE, MALFORMATIONS
from simulator.message import STORED, Item, Message, expectation, single


@dataclass(frozen=True)
class FaultRates:
    """The share of readings with each fault, 0 to 1."""

    duplicates: float = 0.0
    """The message is sent twice."""
    out_of_order: float = 0.0
    """The message is sent after the device's next one."""
    late: float = 0.0
    """The message is sent 5 to 60 minutes late."""
    offline: float = 0.0
    """The device is offline for minutes to a day, then sends its backlog as arrays."""
    malformed: float = 0.0
    """A malformed message is sent before it."""
    wrong_clock: float = 0.0
    """The reading is first sent with a time outside the accepted window."""
    conflict: float = 0.0
    """The reading is sent again with other values."""


ALL_FAULTS = FaultRates(0.01, 0.01, 0.005, 0.001, 0.005, 0.002, 0.002)

_AHEAD = (timedelta(days=2), timedelta(days=400), timedelta(days=25_000))
_BEHIND = (timedelta(days=91), timedelta(days=400), timedelta(days=20_000))
_MAX_OFFLINE_MINUTES = 1500


@dataclass
class _Held:
    until_minute: int
    is_offline: bool
    items: list[Item]


class Faults:
    """`via_http` are the devices that use HTTP, where some malformed messages cannot be attributed to a device."""

    def __init__(self, seed: int, rates: FaultRates, run_minutes: int, http_devices: Sequence[bool]) -> None:
        self._random = Random(f"faults {seed}")
        # A time is in the future for the bridge only if it is after the end of the run.
        self._beyond_run = timedelta(minutes=run_minutes)
        self._http_devices = http_devices
        self._held: dict[int, _Held] = {}
        self._limits: list[tuple[float, str]] = []
        total = 0.0
        for field in fields(rates):
            total += getattr(rates, field.name)
            self._limits.append((total, field.name))
        self._any = total

    def befall(self, minute: int, device: int, payload: bytes) -> Sequence[Message]:
        """The messages to send now, for this reading and the delayed ones of its device."""
        drawn = self._random.random() if self._any else 1.0
        if device in self._held:
            return self._go_on(minute, device, payload)
        if drawn >= self._any:
            return (single(device, payload),)
        name = next(name for limit, name in self._limits if drawn < limit)
        if name in ("out_of_order", "late", "offline"):
            self._hold(minute, device, payload, name)
            return ()
        return self._disturb(device, payload, name)

    def rest(self) -> Iterator[Message]:
        """The messages that are still delayed at the end of the run."""
        for device, held in sorted(self._held.items()):
            yield from self._release(device, held)
        self._held.clear()

    def _hold(self, minute: int, device: int, payload: bytes, name: str) -> None:
        random = self._random
        if name == "offline":
            minutes = int(2 * (_MAX_OFFLINE_MINUTES / 2) ** random.random())
        else:
            minutes = 1 if name == "out_of_order" else random.randint(5, 60)
        self._held[device] = _Held(minute + minutes, name == "offline", [Item(payload, STORED)])

    def _go_on(self, minute: int, device: int, payload: bytes) -> Sequence[Message]:
        held = self._held[device]
        over = minute >= held.until_minute
        if over:
            del self._held[device]
        if not held.is_offline:
            now = single(device, payload)
            return (now, *self._release(device, held)) if over else (now,)
        if self._random.random() < 0.01:
            spoiled = self._random.choice(ANYWHERE)
            held.items.append(Item(spoiled.spoil(payload), expectation(spoiled.reason)))
        held.items.append(Item(payload, STORED))
        return tuple(self._release(device, held)) if over else ()

    def _release(self, device: int, held: _Held) -> Iterator[Message]:
        for start in range(0, len(held.items), MAX_READINGS_PER_MESSAGE):
            yield Message(device, held.items[start : start + MAX_READINGS_PER_MESSAGE], is_array=held.is_offline)

    def _disturb(self, device: int, payload: bytes, name: str) -> Sequence[Message]:
        good = single(device, payload)
        if name == "duplicates":
            return good, good
        if name == "conflict":
            return good, single(device, _other_values(payload), expectation("conflict"))
        if name == "wrong_clock":
            return single(device, self._wrong_time(payload), expectation("timestamp_out_of_range")), good
        spoiled = self._random.choice(ANYWHERE if self._http_devices[device] else MALFORMATIONS)
        return single(device, spoiled.spoil(payload), expectation(spoiled.reason)), good

    def _wrong_time(self, payload: bytes) -> bytes:
        reading = _parsed(payload)
        if self._random.random() < 0.5:
            off = self._random.choice(_AHEAD) + self._beyond_run
        else:
            off = -self._random.choice(_BEHIND)
        return encode(reading.changed(at=reading.timestamp + off))


def _other_values(payload: bytes) -> bytes:
    """The reading with half a kWh more, or less if that exceeds the limit, and without unknown fields.

    A reading without energy has another value of its first gauge.
    """
    good = _parsed(payload).with_extra(None)
    measure = next((m for m in good.measures if m.sort != "gauge"), good.measures[0])
    value = getattr(good, measure.column)
    other = round(value + 0.5, 6)
    return encode(good.changed(**{measure.column: other if other <= measure.most else round(value - 0.5, 6)}))


def _parsed(payload: bytes) -> Reading:
    """The reading as stored, without the gauges that are refused."""
    fields = json.loads(payload)
    contract = next(PAYLOADS[kind.name] for kind in KINDS if kind.id_field in fields)
    return contract.leniently(fields).reading
