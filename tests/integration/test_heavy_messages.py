"""One device's heavy messages beside another device: its readings and its receipts do not wait for them."""

import json
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeAlias

import asyncpg
import mqtt5
import pytest

from bridge.contract import VEHICLE
from bridge.formats.contract_json import encode, encode_many
from bridge.mqtt.session import Messages
from local.mosquitto import Mosquitto
from tests.bridges import Health, serving
from tests.devices import Bare, bare_device
from tests.readings import minutes, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

ATTACKER, OTHER = "fleet/vehicle/ATTACKER/telemetry", "fleet/vehicle/OTHER/telemetry"
RECEIPT = "fleet/vehicle/OTHER/receipt"


class Stack(NamedTuple):
    broker: Mosquitto
    db: Db
    health: Health

    async def settled(self) -> float:
        """Items that were written, stored or rejected."""
        outcomes = ("stored", "duplicate", "rejected")
        return sum([await self.health.metric("fleet_readings_total", outcome=outcome) for outcome in outcomes])


@pytest.fixture
async def stack(broker: Mosquitto, database_url: str) -> AsyncIterator[Stack]:
    db = await asyncpg.connect(database_url)
    try:
        async with serving(broker.bridge_url, database_url) as health:
            yield Stack(broker, db, health)
    finally:
        await db.close()


def publish(number: int, topic: str, payload: bytes, response_topic: str | None = None, **others: bytes) -> bytes:
    return mqtt5.PublishPacket(
        topic,
        payload,
        qos=mqtt5.QoS.AT_LEAST_ONCE,
        packet_id=number,
        response_topic=response_topic,
        correlation_data=others.get("correlation"),
    ).write()


def reading() -> bytes:
    return encode(vehicle("OTHER", at=datetime.now(UTC) - timedelta(seconds=1)))


async def receipt_of(bare: Bare) -> dict[str, object]:
    """The next receipt; PUBACKs are skipped."""
    while not isinstance(event := await bare.receive(), Messages):
        pass
    (packet,) = event.packets
    receipt: dict[str, object] = json.loads(packet.payload)
    return receipt


def backlogs(count: int) -> Iterable[bytes]:
    """Messages of 1,000 readings."""
    readings = minutes("ATTACKER", count * 1_000)
    return (encode_many([next(readings) for _ in range(1_000)]) for _ in range(count))


def rejects(count: int) -> Iterable[bytes]:
    """Messages of 1,000 different elements that are no readings."""
    return (
        json.dumps([{"vehicleId": "ATTACKER", "x": n * 1_000 + i} for i in range(1_000)]).encode() for n in range(count)
    )


@pytest.mark.parametrize("attack", [backlogs, rejects])
async def test_reading_does_not_wait_for_heavy_messages_of_another_device(stack: Stack, attack: object) -> None:
    messages = list(attack(60))  # type: ignore[operator]
    async with bare_device(stack.broker.url) as attacker, bare_device(stack.broker.url) as other:
        await other.transport.subscribe([mqtt5.TopicFilter(RECEIPT)])
        attacker.transport.write(b"".join(publish(n, ATTACKER, m) for n, m in enumerate(messages, start=1)))
        await until(stack.settled)  # so that those that follow are in the broker, or behind it
        other.transport.write(publish(1, OTHER, reading(), RECEIPT))
        assert (await receipt_of(other))["stored"] == 1
        assert await stack.settled() < 60_001  # otherwise it was the last
        await until(lambda: _is_settled(stack, 60_001))


async def _is_settled(stack: Stack, count: int) -> bool:
    return await stack.settled() == count


async def test_receipt_that_is_too_large_has_the_reasons_only(stack: Stack) -> None:
    wrong = dict.fromkeys([measure.name for measure in VEHICLE.measures], "x")
    elements = [{"vehicleId": "OTHER", "timestamp": n, **wrong} for n in range(1_000)]
    async with bare_device(stack.broker.url) as other:
        await other.transport.subscribe([mqtt5.TopicFilter(RECEIPT)])
        other.transport.write(publish(1, OTHER, json.dumps(elements).encode(), RECEIPT))
        receipt = await receipt_of(other)
    assert receipt["stored"] == 0
    assert receipt["rejected"] == [{"index": n, "reason": "invalid_field"} for n in range(1_000)]


@pytest.mark.parametrize(
    ("response_topic", "correlation"),
    [(RECEIPT, b"c" * 1_025), (RECEIPT + "r" * 512, b"c"), (RECEIPT + "r" * 60_000, b"c" * 60_000)],
    ids=["correlation", "topic", "both"],
)
async def test_request_with_large_properties_gets_no_receipt(
    stack: Stack, response_topic: str, correlation: bytes
) -> None:
    async with bare_device(stack.broker.url) as other:
        await other.transport.subscribe([mqtt5.TopicFilter(topic) for topic in {RECEIPT, response_topic}])
        other.transport.write(publish(1, OTHER, reading(), response_topic, correlation=correlation))
        other.transport.write(publish(2, OTHER, reading(), RECEIPT, correlation=b"c" * 1_024))
        assert (await receipt_of(other))["stored"] == 1
    assert await stack.settled() == 2
    assert await stack.health.metric("fleet_mqtt_receipts_total") == 1


async def test_of_a_flood_with_qos_0_the_share_is_stored_and_the_rest_counted(stack: Stack) -> None:
    count = 12_000
    readings = minutes("ATTACKER", count)
    async with bare_device(stack.broker.url) as attacker, bare_device(stack.broker.url) as other:
        attacker.send(*(mqtt5.PublishPacket(ATTACKER, encode(each)) for each in readings))
        others = enumerate(minutes("OTHER", 6_000), start=1)
        other.transport.write(b"".join(publish(number, OTHER, encode(each)) for number, each in others))

        async def all_taken() -> bool:
            discarded = await stack.health.metric("fleet_mqtt_discarded_messages_total")
            return discarded + await stack.settled() == count + 6_000

        await until(all_taken, "every message is stored or counted", timeout_s=60)
    rows = await stack.db.fetch("SELECT vehicle_id, count(*) AS n FROM vehicle_telemetry_history GROUP BY 1")
    stored = {row["vehicle_id"]: row["n"] for row in rows}
    assert stored["OTHER"] == 6_000  # with QoS 1: however many, none is discarded
    assert 5_000 <= stored["ATTACKER"] < 11_000
