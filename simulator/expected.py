"""From one device's ledger entries: what the history and the rejects must hold, may hold, and must not."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bridge.reading import DeviceId, Kind, parse_timestamp
from simulator.database import TABLES, Period
from simulator.ledger import IN_ARRAY, VIA_HTTP
from simulator.ledger_reader import Ledger
from simulator.reject import kept_payload

Values = tuple[Any, ...]
Reject = tuple[str, bytes]
"""Reason, and the payload as it is kept."""


@dataclass
class Expected:
    """What is expected of one device: by device time, and by reject; each with the bits of its acknowledgements."""

    kind: Kind
    device: DeviceId
    values: dict[datetime, Values] = field(default_factory=dict)
    acks: dict[datetime, int] = field(default_factory=dict)
    rejects: dict[Reject, int] = field(default_factory=dict)


def expected_of(ledger: Ledger, device: int, numbers: Iterable[int]) -> Expected:
    """Gather a device's items. The first values that were sent for a device time are those that stay."""
    kind, name = ledger.devices[device]
    expected = Expected(kind, name)
    for number in numbers:
        payload, expect, flags, acks = ledger.item(number)
        if expect == "stored":
            at, values = values_of(kind, payload)
            expected.values.setdefault(at, values)
            expected.acks[at] = expected.acks.get(at, 0) | acks
        else:
            reject = expect, kept_payload(payload, expect, alone=not flags & (IN_ARRAY | VIA_HTTP))
            expected.rejects[reject] = expected.rejects.get(reject, 0) | acks
    return expected


def values_of(kind: Kind, payload: bytes) -> tuple[datetime, Values]:
    """Device time, and (extra, values...) as a row of the history has them."""
    reading = json.loads(payload)
    tables = TABLES[kind]
    del reading[tables.id_field]
    at = parse_timestamp(reading.pop("timestamp"))
    values = tuple(float(reading.pop(name)) for name in tables.fields)
    return at, (reading or None, *values)


def period_of(ledger: Ledger) -> Period | None:
    """From the first to the last device time that should be stored; None when there is none."""
    first = last = None
    for device, (kind, _) in enumerate(ledger.devices):
        for number in ledger.numbers_of(device):
            item = ledger.item(number)
            if item.expect == "stored":
                at, _ = values_of(kind, item.payload)
                first = at if first is None or at < first else first
                last = at if last is None or at > last else last
    return None if first is None or last is None else (first, last)


def feeds_of(ledger: Ledger) -> dict[str, tuple[list[int], list[str | None]]]:
    """For each meter the times from which it feeds somebody else, ascending, and whom."""
    feeds: dict[str, tuple[list[int], list[str | None]]] = {}
    for meter, since_us, vehicle in sorted(ledger.assignments, key=lambda a: a[:2]):
        since, vehicles = feeds.setdefault(ledger.devices[meter][1], ([], []))
        since.append(since_us)
        vehicles.append(None if vehicle is None else ledger.devices[vehicle][1])
    return feeds
