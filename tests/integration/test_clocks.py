"""A bridge and an API whose clock and the database's differ by an hour: nothing is judged, nothing is acknowledged."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import httpx
import pytest

from api import keys
from bridge import clock as clock_module
from bridge.formats.contract_json import encode
from local.mosquitto import Mosquitto
from local.postgres import Postgres
from tests.bridges import serving
from tests.databases import new_database
from tests.devices import publish_with_paho
from tests.integration.api.server import Api, assert_problem, launch
from tests.readings import now_minute, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# A function of this name is found before the server's own, in a database whose search path says so.
_CLOCK_THAT_CAN_BE_SET = """
CREATE TABLE wrong_by AS SELECT interval '0' AS difference;
GRANT SELECT, UPDATE ON wrong_by TO PUBLIC;
CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
    'SELECT pg_catalog.clock_timestamp() + difference FROM public.wrong_by';
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database());
END $$
"""


@pytest.fixture
def database_url(postgres: Postgres, template: str) -> str:
    """A database whose clock can be set."""
    url = new_database(postgres, template)
    postgres.sql(_CLOCK_THAT_CAN_BE_SET, url.rpartition("/")[2])
    return url


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    api = launch(database_url, tmp_path / "api.log", {})
    yield api
    api.process.stop()


async def set_clock(db: Db, by: timedelta) -> None:
    await db.execute("UPDATE wrong_by SET difference = $1", by)


async def counts(db: Db) -> tuple[int, int]:
    """Readings and rejects."""
    row = await db.fetchrow(
        "SELECT (SELECT count(*) FROM vehicle_telemetry_history), (SELECT count(*) FROM rejected_message)"
    )
    assert row is not None
    return row[0], row[1]


def reading(number: int) -> bytes:
    return encode(vehicle("EV_1", now_minute() - timedelta(minutes=number)))


async def publish(broker: Mosquitto, number: int) -> None:
    """A correct reading, and bytes that are none."""
    topic = "fleet/vehicle/EV_1/telemetry"
    await publish_with_paho(broker.url, "5", [(topic, reading(number)), (topic, b"%d is no reading" % number)])


@pytest.mark.parametrize("hours", [1, -1])
async def test_bridge_with_a_wrong_clock_acknowledges_nothing_and_stores_everything_when_it_is_right(
    broker: Mosquitto, database_url: str, db: Db, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    async with serving(broker.bridge_url, database_url) as bridge:
        await publish(broker, 0)
        await until(lambda: _has(db, (1, 1)))
        with monkeypatch.context() as wrong:
            wrong.setattr(clock_module, "wall_s", lambda: time.time() + hours * 3_600)
            status, body = await bridge.get("/readyz")
            assert (status, "this machine's clock is 3600 s" in body) == (503, True)
            acknowledged = await bridge.metric("fleet_mqtt_acks_total")
            for number in (1, 2):
                await publish(broker, number)
            await until(lambda: _is_disconnected(bridge))
            assert await counts(db) == (1, 1)
            assert await bridge.metric("fleet_mqtt_acks_total") == acknowledged
        await until(lambda: _has(db, (3, 3)))
        await until(bridge.ready)
        assert abs(await bridge.metric("fleet_clock_ahead_seconds")) < 1


async def test_wrong_clock_of_the_database_is_noticed_while_nothing_is_sent(
    broker: Mosquitto, database_url: str, db: Db
) -> None:
    async with serving(broker.bridge_url, database_url) as bridge:
        await set_clock(db, timedelta(hours=-1))
        await until(lambda: _is_unready(bridge))
        assert await bridge.metric("fleet_clock_ahead_seconds") == pytest.approx(3_600, abs=5)
        await publish(broker, 1)
        await until(lambda: _is_disconnected(bridge))
        assert await counts(db) == (0, 0)
        await set_clock(db, timedelta())
        await until(lambda: _has(db, (1, 1)))
        await until(bridge.ready)


@pytest.mark.parametrize("hours", [1, -1])
async def test_api_with_a_wrong_clock_answers_503_and_keeps_no_reject(api: Api, db: Db, hours: int) -> None:
    token = (await keys.create(db, "test", keys.Grant(("ingest", "read", "admin"))))[1]
    async with api.client(token) as client:
        assert (await client.post("/v1/ingest", content=reading(0))).status_code == 201
        await client.post("/v1/ingest", content=b'{"vehicleId": "EV_1"}')
        assert await counts(db) == (1, 1)
        await set_clock(db, timedelta(hours=hours))
        await until(lambda: _answers(client, "/readyz", 503))
        for body in (reading(1), b"[%s, 1]" % reading(2), b"no json", b'{"vehicleId": "EV_1", "soc": 1}'):
            assert_problem(await client.post("/v1/ingest", content=body), 503, "clock is 3600 s")
        reject = str(await db.fetchval("SELECT id FROM rejected_message"))
        again = await client.post("/v1/rejects/replay", json={"ids": [reject]})
        assert_problem(again, 503, "clock is 3600 s")
        assert await counts(db) == (1, 1)
        system = (await client.get("/v1/system")).json()
        assert system["processes"] != []
        await set_clock(db, timedelta())
        await until(lambda: _answers(client, "/readyz", 200))
        assert (await client.post("/v1/ingest", content=reading(1))).status_code == 201
    assert await counts(db) == (2, 1)


async def _has(db: Db, expected: tuple[int, int]) -> bool:
    return await counts(db) == expected


async def _is_disconnected(bridge: Any) -> bool:
    return bool(await bridge.metric("fleet_mqtt_connected") == 0)


async def _is_unready(bridge: Any) -> bool:
    return bool((await bridge.get("/readyz"))[0] == 503)


async def _answers(client: httpx.AsyncClient, path: str, status: int) -> bool:
    return (await client.get(path)).status_code == status
