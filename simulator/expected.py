"""Derives from a device's ledger entries what history and rejects must, may and must not contain."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import NamedTuple

from bridge.contract import KIND_OF, Kind
from bridge.reading import DeviceId
from simulator.database import Period
from simulator.ledger import IN_ARRAY, VIA_HTTP
from simulator.ledger_reader import ACKNOWLEDGED, CALLED_NEW, TOLD, Ledger, SentItem
from simulator.message import READINGS
from simulator.reject import kept_payload
from simulator.stored import Values, stored, time_of

_time = itemgetter(0)


class Reject(NamedTuple):
    """How a rejected item lies in the database."""

    source: str
    reason: str
    payload: bytes


class _Contender(NamedTuple):
    """A contested item: what it is if it is stored, and the conflict that it is otherwise."""

    at: datetime
    values: Values
    warnings: frozenset[str]
    conflict: Reject
    acks: int
    told: frozenset[str]


@dataclass
class Expected:
    """The expected data of one device, by device time and by reject, each with the bits of its acknowledgements."""

    kind: Kind
    device: DeviceId
    values: dict[datetime, Values] = field(default_factory=dict)
    acks: dict[datetime, int] = field(default_factory=dict)
    rejects: dict[Reject, int] = field(default_factory=dict)
    contenders: list[_Contender] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)
    called_new: Counter[datetime] = field(default_factory=Counter)
    """How many items of a device time a receipt or an answer called newly stored."""
    warnings: int = 0
    """Number of expected warnings in receipts and HTTP responses."""
    told_wrongly: list[str] = field(default_factory=list)
    """Readings whose receipt or HTTP response has unexpected or missing warnings."""

    def add(self, item: SentItem, told: frozenset[str]) -> None:
        """Take an item. The first values that were sent for a device time stay, unless they are contested."""
        source = "http" if item.flags & VIA_HTTP else "mqtt"
        self.sources.add(source)
        if item.expect not in READINGS:
            self._reject(_kept(item, source, item.expect), item.acks)
            return
        at, values, warnings = stored(self.kind, item.payload)
        self.values.setdefault(at, values)
        self.acks[at] = self.acks.get(at, 0) | item.acks
        if item.acks & CALLED_NEW:
            self.called_new[at] += 1
        if item.expect == "contested":
            conflict = _kept(item, source, "conflict")
            self.contenders.append(_Contender(at, values, warnings, conflict, item.acks, told))
        else:
            self._told(at, item.acks, told, warnings)

    def decide(self, history: Mapping[datetime, Values]) -> None:
        """Expect of contested values those that the history has, and the others as conflicts with them."""
        for at, values, warnings, conflict, acks, told in self.contenders:
            is_conflict = history.get(at, values) != values
            self._told(at, acks, told, frozenset() if is_conflict else warnings)
            if is_conflict:
                self._reject(conflict, acks)
            elif at in history:
                self.values[at] = values

    def must_be(self, at: datetime, found: Collection[datetime]) -> bool:
        """Whether the reading of this device time is in the history, or must be."""
        return at in found or bool(self.acks[at] & ACKNOWLEDGED)

    def due(self, found: Collection[datetime]) -> list[tuple[datetime, Values]]:
        """The readings that are in the history, or must be, in the order of device time; `found` are those there."""
        return sorted(((at, values) for at, values in self.values.items() if self.must_be(at, found)), key=_time)

    def _reject(self, reject: Reject, acks: int) -> None:
        self.rejects[reject] = self.rejects.get(reject, 0) | acks

    def _told(self, at: datetime, acks: int, told: frozenset[str], due: frozenset[str]) -> None:
        if not acks & TOLD:
            return
        if told == due:
            self.warnings += len(due)
        else:
            self.told_wrongly.append(f"{self.device} {at.isoformat()}: {sorted(told)}, expected {sorted(due)}")


def expected_of(ledger: Ledger, device: int, numbers: Iterable[int]) -> Expected:
    """Collect a device's items."""
    kind, name = ledger.devices[device]
    expected = Expected(KIND_OF[kind], name)
    for number in numbers:
        expected.add(ledger.item(number), frozenset(ledger.warnings.get(number, ())))
    return expected


def _kept(item: SentItem, source: str, reason: str) -> Reject:
    return Reject(source, reason, kept_payload(item.payload, reason, in_array=bool(item.flags & IN_ARRAY)))


def period_of(ledger: Ledger, devices: Iterable[int]) -> Period | None:
    """From the first to the last device time that should be stored; None when there is none."""
    first = last = None
    for device in devices:
        for number in ledger.numbers_of(device):
            item = ledger.item(number)
            if item.expect in READINGS:
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
