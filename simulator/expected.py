"""Derives from a device's ledger entries what history and rejects must, may and must not contain."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from bridge.contract import KIND_OF, Kind
from bridge.reading import DeviceId
from simulator.database import Period
from simulator.ledger import IN_ARRAY
from simulator.ledger_reader import TOLD, Ledger
from simulator.reject import kept_payload
from simulator.stored import Values, stored, time_of

Reject = tuple[str, bytes]
"""Reason, and the payload as it is stored."""


@dataclass
class Expected:
    """The expected data of one device, by device time and by reject, each with the bits of its acknowledgements."""

    kind: Kind
    device: DeviceId
    values: dict[datetime, Values] = field(default_factory=dict)
    acks: dict[datetime, int] = field(default_factory=dict)
    rejects: dict[Reject, int] = field(default_factory=dict)
    warnings: int = 0
    """Number of expected warnings in receipts and HTTP responses."""
    told_wrongly: list[str] = field(default_factory=list)
    """Readings whose receipt or HTTP response has unexpected or missing warnings."""

    def add(self, payload: bytes, acks: int, told: frozenset[str]) -> None:
        """Add a reading that should be stored. The first values that were sent for a device time stay."""
        at, values, warnings = stored(self.kind, payload)
        self.values.setdefault(at, values)
        self.acks[at] = self.acks.get(at, 0) | acks
        if not acks & TOLD:
            return
        if told == warnings:
            self.warnings += len(warnings)
        else:
            self.told_wrongly.append(f"{self.device} {at.isoformat()}: {sorted(told)}, expected {sorted(warnings)}")


def expected_of(ledger: Ledger, device: int, numbers: Iterable[int]) -> Expected:
    """Collect a device's items."""
    kind, name = ledger.devices[device]
    expected = Expected(KIND_OF[kind], name)
    for number in numbers:
        payload, expect, flags, acks = ledger.item(number)
        if expect == "stored":
            expected.add(payload, acks, frozenset(ledger.warnings.get(number, ())))
        else:
            reject = expect, kept_payload(payload, expect, in_array=bool(flags & IN_ARRAY))
            expected.rejects[reject] = expected.rejects.get(reject, 0) | acks
    return expected


def period_of(ledger: Ledger) -> Period | None:
    """From the first to the last device time that should be stored; None when there is none."""
    first = last = None
    for device in range(len(ledger.devices)):
        for number in ledger.numbers_of(device):
            item = ledger.item(number)
            if item.expect == "stored":
                at = time_of(item.payload)
                first = at if first is None or at < first else first
                last = at if last is None or at > last else last
    return None if first is None or last is None else (first, last)


def feeds_of(ledger: Ledger) -> dict[str, tuple[list[int], list[str | None]]]:
    """For each meter the times of its assignments, ascending, and their vehicles."""
    feeds: dict[str, tuple[list[int], list[str | None]]] = {}
    for meter, since_us, vehicle in sorted(ledger.assignments, key=lambda a: a[:2]):
        since, vehicles = feeds.setdefault(ledger.devices[meter][1], ([], []))
        since.append(since_us)
        vehicles.append(None if vehicle is None else ledger.devices[vehicle][1])
    return feeds
