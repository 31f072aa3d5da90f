"""POST /v1/ingest into a Kafka topic: 202 after the topic has the readings, 503 while the broker is away."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import asyncpg
import httpx
import pytest

from api import keys
from bridge.formats.contract_json import encode_many
from bridge.store.migrate import migrate
from local.kafka import Kafka
from local.postgres import LOGINS, Postgres
from tests.integration.api.server import assert_problem, launch
from tests.kafka.test_kafka import serving
from tests.kafka_records import Topic
from tests.readings import meter, minutes
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
def topic(own_kafka: Kafka) -> Topic:
    return Topic(own_kafka.url)


@pytest.fixture
async def client(
    tmp_path: Path, own_kafka: Kafka, topic: Topic, postgres: Postgres, database_url: str, db: Db
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API that publishes to the topic."""
    postgres.ensure_login("api", LOGINS["api"])
    await migrate(database_url)  # which gives its groups their privileges
    settings: dict[str, object] = {"http_ingest_target": "kafka", "kafka_url": own_kafka.url, "kafka_sasl": "PLAIN"}
    login = postgres.url(database_url.rpartition("/")[2], "api")
    api = launch(login, tmp_path / "api.log", {**settings, "kafka_topic": topic.name, "commit_timeout_s": 3})
    try:
        _, token = await keys.create(db, "test", keys.Grant(keys.DEFAULT_SCOPES))
        async with api.client(token) as client:
            yield client
    finally:
        api.process.stop()


async def test_readings_are_durable_or_refused_and_a_bridge_stores_what_is_durable(
    client: httpx.AsyncClient, own_kafka: Kafka, topic: Topic, database_url: str, db: Db
) -> None:
    readings = [*minutes("EV_1", 300), *minutes("EV_2", 300), meter("METER_1")]
    answer = await client.post("/v1/ingest", content=encode_many(readings))
    assert (answer.status_code, answer.json()) == (202, {"durable": 601, "rejected": []})
    devices = {"fleet/vehicle/EV_1/telemetry", "fleet/vehicle/EV_2/telemetry", "fleet/meter/METER_1/telemetry"}
    assert {(record.key or b"").decode() for record in await asyncio.to_thread(topic.records)} == devices

    own_kafka.process.kill()
    refused = encode_many(minutes("EV_3", 10))
    answer = await client.post("/v1/ingest", content=refused)
    assert "durable" not in assert_problem(answer, 503, "send the same readings again")
    assert int(answer.headers["Retry-After"]) > 0

    own_kafka.start()
    await until(lambda: _is_accepted(client, refused), timeout_s=60)
    async with serving(own_kafka, topic, database_url):
        await until(lambda: _is_read(topic), timeout_s=60)
    assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == 610
    assert await db.fetchval("SELECT count(*) FROM meter_telemetry_history") == 1
    assert await db.fetchval("SELECT count(*) FROM rejected_message") == 0


async def _is_accepted(client: httpx.AsyncClient, body: bytes) -> bool:
    return (await client.post("/v1/ingest", content=body)).status_code == 202


async def _is_read(topic: Topic) -> bool:
    return await asyncio.to_thread(topic.is_committed, topic.name)
