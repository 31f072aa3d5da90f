"""Every fault's expectation agrees with the bridge's decoder, over MQTT, inside an array and over HTTP."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from bridge.contract import KIND_OF
from bridge.delivery import Item
from bridge.errors import Rejected
from bridge.formats import decode_body, decode_message, ndjson
from bridge.formats.contract_json import encode
from bridge.formats.port import AcceptedWindow
from bridge.reading import Flagged, Reading
from bridge.store.verdict import reading_of
from simulator.faults import ALL_FAULTS, FaultRates, Faults
from simulator.fleet import Fleet
from simulator.malformed import ANYWHERE, MALFORMATIONS, Malformation
from simulator.message import EXPECTATIONS, Message
from simulator.profiles import PLAIN, REAL, Shares
from simulator.reject import kept_payload
from simulator.stored import Values
from simulator.stored import stored as row_due

START = datetime(2026, 3, 1, 22, 15, tzinfo=UTC)
WINDOW = AcceptedWindow(past=timedelta(days=90), future=timedelta(minutes=5))
VEHICLE = b'{"vehicleId":"EV_1","soc":72.5,"kwhDeliveredDc":0.25,"batteryTemp":38.6,"timestamp":"2026-03-01T22:15:00Z"}'
METER = b'{"meterId":"METER_1","kwhConsumedAc":0.3,"voltage":231.5,"timestamp":"2026-03-01T22:15:00Z"}'
TOPICS = {VEHICLE: "fleet/vehicle/EV_1/telemetry", METER: "fleet/meter/METER_1/telemetry"}
payloads = pytest.mark.parametrize("good", [VEHICLE, METER], ids=["vehicle", "meter"])


@payloads
@pytest.mark.parametrize("malformation", MALFORMATIONS, ids=range(len(MALFORMATIONS)))
def test_malformation_alone_is_rejected_for_its_reason_and_kept_raw(good: bytes, malformation: Malformation) -> None:
    spoiled = malformation.spoil(good)
    (rejected,) = decode_message(TOPICS[good], spoiled, WINDOW.at(START))
    assert isinstance(rejected, Rejected)
    assert rejected.reason == malformation.reason
    assert rejected.payload == spoiled


@payloads
@pytest.mark.parametrize("malformation", ANYWHERE, ids=range(len(ANYWHERE)))
def test_malformation_in_an_array_or_body_spares_its_neighbours(good: bytes, malformation: Malformation) -> None:
    spoiled = malformation.spoil(good)
    array = decode_message(TOPICS[good], b"[" + good + b"," + spoiled + b"]", WINDOW.at(START))
    body = decode_body(good + b"\n" + spoiled, WINDOW.at(START), ndjson.FORMAT)
    for stored, rejected in (array, body):
        assert isinstance(stored, Reading)
        assert isinstance(rejected, Rejected)
        assert rejected.reason == malformation.reason
        assert rejected.payload == kept_payload(spoiled, malformation.reason, in_array=rejected is array[1])
        assert rejected.device in ("EV_1", "METER_1")


def _sent(rates: FaultRates, minutes: int = 120, shares: Shares = PLAIN) -> tuple[Fleet, list[Message], list[bytes]]:
    fleet = Fleet(7, 10, 10, START, shares=shares)
    faults = Faults(7, rates, minutes, [False] * 20)
    messages: list[Message] = []
    readings = []
    for _ in range(minutes):
        fleet.step()
        for emission in fleet.emissions():
            readings.append(emission.payload)
            messages += faults.befall(emission.minute, emission.device, emission.payload)
    return fleet, [*messages, *faults.rest()], readings


def row_of(item: Item) -> tuple[datetime, Values]:
    """A decoded reading as a row of the history."""
    reading = reading_of(item)
    assert reading is not None
    return reading.timestamp, (reading.extra, *(getattr(reading, m.column) for m in reading.kind.measures))


def warnings_of(item: Item) -> set[str]:
    return {f"{w.field}: {w.code}" for w in item.warnings} if isinstance(item, Flagged) else set()


def test_no_fault_sends_each_reading_once_in_order() -> None:
    _, messages, readings = _sent(FaultRates())
    assert [message.payload for message in messages] == readings


@pytest.mark.parametrize("shares", [PLAIN, REAL], ids=["plain", "real"])
def test_all_faults_are_expected_as_the_bridge_decides(shares: Shares) -> None:
    fleet, messages, readings = _sent(ALL_FAULTS, 1500, shares)
    now = START + timedelta(minutes=1500)
    seen = set()
    for message in messages:
        device = fleet.devices[message.device]
        items = decode_message(f"fleet/{device.kind}/{device.id}/telemetry", message.payload, WINDOW.at(now))
        assert len(items) == len(message.items)
        for item, sent in zip(items, message.items, strict=True):
            expect = EXPECTATIONS[sent.expect]
            seen.add((expect, message.is_array))
            if isinstance(item, Rejected):
                assert item.reason == expect
                assert item.payload == kept_payload(sent.payload, expect, in_array=message.is_array)
            elif expect == "conflict":
                assert encode(item) == sent.payload  # type: ignore[arg-type]
            else:
                assert expect == "stored"
                at, values, warnings = row_due(KIND_OF[device.kind], sent.payload)
                assert row_of(item) == (at, values)
                assert warnings_of(item) == {w for w in warnings if not w.endswith("implausible")}
    stored = [i.payload for m in messages for i in m.items if EXPECTATIONS[i.expect] == "stored"]
    assert set(stored) == set(readings)
    assert {e for e, _ in seen} >= {
        "conflict",
        "timestamp_out_of_range",
        "invalid_field",
        "not_json",
        "device_mismatch",
    }
    assert ("invalid_field", True) in seen


def test_offline_device_sends_its_backlog_in_arrays_of_at_most_a_thousand() -> None:
    _, messages, readings = _sent(FaultRates(offline=0.01), 2500)
    arrays = [message for message in messages if message.is_array]
    assert max(len(message.items) for message in arrays) == 1000
    assert all(isinstance(json.loads(message.payload), list) for message in arrays)
    sent = [item.payload for m in messages for item in m.items if item.expect == 0]
    assert sorted(sent) == sorted(readings)


@pytest.mark.parametrize("rates", [FaultRates(late=0.1), FaultRates(out_of_order=0.1)], ids=["late", "out_of_order"])
def test_delays_change_the_order_and_nothing_else(rates: FaultRates) -> None:
    _, messages, readings = _sent(rates)
    sent = [message.payload for message in messages]
    assert sent != readings
    assert sorted(sent) == sorted(readings)
