"""The JetStream source with real servers: one node, or three."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from bridge.errors import Misconfigured
from bridge.formats.contract_json import encode
from bridge.service import Bridge
from bridge.settings.bridge import BridgeSettings
from bridge.settings.jetstream import JetStreamSettings
from bridge.sources.jetstream_reading import Arrival, Reading
from bridge.store.migrate import migrate
from local.nats import Nats
from local.postgres import Postgres
from tests.bridges import BridgeProcess, Health, in_this_loop
from tests.nats_devices import MqttDevice, nats_client
from tests.nats_streams import kept, settings, unacknowledged
from tests.readings import meter, minutes, vehicle
from tests.until import until, wait_until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@asynccontextmanager
async def serving(servers: Nats, database_url: str, **others: object) -> AsyncIterator[Health]:
    """A ready bridge in this event loop; stopped on exit as by SIGTERM."""
    fields = settings(servers, database_url, **others)
    bridge = Bridge(BridgeSettings.model_validate(fields), JetStreamSettings.model_validate(fields))
    async with in_this_loop(bridge.run, fields["bridge_http_port"]) as health:
        yield health


@asynccontextmanager
async def process(directory: Path, servers: Nats, database_url: str, **others: object) -> AsyncIterator[BridgeProcess]:
    fields = settings(servers, database_url, **others)
    del fields["database_url"], fields["bridge_http_port"]
    bridge = BridgeProcess(directory, "mqtt://127.0.0.1:1884", database_url, **fields)
    try:
        await bridge.start()
        yield bridge
    finally:
        if bridge.process.running:
            bridge.process.kill()


async def devices(url: str, client_id: str, work: Callable[[MqttDevice], None]) -> list[tuple[str, bytes]]:
    """Do what `work` says on one MQTT connection; what it received."""

    def connected() -> list[tuple[str, bytes]]:
        with MqttDevice(url, client_id) as device:
            work(device)
            return device.received

    return await asyncio.to_thread(connected)


async def rows(db: Db) -> int:
    return int(await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history"))


async def test_readings_of_mqtt_devices_are_stored_then_acknowledged(node: Nats, database_url: str, db: Db) -> None:
    async with serving(node, database_url) as health:
        readings = [*minutes("EV_1", 300), *minutes("EV_2", 300)]
        await devices(node.mqtt_urls[0], "d", lambda d: d.publish([*readings, meter("METER_1")]))
        await until(lambda: _is(health, "fleet_jetstream_acks_total", 601))
        assert await rows(db) == 600
        assert await db.fetchval("SELECT count(*) FROM meter_telemetry_history") == 1
        await until(lambda: kept(node, 0))
        assert await health.metric("fleet_jetstream_out_of_order_total") == 0


async def _is(health: Health, metric: str, value: float) -> bool:
    return await health.metric(metric) == value


async def test_readings_published_while_no_bridge_runs_are_stored_later(node: Nats, database_url: str, db: Db) -> None:
    async with serving(node, database_url):
        pass
    await devices(node.mqtt_urls[0], "d", lambda d: d.publish(minutes("EV_1", 500)))
    assert await unacknowledged(node) == 500
    async with serving(node, database_url):
        await until(lambda: kept(node, 0))
    assert await rows(db) == 500


async def test_what_cannot_be_a_reading_is_kept_and_delays_no_other(node: Nats, database_url: str, db: Db) -> None:
    topic = "fleet/vehicle/EV_1/telemetry"
    poison = [(topic, b"no reading"), (topic, b""), ("fleet/vehicle/EV.1/telemetry", b"{}"), (topic, b"\0" * 100_000)]
    async with serving(node, database_url):
        good = encode(vehicle("EV_1"))
        await devices(node.mqtt_urls[0], "d", lambda d: d.send([*poison, (topic, good)]))
        await until(lambda: kept(node, 0))
    assert await rows(db) == 1
    rejected = await db.fetch("SELECT topic, payload, source FROM rejected_message")
    assert {(row["topic"], row["payload"]) for row in rejected} == set(poison)
    assert {row["source"] for row in rejected} == {"jetstream"}


async def test_device_gets_the_receipt_that_its_topic_asks_for(node: Nats, database_url: str) -> None:
    topic = "fleet/vehicle/EV_1/telemetry/no.7"

    def ask(device: MqttDevice) -> None:
        device.subscribe("fleet/vehicle/EV_1/receipt/+")
        device.send([(topic, encode(vehicle("EV_1"))), (topic, b"no reading")])

    async with serving(node, database_url):
        with MqttDevice(node.mqtt_urls[0], "d") as device:
            await asyncio.to_thread(ask, device)
            await until(lambda: len(device.received) == 2)
    assert {topic for topic, _ in device.received} == {"fleet/vehicle/EV_1/receipt/no.7"}
    stored, rejected = (json.loads(payload) for _, payload in device.received)
    assert stored == {"stored": 1, "duplicates": 0, "rejected": []}
    assert rejected["rejected"][0]["reason"].startswith("not_json")


async def test_stream_of_natss_own_protocol_is_read_with_its_content_type(
    node: Nats, database_url: str, db: Db
) -> None:
    async with serving(node, database_url, nats_stream="FLEET"):
        client = await nats_client(node.gateway_url)
        try:
            lines = b"\n".join(map(encode, minutes("EV_1", 3)))
            stream = client.jetstream()
            answer = await stream.publish(
                "fleet.vehicle.EV_1.telemetry", lines, headers={"Content-Type": "application/x-ndjson"}
            )
            assert answer.stream == "FLEET"
            await until(lambda: kept(node, 0, "FLEET"))
        finally:
            await client.close()
    assert await rows(db) == 3


async def test_device_hears_its_rejects(node: Nats, database_url: str) -> None:
    topic = "fleet/vehicle/EV_1/telemetry"

    def work(device: MqttDevice) -> None:
        device.subscribe("fleet/vehicle/EV_1/rejects")
        device.send([(topic, b"no reading"), (topic, encode(vehicle("EV_1")))])
        wait_until(lambda: device.received)

    async with serving(node, database_url):
        heard = await devices(node.mqtt_urls[0], "d", work)
    assert [topic for topic, _ in heard] == ["fleet/vehicle/EV_1/rejects"]
    notice = json.loads(heard[0][1])
    assert notice["reading"] == "no reading"
    assert notice["reason"].startswith("not_json")


async def test_device_account_may_not_acknowledge_or_change_the_stream(node: Nats, database_url: str) -> None:
    async with serving(node, database_url):
        client = await nats_client(node.gateway_url)
        try:
            refused: list[str] = []
            client._error_cb = lambda error: _note(refused, error)
            await client.publish("$JS.API.STREAM.PURGE.$MQTT_msgs", b"")
            await client.publish("$JS.ACK.$MQTT_msgs.fleet-bridge.1.1.1.1.0", b"+ACK")
            await until(lambda: len(refused) == 2)
        finally:
            await client.close()
    assert all("permissions violation" in reason for reason in refused)


async def _note(problems: list[str], error: Exception) -> None:
    problems.append(str(error))


@pytest.fixture
def own_database(tmp_path: Path) -> Iterator[Postgres]:
    """A database server of the test's own, which it may kill."""
    server = Postgres(tmp_path / "own" / "server")
    server.start()
    server.ensure_database("fleet", "fleet")
    yield server
    server.stop()


async def test_database_outage_leaves_readings_in_the_stream(node: Nats, own_database: Postgres) -> None:
    url = own_database.url("fleet", "fleet")
    await migrate(url)
    async with serving(node, url, buffer_capacity=200, nats_window=400, batch_size=100) as health:
        own_database.process.kill()
        await devices(node.mqtt_urls[0], "d", lambda d: d.publish(minutes("EV_1", 2_000)))
        await until(lambda: health.metric("fleet_store_unavailable_total"))
        assert await unacknowledged(node) == 2_000
        assert await health.metric("fleet_jetstream_messages_total") <= 1_400  # the rest was not requested
        own_database.start()
        await until(lambda: kept(node, 0))
        connection = await asyncpg.connect(url)
        try:
            assert await rows(connection) == 2_000
        finally:
            await connection.close()


@pytest.mark.parametrize("too_early", [False, True])
async def test_nothing_is_acknowledged_before_its_commit(
    too_early: bool, node: Nats, database_url: str, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time with the bug that the first is for."""

    def hand_over_too_early(reading: Reading, arrival: Arrival) -> None:
        reading._to_ack = arrival.last
        hand_over(reading, arrival)

    hand_over = Reading._hand_over
    if too_early:
        monkeypatch.setattr(Reading, "_hand_over", hand_over_too_early)
    async with serving(node, database_url) as health:
        async with db.transaction():
            await db.execute("LOCK TABLE vehicle_telemetry_history IN ACCESS EXCLUSIVE MODE")  # so that none commits
            await devices(node.mqtt_urls[0], "d", lambda d: d.publish(minutes("EV_1", 100)))
            await until(lambda: _is(health, "fleet_jetstream_messages_total", 100))
            if too_early:
                await until(lambda: kept(node, 0))
            assert await unacknowledged(node) == (0 if too_early else 100)
            assert await rows(db) == 0
        await until(lambda: kept(node, 0))
        await until(lambda: _all_stored(db, 100))


async def _all_stored(db: Db, count: int) -> bool:
    return await rows(db) == count


async def test_killed_bridge_is_replaced_without_loss(tmp_path: Path, node: Nats, database_url: str, db: Db) -> None:
    readings = [r for n in range(20) for r in minutes(f"EV_{n}", 500)]
    async with process(tmp_path, node, database_url) as first:
        publishing = asyncio.create_task(devices(node.mqtt_urls[0], "d", lambda d: d.publish(readings)))
        await until(lambda: rows(db))
        first.process.kill()
        assert await rows(db) < len(readings)
        async with process(tmp_path, node, database_url) as second:
            await publishing
            await until(lambda: kept(node, 0), timeout_s=60)
            assert await rows(db) == len(readings)
            assert await second.stop() == 0


async def test_one_of_three_nodes_is_killed_without_loss(cluster: Nats, database_url: str, db: Db) -> None:
    async with serving(cluster, database_url) as health:
        await devices(cluster.mqtt_urls[0], "d", lambda d: d.publish(minutes("EV_1", 300)))
        await until(lambda: health.metric("fleet_jetstream_acks_total"))
        for node in cluster.nodes:  # the leaders of stream and consumer, and the bridge's own server, are among them
            node.process.kill()
            other = next(url for url in cluster.mqtt_urls if str(node.mqtt_port) not in url)
            name = f"EV_{node.name}"
            await until(lambda other=other, name=name: _published(other, name), timeout_s=60)
            await until(lambda name=name: _stored(db, name, 200), timeout_s=60)
            node.process.start()
            node.process.wait_until(lambda node=node: node.is_open)  # type: ignore[misc]
        await until(lambda: kept(cluster, 0), timeout_s=60)


async def _published(url: str, name: str) -> bool:
    """Publish to a cluster that may be choosing its leaders."""
    try:
        await devices(url, name, lambda d: d.publish(minutes(name, 200)))
    except (OSError, AssertionError, RuntimeError, ValueError):
        return False
    return True


async def _stored(db: Db, name: str, count: int) -> bool:
    stored = await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history WHERE vehicle_id = $1", name)
    return bool(stored == count)


async def test_stream_with_other_replicas_is_refused(node: Nats, database_url: str) -> None:
    client = await nats_client(node.bridge_url)
    try:
        await client.jetstream().add_stream(name="FLEET", subjects=["fleet.*.*.telemetry"], num_replicas=1)
    finally:
        await client.close()
    fields = settings(node, database_url, nats_stream="FLEET", nats_replicas=3)
    bridge = Bridge(BridgeSettings.model_validate(fields), JetStreamSettings.model_validate(fields))
    with pytest.raises(Misconfigured, match="1 replicas instead of 3"):
        await bridge.run(asyncio.Event())
