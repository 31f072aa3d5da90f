"""POST /v1/ingest into a JetStream stream: 202 after the stream has the readings, 503 when it is away or full."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import TypeAlias

import asyncpg
import httpx
import pytest

from api import keys
from api.ingest_stream import parcel_of
from bridge.delivery import Item
from bridge.formats import decode_body, decode_message
from bridge.formats.contract_json import encode_many
from bridge.formats.port import MAX_READINGS_PER_MESSAGE, AcceptedTimes
from bridge.reading import Flagged
from local.nats import Nats
from tests.integration.api.server import Api, assert_problem
from tests.integration.test_jetstream import serving
from tests.nats_streams import kept, limit, unacknowledged
from tests.readings import meter, minutes
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
STREAM = "FLEET"
ALWAYS = AcceptedTimes(datetime.now(UTC), datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
FUTURE = b'{"vehicleId":"EV_9","soc":1,"timestamp":"2099-01-01T00:00:00Z"}'
NO_ENERGY = b'{"vehicleId":"EV_9","kwhDeliveredDc":"much","timestamp":"2026-01-01T00:00:00Z"}'
NAMELESS = b'{"soc":1,"timestamp":"2026-01-01T00:00:00Z"}'


@pytest.fixture
def stream_api(start_api: Callable[..., Api], node: Nats) -> Api:
    """An API that publishes to the stream."""
    return start_api(http_ingest_target="jetstream", nats_url=node.bridge_url, nats_stream=STREAM, commit_timeout_s=3)


@pytest.fixture
async def client(stream_api: Api, token: str) -> AsyncIterator[httpx.AsyncClient]:
    async with stream_api.client(token) as client:
        yield client


async def _count(db: Db, table: str) -> int:
    return int(await db.fetchval(f"SELECT count(*) FROM {table}"))


async def test_accepted_readings_are_durable_and_stored_by_a_bridge(
    client: httpx.AsyncClient, node: Nats, database_url: str, db: Db
) -> None:
    readings = [*minutes("EV_1", 300), *minutes("EV_2", 300), meter("METER_1")]
    answer = await client.post("/v1/ingest", content=encode_many(readings))
    assert (answer.status_code, answer.json()) == (202, {"durable": 601, "rejected": []})
    assert await _count(db, "vehicle_telemetry_history") == 0
    assert (await client.post("/v1/ingest", content=encode_many(readings))).status_code == 202
    assert await unacknowledged(node, STREAM) == 3  # one message of each device, once
    async with serving(node, database_url, nats_stream=STREAM):
        await until(lambda: kept(node, 0, STREAM))
    assert await _count(db, "vehicle_telemetry_history") == 600
    assert await _count(db, "meter_telemetry_history") == 1
    assert await _count(db, "rejected_message") == 0


async def test_what_names_its_device_is_judged_later_and_the_rest_is_refused_now(
    client: httpx.AsyncClient, node: Nats, database_url: str, db: Db
) -> None:
    body = b"[" + b",".join([FUTURE, NAMELESS, NO_ENERGY, b"nan"]) + b"]"
    answer = await client.post("/v1/ingest", content=body)
    assert answer.status_code == 207
    assert answer.json()["durable"] == 2
    assert [(r["index"], r["reason"].split(":")[0]) for r in answer.json()["rejected"]] == [
        (1, "not_a_reading"),
        (3, "not_json"),
    ]
    async with serving(node, database_url, nats_stream=STREAM):
        await until(lambda: kept(node, 0, STREAM))
    rejects = await db.fetch("SELECT topic, reason, payload FROM rejected_message ORDER BY reason")
    assert [tuple(row)[:2] for row in rejects] == [
        ("fleet/vehicle/EV_9/telemetry", "invalid_field"),
        ("fleet/vehicle/EV_9/telemetry", "timestamp_out_of_range"),
    ]
    assert rejects[0]["payload"] == NO_ENERGY
    assert assert_problem(await client.post("/v1/ingest", content=NAMELESS), 422)["durable"] == 0
    assert_problem(await client.post("/v1/ingest", content=b"?"), 400, "not JSON")


async def test_key_of_other_devices_publishes_nothing_of_them(stream_api: Api, node: Nats, db: Db) -> None:
    grant = keys.Grant(("ingest",), devices=("EV_1",))
    _, token = await keys.create(db, "limited", grant)
    async with stream_api.client(token) as client:
        foreign = encode_many(minutes("EV_2", 2))
        assert_problem(await client.post("/v1/ingest", content=foreign), 403, "not allowed")
        mixed = await client.post("/v1/ingest", content=encode_many([*minutes("EV_2", 1), *minutes("EV_1", 1)]))
    assert (mixed.status_code, mixed.json()["durable"]) == (207, 1)
    assert await unacknowledged(node, STREAM) == 1


async def test_stream_that_is_away_is_503_and_is_used_again_when_it_is_back(
    stream_api: Api, client: httpx.AsyncClient, node: Nats
) -> None:
    body = encode_many(minutes("EV_1", 10))
    node.nodes[0].process.kill()
    answer = await client.post("/v1/ingest", content=body)
    assert_problem(answer, 503, "send the same readings again")
    assert int(answer.headers["Retry-After"]) > 0
    assert_problem(await client.get("/readyz"), 503, "stream")
    node.nodes[0].start()
    await until(lambda: _is_ready(client))
    assert (await client.post("/v1/ingest", content=body)).status_code == 202
    assert await unacknowledged(node, STREAM) == 1


async def _is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/readyz")).status_code == 200


async def test_full_stream_is_503_and_keeps_what_it_has(client: httpx.AsyncClient, node: Nats) -> None:
    assert (await client.post("/v1/ingest", content=encode_many(minutes("EV_1", 1)))).status_code == 202
    await limit(node, STREAM, max_msgs=1)
    assert_problem(await client.post("/v1/ingest", content=encode_many(minutes("EV_2", 1))), 503, "full")
    assert await unacknowledged(node, STREAM) == 1
    await limit(node, STREAM, max_msgs=-1)
    await until(lambda: _is_ready(client))
    assert (await client.post("/v1/ingest", content=encode_many(minutes("EV_2", 1)))).status_code == 202


def _all_of(body: bytes) -> list[Item]:
    """The items of the messages that are made of a body, as the bridge decodes them."""
    return [
        item
        for message in parcel_of(decode_body(body, ALWAYS)).messages
        for item in decode_message(message.topic, message.payload, ALWAYS)
    ]


def test_messages_decode_to_the_readings_of_the_body() -> None:
    at = b'"timestamp":"2026-01-01T00:00:00.123456+01:00"'
    odd = b'{"vehicleId":"EV_1","soc":999,"kwhDeliveredDc":1,%b,"x":[1,{"y":2}]}' % at
    (decoded,) = decode_body(odd, ALWAYS)
    assert isinstance(decoded, Flagged)
    assert _all_of(odd) == [decoded.reading]
    many = list(minutes("EV_1", 2_500))
    assert _all_of(encode_many(many)) == many


def test_messages_are_within_the_limits_of_a_message() -> None:
    lists = b'{"vehicleId":"EV_1","soc":1,"timestamp":"2026-01-01T00:%02d:%02dZ","x":[%b]}'
    readings = [lists % (n // 60, n % 60, b",".join([b"[1]"] * 20)) for n in range(1_500)]
    found = _all_of(b"[" + b",".join(readings) + b"]")
    assert len(found) == 1_500
    assert len({item.timestamp for item in found if not isinstance(item, Flagged)}) == 1_500  # type: ignore[union-attr]
    assert len(parcel_of(decode_body(encode_many(minutes("EV_1", 2_500)), ALWAYS)).messages) == -(
        -2_500 // MAX_READINGS_PER_MESSAGE
    )
