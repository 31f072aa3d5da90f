"""The Kafka source with a real broker: what is published is in the history exactly once, also after a SIGKILL."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import asyncpg
import pytest

from bridge.errors import Misconfigured
from bridge.formats.contract_json import encode
from bridge.service import Bridge
from bridge.settings.bridge import BridgeSettings
from bridge.settings.kafka import KafkaSettings
from bridge.sources.kafka import Arrival, KafkaSource
from bridge.store.migrate import migrate
from local import kafka
from local.kafka import Kafka
from local.ports import free_port
from local.postgres import Postgres
from tests.bridges import BridgeProcess, Health, in_this_loop
from tests.kafka_records import Record, Topic
from tests.readings import meter, minutes, now_minute, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
KEY = b"fleet/vehicle/EV_1/telemetry"


@pytest.fixture
def topic(shared_kafka: Kafka) -> Topic:
    return Topic(shared_kafka.url)


def settings(broker: Kafka, topic: Topic, database_url: str, **others: object) -> dict[str, object]:
    return {
        "source": "kafka",
        "kafka_url": broker.url,
        "kafka_sasl": "PLAIN",
        "kafka_topic": topic.name,
        "kafka_group": topic.name,
        "kafka_session_timeout_ms": 2_000,
        "database_url": database_url,
        "bridge_http_port": free_port(),
        **others,
    }


def bridge_of(fields: dict[str, object]) -> Bridge:
    return Bridge(BridgeSettings.model_validate(fields), KafkaSettings.model_validate(fields))


@asynccontextmanager
async def serving(broker: Kafka, topic: Topic, database_url: str, **others: object) -> AsyncIterator[Health]:
    """A ready bridge in this event loop; stopped on exit as by SIGTERM."""
    fields = settings(broker, topic, database_url, **others)
    async with in_this_loop(bridge_of(fields).run, fields["bridge_http_port"]) as health:
        yield health


@asynccontextmanager
async def process(
    directory: Path, broker: Kafka, topic: Topic, database_url: str, **others: object
) -> AsyncIterator[BridgeProcess]:
    fields = settings(broker, topic, database_url, **others)
    del fields["database_url"], fields["bridge_http_port"]
    bridge = BridgeProcess(directory, "mqtt://127.0.0.1:1884", database_url, **fields)
    try:
        await bridge.start()
        yield bridge
    finally:
        if bridge.process.running:
            bridge.process.kill()


async def rows(db: Db) -> int:
    return int(await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history"))


async def committed(topic: Topic, count: int) -> bool:
    return await asyncio.to_thread(topic.committed, topic.name) == count


async def test_readings_are_stored_then_their_offsets_committed(
    shared_kafka: Kafka, topic: Topic, database_url: str, db: Db
) -> None:
    async with serving(shared_kafka, topic, database_url) as health:
        readings = [*minutes("EV_1", 300), *minutes("EV_2", 300), meter("METER_1")]
        await asyncio.to_thread(topic.publish, readings)
        await until(lambda: committed(topic, 601))
        assert await rows(db) == 600
        assert await db.fetchval("SELECT count(*) FROM meter_telemetry_history") == 1
        assert await health.metric("fleet_kafka_acks_total") == 601
        assert await health.metric("fleet_kafka_partitions") == 12
        await until(lambda: _is(health, "fleet_kafka_lag_records", 0))


async def _is(health: Health, metric: str, value: float) -> bool:
    return await health.metric(metric) == value


async def test_readings_published_while_no_bridge_runs_are_stored_later(
    shared_kafka: Kafka, topic: Topic, database_url: str, db: Db
) -> None:
    topic.create(4)
    await asyncio.to_thread(topic.publish, minutes("EV_1", 500))
    async with serving(shared_kafka, topic, database_url):
        await until(lambda: committed(topic, 500))
    await asyncio.to_thread(topic.publish, minutes("EV_2", 500))
    async with serving(shared_kafka, topic, database_url) as health:
        await until(lambda: committed(topic, 1_000))
        assert await health.metric("fleet_kafka_messages_total") == 500  # only those after the committed offsets
    assert await rows(db) == 1_000


async def test_what_cannot_be_a_reading_is_kept_and_delays_no_other(
    shared_kafka: Kafka, topic: Topic, database_url: str, db: Db
) -> None:
    poison = [
        Record(KEY, b"no reading"),
        Record(KEY, None),
        Record(None, b"{}"),
        Record(b"\xff\xfe\0", b"{}"),
        Record(KEY, b"\0" * 100_000),
    ]
    async with serving(shared_kafka, topic, database_url):
        await asyncio.to_thread(topic.send, [*poison, Record(KEY, encode(vehicle("EV_1")))])
        await until(lambda: committed(topic, 6))
    assert await rows(db) == 1
    rejected = await db.fetch("SELECT payload, source FROM rejected_message")
    assert sorted(row["payload"] for row in rejected) == sorted(record.value or b"" for record in poison)
    assert {row["source"] for row in rejected} == {"kafka"}


async def test_content_type_selects_the_format(shared_kafka: Kafka, topic: Topic, database_url: str, db: Db) -> None:
    async with serving(shared_kafka, topic, database_url):
        lines = b"\n".join(map(encode, minutes("EV_1", 3)))
        await asyncio.to_thread(topic.send, [Record(KEY, lines, {"content-type": b"application/x-ndjson"})])
        await until(lambda: committed(topic, 1))
    assert await rows(db) == 3


async def test_record_with_a_token_gets_a_receipt(shared_kafka: Kafka, topic: Topic, database_url: str) -> None:
    receipts = Topic(shared_kafka.url)
    receipts.create(1)
    async with serving(shared_kafka, topic, database_url, kafka_receipts=receipts.name):
        good, bad = Record(KEY, encode(vehicle("EV_1")), {"receipt": b"7"}), Record(KEY, b"no", {"receipt": b"8"})
        await asyncio.to_thread(topic.send, [good, bad])
        found = await until(lambda: _records(receipts, 2))
    assert [(r.key, r.headers["receipt"]) for r in found] == [(KEY, b"7"), (KEY, b"8")]
    stored, rejected = (json.loads(r.value) for r in found)
    assert stored == {"stored": 1, "duplicates": 0, "rejected": []}
    assert rejected["rejected"][0]["reason"].startswith("not_json")


async def _records(topic: Topic, count: int) -> list[Record]:
    found = await asyncio.to_thread(topic.records)
    return found if len(found) >= count else []


@pytest.fixture
def own_database(tmp_path: Path) -> Iterator[Postgres]:
    """A database server of the test's own, which it may kill."""
    server = Postgres(tmp_path / "own" / "server")
    server.start()
    server.ensure_database("fleet", "fleet")
    yield server
    server.stop()


async def test_database_outage_leaves_readings_in_the_topic(
    shared_kafka: Kafka, topic: Topic, own_database: Postgres
) -> None:
    url = own_database.url("fleet", "fleet")
    await migrate(url)
    async with serving(shared_kafka, topic, url, buffer_capacity=200, batch_size=100) as health:
        own_database.process.kill()
        await asyncio.to_thread(topic.publish, minutes("EV_1", 5_000))
        await until(lambda: health.metric("fleet_store_unavailable_total"))
        assert await asyncio.to_thread(topic.committed, topic.name) == 0
        assert await health.metric("fleet_kafka_messages_total") < 5_000  # the rest was not fetched
        own_database.start()
        await until(lambda: committed(topic, 5_000))
        connection = await asyncpg.connect(url)
        try:
            assert await rows(connection) == 5_000
        finally:
            await connection.close()


async def test_offset_committed_before_the_database_would_be_noticed(
    shared_kafka: Kafka, topic: Topic, own_database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the test above, with the bug that it is for."""

    def hand_over_too_early(source: KafkaSource, arrival: Arrival) -> None:
        for partition, end in arrival.ends.items():
            partition.settled = end
        hand_over(source, arrival)

    hand_over = KafkaSource._hand_over
    monkeypatch.setattr(KafkaSource, "_hand_over", hand_over_too_early)
    url = own_database.url("fleet", "fleet")
    await migrate(url)
    async with serving(shared_kafka, topic, url):
        own_database.process.kill()
        await asyncio.to_thread(topic.publish, minutes("EV_1", 100))
        await until(lambda: committed(topic, 100))  # committed, and stored nowhere


async def test_two_bridges_share_the_devices_and_one_takes_over_within_seconds(
    tmp_path: Path, shared_kafka: Kafka, topic: Topic, database_url: str, db: Db
) -> None:
    topic.create(8)
    names = [f"EV_{n}" for n in range(32)]
    async with (
        process(tmp_path, shared_kafka, topic, database_url) as first,
        process(tmp_path, shared_kafka, topic, database_url) as second,
    ):
        await until(lambda: _is(first, "fleet_kafka_partitions", 4))
        await until(lambda: _is(second, "fleet_kafka_partitions", 4))
        await asyncio.to_thread(topic.publish, [r for name in names for r in minutes(name, 50)])
        await until(lambda: _are(db, 32 * 50))
        assert await first.metric("fleet_kafka_acks_total") + await second.metric("fleet_kafka_acks_total") == 32 * 50
        assert min(await first.metric("fleet_kafka_acks_total"), await second.metric("fleet_kafka_acks_total")) > 0
        first.process.kill()
        killed_at = time.monotonic()
        later = now_minute()
        await asyncio.to_thread(topic.publish, [r for name in names for r in minutes(f"{name}_b", 1, later)])
        await asyncio.to_thread(topic.publish, [r for name in names for r in minutes(name, 52, later)])
        await until(lambda: committed(topic, 32 * 50 + 32 + 32 * 52))
        assert time.monotonic() - killed_at < 20
        assert await second.stop() == 0
    assert await rows(db) == await db.fetchval("SELECT count(DISTINCT (vehicle_id, ts)) FROM vehicle_telemetry_history")
    assert await db.fetchval("SELECT count(DISTINCT vehicle_id) FROM vehicle_telemetry_history") == 64


async def _are(db: Db, count: int) -> bool:
    return await rows(db) == count


async def test_killed_bridge_is_replaced_without_loss(
    tmp_path: Path, shared_kafka: Kafka, topic: Topic, database_url: str, db: Db
) -> None:
    topic.create(4)
    readings = [r for n in range(20) for r in minutes(f"EV_{n}", 2_000)]
    await asyncio.to_thread(topic.publish, readings)
    async with process(tmp_path, shared_kafka, topic, database_url, batch_size=100) as first:
        await until(lambda: rows(db))
        first.process.kill()
        assert await rows(db) < len(readings)
        async with process(tmp_path, shared_kafka, topic, database_url) as second:
            await until(lambda: committed(topic, len(readings)), timeout_s=60)
            assert await rows(db) == len(readings)
            assert await second.stop() == 0


async def test_bridge_killed_in_the_middle_of_a_rebalance_loses_nothing(
    tmp_path: Path, shared_kafka: Kafka, topic: Topic, database_url: str, db: Db
) -> None:
    topic.create(8)
    readings = [r for n in range(40) for r in minutes(f"EV_{n}", 500)]
    async with process(tmp_path, shared_kafka, topic, database_url, batch_size=100) as staying:
        publishing = asyncio.create_task(asyncio.to_thread(topic.publish, readings))
        await until(lambda: rows(db))
        for _ in range(2):
            before = await staying.metric("fleet_kafka_rebalances_total")
            fields = settings(shared_kafka, topic, "unused")
            del fields["database_url"], fields["bridge_http_port"]
            joining = BridgeProcess(tmp_path, "mqtt://127.0.0.1:1884", database_url, **fields)
            joining.process.start()
            await until(lambda before=before: _rises(staying, "fleet_kafka_rebalances_total", before))
            joining.process.kill()  # it has joined the group and may not have its partitions yet
        await publishing
        await until(lambda: committed(topic, len(readings)), timeout_s=60)
        assert await rows(db) == len(readings)
        assert await staying.stop() == 0


async def _rises(health: Health, metric: str, before: float) -> bool:
    return await health.metric(metric) > before


async def test_killed_broker_delays_and_loses_nothing(own_kafka: Kafka, database_url: str, db: Db) -> None:
    topic = Topic(own_kafka.url)
    async with serving(own_kafka, topic, database_url) as health:
        await asyncio.to_thread(topic.publish, minutes("EV_1", 200))
        await until(lambda: _are(db, 200))
        own_kafka.process.kill()
        await until(lambda: _is_unready(health))
        own_kafka.start()
        await until(health.ready, timeout_s=60)
        await asyncio.to_thread(topic.publish, minutes("EV_2", 200))
        await until(lambda: _are(db, 400), timeout_s=60)
        await until(lambda: committed(topic, 400), timeout_s=60)


async def _is_unready(health: Health) -> bool:
    return not await health.ready()


async def test_records_that_the_retention_deleted_are_counted(
    shared_kafka: Kafka, topic: Topic, database_url: str, db: Db
) -> None:
    topic.create(1)
    async with serving(shared_kafka, topic, database_url):
        await asyncio.to_thread(topic.publish, minutes("EV_1", 10))
        await until(lambda: committed(topic, 10))
    await asyncio.to_thread(topic.publish, minutes("EV_2", 20))
    await asyncio.to_thread(topic.delete_before, 15)
    async with serving(shared_kafka, topic, database_url) as health:
        await until(lambda: committed(topic, 30))
        assert await health.metric("fleet_kafka_lost_records_total") == 5
    assert await rows(db) == 25


@pytest.mark.parametrize(
    ("options", "fields", "reason"),
    [
        ({"cleanup_policy": "compact"}, {}, "is compacted"),
        ({}, {"kafka_replicas": 3}, "has 1 replicas instead of 3"),
        ({"unclean_leader_election_enable": "true"}, {}, "may lose acknowledged records"),
    ],
)
async def test_topic_that_would_lose_readings_is_refused(
    shared_kafka: Kafka, topic: Topic, database_url: str, options: dict[str, str], fields: dict[str, int], reason: str
) -> None:
    topic.create(1, **options)
    with pytest.raises(Misconfigured, match=reason):
        await bridge_of(settings(shared_kafka, topic, database_url, **fields)).run(asyncio.Event())


def test_broker_starts_although_its_cluster_id_looks_like_an_option(
    tmp_path: Path, jars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "uuid4", lambda: UUID("f8c81cc1-7451-a168-9625-525625e1c489"))
    broker = Kafka(tmp_path / "kafka" / "broker", jars)
    broker.start()
    broker.stop()
    (properties,) = broker.store.rglob("meta.properties")
    assert "cluster.id=-" in properties.read_text()
