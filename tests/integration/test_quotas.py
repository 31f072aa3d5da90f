"""Beyond its quotas a device's readings are refused and its rejects counted, and other devices are stored as before."""

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import aiomqtt
import asyncpg
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from api import keys
from bridge.formats.contract_json import encode, encode_many
from bridge.reading import format_timestamp
from local.mosquitto import Mosquitto
from tests.bridges import Health, serving
from tests.devices import device
from tests.integration.api.server import assert_problem, launch
from tests.readings import minutes, now_minute, vehicle

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_VICTIM_S = 5.0  # of a machine that runs other tests; tests/acceptance/attacks measures the second
COUNTED = "SELECT source, sender, device, reason, messages, bytes FROM reject_excess"


async def receipt_of(client: aiomqtt.Client, name: str, payload: bytes) -> dict[str, Any]:
    """Publish a message of a vehicle and wait for its receipt."""
    topic = f"fleet/vehicle/{name}"
    await client.subscribe(f"{topic}/receipts")
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ResponseTopic = f"{topic}/receipts"
    await client.publish(f"{topic}/telemetry", payload, 1, properties=properties)
    async for message in client.messages:
        found: dict[str, Any] = json.loads(bytes(message.payload))
        return found
    raise AssertionError("no receipt")


async def metric(bridge: Health, reason: str) -> float:
    return await bridge.metric("fleet_rejects_not_kept_total", reason=reason)


async def test_flood_of_rejects_is_sampled_and_counted_while_a_victim_is_stored(
    broker: Mosquitto, database_url: str, db: Db
) -> None:
    async with serving(broker.bridge_url, database_url, device_rejects_per_day=50) as bridge, device(broker.url) as bad:
        for start in range(0, 5_000, 500):
            receipt = await receipt_of(bad, "BAD", json.dumps(list(range(start, start + 500))).encode())
            assert [entry["index"] for entry in receipt["rejected"]] == list(range(500)), (
                "each is rejected, kept or not"
            )
            async with device(broker.url) as good:
                began = time.monotonic()
                stored = await receipt_of(
                    good, "GOOD", encode(vehicle("GOOD", now_minute() - timedelta(minutes=start)))
                )
                assert (stored["stored"], time.monotonic() - began < _VICTIM_S) == (1, True)
        few = await receipt_of(bad, "BAD", b"[5000, 5001]")
        assert len(few["rejected"]) == 2
        assert await db.fetchval("SELECT count(*) FROM rejected_message") == 50
        (row,) = await db.fetch(COUNTED)
        assert tuple(row)[:5] == ("mqtt", "", "BAD", "not_a_reading", 4_952)
        assert await metric(bridge, "not_a_reading") == 4_952
        assert await bridge.metric("fleet_rejected_total", reason="not_a_reading") == 5_002


@pytest.mark.parametrize("at_once", [20, 400], ids=["few", "many"])
async def test_readings_beyond_the_quota_are_refused_over_mqtt(
    broker: Mosquitto, database_url: str, db: Db, at_once: int
) -> None:
    quota = at_once - 5
    readings = list(minutes("EV_1", at_once))
    async with (
        serving(broker.bridge_url, database_url, device_readings_per_day=quota) as bridge,
        device(broker.url) as client,
    ):
        receipt = await receipt_of(client, "EV_1", encode_many(readings))
        assert (receipt["stored"], len(receipt["rejected"])) == (quota, 5)
        assert all(entry["reason"].startswith("quota_exceeded: ") for entry in receipt["rejected"])
        again = await receipt_of(client, "EV_1", encode_many(readings[:1]))
        assert again["stored"] == 0
        assert (await receipt_of(client, "EV_2", encode(vehicle("EV_2"))))["stored"] == 1
        assert await bridge.metric("fleet_rejected_total", reason="quota_exceeded") == 6
    payloads = await db.fetch("SELECT payload FROM rejected_message WHERE reason = 'quota_exceeded'")
    refused = {json.loads(row["payload"])["timestamp"] for row in payloads}
    assert refused == {format_timestamp(reading.timestamp) for reading in [*readings[quota:], readings[0]]}


async def test_api_answers_429_beyond_the_quota_and_tells_what_is_not_kept(
    database_url: str, db: Db, tmp_path: Path
) -> None:
    api = launch(database_url, tmp_path / "api.log", {"device_readings_per_day": 3, "device_rejects_per_day": 4})
    try:
        id_, token = await keys.create(db, "gateway", keys.Grant(("ingest", "read")))
        async with api.client(token) as client:
            first = await client.post("/v1/ingest", content=encode_many(list(minutes("EV_1", 5))))
            assert first.status_code == 207
            assert [entry["index"] for entry in first.json()["rejected"]] == [3, 4]
            late = [vehicle("EV_1", now_minute() - timedelta(days=9, minutes=n)) for n in range(3)]
            beyond = await client.post("/v1/ingest", content=encode_many(late))
            problem = assert_problem(beyond, 429, "quota")
            assert (len(problem["rejected"]), beyond.headers["Retry-After"]) == (3, "60")
            other = await client.post("/v1/ingest", content=encode(vehicle("EV_2")))
            assert other.status_code == 201
            for n in range(6):
                answer = await client.post("/v1/ingest", content=b'{"soc": %d}' % n)
                assert_problem(answer, 422, "not_a_reading")
            listed = (await client.get("/v1/rejects")).json()
            assert (len(listed["items"]), listed["notKept"]) == (8, 3)
            of = {"device": "EV_1"}, {"sender": id_}, {"reason": "forbidden"}, {"source": "mqtt"}
            found = [(await client.get("/v1/rejects", params=asked)).json()["notKept"] for asked in of]
            assert found == [1, 2, 0, 0]
    finally:
        api.process.stop()


async def test_readings_that_are_delivered_again_use_no_quota(broker: Mosquitto, database_url: str, db: Db) -> None:
    readings = encode_many(list(minutes("EV_1", 10)))
    async with serving(broker.bridge_url, database_url, device_readings_per_day=10), device(broker.url) as client:
        assert (await receipt_of(client, "EV_1", readings))["stored"] == 10
    async with serving(broker.bridge_url, database_url, device_readings_per_day=10), device(broker.url) as client:
        for _ in range(3):
            assert (await receipt_of(client, "EV_1", readings))["duplicates"] == 10
    assert await db.fetchval("SELECT count(*) FROM rejected_message") == 0
