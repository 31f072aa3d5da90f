"""Through PgBouncer: everything works in session mode with its default settings, and transaction mode is refused."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from api import keys
from api.database import SESSION as QUERIES
from api.database import connection, open_pool
from bridge.delivery import Kept
from bridge.errors import LeadershipLost, Misconfigured, StoreUnavailable
from bridge.formats.contract_json import encode
from bridge.settings.api import ApiSettings
from bridge.store.database_errors import TRANSACTION_POOLING
from bridge.store.postgres import FEW, PostgresStore
from bridge.store.postgres import SESSION as WRITER
from bridge.store.session import open_session
from local.mosquitto import Mosquitto
from local.ports import free_port
from tests.bridges import bridge_process, environment
from tests.devices import publish_with_paho
from tests.integration.api.server import launch
from tests.keepers import KeeperProcess
from tests.pgbouncer import pgbouncer
from tests.readings import meter, minutes, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
def session_url(tmp_path: Path, database_url: str) -> Iterator[str]:
    with pgbouncer(tmp_path / "session", database_url, "session") as url:
        yield url


@pytest.fixture
def transaction_url(tmp_path: Path, database_url: str) -> Iterator[str]:
    with pgbouncer(tmp_path / "transaction", database_url, "transaction") as url:
        yield url


@pytest.fixture
async def open_store() -> AsyncIterator[Callable[[str], PostgresStore]]:
    """Stores with the lock of one bridge, closed after the test."""
    stores: list[PostgresStore] = []

    def opened(url: str) -> PostgresStore:
        stores.append(PostgresStore(url, lock_name="main", command_timeout_s=10))
        return stores[-1]

    yield opened
    for store in stores:
        await store.close()


async def test_settings_are_those_of_the_session(session_url: str) -> None:
    """PgBouncer refuses them in the startup message, so they are set afterwards; they must not be lost in between."""
    with pytest.raises(asyncpg.ProtocolViolationError, match="unsupported startup parameter"):
        await asyncpg.connect(session_url, server_settings={"jit": "off"})
    connection = await open_session(session_url, 7.0, WRITER)
    try:
        rows = await connection.fetch("SELECT name, setting FROM pg_settings WHERE source = 'session'")
    finally:
        connection.terminate()
    found = {row["name"]: row["setting"] for row in rows}
    assert WRITER.items() - {("application_name", "fleet-bridge")} <= found.items()
    assert {"statement_timeout": "7000", "jit": "off", "tcp_keepalives_idle": "10"}.items() <= found.items()


async def test_queries_have_their_settings(session_url: str) -> None:
    pool = await open_pool(ApiSettings(database_url=session_url), 2)
    try:
        async with connection(pool) as c:
            found = {name: await c.fetchval("SELECT current_setting($1)", name) for name in QUERIES}
    finally:
        pool.terminate()
    assert found == QUERIES


async def test_store_writes_few_and_many_and_knows_duplicates(
    session_url: str, open_store: Callable[[str], PostgresStore]
) -> None:
    store = open_store(session_url)
    many = list(minutes("EV_1", FEW + 44))
    assert await store.write(many) == [Kept.STORED] * len(many)
    assert await store.write([many[0], vehicle("EV_2"), meter()]) == [Kept.DUPLICATE, Kept.STORED, Kept.STORED]
    assert await store.write(many) == [Kept.DUPLICATE] * len(many)


async def test_lock_is_exclusive_and_free_when_its_client_is_gone(
    session_url: str, open_store: Callable[[str], PostgresStore]
) -> None:
    first, second = open_store(session_url), open_store(session_url)
    await first.connect()
    with pytest.raises(LeadershipLost):
        await second.connect()
    await first.close()
    await until(lambda: _leads(second))


async def _leads(store: PostgresStore) -> bool:
    try:
        await store.connect()
    except LeadershipLost:
        return False
    return True


async def test_programs_work_in_session_mode(tmp_path: Path, session_url: str, db: Db, broker: Mosquitto) -> None:
    token = (await keys.create(db, "test", keys.Grant(keys.DEFAULT_SCOPES)))[1]
    keeper = KeeperProcess(tmp_path, session_url, quarters_delay_s=1)
    api = await asyncio.to_thread(launch, session_url, tmp_path / "api.log", {})
    try:
        await keeper.start()
        async with bridge_process(tmp_path, broker.bridge_url, session_url), api.client(token) as client:
            await publish_with_paho(broker.url, "5", [("fleet/vehicle/EV_1/telemetry", encode(vehicle("EV_1")))])
            await until(lambda: db.fetchval("SELECT count(*) FROM vehicle_telemetry_history"))
            headers = {"Content-Type": "application/json"}
            posted = await client.post("/v1/ingest", content=encode(meter("METER_1")), headers=headers)
            assert posted.status_code == 201
            assert (await client.get("/v1/live/vehicles/EV_1")).status_code == 200
            assert len((await client.get("/v1/history/meters/METER_1")).json()["items"]) == 1
            assert (await client.get("/v1/analytics/performance/EV_1")).status_code == 200
            assert "key cache enabled" in api.log
            async with client.stream("GET", "/v1/live/stream") as stream:
                assert stream.status_code == 200
        assert "fleet_keeper_leader 1.0" in (await keeper.get("/metrics"))[1]
    finally:
        api.process.stop()
        keeper.process.kill()


# -- Transaction mode


@asynccontextmanager
async def _idle_sessions(url: str, count: int) -> AsyncIterator[None]:
    """So many sessions of the pooler with the server, which no client uses."""
    clients = [await asyncpg.connect(url, statement_cache_size=0) for _ in range(count)]
    try:
        for client in clients:
            await client.execute("BEGIN; SELECT 1")
        for client in clients:
            await client.execute("COMMIT")
        yield
    finally:
        for client in clients:
            client.terminate()


@pytest.mark.parametrize("idle", [0, 1, 3])
async def test_transaction_mode_is_refused_with_the_reason(
    transaction_url: str, open_store: Callable[[str], PostgresStore], idle: int
) -> None:
    async with _idle_sessions(transaction_url, idle):
        with pytest.raises(Misconfigured) as error:
            await open_store(transaction_url).connect()
    assert TRANSACTION_POOLING in str(error.value)


@pytest.mark.parametrize(
    ("program", "port"), [("bridge run", "bridge"), ("bridge keep", "keeper"), ("api run", "")], ids=str
)
async def test_program_ends_and_names_the_mode(transaction_url: str, program: str, port: str) -> None:
    fields = {f"{port}_http_port".removeprefix("_"): free_port(), "database_url": transaction_url}
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", *program.split()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(**fields),
    )
    assert ended.returncode == 2, ended.stderr
    assert "pool_mode = session" in ended.stderr


@pytest.mark.parametrize("idle", [0, 1, 3])
async def test_mode_is_seen_behind_sessions_that_others_have_left(
    tmp_path: Path, database_url: str, open_store: Callable[[str], PostgresStore], idle: int
) -> None:
    """The pooler gives out the session that has been idle for longest, so others come before that of the store."""
    with pgbouncer(tmp_path / "fifo", database_url, "transaction", server_round_robin=1) as url:
        async with _idle_sessions(url, idle):
            with pytest.raises(Misconfigured):
                await open_store(url).connect()
    with pgbouncer(tmp_path / "session", database_url, "session", server_round_robin=1) as url:
        async with _idle_sessions(url, idle):
            pass
        assert await open_store(url).write([vehicle()]) == [Kept.STORED]


async def test_pool_without_other_sessions_is_told_and_nothing_is_written(
    tmp_path: Path, database_url: str, open_store: Callable[[str], PostgresStore]
) -> None:
    with (
        pgbouncer(tmp_path / "one", database_url, "session", default_pool_size=1) as url,
        pytest.raises(StoreUnavailable, match="no two further sessions"),
    ):
        await open_store(url).connect()
