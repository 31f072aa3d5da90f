"""The relay with a real Mosquitto and real NATS servers: acknowledged after the stream has it, nothing decoded away."""

import asyncio
import base64
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest
from nats.aio.msg import Msg
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.errors import Misconfigured
from bridge.formats.contract_json import encode
from bridge.streams.jetstream_target import JetStreamTarget
from bridge.streams.port import Done, Message
from local.mosquitto import Mosquitto
from local.nats import Nats
from mosquitto import provisioning
from mosquitto.broker import reload
from mosquitto.device import device as device_named
from tests.bridges import Health
from tests.devices import device, publish_with_paho
from tests.integration.test_jetstream import serving
from tests.mqtt_devices import connected, with_certificate
from tests.nats_devices import nats_client
from tests.nats_streams import kept, limit, unacknowledged
from tests.readings import minutes
from tests.relays import relaying, through_two
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
STREAM = "FLEET"
TOPIC = "fleet/vehicle/EV_1/telemetry"
MISTAKEN = ["/" + TOPIC, TOPIC + "/", "fleet/vehicle/EV_1/Telemetry", "Fleet/vehicle/EV_1/telemetry"]


def at(servers: Nats) -> dict[str, object]:
    """The settings of a relay into the stream."""
    return {
        "relay_target": "jetstream",
        "nats_url": servers.bridge_url,
        "nats_stream": STREAM,
        "nats_replicas": servers.replicas,
    }


async def _is(health: Health, metric: str, value: float) -> bool:
    return await health.metric(metric) == value


async def stored(servers: Nats, count: int) -> list[Msg]:
    """The first messages of the stream, as it has them."""
    client = await nats_client(servers.bridge_url)
    try:
        stream = client.jetstream()
        return [await stream.get_msg(STREAM, n + 1) for n in range(count)]  # type: ignore[misc]
    finally:
        await client.close()


async def test_messages_with_mistaken_topics_travel_under_the_topic_that_is_meant(
    broker: Mosquitto, node: Nats, database_url: str, db: Db
) -> None:
    """Mosquitto acknowledged them to the device, and nobody subscribed to them."""
    sent = [*zip(MISTAKEN, map(encode, minutes("EV_1", 4)), strict=True), (MISTAKEN[0], b"no reading")]
    owner = device_named("vehicle", "EV_1")
    provisioning.add_certificates(broker.provisioning, [owner], timedelta(days=1))
    reload(broker.provisioning)
    credentials = with_certificate(broker.provisioning.credentials(str(owner)))
    async with relaying(broker, **at(node)) as health:
        with connected(credentials, broker.tls_port) as client:
            for topic, payload in sent:
                assert await asyncio.to_thread(client.publish, topic, payload) == "Success"
        await until(lambda: _is(health, "fleet_relay_acks_total", 5))
        assert await health.metric("fleet_mqtt_mistaken_messages_total") == 5
        assert {message.subject for message in await stored(node, 5)} == {TOPIC.replace("/", ".")}
    async with serving(node, database_url, nats_stream=STREAM):
        await until(lambda: kept(node, 0, STREAM))
    assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == 4
    assert await db.fetchval("SELECT topic FROM rejected_message") == TOPIC


async def test_every_message_travels_with_its_topic_and_properties(
    broker: Mosquitto, node: Nats, database_url: str, db: Db
) -> None:
    odd = [f"fleet/meter/{name}/telemetry" for name in ("a b", "*", ">", "é", "EV.1", "x" * 5_000)]
    poison = [(topic, b"{}") for topic in odd] + [(TOPIC, b"no reading"), (TOPIC, b""), (TOPIC, b"\0" * 100_000)]
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ContentType, properties.ResponseTopic = "application/x-ndjson", "fleet/vehicle/EV_1/réceipts"
    properties.CorrelationData = b"\0\1\r\n"
    first, second = (encode(reading) for reading in minutes("EV_1", 2))
    async with relaying(broker, **at(node)) as health:
        await publish_with_paho(broker.url, "5", [m for m in poison if "*" not in m[0] and ">" not in m[0]])
        async with device(broker.url) as client:
            await client.publish(TOPIC, first + b"\n" + second, 1, properties=properties)
        count = len(poison) - 1
        await until(lambda: _is(health, "fleet_relay_acks_total", count))
        last = (await stored(node, count))[-1]
        assert last.headers is not None
        assert last.headers["Content-Type"] == "application/x-ndjson"
        assert last.headers["Response-Topic"] == "fleet/vehicle/EV_1/r%C3%A9ceipts"
        assert base64.b64decode(last.headers["Correlation-Data"]) == b"\0\1\r\n"
    async with serving(node, database_url, nats_stream=STREAM):
        await until(lambda: kept(node, 0, STREAM))
    assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == 2
    rejected = {(row["topic"], row["payload"]) for row in await db.fetch("SELECT topic, payload FROM rejected_message")}
    assert rejected == {m for m in poison if "*" not in m[0] and ">" not in m[0]}


async def test_messages_of_a_device_keep_their_order(broker: Mosquitto, cluster: Nats) -> None:
    sent = [(f"fleet/vehicle/EV_{n % 7}/telemetry", b"%d" % n) for n in range(3_000)]
    async with relaying(broker, **at(cluster)) as health:
        await publish_with_paho(broker.url, "5", sent)
        await until(lambda: _is(health, "fleet_relay_acks_total", len(sent)))
    found = [(m.subject.replace(".", "/"), m.data) for m in await stored(cluster, len(sent))]
    for topic in {topic for topic, _ in sent}:
        assert [p for t, p in found if t == topic] == [p for t, p in sent if t == topic]


async def test_nothing_is_acknowledged_while_the_cluster_is_away(broker: Mosquitto, node: Nats) -> None:
    async with relaying(broker, **at(node)) as health:
        node.nodes[0].process.kill()
        await publish_with_paho(broker.url, "5", [(TOPIC, encode(reading)) for reading in minutes("EV_1", 300)])
        await until(lambda: _not_ready(health))
        assert await health.metric("fleet_relay_acks_total") == 0
        node.nodes[0].start()
        await until(lambda: _is(health, "fleet_relay_acks_total", 300), timeout_s=60)
        assert await unacknowledged(node, STREAM) == 300


async def _not_ready(health: Health) -> bool:
    return not await health.ready()


async def test_acknowledgement_before_that_of_the_stream_would_be_noticed(
    broker: Mosquitto, node: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the test above, with the bug that it is for."""

    def publish_too_late(target: JetStreamTarget, message: Message, done: Done) -> None:
        done(None)
        publish(target, message, lambda _: None)

    publish = JetStreamTarget.publish
    monkeypatch.setattr(JetStreamTarget, "publish", publish_too_late)
    async with relaying(broker, **at(node)) as health:
        await limit(node, STREAM, max_msgs=5)
        await publish_with_paho(broker.url, "5", [(TOPIC, encode(reading)) for reading in minutes("EV_1", 10)])
        await until(lambda: _acknowledged_more(health, 5))
        assert await unacknowledged(node, STREAM) <= 5  # acknowledged, and kept nowhere


async def _acknowledged_more(health: Health, count: int) -> bool:
    return await health.metric("fleet_relay_acks_total") > count


async def test_full_stream_leaves_messages_at_the_broker(
    broker: Mosquitto, node: Nats, database_url: str, db: Db
) -> None:
    readings = [reading for name in ("EV_1", "EV_2", "EV_3") for reading in minutes(name, 200)]
    async with relaying(broker, **at(node)) as health:
        await limit(node, STREAM, max_msgs=100)
        await publish_with_paho(broker.url, "5", [(r.kind.topic(r.device), encode(r)) for r in readings])
        await until(lambda: kept(node, 100, STREAM))
        assert await health.metric("fleet_relay_acks_total") <= 100
        async with serving(node, database_url, nats_stream=STREAM):
            count = "SELECT count(*) FROM vehicle_telemetry_history"
            await until(lambda: _equal(db, count, len(readings)), timeout_s=60)
            await until(lambda: _acknowledged_more(health, len(readings) - 1), timeout_s=60)  # some of them twice
        assert await db.fetchval("SELECT count(*) FROM rejected_message") == 0


async def _equal(db: Db, query: str, count: int) -> bool:
    return bool(await db.fetchval(query) == count)


async def test_killed_relay_and_a_second_one_lose_and_double_nothing(
    tmp_path: Path, broker: Mosquitto, node: Nats
) -> None:
    names = [f"EV_{n}" for n in range(20)]
    sent = [(f"fleet/vehicle/{name}/telemetry", encode(reading)) for name in names for reading in minutes(name, 250)]
    await through_two(tmp_path, broker, at(node), sent)
    assert await unacknowledged(node, STREAM) == len(sent)  # each once, although both have published it


async def test_stream_of_the_clusters_own_mqtt_devices_is_refused(node: Nats, broker: Mosquitto) -> None:
    with pytest.raises(Misconfigured, match="FLEET_NATS_STREAM"):
        async with relaying(broker, **{**at(node), "nats_stream": "$MQTT_msgs"}):
            pass
