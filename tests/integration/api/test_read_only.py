"""While only a replica is left, questions are answered, nothing is stored, and nothing is acknowledged."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from api import keys
from bridge.delivery import Kept
from bridge.formats.contract_json import encode
from bridge.store.postgres import PostgresStore
from local.mosquitto import Mosquitto
from tests.bridges import BridgeProcess
from tests.devices import device
from tests.integration.api.event_stream import watch
from tests.integration.api.server import Api, assert_problem, launch
from tests.readings import meter, minutes, vehicle
from tests.replicas import Pair, migrated_pair, promote
from tests.until import until

pytestmark = pytest.mark.anyio
READ_ONLY = "the database is read-only"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Pair]:
    with migrated_pair(tmp_path) as pair:
        yield pair


@pytest.fixture
def api(servers: Pair, tmp_path: Path) -> Iterator[Api]:
    """An API that knows both servers."""
    api = launch(servers.url("api"), tmp_path / "api.log", {"commit_timeout_s": 1})
    yield api
    api.process.stop()


@pytest.fixture
async def token(servers: Pair) -> str:
    """A key that may do everything; a vehicle and its meter have reported."""
    url = servers.primary.url("fleet", "fleet")
    store = PostgresStore(url)
    try:
        assert set(await store.write([*minutes("EV_1", 60), meter("METER_1")])) == {Kept.STORED}
    finally:
        await store.close()
    db = await asyncpg.connect(url)
    try:
        return (await keys.create(db, "test", keys.Grant(keys.SCOPES)))[1]
    finally:
        await db.close()


@pytest.fixture
async def client(api: Api, token: str) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client(token) as client:
        yield client


async def _replayed(servers: Pair) -> None:
    """Wait until the replica has what the primary has."""
    position = servers.primary.sql("SELECT pg_current_wal_lsn()")
    await until(lambda: servers.replica.sql(f"SELECT pg_last_wal_replay_lsn() >= '{position}'") == "t")


QUESTIONS = (
    "/v1/live/vehicles/EV_1",
    "/v1/live/vehicles",
    "/v1/history/vehicles/EV_1",
    "/v1/analytics/performance/EV_1",
    "/v1/analytics/energy?of=vehicles&id=EV_1&bucket=hour",
    "/v1/analytics/series/vehicles/EV_1?measure=soc",
    "/v1/sessions?vehicle=EV_1",
    "/v1/quality",
    "/v1/devices/vehicles",
    "/v1/meters/METER_1/assignments",
    "/v1/alarms",
    "/v1/system",
)


async def test_questions_are_answered_and_writes_refused_until_the_replica_is_promoted(
    servers: Pair, api: Api, client: httpx.AsyncClient
) -> None:
    before = {path: (await client.get(path)).status_code for path in QUESTIONS}
    await _replayed(servers)
    servers.primary.stop()

    assert {path: (await client.get(path)).status_code for path in QUESTIONS} == before
    assert (await client.get("/v1/live/vehicles/EV_1")).json()["soc"] == 59
    assert len((await client.get("/v1/history/vehicles/EV_1")).json()["items"]) == 60
    assert_problem(await client.get("/readyz"), 503, READ_ONLY)
    posted = await client.post("/v1/ingest", content=encode(vehicle("EV_2")), headers=JSON)
    assert_problem(posted, 503, READ_ONLY)
    assert posted.headers["retry-after"]
    declared = await client.put("/v1/devices/vehicles/EV_1", json={"name": "one"})
    assert_problem(declared, 503, READ_ONLY)

    promote(servers.replica)
    api.wait_until("/readyz")
    assert await until(lambda: _kept(client)) == 1
    assert (await client.put("/v1/devices/vehicles/EV_1", json={"name": "one"})).status_code in (200, 201)


async def test_unknown_key_is_refused_by_the_replica(servers: Pair, api: Api, client: httpx.AsyncClient) -> None:
    await _replayed(servers)
    servers.primary.stop()
    async with api.client(client.headers["authorization"].removeprefix("Bearer ")[:-4] + "0000") as stranger:
        assert (await stranger.get("/v1/live/vehicles")).status_code == 401
    assert (await client.get("/v1/live/vehicles")).status_code == 200


async def test_live_stream_shows_the_replica_and_then_its_changes(
    servers: Pair, api: Api, client: httpx.AsyncClient
) -> None:
    await _replayed(servers)
    servers.primary.stop()
    async with watch(client) as stream:
        assert set(await stream.snapshot()) == {"EV_1", "METER_1"}
        promote(servers.replica)
        api.wait_until("/readyz")
        await client.post("/v1/ingest", content=encode(vehicle("EV_2")), headers=JSON)
        await stream.shows("EV_2", soc=72.5)


async def test_bridge_acknowledges_nothing_until_the_replica_is_promoted(
    servers: Pair, tmp_path: Path, broker: Mosquitto
) -> None:
    bridge = BridgeProcess(tmp_path, broker.bridge_url, servers.url("bridge"))
    try:
        await bridge.start()
        await _replayed(servers)
        servers.primary.stop()
        async with device(broker.url) as client:
            await client.publish("fleet/vehicle/EV_1/telemetry", encode(vehicle("EV_1")), 1)
            await until(lambda: _reason(bridge, READ_ONLY))
            bridge.process.kill()  # what it has acknowledged is lost now
            promote(servers.replica)
            await bridge.start()
        count = "SELECT count(*) FROM vehicle_telemetry_history"
        await until(lambda: servers.replica.sql(count, "fleet") == "1")
    finally:
        bridge.process.kill()


async def _reason(bridge: BridgeProcess, text: str) -> bool:
    status, body = await bridge.get("/readyz")
    return status == 503 and text in body


async def test_server_that_becomes_read_only_is_told(servers: Pair, client: httpx.AsyncClient) -> None:
    """Sessions that are open go on; no new one accepts writes."""
    assert (await client.get("/readyz")).status_code == 200
    servers.primary.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    servers.primary.sql("SELECT pg_reload_conf()")
    await until(lambda: _is(client, "/readyz", 503))
    posted = await client.post("/v1/ingest", content=encode(vehicle("EV_2")), headers=JSON)
    assert_problem(posted, 503, READ_ONLY)
    assert (await client.get("/v1/live/vehicles/EV_1")).status_code == 200
    servers.primary.sql("ALTER SYSTEM RESET default_transaction_read_only")
    servers.primary.sql("SELECT pg_reload_conf()")
    await until(lambda: _is(client, "/readyz", 200))
    assert await until(lambda: _kept(client)) == 1


async def _kept(client: httpx.AsyncClient) -> int:
    """Readings that are in the history; 0 when the writer does not have its connection yet, and says to send again.

    An attempt of before, with an unknown result, may have stored them.
    """
    posted = await client.post("/v1/ingest", content=encode(vehicle("EV_2")), headers=JSON)
    if posted.status_code == 503:
        return 0
    receipt = posted.json()
    kept: int = receipt["stored"] + receipt["duplicates"]
    return kept


async def _is(client: httpx.AsyncClient, path: str, status: int) -> bool:
    return (await client.get(path)).status_code == status
