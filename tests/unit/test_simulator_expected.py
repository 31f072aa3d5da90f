"""Contested readings: which of them the history has decides what else must be there."""

import json
from datetime import UTC, datetime

import pytest

from bridge.contract import VEHICLE
from bridge.reading import device_id
from simulator.expected import Expected, Reject
from simulator.ledger import ANSWERED, PUBACK, VIA_HTTP
from simulator.ledger_reader import ACK_BITS, SentItem
from simulator.stored import stored

AT = datetime(2026, 3, 1, 16, tzinfo=UTC)


def payload(kwh: float) -> bytes:
    fields = {"vehicleId": "EV_1", "soc": 50.0, "kwhDeliveredDc": kwh, "timestamp": "2026-03-01T16:00:00Z"}
    return json.dumps(fields, separators=(",", ":")).encode()


ONE, OTHER = payload(0.5), payload(9.0)
OVER_MQTT = SentItem(ONE, "contested", 0, ACK_BITS[PUBACK])
OVER_HTTP = SentItem(OTHER, "contested", VIA_HTTP, ACK_BITS[ANSWERED])


def expected(*items: SentItem, told: str = "") -> Expected:
    """What is expected after these; `told` is the warning about each of them, if any."""
    gathered = Expected(VEHICLE, device_id("EV_1"))
    for item in items:
        gathered.add(item, frozenset([told] if told else []))
    return gathered


@pytest.mark.parametrize(
    ("found", "conflict"),
    [
        (ONE, {Reject("http", "conflict", OTHER): ACK_BITS[ANSWERED]}),
        (OTHER, {Reject("mqtt", "conflict", ONE): ACK_BITS[PUBACK]}),
    ],
)
def test_contested_values_that_are_not_stored_are_a_conflict(found: bytes, conflict: dict[Reject, int]) -> None:
    due = expected(OVER_MQTT, OVER_HTTP)
    in_history = {AT: stored(VEHICLE, found).values}
    due.decide(in_history)
    assert due.rejects == conflict
    assert due.acks[AT] == ACK_BITS[PUBACK] | ACK_BITS[ANSWERED]
    assert due.values[AT] == in_history[AT]


def test_each_source_keeps_its_own_copy_of_a_conflict() -> None:
    due = expected(OVER_MQTT, OVER_HTTP, OVER_MQTT._replace(payload=OTHER), OVER_MQTT._replace(payload=OTHER, acks=0))
    due.decide({AT: stored(VEHICLE, ONE).values})
    assert set(due.rejects) == {Reject(source, "conflict", OTHER) for source in ("http", "mqtt")}


def test_uncontested_values_stay_the_first() -> None:
    due = expected(OVER_MQTT._replace(expect="stored"), OVER_HTTP._replace(expect="stored"))
    due.decide({AT: stored(VEHICLE, OTHER).values})
    assert due.values[AT] == stored(VEHICLE, ONE).values
    assert due.rejects == {}


@pytest.mark.parametrize(
    ("told", "found", "is_wrong"),
    [("kwhDeliveredDc: implausible", OTHER, False), ("", OTHER, True), ("", ONE, False)],
)
def test_only_the_stored_one_of_contested_readings_is_warned_of(told: str, found: bytes, is_wrong: bool) -> None:
    due = expected(OVER_HTTP, told=told)
    due.decide({AT: stored(VEHICLE, found).values})
    assert bool(due.told_wrongly) == is_wrong
