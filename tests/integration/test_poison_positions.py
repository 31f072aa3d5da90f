"""A value that the database refuses, at every position of a batch, of both kinds, over MQTT and HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import NamedTuple, TypeAlias

import asyncpg
import httpx
import pytest

from api import keys
from bridge.contract import VEHICLE
from bridge.formats.contract_json import encode
from bridge.formats.payload import PAYLOADS
from bridge.reading import Reading
from local.mosquitto import Mosquitto
from local.postgres import Postgres
from tests.bridges import Health, serving
from tests.databases import new_database
from tests.devices import publish_with_paho
from tests.integration.api.server import launch
from tests.readings import minutes
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SIZE = 7
REFUSED_SOC = 66.625
"""A value that the decoder accepts, and for which a trigger in the database divides by zero."""

_TRIGGER = f"""
CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN IF NEW.soc = {REFUSED_SOC} THEN PERFORM 1 / 0; END IF; RETURN NEW; END $$;
CREATE TRIGGER poison BEFORE INSERT ON vehicle_telemetry_history FOR EACH ROW EXECUTE FUNCTION refuse_poison()
"""
POISON: dict[str, tuple[dict[str, float], str]] = {
    "decoding": ({"kwhDeliveredDc": 1000.5}, "invalid_field"),
    "the database": ({"soc": REFUSED_SOC}, "unstorable"),
}


class Batch(NamedTuple):
    """Readings of one vehicle with poison among them."""

    device: str
    payloads: list[bytes]
    at: int
    reason: str

    @property
    def neighbours(self) -> list[Reading]:
        return [PAYLOADS[VEHICLE.name].from_json(p) for n, p in enumerate(self.payloads) if n != self.at]


def batches(protocol: str, refused_by: str) -> Iterator[Batch]:
    """A batch for each position of the poison, each of a vehicle of its own."""
    values, reason = POISON[refused_by]
    for at in range(SIZE):
        device = f"{protocol}_{refused_by.split()[-1]}_{at}"
        payloads = [encode(reading) for reading in minutes(device, SIZE)]
        payloads[at] = json.dumps({**json.loads(payloads[at]), **values}).encode()
        yield Batch(device, payloads, at, reason)


@pytest.fixture(scope="module")
async def database(postgres: Postgres, template: str) -> AsyncIterator[tuple[str, Db]]:
    """A database that refuses a value that the decoder accepts."""
    url = new_database(postgres, template)
    db = await asyncpg.connect(url)
    await db.execute(_TRIGGER)
    yield url, db
    await db.close()


@pytest.fixture(scope="module")
def broker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    server = Mosquitto(tmp_path_factory.mktemp("poison") / "mosquitto")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
async def bridge(broker_server: Mosquitto, database: tuple[str, Db]) -> AsyncIterator[Health]:
    """A bridge whose batches are written only when they are full."""
    async with serving(broker_server.bridge_url, database[0], batch_size=SIZE, batch_wait_ms=60_000) as health:
        yield health


@pytest.fixture(scope="module")
async def client(
    database: tuple[str, Db], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    url, db = database
    _, token = await keys.create(db, "poison", keys.Grant(keys.DEFAULT_SCOPES))
    api = await asyncio.to_thread(launch, url, tmp_path_factory.mktemp("poison") / "api.log", {})
    async with api.client(token) as client:
        yield client
    await asyncio.to_thread(api.process.stop)


async def kept(db: Db, device: str) -> list[asyncpg.Record]:
    return await db.fetch("SELECT reason, source, detail, payload FROM rejected_message WHERE device = $1", device)


async def assert_only_the_poison_is_rejected(db: Db, batch: Batch, source: str) -> None:
    rows = await db.fetch("SELECT ts, soc FROM vehicle_telemetry_history WHERE vehicle_id = $1", batch.device)
    assert {tuple(row) for row in rows} == {(reading.timestamp, reading.soc) for reading in batch.neighbours}
    assert len(rows) == SIZE - 1
    (reject,) = await kept(db, batch.device)
    assert (reject["reason"], reject["source"]) == (batch.reason, source)
    assert reject["detail"]
    assert json.loads(reject["payload"]) == json.loads(batch.payloads[batch.at])


@pytest.mark.parametrize("refused_by", POISON)
async def test_poison_at_each_position_of_a_batch_of_messages_is_kept_alone(
    refused_by: str, broker_server: Mosquitto, bridge: Health, database: tuple[str, Db]
) -> None:
    written = await bridge.metric("fleet_batch_readings_count")
    for batch in batches("mqtt", refused_by):
        topic = f"fleet/vehicle/{batch.device}/telemetry"
        await publish_with_paho(broker_server.url, "5", [(topic, payload) for payload in batch.payloads])
        await until(partial(_settled, database[1], batch.device))
        await assert_only_the_poison_is_rejected(database[1], batch, "mqtt")
    # Each was one batch, and the refused value did not block the others.
    assert await bridge.metric("fleet_batch_readings_count") == written + SIZE
    assert await bridge.metric("fleet_store_unavailable_total") == 0


async def _settled(db: Db, device: str) -> bool:
    query = "SELECT count(*) FROM vehicle_telemetry_history WHERE vehicle_id = $1"
    return bool(await db.fetchval(query, device) == SIZE - 1 and await kept(db, device))


@pytest.mark.parametrize("refused_by", POISON)
async def test_poison_at_each_position_of_a_body_is_kept_alone(
    refused_by: str, client: httpx.AsyncClient, database: tuple[str, Db]
) -> None:
    for batch in batches("http", refused_by):
        body = b"[" + b",".join(batch.payloads) + b"]"
        answer = await client.post("/v1/ingest", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 207
        receipt = answer.json()
        assert (receipt["stored"], [r["index"] for r in receipt["rejected"]]) == (SIZE - 1, [batch.at])
        await assert_only_the_poison_is_rejected(database[1], batch, "http")
