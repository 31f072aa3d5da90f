"""The relay with a real Mosquitto and a real Kafka broker: acknowledged after Kafka has it, nothing decoded away."""

import asyncio
import shutil
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from bridge.formats.contract_json import encode
from bridge.streams.kafka_target import KafkaTarget
from bridge.streams.port import Done, Message
from local.kafka import Kafka
from local.mosquitto import Mosquitto
from tests.bridges import Health
from tests.devices import publish_with_paho
from tests.kafka.test_kafka import serving as bridge_serving
from tests.kafka_records import Record, Topic
from tests.readings import minutes
from tests.relays import relaying, through_two
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
TOPIC = "fleet/vehicle/EV_1/telemetry"


@pytest.fixture
def topic(shared_kafka: Kafka) -> Topic:
    return Topic(shared_kafka.url)


def at(kafka: Kafka, topic: Topic) -> dict[str, object]:
    """The settings of a relay into the topic."""
    return {"relay_target": "kafka", "kafka_url": kafka.url, "kafka_sasl": "PLAIN", "kafka_topic": topic.name}


async def _records(topic: Topic) -> list[Record]:
    return await asyncio.to_thread(topic.records)


async def test_every_message_travels_with_its_topic(broker: Mosquitto, shared_kafka: Kafka, topic: Topic) -> None:
    sent = [(TOPIC, b"no reading"), (TOPIC, b""), (TOPIC, b"\0" * 100_000), ("fleet/meter/a b/telemetry", b"{}")]
    sent += [(TOPIC, encode(reading)) for reading in minutes("EV_1", 50)]
    async with relaying(broker, **at(shared_kafka, topic)) as health:
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
    async with relaying(broker, **at(own_kafka, topic)) as health:
        own_kafka.process.kill()
        await publish_with_paho(broker.url, "5", ((TOPIC, encode(reading)) for reading in minutes("EV_1", 300)))
        await until(lambda: _is(health, "fleet_relay_waiting", 300))
        assert await health.metric("fleet_relay_acks_total") == 0
        own_kafka.start()
        await until(lambda: _is(health, "fleet_relay_acks_total", 300), timeout_s=60)
        assert len({record.value for record in await _records(topic)}) == 300


async def test_relay_goes_on_with_a_broker_that_has_forgotten_records(broker: Mosquitto, own_kafka: Kafka) -> None:
    """The numbers by which a producer is idempotent do not follow those that the broker knows."""
    topic, old = Topic(own_kafka.url), own_kafka.store.with_suffix(".old")
    kept, forgotten, later = ([(TOPIC, encode(reading)) for reading in minutes(name, 30)] for name in "abc")
    async with relaying(broker, **at(own_kafka, topic)) as health:
        await publish_with_paho(broker.url, "5", kept)
        await until(lambda: _is(health, "fleet_relay_acks_total", 30))
        own_kafka.stop()
        shutil.copytree(own_kafka.store, old)
        own_kafka.start()
        await publish_with_paho(broker.url, "5", forgotten)
        await until(lambda: _is(health, "fleet_relay_acks_total", 60), timeout_s=60)
        own_kafka.stop()
        shutil.rmtree(own_kafka.store)
        old.rename(own_kafka.store)
        own_kafka.start()
        await publish_with_paho(broker.url, "5", later)
        await until(lambda: _is(health, "fleet_relay_acks_total", 90), timeout_s=120)
        found = await _records(topic)
    assert {record.value for record in found} == {payload for _, payload in [*kept, *later]}


async def test_acknowledgement_before_kafkas_would_be_noticed(
    broker: Mosquitto, own_kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the test above, with the bug that it is for."""

    def publish_too_late(target: KafkaTarget, message: Message, done: Done) -> None:
        done(None)
        publish(target, message, lambda _: None)

    publish = KafkaTarget.publish
    monkeypatch.setattr(KafkaTarget, "publish", publish_too_late)
    topic = Topic(own_kafka.url)
    async with relaying(broker, **at(own_kafka, topic)) as health:
        own_kafka.process.kill()
        await publish_with_paho(broker.url, "5", [(TOPIC, encode(reading)) for reading in minutes("EV_1", 10)])
        await until(lambda: _is(health, "fleet_relay_acks_total", 10))  # acknowledged, and kept nowhere


async def test_killed_relay_and_a_second_one_lose_and_double_nothing(
    tmp_path: Path, broker: Mosquitto, shared_kafka: Kafka, topic: Topic, database_url: str, db: Db
) -> None:
    names = [f"EV_{n}" for n in range(20)]
    sent = [(f"fleet/vehicle/{name}/telemetry", encode(reading)) for name in names for reading in minutes(name, 250)]
    async with bridge_serving(shared_kafka, topic, database_url):
        await through_two(tmp_path, broker, at(shared_kafka, topic), sent)
        await until(lambda: _equal(db, "SELECT count(*) FROM vehicle_telemetry_history", len(sent)), timeout_s=60)
    assert await db.fetchval("SELECT count(*) FROM rejected_message") == 0


async def _equal(db: Db, query: str, count: int) -> bool:
    return bool(await db.fetchval(query) == count)
