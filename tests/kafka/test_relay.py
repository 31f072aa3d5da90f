"""The relay with a real Mosquitto and a real Kafka broker: acknowledged after Kafka has it, nothing decoded away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, TypeAlias

import asyncpg
import pytest

from bridge.formats.contract_json import encode
from bridge.relay import KafkaReceiver, Relay
from bridge.settings.relay import RelaySettings
from bridge.sources.mqtt_raw import Done, RawMessage
from local.kafka import Kafka
from local.mosquitto import Mosquitto
from local.ports import free_port
from tests.bridges import Health, ServingProcess
from tests.devices import publish_with_paho
from tests.kafka.test_kafka import serving as bridge_serving
from tests.kafka_records import Record, Topic
from tests.readings import minutes
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
TOPIC = "fleet/vehicle/EV_1/telemetry"


@pytest.fixture
def topic(shared_kafka: Kafka) -> Topic:
    return Topic(shared_kafka.url)


def settings(broker: Mosquitto, kafka: Kafka, topic: Topic, **others: object) -> dict[str, object]:
    return {
        "relay_mqtt_url": broker.bridge_url,
        "kafka_url": kafka.url,
        "kafka_sasl": "PLAIN",
        "kafka_topic": topic.name,
        "relay_http_port": free_port(),
        **others,
    }


@asynccontextmanager
async def serving(broker: Mosquitto, kafka: Kafka, topic: Topic, **others: object) -> AsyncIterator[Health]:
    """A ready relay in this event loop; stopped on exit as by SIGTERM."""
    fields = settings(broker, kafka, topic, **others)
    health, stop = Health(int(str(fields["relay_http_port"]))), asyncio.Event()
    running = asyncio.create_task(Relay(RelaySettings.model_validate(fields)).run(stop))
    try:
        await until(lambda: running.done() or health.ready())
        yield health
    finally:
        stop.set()
        await running


class RelayProcess(ServingProcess):
    """A relay, `python -m bridge relay`."""

    argv: ClassVar[list[str]] = ["bridge", "relay"]

    def __init__(self, directory: Path, broker: Mosquitto, kafka: Kafka, topic: Topic, name: str = "main") -> None:
        fields = settings(broker, kafka, topic, relay_name=name)
        port = int(str(fields.pop("relay_http_port")))
        super().__init__(f"relay-{name}", self.argv, directory, "relay_http_port", port, **fields)


async def _records(topic: Topic) -> list[Record]:
    return await asyncio.to_thread(topic.records)


async def test_every_message_travels_with_its_topic(broker: Mosquitto, shared_kafka: Kafka, topic: Topic) -> None:
    sent = [(TOPIC, b"no reading"), (TOPIC, b""), (TOPIC, b"\0" * 100_000), ("fleet/meter/a b/telemetry", b"{}")]
    sent += [(TOPIC, encode(reading)) for reading in minutes("EV_1", 50)]
    async with serving(broker, shared_kafka, topic) as health:
        await publish_with_paho(broker.url, "5", sent)
        await until(lambda: _is(health, "fleet_relay_acks_total", len(sent)))
        found = await _records(topic)
    assert sorted((record.key or b"", record.value or b"") for record in found) == sorted(
        (t.encode(), p) for t, p in sent
    )
    assert [r.value for r in found if r.key == TOPIC.encode()] == [p for t, p in sent if t == TOPIC]  # in order
    assert all(int(record.headers["received"]) > 0 for record in found)


async def _is(health: Health, metric: str, value: float) -> bool:
    return await health.metric(metric) == value


async def test_nothing_is_acknowledged_while_kafka_is_away(broker: Mosquitto, own_kafka: Kafka) -> None:
    topic = Topic(own_kafka.url)
    async with serving(broker, own_kafka, topic) as health:
        own_kafka.process.kill()
        await publish_with_paho(broker.url, "5", ((TOPIC, encode(reading)) for reading in minutes("EV_1", 300)))
        await until(lambda: _is(health, "fleet_relay_waiting", 300))
        assert await health.metric("fleet_relay_acks_total") == 0
        own_kafka.start()
        await until(lambda: _is(health, "fleet_relay_acks_total", 300), timeout_s=60)
        assert len({record.value for record in await _records(topic)}) == 300


async def test_acknowledgement_before_kafkas_would_be_noticed(
    broker: Mosquitto, own_kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the test above, with the bug that it is for."""

    def publish_too_late(receiver: KafkaReceiver, message: RawMessage, done: Done) -> None:
        done(None)
        publish(receiver, message, lambda _: None)

    publish = KafkaReceiver.publish
    monkeypatch.setattr(KafkaReceiver, "publish", publish_too_late)
    topic = Topic(own_kafka.url)
    async with serving(broker, own_kafka, topic) as health:
        own_kafka.process.kill()
        await publish_with_paho(broker.url, "5", [(TOPIC, encode(reading)) for reading in minutes("EV_1", 10)])
        await until(lambda: _is(health, "fleet_relay_acks_total", 10))  # acknowledged, and kept nowhere


async def test_killed_relay_and_a_second_one_lose_and_double_nothing(
    tmp_path: Path, broker: Mosquitto, shared_kafka: Kafka, topic: Topic, database_url: str, db: Db
) -> None:
    names = [f"EV_{n}" for n in range(20)]
    sent = [(f"fleet/vehicle/{name}/telemetry", encode(reading)) for name in names for reading in minutes(name, 250)]
    first, second = (RelayProcess(tmp_path, broker, shared_kafka, topic, name) for name in ("a", "b"))
    try:
        await first.start()
        await second.start()
        async with bridge_serving(shared_kafka, topic, database_url):
            publishing = asyncio.create_task(publish_with_paho(broker.url, "5", sent))
            await until(lambda: first.metric("fleet_relay_acks_total"))
            first.process.kill()
            await first.start()
            await publishing
            count = "SELECT count(*) FROM vehicle_telemetry_history"
            await until(lambda: _equal(db, count, len(sent)), timeout_s=60)
            await until(lambda: _is(first, "fleet_relay_waiting", 0))
            await until(lambda: _is(second, "fleet_relay_acks_total", len(sent)))
        assert await db.fetchval(count) == len(sent)
        assert await db.fetchval("SELECT count(*) FROM rejected_message") == 0
        assert await first.stop() == 0
        assert await second.stop() == 0
    finally:
        for relay in (first, second):
            if relay.process.running:
                relay.process.kill()


async def _equal(db: Db, query: str, count: int) -> bool:
    return bool(await db.fetchval(query) == count)
