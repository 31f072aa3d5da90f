"""Profiles change the readings that are sent, not the simulation; the energy from registers is the simulated one."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract import KIND_OF, METER, VEHICLE, Kind
from bridge.reading import device_id, parse_timestamp
from simulator.counters import CounterTruth, counted_kwh
from simulator.expected import Expected
from simulator.faults import FaultRates, Faults
from simulator.fleet import REGISTERS, Fleet
from simulator.ledger_reader import ACK_BITS, SentItem
from simulator.options import shares_of
from simulator.profiles import PLAIN, REAL, Shares
from simulator.reporter import SENTINELS, split
from simulator.stored import stored

START = datetime(2026, 3, 1, 16, 0, tzinfo=UTC)
MINUTES = 600
PLAIN_BYTES = "9b10ecd0874320560329a9bd2c7d57e8e59788029246a8f0f092907a09c0bbff"
PLAIN_FAULTS_BYTES = "8bfe1e37dad908ac483726d63b40f1b91923906f329bf537204387537020b832"
RECEIPT, PUBACK = ACK_BITS[b"R"], ACK_BITS[b"P"]


def fleet_of(shares: Shares, seed: int = 5) -> Fleet:
    return Fleet(seed, 20, 20, START, shares=shares)


def sent(fleet: Fleet, minutes: int = MINUTES) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Minute, device and reading of everything that the fleet sends."""
    for minute in range(minutes):
        fleet.step()
        for emission in fleet.emissions():
            yield minute, emission.device, json.loads(emission.payload)


def energies(seed: int = 5) -> list[list[int]]:
    """The truth: each device's energy minute by minute in micro-kWh, from a fleet of plain devices."""
    fleet = fleet_of(PLAIN, seed)
    found: list[list[int]] = [[] for _ in fleet.devices]
    for _, device, reading in sent(fleet):
        found[device].append(interval_of(kind_of(fleet, device), reading))
    return found


def kind_of(fleet: Fleet, device: int) -> Kind:
    return KIND_OF[fleet.devices[device].kind]


def interval_of(kind: Kind, reading: dict[str, Any]) -> int:
    assert kind.interval is not None
    return micro(reading[kind.interval.name])


def micro(kwh: float) -> int:
    return int(Decimal(repr(kwh)) * 1_000_000)


def test_plain_fleet_sends_the_bytes_that_it_always_sent() -> None:
    fleet = Fleet(5, 20, 25, START)
    rates = FaultRates(duplicates=0.02, out_of_order=0.02, late=0.02, wrong_clock=0.02, conflict=0.02)
    faults = Faults(5, rates, 300, [False] * 45)
    readings, messages = hashlib.sha256(), hashlib.sha256()
    for _ in range(300):
        readings.update(repr(fleet.step()).encode())
        for emission in fleet.emissions():
            readings.update(repr(emission).encode())
            for message in faults.befall(emission.minute, emission.device, emission.payload):
                messages.update(message.payload)
    readings.update(repr((fleet.delivered_micro, fleet.consumed_micro)).encode())
    assert (readings.hexdigest(), messages.hexdigest()) == (PLAIN_BYTES, PLAIN_FAULTS_BYTES)


def test_same_seed_and_shares_give_the_same_bytes() -> None:
    assert list(sent(fleet_of(REAL), 120)) == list(sent(fleet_of(REAL), 120))


def test_profiles_leave_assignments_and_plain_devices_as_they_are() -> None:
    plain, mixed = fleet_of(PLAIN), fleet_of(Shares(registers=0.3, fast=0.2, slow=0.2, sentinels=0.2))
    same = 0
    for _ in range(MINUTES):
        assert plain.step() == mixed.step()
        own: dict[int, list[bytes]] = defaultdict(list)
        for emission in mixed.emissions():
            own[emission.device].append(emission.payload)
        same += sum(own[emission.device] == [emission.payload] for emission in plain.emissions())
    assert 0.2 * 40 * MINUTES < same < 0.6 * 40 * MINUTES


def test_one_share_changes_no_other_property() -> None:
    def counting(shares: Shares) -> set[int]:
        fleet = fleet_of(shares)
        return {device for _, device, r in sent(fleet, 1) if any(n in r for n in REGISTERS[kind_of(fleet, device)])}

    few = counting(Shares(registers=0.4, power=1))
    assert few == counting(Shares(registers=0.4, no_voltage=1, sentinels=1))
    assert few < counting(Shares(registers=0.8))


@pytest.mark.parametrize(
    ("shares", "kind", "name", "is_sent"),
    [
        (Shares(no_temperature=1), VEHICLE, "batteryTemp", False),
        (Shares(no_temperature=1), METER, "voltage", True),
        (Shares(no_voltage=1), METER, "voltage", False),
        (Shares(power=1), METER, "powerKw", True),
        (Shares(power=1), VEHICLE, "powerKw", True),
        (PLAIN, VEHICLE, "powerKw", False),
    ],
)
def test_share_of_one_decides_of_a_measure(shares: Shares, kind: Kind, name: str, is_sent: bool) -> None:
    readings = [reading for _, _, reading in sent(fleet_of(shares), 2) if kind.id_field in reading]
    assert readings
    assert all((name in reading) == is_sent for reading in readings)


@given(st.integers(-(10**9), 10**9), st.integers(1, 90))
def test_split_keeps_the_sum_and_is_even(energy: int, parts: int) -> None:
    found = split(energy, parts)
    assert (sum(found), len(found)) == (energy, parts)
    assert max(found) - min(found) <= 1


def test_fast_device_sends_six_readings_a_minute_with_its_energy() -> None:
    fleet, found, times = fleet_of(Shares(fast=1)), Counter[tuple[int, int]](), defaultdict(list)
    for minute, device, reading in sent(fleet):
        found[device, minute] += interval_of(kind_of(fleet, device), reading)
        times[device].append(parse_timestamp(reading["timestamp"]))
    assert all(found[device, minute] == kwh for device, own in enumerate(energies()) for minute, kwh in enumerate(own))
    assert all(b - a == timedelta(seconds=10) for own in times.values() for a, b in pairwise(own))


def test_slow_device_sends_a_reading_a_quarter_with_the_energy_since_the_last() -> None:
    fleet, true = fleet_of(Shares(slow=1)), energies()
    last: dict[int, int] = {}
    for minute, device, reading in sent(fleet):
        begin = last.get(device, -1) + 1
        assert interval_of(kind_of(fleet, device), reading) == sum(true[device][begin : minute + 1])
        assert minute % 15 == 0
        last[device] = minute
    assert set(last.values()) == {MINUTES - 15}
    assert fleet.delivered_micro == [sum(own[: MINUTES - 14]) for own in true]


def test_emissions_of_all_paces_are_in_the_order_in_which_they_are_due() -> None:
    fleet = fleet_of(REAL)
    dues = []
    for _ in range(30):
        fleet.step()
        dues += [emission.due_s for emission in fleet.emissions()]
    assert dues == sorted(dues)


@pytest.mark.parametrize("seed", [5, 6])
def test_register_rises_by_the_energy_but_for_resets_and_jitter(seed: int) -> None:
    fleet, true = fleet_of(Shares(registers=1), seed), energies(seed)
    last: dict[tuple[int, str], tuple[int, int]] = {}
    seen: Counter[str] = Counter()
    for minute, device, reading in sent(fleet):
        for sign, name in zip((1, -1), REGISTERS[kind_of(fleet, device)], strict=True):
            value, before = micro(reading[name]), last.get((device, name))
            last[device, name] = value, minute
            if before is None:
                continue
            rise = sum(max(0, sign * kwh) for kwh in true[device][before[1] + 1 : minute + 1])
            seen["lost"] += minute - before[1] > 1
            off = value - before[0] - rise
            if abs(off) in (0, 100_000):
                seen["jitter"] += off < 0
            else:
                seen["reset"] += 1
                assert 0 <= value <= rise < 0.9 * before[0]
    assert min(seen["lost"], seen["jitter"], seen["reset"]) > 3


def test_registers_prove_the_truth_from_their_values_alone() -> None:
    fleet, values = fleet_of(Shares(registers=1, fast=0.2, slow=0.2)), defaultdict(list)
    for _, device, reading in sent(fleet):
        for number, name in enumerate(REGISTERS[kind_of(fleet, device)]):
            values[device, number].append(reading[name])
    assert len(fleet.counted) == 40
    for device, truths in fleet.counted.items():
        for number, truth in enumerate(truths):
            assert counted_kwh(values[device, number]) * 1_000_000 == truth.micro


def test_register_stands_beside_the_interval_or_instead_of_it() -> None:
    fleet = fleet_of(Shares(registers=1))
    beside = {kind_of(fleet, d).interval.name in reading for _, d, reading in sent(fleet, 1)}  # type: ignore[union-attr]
    assert beside == {True, False}


@pytest.mark.parametrize(
    ("values", "kwh"),
    [
        ([], "0"),
        ([5.0], "0"),
        ([100.0, 100.5, None, 102.0], "2"),
        ([100.0, 101.0, 0.25, 0.5], "1.5"),
        ([100.0, 101.0, 100.9, 101.0, 101.5], "1.5"),
        ([100.0, 100.9, 101.0], "1"),
        ([1.0, 0.0, 0.0, 2.0], "2"),
    ],
)
def test_counted_energy_passes_over_jitter_and_begins_again_after_a_reset(values: list[float], kwh: str) -> None:
    assert counted_kwh(values) == Decimal(kwh)


def test_truth_of_a_counter_knows_its_resets() -> None:
    truth = CounterTruth()
    assert truth.micro == 0
    for epoch, value in [(3, 100), (3, 150), (3, 140), (3, 160), (4, 30), (4, 50), (6, 5)]:
        truth.report(epoch, value)
    assert truth.micro == 60 + 50 + 5


def test_sentinels_are_stored_as_absent_with_a_warning_and_their_original() -> None:
    fleet, seen = fleet_of(Shares(sentinels=1, power=1)), set()
    for _, device, reading in sent(fleet, 60):
        kind = kind_of(fleet, device)
        row = stored(kind, json.dumps(reading).encode())
        refused = (row.values[0] or {}).get("refused", {})
        assert row.warnings == {f"{name}: refused" for name in refused}
        for name, original in refused.items():
            assert row.values[1 + [m.name for m in kind.measures].index(name)] is None
            seen.add(original)
        seen |= {None for value in reading.values() if value is None}
    assert seen == set(SENTINELS)


def test_partial_readings_lack_measures_and_no_energy() -> None:
    """What a reading lacks is in the next interval energy, or in the next value of the register."""
    fleet, true = fleet_of(Shares(partial=1, registers=0.5, sentinels=0.5)), energies()
    sums, values = Counter[int](), defaultdict[tuple[int, str], list[float]](list)
    lacking, has_last = Counter[str](), dict[int, bool]()
    for _, device, reading in sent(fleet):
        kind = kind_of(fleet, device)
        assert any(isinstance(reading.get(measure.name), float) for measure in kind.measures)
        assert kind.interval is not None
        for name in (kind.interval.name, *REGISTERS[kind], kind.measures[0].name):
            lacking[name] += name not in reading
        has_last[device] = kind.interval.name in reading
        sums[device] += interval_of(kind, reading) if has_last[device] else 0
        for name in set(REGISTERS[kind]) & reading.keys():
            values[device, name].append(reading[name])
    assert len(lacking) == 7
    assert min(lacking.values()) > 0.1 * 20 * MINUTES
    assert fleet.delivered_micro == [sums[device] for device in range(40)]
    complete = [device for device in range(40) if device not in fleet.counted and has_last[device]]
    assert complete
    assert [sums[device] for device in complete] == [sum(true[device]) for device in complete]
    for device, truths in fleet.counted.items():
        for name, truth in zip(REGISTERS[kind_of(fleet, device)], truths, strict=True):
            assert counted_kwh(values[device, name]) * 1_000_000 == truth.micro


def test_every_fault_is_possible_for_readings_without_energy() -> None:
    fleet = fleet_of(Shares(partial=1, sentinels=1))
    rates = FaultRates(conflict=0.3, malformed=0.3, wrong_clock=0.3)
    faults = Faults(5, rates, 60, [False] * 40)
    for _ in range(60):
        fleet.step()
        for emission in fleet.emissions():
            for message in faults.befall(emission.minute, emission.device, emission.payload):
                assert message.items


def test_counter_as_interval_is_within_the_limit_and_implausible() -> None:
    fleet, implausible = fleet_of(Shares(counters_as_intervals=1, registers=1)), 0
    sums: Counter[int] = Counter()
    for _, device, reading in sent(fleet, 60):
        kind = kind_of(fleet, device)
        assert not set(reading) & set(REGISTERS[kind])
        value = interval_of(kind, reading)
        assert 0 <= value < 1_000_000_000
        sums[device] += value
        implausible += bool(stored(kind, json.dumps(reading).encode()).warnings)
    assert implausible > 0.9 * 40 * 60
    assert fleet.delivered_micro == [sums[device] for device in range(40)]


@pytest.mark.parametrize(
    ("told", "acks", "is_wrong"),
    [
        ({"soc: refused"}, RECEIPT, False),
        (set(), PUBACK, False),
        (set(), RECEIPT, True),
        ({"soc: refused", "batteryTemp: refused"}, RECEIPT, True),
        ({"soc: implausible"}, RECEIPT, True),
    ],
)
def test_unexpected_and_missing_warnings_are_detected(told: set[str], acks: int, is_wrong: bool) -> None:
    expected = Expected(VEHICLE, device_id("EV_1"))
    payload = b'{"vehicleId":"EV_1","soc":65535,"kwhDeliveredDc":0.5,"timestamp":"2026-03-01T16:00:00Z"}'
    expected.add(SentItem(payload, "stored", 0, acks), frozenset(told))
    assert bool(expected.told_wrongly) == is_wrong
    extra, soc, kwh, *others = expected.values[START]
    assert (extra, soc, kwh, set(others)) == ({"refused": {"soc": 65535}}, None, 0.5, {None})


def test_profile_real_is_overridden_share_by_share() -> None:
    assert shares_of("plain", registers=None) == PLAIN
    assert shares_of("real", registers=None, fast=None) == REAL
    assert shares_of("real", registers=0.0) == Shares(**(vars(REAL) | {"registers": 0.0}))
    with pytest.raises(typer.BadParameter, match="--fast and --slow"):
        shares_of("real", fast=0.9)
