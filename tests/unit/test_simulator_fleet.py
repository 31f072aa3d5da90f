"""The fleet is deterministic, sends the contract's format, and its truth is exact."""

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from bridge.formats import decode_message
from bridge.formats.contract_json import encode
from bridge.formats.port import AcceptedWindow
from bridge.reading import parse_timestamp
from simulator.fleet import Assignment, Fleet

START = datetime(2026, 3, 1, 16, 0, tzinfo=UTC)
TIMES = AcceptedWindow(past=timedelta(days=3), future=timedelta(days=3)).at(START)


def _simulated(fleet: Fleet, minutes: int) -> tuple[list[bytes], list[Assignment]]:
    payloads: list[bytes] = []
    assignments: list[Assignment] = []
    for _ in range(minutes):
        assignments += fleet.step()
        payloads += [emission.payload for emission in fleet.emissions()]
    return payloads, assignments


def test_same_seed_and_start_give_the_same_bytes_and_assignments() -> None:
    assert _simulated(Fleet(5, 20, 25, START), 90) == _simulated(Fleet(5, 20, 25, START), 90)
    assert _simulated(Fleet(5, 20, 25, START), 5) != _simulated(Fleet(6, 20, 25, START), 5)


def test_payloads_are_what_the_wire_encodes() -> None:
    fleet = Fleet(3, 40, 40, START)
    for _ in range(720):
        fleet.step()
        for emission in fleet.emissions():
            device = fleet.devices[emission.device]
            topic = f"fleet/{device.kind}/{device.id}/telemetry"
            (reading,) = decode_message(topic, emission.payload, TIMES)
            assert encode(reading) == emission.payload  # type: ignore[arg-type]


def test_every_device_reports_once_a_minute_at_its_own_second() -> None:
    fleet = Fleet(1, 10, 10, START)
    times = defaultdict(list)
    for _ in range(3):
        fleet.step()
        dues = []
        for emission in fleet.emissions():
            reading = json.loads(emission.payload)
            times[emission.device].append(parse_timestamp(reading["timestamp"]))
            dues.append(emission.due_s)
            assert times[emission.device][-1] == START + timedelta(seconds=emission.due_s)
        assert dues == sorted(dues)
    assert len(times) == 20
    assert all(b - a == timedelta(minutes=1) for at in times.values() for a, b in pairwise(at))
    assert len({at[0].second for at in times.values()}) > 10


def test_truth_is_the_sum_of_the_readings_while_assigned() -> None:
    fleet = Fleet(2, 30, 30, START)
    payloads, assignments = _simulated(fleet, 600)
    number = {device.id: n for n, device in enumerate(fleet.devices)}
    since: dict[int, list[Assignment]] = defaultdict(list)
    for assignment in assignments:
        since[assignment.meter].append(assignment)
    delivered: Counter[int] = Counter()
    consumed: Counter[int] = Counter()
    for payload in payloads:
        reading = json.loads(payload)
        device = number[reading.get("vehicleId") or reading["meterId"]]
        micro = round(1e6 * reading.get("kwhDeliveredDc", reading.get("kwhConsumedAc")))
        delivered[device] += micro
        if device in since:
            at = parse_timestamp(reading["timestamp"])
            fed = [a.vehicle for a in since[device] if a.valid_from <= at][-1]
            if fed is not None:
                consumed[fed] += micro
    assert fleet.delivered_micro == [delivered[n] for n in range(60)]
    assert fleet.consumed_micro == [consumed[n] for n in range(30)]


def test_vehicles_wander_and_one_meter_never_changes_twice_at_a_time() -> None:
    _, assignments = _simulated(Fleet(4, 50, 50, START), 600)
    keys = Counter((assignment.meter, assignment.valid_from) for assignment in assignments)
    assert max(keys.values()) == 1
    assert len(assignments) > 50 + 10


def test_fleet_charges_drives_and_feeds_the_grid() -> None:
    payloads, _ = _simulated(Fleet(8, 60, 60, START), 720)
    vehicles = [reading for reading in map(json.loads, payloads) if "vehicleId" in reading]
    energies = [reading["kwhDeliveredDc"] for reading in vehicles]
    assert min(energies) < -0.05
    assert max(energies) > 0.3
    soc = defaultdict(list)
    for reading in vehicles:
        soc[reading["vehicleId"]].append((reading["soc"], reading["kwhDeliveredDc"]))
    falls_while_driving = [a[0] > b[0] and b[1] == 0 for s in soc.values() for a, b in pairwise(s)]
    assert any(falls_while_driving)


def test_a_fleet_with_fewer_meters_than_vehicles_shares_them() -> None:
    payloads, assignments = _simulated(Fleet(9, 20, 2, START), 120)
    assert len(payloads) == 22 * 120
    assert {assignment.meter for assignment in assignments} == {20, 21}
