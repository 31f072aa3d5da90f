"""A primary with a synchronous standby: what was acknowledged survives the loss of the primary, once."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest
from prometheus_client import CollectorRegistry

from api import keys
from bridge.clock import Clock
from bridge.delivery import Delivery, Kept, Settlement
from bridge.errors import ReadOnlyDatabase, StoreUnavailable
from bridge.formats.contract_json import encode
from bridge.ingest import Ingest
from bridge.metrics import IngestMetrics
from bridge.reading import Reading
from bridge.store.migrate import migrate
from bridge.store.postgres import PostgresStore
from bridge.store.session import open_each, open_session
from bridge.store.timeline import LeftBehind
from local.mosquitto import Mosquitto
from local.postgres import Postgres
from tests.bridges import BridgeProcess
from tests.devices import device
from tests.integration.api.server import launch
from tests.readings import minutes, now_minute, vehicle
from tests.replicas import Pair, migrated_pair, promote, require_standby
from tests.until import until

pytestmark = pytest.mark.anyio

_ROWS = "SELECT count(*) FROM vehicle_telemetry_history"
_WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'fleet-bridge'"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """A primary, and a standby for which its commits wait."""
    with migrated_pair(tmp_path) as pair:
        require_standby(pair.primary, "*")
        try:
            yield pair
        finally:
            if pair.primary.process.running:
                require_standby(pair.primary, "")


@pytest.fixture
async def open_store() -> AsyncIterator[Callable[[str], PostgresStore]]:
    """Opens stores that wait a second for the database; each is closed however the test ends."""
    async with contextlib.AsyncExitStack() as opened:

        def open_(url: str) -> PostgresStore:
            store = PostgresStore(url, command_timeout_s=1)
            opened.push_async_callback(store.close)
            return store

        yield open_


def of_each_day(readings: Sequence[Reading]) -> list[Reading]:
    """Readings of others, so that each day has its partition: making one is a commit of its own."""
    return [vehicle("EV_0", readings[0].timestamp), vehicle("EV_00", readings[-1].timestamp)]


def _rows(server: Postgres) -> int:
    return int(server.sql(_ROWS, "fleet"))


@pytest.mark.parametrize("count", [1, 500], ids=["few", "many"])
async def test_reading_that_only_the_primary_has_is_not_acknowledged(
    pair: Pair, open_store: Callable[[str], PostgresStore], count: int
) -> None:
    """Its commit was cancelled while it waited for the standby, so every writer finds the rows in the history."""
    store, readings = open_store(pair.url()), list(minutes("EV_1", count))
    await store.write(of_each_day(readings))
    other = open_store(pair.url())
    await other.connect()
    pair.replica.stop()
    with pytest.raises(StoreUnavailable):
        await store.write(readings)
    pair.primary.sql(f"SELECT pg_cancel_backend(pid) FROM ({_WAITING})")
    await until(lambda: _rows(pair.primary) == count + 2)
    for writer in (other, store):
        with pytest.raises(StoreUnavailable):
            await writer.write(readings)
    pair.replica.start()
    assert set(await store.write(readings)) == {Kept.DUPLICATE}
    await store.close()
    pair.primary.process.kill()
    promote(pair.replica)
    assert _rows(pair.replica) == count + 2


@pytest.mark.parametrize("count", [1, 500], ids=["few", "many"])
async def test_commit_that_an_administrator_releases_is_not_acknowledged(pair: Pair, count: int) -> None:
    store = PostgresStore(pair.url(), command_timeout_s=30)
    try:
        readings = list(minutes("EV_1", count))
        await store.write(of_each_day(readings))
        pair.replica.stop()
        writing = asyncio.ensure_future(store.write(readings))
        pid = await until(lambda: pair.primary.sql(_WAITING))
        pair.primary.sql(f"SELECT pg_cancel_backend({pid})")
        with pytest.raises(StoreUnavailable, match="standby did not confirm"):
            await writing
    finally:
        await store.close()


async def test_old_primary_is_refused_by_a_store_that_knows_the_new_one(
    pair: Pair, open_store: Callable[[str], PostgresStore]
) -> None:
    store = open_store(pair.url())
    assert await store.write([vehicle("EV_1")]) == [Kept.STORED]
    require_standby(pair.primary, "")  # so that nothing but the timeline protects the readings
    pair.primary.process.kill()
    promote(pair.replica)
    with pytest.raises(StoreUnavailable):  # the session of before
        await store.write([vehicle("EV_2")])
    assert await store.write([vehicle("EV_2")]) == [Kept.STORED]

    pair.replica.stop()
    await until(lambda: _starts(pair.primary))
    with pytest.raises(StoreUnavailable):
        await store.write([vehicle("EV_3")])
    with pytest.raises(LeftBehind, match="timeline 1, but timeline 2 exists"):
        await store.write([vehicle("EV_3")])
    assert _rows(pair.primary) == 1


async def test_new_primary_is_used_when_the_old_one_has_come_back(
    pair: Pair, open_store: Callable[[str], PostgresStore]
) -> None:
    """Also by a process that has just started, although the old one is the first of the URL."""
    require_standby(pair.primary, "")
    pair.primary.process.kill()
    promote(pair.replica)
    await until(lambda: _starts(pair.primary))
    assert await open_store(pair.url()).write([vehicle("EV_1")]) == [Kept.STORED]
    assert (_rows(pair.primary), _rows(pair.replica)) == (0, 1)


class Patient(Ingest):
    """A write loop that notes how long it pauses before it tries again."""

    def __init__(self, store: PostgresStore) -> None:
        clock = Clock(30)
        clock.compare(datetime.now(UTC), time.monotonic())
        metrics = IngestMetrics(CollectorRegistry())
        super().__init__(store, clock, batch_size=10, batch_age_s=0.0, capacity=50, metrics=metrics)
        self.pauses_s: list[float] = []

    async def _pause(self, pause_s: float) -> None:
        self.pauses_s.append(pause_s)
        await super()._pause(pause_s)

    async def stores(self, reading: Reading) -> None:
        """Write a reading, and wait until it is stored."""
        settled: list[Settlement] = []
        self.offer(Delivery([reading], settled.append, 1))
        await until(lambda: settled)
        assert settled == [[Kept.STORED]]

    async def keeps_looking(self) -> None:
        """Wait for so many attempts that a growing back-off would have reached seconds; no pause was long."""
        self.pauses_s.clear()
        await until(lambda: len(self.pauses_s) >= 8)
        assert max(self.pauses_s) <= 0.4


async def test_writer_asks_twice_a_second_for_a_server_that_accepts_writes(
    pair: Pair, open_store: Callable[[str], PostgresStore]
) -> None:
    """However long a failover takes: while servers only read, and while only the replaced one writes."""
    ingest = Patient(open_store(pair.url()))
    running = asyncio.create_task(ingest.run())
    try:
        await ingest.stores(vehicle("EV_1"))
        pair.primary.process.kill()
        storing = asyncio.create_task(ingest.stores(vehicle("EV_2")))
        await ingest.keeps_looking()
        assert isinstance(ingest.outage, ReadOnlyDatabase)
        promote(pair.replica)
        await storing

        pair.replica.process.kill()
        storing = asyncio.create_task(ingest.stores(vehicle("EV_3")))
        await until(lambda: _starts(pair.primary))
        await until(lambda: isinstance(ingest.outage, LeftBehind))
        await ingest.keeps_looking()
        assert isinstance(ingest.outage, LeftBehind)
        await until(lambda: _starts(pair.replica))
        await storing
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """Of a host that accepts connections and never responds, as one behind a broken link."""
    is_over = asyncio.Event()

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await is_over.wait()
        writer.close()

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        is_over.set()


async def test_silent_host_does_not_use_up_the_time_of_the_next_one(database_url: str, silent_port: int) -> None:
    """A program that would wait two minutes for a statement waits 5 s for a host, however it looks for the primary."""
    url = database_url.replace("@127.0.0.1:", f"@127.0.0.1:{silent_port},127.0.0.1:")
    async with asyncio.timeout(30):
        first, each = await asyncio.gather(open_session(url, 120, {}), open_each(url, 120, {}))
    for session in (first, *each):
        await session.close()


async def test_another_cluster_is_refused(
    pair: Pair, open_store: Callable[[str], PostgresStore], tmp_path: Path
) -> None:
    port = pair.primary.port
    store = open_store(pair.primary.url("fleet", "fleet"))
    await store.write([vehicle("EV_1")])
    await store.close()
    pair.replica.stop()
    require_standby(pair.primary, "")
    pair.primary.stop()
    directory = tmp_path / "other" / "server"
    directory.mkdir(parents=True)
    for password in pair.primary.directory.glob("password*"):
        (directory / password.name).write_bytes(password.read_bytes())
        (directory / password.name).chmod(0o600)
    other = Postgres(directory, port=port, settings={"shared_buffers": "64MB"})
    other.start()
    try:
        other.ensure_database("fleet", "fleet")
        await migrate(other.url("fleet", "fleet"))
        with pytest.raises(LeftBehind, match="another cluster"):
            await store.write([vehicle("EV_2")])
    finally:
        other.stop()


def _starts(server: Postgres) -> bool:
    """Start it; after a kill -9 its orphans have to go first."""
    try:
        server.start()
    except RuntimeError:
        return False
    return True


class Posting:
    """Clients that post readings one by one over HTTP until they are stopped."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.acknowledged: dict[Reading, float] = {}
        """Each stored reading, and when its answer came."""
        self._is_over = False
        self._base = now_minute() - timedelta(minutes=30)

    async def run(self, name: str) -> None:
        number = 0
        while not self._is_over:
            reading = vehicle(name, self._time(number))
            if await self._is_stored(reading):
                self.acknowledged[reading] = time.monotonic()
                number += 1

    def _time(self, number: int) -> datetime:
        return self._base + timedelta(milliseconds=100 * number)

    async def _is_stored(self, reading: Reading) -> bool:
        try:
            answer = await self._client.post("/v1/ingest", content=encode(reading), headers=_JSON)
        except httpx.TransportError:
            return False
        return answer.status_code == 201

    def stop(self) -> None:
        self._is_over = True


_JSON = {"Content-Type": "application/json"}


async def test_primary_dies_under_load_and_nothing_acknowledged_is_lost(
    pair: Pair, broker: Mosquitto, tmp_path: Path
) -> None:
    """Bridge and API go on by themselves on the promoted standby; each reading is there once."""
    db = await asyncpg.connect(pair.primary.url("fleet", "fleet"))
    try:
        _, token = await keys.create(db, "test", keys.Grant(keys.SCOPES))
    finally:
        await db.close()
    api = launch(pair.url("api"), tmp_path / "api.log", {"commit_timeout_s": 2})
    bridge = BridgeProcess(tmp_path, broker.bridge_url, pair.url("bridge"))
    try:
        await bridge.start()
        async with api.client(token) as client, device(broker.url) as over_mqtt:
            posting, published, last = Posting(client), 0, now_minute()
            running = [asyncio.ensure_future(posting.run(f"HTTP_{n}")) for n in range(8)]

            async def publish(count: int) -> None:
                nonlocal published
                for _ in range(count):
                    reading = vehicle("MQTT", last - timedelta(milliseconds=100 * published))
                    await over_mqtt.publish("fleet/vehicle/MQTT/telemetry", encode(reading), 1)
                    published += 1

            await publish(300)
            await until(lambda: len(posting.acknowledged) > 200)
            pair.primary.process.kill()
            died_at = time.monotonic()
            await publish(300)
            promote(pair.replica)
            await until(lambda: any(at > died_at + 0.5 for at in posting.acknowledged.values()))
            await publish(300)
            await until(lambda: len(posting.acknowledged) > 400)
            posting.stop()
            await asyncio.gather(*running)
        of_mqtt = f"{_ROWS} WHERE vehicle_id = 'MQTT'"
        await until(lambda: pair.replica.sql(of_mqtt, "fleet") == str(published))
        assert await bridge.ready()
        kept = set(
            pair.replica.sql(
                "SELECT vehicle_id, extract(epoch FROM ts) FROM vehicle_telemetry_history", "fleet"
            ).splitlines()
        )
        sent = {f"{reading[0]}|{reading.timestamp.timestamp():.6f}" for reading in posting.acknowledged}
        assert sent <= kept
        assert pair.replica.sql("SELECT count(*) FROM rejected_message", "fleet") == "0"
    finally:
        bridge.process.kill()
        api.process.stop()
