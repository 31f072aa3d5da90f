"""Compares a ledger with the database, a few devices at a time, so that memory does not grow with the ledger.

What was acknowledged must be there exactly once with its values; what was not acknowledged may be there; nothing
else may. Of values that contest a device time one set is in the history, the others are kept as conflicts. Energies
are compared with the simulated truth when the run ended in good order and nothing is indeterminate, else with what
the ledger says was sent and is there.
"""

import asyncio
import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import asyncpg

from bridge.contract import KIND_OF, KINDS, METER, VEHICLE, Kind
from bridge.progress import Silent, Stages
from simulator import database
from simulator.counters import counted_kwh
from simulator.database import Connection, Period
from simulator.expected import Expected, Reject, expected_of, feeds_of, period_of
from simulator.findings import Findings
from simulator.ledger_reader import ACKNOWLEDGED, FORGOTTEN, Ledger
from simulator.message import READINGS
from simulator.stored import Values, time_of
from simulator.verify_figures import Sample, compare_figures

_ITEMS_AT_ONCE = 50_000
_TOLERANCE_KWH = Decimal("1e-9")
"""Far below the micro-kWh in which readings are given, above what float8 to numeric may round in long sums."""
_MICRO = Decimal(1_000_000)
_NONE = Decimal()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ACK_NAMES = ((1, "missing after PUBACK"), (2, "missing after receipt"), (4, "missing after HTTP answer"))


async def verify(
    ledger: Ledger,
    url: str,
    wait_s: float,
    prefix: str | None = None,
    figures: Sample | None = None,
    stages: Stages | None = None,
) -> Findings:
    """Compare, at most `wait_s` seconds after what is missing could still come.

    With `prefix` only the devices whose ids begin so, and of those the database may hold nothing else, of any time.
    With `figures` also what the API answers about some of them; raises `NoAnswer` if it does not.
    """
    deadline, stages = asyncio.get_running_loop().time() + wait_s, stages or Silent()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET timezone TO 'UTC'; SET jit TO 'off'")
        await _settled(connection, ledger, ledger.devices_of(prefix or ""), deadline)
        while True:
            findings = await _Comparison(connection, ledger, prefix).findings(stages)
            if not findings.may_still_come or asyncio.get_running_loop().time() >= deadline:
                break
            await asyncio.sleep(1)
        if figures is not None:
            await compare_figures(findings, connection, ledger, ledger.devices_of(prefix or ""), figures, stages)
        return findings
    finally:
        await connection.close()


async def _settled(connection: Connection, ledger: Ledger, devices: Sequence[int], deadline: float) -> None:
    """Wait until each device's last acknowledged reading is there: lanes and bridge keep each device's order."""
    last: dict[Kind, list[tuple[str, datetime]]] = {kind: [] for kind in KINDS}
    for device in devices:
        kind, name = ledger.devices[device]
        for number in reversed(ledger.numbers_of(device)):
            payload, expect, _, acks = ledger.item(number)
            if expect in READINGS and acks & ACKNOWLEDGED:
                last[KIND_OF[kind]].append((name, time_of(payload)))
                break
    for own_kind, identities in last.items():
        while await database.present(connection, own_kind, identities) < len(identities):
            if asyncio.get_running_loop().time() >= deadline:
                return
            await asyncio.sleep(0.5)


class _Proof(NamedTuple):
    """The energy that the values of one register prove, kWh: those in the history, and those that must be there."""

    found: Decimal
    due: Decimal


class _Comparison:
    """One pass over the devices; with a prefix over those whose ids begin so, and for any others in the database."""

    def __init__(self, connection: Connection, ledger: Ledger, prefix: str | None) -> None:
        self._connection = connection
        self._ledger = ledger
        self._prefix = prefix
        self._devices = ledger.devices_of(prefix or "")
        self._findings = Findings()
        self._created = datetime.fromisoformat(ledger.info["created"])
        self._feeds = feeds_of(ledger)
        self._energy: dict[str, Decimal] = {}
        self._consumed: dict[str, Decimal] = defaultdict(Decimal)
        self._registers: dict[tuple[str, str], _Proof] = {}
        self._is_certain = ledger.complete

    async def findings(self, stages: Stages) -> Findings:
        self._count()
        if self._prefix is not None:
            await self._look_for_others(self._prefix)
        period = period_of(self._ledger, self._devices) if self._prefix is None else database.EVER
        if period is None:
            return self._findings
        advance = stages.stage("readings compared", self._findings.seen["items sent"])
        for kind, devices in self._portions():
            expected = [expected_of(self._ledger, d, self._ledger.numbers_of(d)) for d in devices]
            await self._compare(kind, expected, period)
            advance(sum(len(self._ledger.numbers_of(d)) for d in devices))
        self._apply_truth()
        await self._compare_energy(period)
        self._compare_registers()
        return self._findings

    def _count(self) -> None:
        seen, ledger = self._findings.seen, self._ledger
        counts = Counter(ledger.acks[number] for device in self._devices for number in ledger.numbers_of(device))
        seen["devices"], seen["items sent"] = len(self._devices), counts.total()
        for bits, name in ((1, "by PUBACK"), (2, "by receipt"), (4, "by HTTP answer")):
            seen[f"acknowledged {name}"] = sum(count for acks, count in counts.items() if acks & bits)
        seen["indeterminate"] = sum(count for acks, count in counts.items() if not acks & ACKNOWLEDGED)

    async def _look_for_others(self, prefix: str) -> None:
        names = [name for _, name in self._ledger.devices]
        for kind in KINDS:
            for other in await database.others(self._connection, kind, names, prefix):
                self._findings.fault("invented", f"{kind.name} {other}")
        for reason, payload in await database.other_rejects(self._connection, names, prefix):
            self._findings.fault("reject unexpected", f"{reason} {payload[:80]!r}")

    def _portions(self) -> Iterator[tuple[Kind, list[int]]]:
        """Devices of one kind whose items fit into memory together."""
        for kind in KINDS:
            portion, items = list[int](), 0
            for device in self._devices:
                if self._ledger.devices[device][0] != kind.name:
                    continue
                portion.append(device)
                items += len(self._ledger.numbers_of(device))
                if items >= _ITEMS_AT_ONCE:
                    yield kind, portion
                    portion, items = [], 0
            if portion:
                yield kind, portion

    async def _compare(self, kind: Kind, expected: Sequence[Expected], period: Period) -> None:
        names = [one.device for one in expected]
        rows: dict[str, list[tuple[datetime, Values]]] = defaultdict(list)
        for name, at, extra, *values in await database.history(self._connection, kind, names, period):
            rows[name].append((at, (json.loads(extra) if extra else None, *values)))
        for one in expected:
            self._compare_history(one, rows[one.device])
            self._compare_warnings(one)
        await self._compare_live(kind, expected)
        kept: dict[str, Counter[Reject]] = defaultdict(Counter)
        recent: dict[str, set[Reject]] = defaultdict(set)
        for device, received_at, *reject in await database.rejects(self._connection, names):
            kept[device][Reject(*reject)] += 1
            if received_at >= self._created:
                recent[device].add(Reject(*reject))
        for one in expected:
            self._compare_rejects(one, kept[one.device], recent[one.device])

    async def _compare_live(self, kind: Kind, expected: Sequence[Expected]) -> None:
        """Of a device with several writers it is unknown which of them was first."""
        several = {one.device for one in expected if len(one.sources) > 1}
        stale = set(await database.stale_live(self._connection, kind, [one.device for one in expected]))
        stale -= several - set(await database.impossible_live(self._connection, kind, sorted(stale & several)))
        for device in sorted(stale):
            self._findings.fault("live differs", device)

    def _compare_history(self, expected: Expected, rows: Sequence[tuple[datetime, Values]]) -> None:
        findings, found = self._findings, set[datetime]()
        expected.decide(dict(rows))
        for at, values in rows:
            where = f"{expected.device} {at.isoformat()}"
            if at not in expected.values:
                findings.fault("invented", where)
            elif at in found:
                findings.fault("duplicated", where)
            elif values != expected.values[at]:
                findings.fault("different", f"{where}: {values[1:]}, sent {expected.values[at][1:]}")
            found.add(at)
        findings.seen["readings in the history"] += len(rows)
        for at, acks in expected.acks.items():
            if at not in found:
                self._note_missing(acks, f"{expected.device} {at.isoformat()}")
        for at, times in expected.called_new.items():
            if times > 1:
                findings.fault("stored twice", f"{expected.device} {at.isoformat()}")
        self._add_up(expected, found)
        self._prove(expected, rows, found)

    def _note_missing(self, acks: int, where: str) -> None:
        for bit, name in _ACK_NAMES:
            if acks & bit:
                self._findings.fault(name, where)
        if not acks & ACKNOWLEDGED:
            self._is_certain = False
            self._note_uncertain(acks)

    def _note_uncertain(self, acks: int) -> None:
        self._findings.seen["forgotten by the broker" if acks & FORGOTTEN else "indeterminate and not there"] += 1

    def _add_up(self, expected: Expected, found: set[datetime]) -> None:
        """The energy of what must be or is there, as the ledger has it."""
        if (interval := expected.kind.interval) is None:
            return
        column = 1 + expected.kind.measures.index(interval)
        total = Decimal()
        for at, values in expected.values.items():
            if expected.must_be(at, found) and values[column] is not None:
                kwh = Decimal(repr(values[column]))
                total += kwh
                if expected.kind is METER and (vehicle := self._fed(expected.device, at)) is not None:
                    self._consumed[vehicle] += kwh
        self._energy[expected.device] = total

    def _prove(self, expected: Expected, rows: Sequence[tuple[datetime, Values]], found: set[datetime]) -> None:
        """What the values of each register prove, as they are in the history and as the ledger has them."""
        due = expected.due(found)
        for column, measure in enumerate(expected.kind.measures, start=1):
            if measure.sort == "register" and any(values[column] is not None for _, values in (*due, *rows)):
                proof = _Proof(*(counted_kwh(values[column] for _, values in some) for some in (rows, due)))
                self._registers[expected.device, measure.name] = proof

    def _compare_warnings(self, expected: Expected) -> None:
        self._findings.seen["warnings as expected"] += expected.warnings
        for example in expected.told_wrongly:
            self._findings.fault("warnings differ", example)

    def _fed(self, meter: str, at: datetime) -> str | None:
        """Whom the ledger's assignments give this meter's reading to."""
        since, vehicles = self._feeds.get(meter, ([], []))
        index = bisect_right(since, (at - _EPOCH) // timedelta(microseconds=1)) - 1
        return vehicles[index] if index >= 0 else None

    def _compare_rejects(self, expected: Expected, kept: Counter[Reject], recent: set[Reject]) -> None:
        findings = self._findings
        for reject, acks in expected.rejects.items():
            where = f"{expected.device} {reject.reason} {reject.payload[:80]!r}"
            if not kept[reject] and acks & ACKNOWLEDGED:
                findings.fault("reject missing", where)
            elif kept[reject] > 1:
                findings.fault("reject duplicated", where)
            elif not kept[reject]:
                self._note_uncertain(acks)
            findings.seen["rejects as expected"] += kept[reject] == 1
        for reject in kept:
            if reject not in expected.rejects and reject in recent:
                findings.fault("reject unexpected", f"{expected.device} {reject.reason} {reject.payload[:80]!r}")

    async def _compare_energy(self, period: Period) -> None:
        names: dict[Kind, list[str]] = {kind: [] for kind in KINDS}
        delivered: dict[str, Decimal] = {}
        for which, name in (self._ledger.devices[device] for device in self._devices):
            names[KIND_OF[which]].append(name)
        for kind, some in names.items():
            delivered |= await database.energy(self._connection, kind, some, period)
        consumed = await database.consumed(self._connection, names[METER], period)
        for device, true in self._energy.items():
            if not _is_equal(delivered.get(device, _NONE), true):
                self._findings.fault("energy differs", f"{device}: {delivered.get(device)} kWh, truth {true} kWh")
        # A killed run cannot know of the last assignments whether the API has taken them.
        if self._ledger.assignments and self._ledger.complete:
            for vehicle in names[VEHICLE]:
                self._compare_efficiency(vehicle, delivered.get(vehicle, _NONE), consumed.get(vehicle, _NONE))
            self._note_efficiency(delivered, consumed, names[VEHICLE])

    def _apply_truth(self) -> None:
        """Compare with what was simulated, where nothing is uncertain, instead of with what was sent."""
        if not self._is_certain:
            return
        for device, (delivered, consumed) in self._ledger.truth.items():
            name = self._ledger.devices[device][1]
            self._energy[name], self._consumed[name] = delivered / _MICRO, consumed / _MICRO
        for (device, register), micro in self._ledger.counted.items():
            key = self._ledger.devices[device][1], register
            found = self._registers[key].found if key in self._registers else _NONE
            self._registers[key] = _Proof(found, micro / _MICRO)

    def _compare_registers(self) -> None:
        for (device, register), (found, due) in self._registers.items():
            if _is_equal(found, due):
                self._findings.seen["registers as expected"] += 1
            else:
                self._findings.fault("register differs", f"{device} {register}: {found} kWh, truth {due} kWh")

    def _compare_efficiency(self, name: str, dc: Decimal, ac: Decimal) -> None:
        """Delivered DC over consumed AC, both over the whole period, as the API defines it."""
        true_dc, true_ac = self._energy[name], self._consumed[name]
        if _is_equal(dc, true_dc) and _is_equal(ac, true_ac):
            self._findings.seen["vehicles of equal efficiency"] += 1
        else:
            self._findings.fault("efficiency differs", f"{name}: {dc} / {ac} kWh, truth {true_dc} / {true_ac} kWh")

    def _note_efficiency(
        self, delivered: dict[str, Decimal], consumed: dict[str, Decimal], vehicles: list[str]
    ) -> None:
        if total_ac := sum(consumed.values()):
            total_dc = sum(delivered.get(name, _NONE) for name in vehicles)
            self._findings.seen["fleet's DC over AC, per mille"] = round(1000 * total_dc / total_ac)


def _is_equal(found: Decimal, true: Decimal) -> bool:
    return abs(found - true) <= _TOLERANCE_KWH
