"""Live states, history and figures from replicas: which server answers, as of when, and what happens when it cannot."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api import keys
from api.auth import ApiKey
from api.database import Pools, connection, open_pool
from api.layers.reads import Reads
from api.replicas.reading import READING
from api.replicas.replica import watched
from api.routing import FOUND, UNKNOWN_PATH
from api.sight import Sight
from bridge.formats.contract_json import encode
from bridge.reading import format_timestamp
from bridge.settings.api import ApiSettings
from bridge.status import Status, reporting
from bridge.store.postgres import PostgresStore
from local.postgres import Postgres
from tests.integration.api.server import Api, assert_problem, launch
from tests.readings import meter, minutes, vehicle
from tests.replicas import Pair, migrated_pair, new_replica, promote
from tests.unit.test_layers import ask
from tests.until import until

pytestmark = pytest.mark.anyio
JSON = {"Content-Type": "application/json"}
LIVE = "/v1/live/vehicles/EV_1"
QUESTIONS = (
    LIVE,
    "/v1/live/vehicles",
    "/v1/live/meters?neverReported=true",
    "/v1/history/vehicles/EV_1",
    "/v1/analytics/performance/EV_1",
    "/v1/analytics/energy?of=vehicles&id=EV_1&bucket=hour",
    "/v1/analytics/efficiency",
    "/v1/analytics/series/vehicles/EV_1?measure=soc",
    "/v1/sessions?vehicle=EV_1",
    "/v1/quality",
)
OF_THE_PRIMARY = ("/v1/devices/vehicles", "/v1/meters/METER_1/assignments", "/v1/alarms", "/v1/system", "/v1/keys")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair that each test leaves as it was."""
    with migrated_pair(tmp_path_factory.mktemp("servers")) as pair:
        yield pair


@pytest.fixture
def own_servers(tmp_path: Path) -> Iterator[Pair]:
    """A pair of which the test may break a server."""
    with migrated_pair(tmp_path) as pair:
        yield pair


@pytest.fixture
def start_api(tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Start an API with a database and replicas; all are stopped after the test."""
    started: list[Api] = []

    def start(url: str, *replicas: Postgres, **settings: object) -> Api:
        named = {"read_database_url": _url(*replicas)} if replicas else {}
        started.append(launch(url, tmp_path / f"api{len(started)}.log", {**named, **settings}))
        return started[-1]

    yield start
    for api in started:
        api.process.stop()


@pytest.fixture(scope="module")
def api(servers: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    settings = {"read_database_url": _url(servers.replica), "replica_lag_limit_s": 2}
    api = launch(servers.primary.url("fleet", "api"), tmp_path_factory.mktemp("api") / "api.log", settings)
    yield api
    api.process.stop()


@pytest.fixture
async def client(servers: Pair, api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API, whose replica is used and has everything."""
    async with api.client(await _token(servers)) as client:
        await _used(client)
        yield client


@contextlib.contextmanager
def _paused(replica: Postgres) -> Iterator[None]:
    """The replica replays nothing in the block."""
    replica.sql("SELECT pg_wal_replay_pause()")
    try:
        yield
    finally:
        replica.sql("SELECT pg_wal_replay_resume()")


async def _token(servers: Pair) -> str:
    """A key that may do everything; a vehicle and its meter have reported."""
    store = PostgresStore(servers.primary.url("fleet", "fleet"))
    try:
        await store.write([*minutes("EV_1", 60), meter("METER_1")])
    finally:
        await store.close()
    return await _key(servers, keys.Grant(keys.SCOPES))


def _url(*servers: Postgres) -> str:
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return servers[0].url("fleet", "api").replace(f"127.0.0.1:{servers[0].port}", hosts)


async def _key(servers: Pair, grant: keys.Grant) -> str:
    db = await asyncpg.connect(servers.primary.url("fleet", "fleet"))
    try:
        return (await keys.create(db, "test", grant))[1]
    finally:
        await db.close()


async def _metric(client: httpx.AsyncClient, name: str) -> float:
    """The sum of a metric over its labels, or of the line with these labels."""
    text = (await client.get("/metrics")).text
    found = re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


async def _fallbacks(client: httpx.AsyncClient, reason: str) -> float:
    return await _metric(client, f'fleet_replica_fallbacks_total{{reason="{reason}"}}')


async def _used(client: httpx.AsyncClient, count: int = 1) -> None:
    """Wait until so many replicas may answer."""
    await until(lambda: _is(client, count))


async def _is(client: httpx.AsyncClient, count: int) -> bool:
    return await _metric(client, "fleet_replica_usable") == count


async def _from_replica(client: httpx.AsyncClient, path: str) -> tuple[httpx.Response, bool]:
    """The answer, and whether a replica gave it."""
    before = await _metric(client, "fleet_replica_answers_total")
    answer = await client.get(path)
    return answer, await _metric(client, "fleet_replica_answers_total") > before


def _scans(server: Postgres) -> int:
    """How often the tables of readings and summaries were read there."""
    return int(
        server.sql(
            "SELECT sum(seq_scan + coalesce(idx_scan, 0)) FROM pg_stat_user_tables "
            "WHERE relname ~ '_(live_status|history|quarter)'",
            "fleet",
        )
    )


async def _post(client: httpx.AsyncClient, soc: float) -> str:
    """Store a newer reading; return its position."""
    reading = vehicle("EV_1", datetime.now(UTC), soc)
    posted = await client.post("/v1/ingest", content=encode(reading), headers=JSON)
    assert posted.status_code == 201, posted.text
    position: str = posted.headers["x-position"]
    return position


async def test_replica_answers_live_history_and_figures_and_says_as_of_when(client: httpx.AsyncClient) -> None:
    for path in QUESTIONS:
        answer, is_of_replica = await _from_replica(client, path)
        assert answer.status_code == 200, (path, answer.text)
        assert is_of_replica, path
        as_of = datetime.fromisoformat(answer.headers["x-as-of"])
        assert timedelta(0) < datetime.now(UTC) - as_of < timedelta(seconds=3), path
    for path in OF_THE_PRIMARY:
        answer, is_of_replica = await _from_replica(client, path)
        assert answer.status_code == 200, (path, answer.text)
        assert not is_of_replica, path
        assert "x-as-of" not in answer.headers


async def test_statistics_of_the_servers_show_that_the_replica_was_read(
    servers: Pair, client: httpx.AsyncClient
) -> None:
    primary, replica = _scans(servers.primary), _scans(servers.replica)
    for path in QUESTIONS * 3:
        assert (await client.get(path)).status_code == 200
    await until(lambda: _scans(servers.replica) > replica + len(QUESTIONS))
    assert _scans(servers.primary) == primary


async def test_primary_answers_while_the_replica_lags_beyond_the_limit(
    servers: Pair, client: httpx.AsyncClient
) -> None:
    before = await _fallbacks(client, "lag")
    with _paused(servers.replica):
        await _post(client, soc=11)
        await _used(client, 0)
        answer, is_of_replica = await _from_replica(client, LIVE)
        assert answer.json()["soc"] == 11
        assert not is_of_replica
        assert datetime.now(UTC) - datetime.fromisoformat(answer.headers["x-as-of"]) < timedelta(seconds=1)
        assert await _fallbacks(client, "lag") == before + 1
        assert await _metric(client, "fleet_replica_lag_seconds") > 2
    await _used(client)
    assert (await _from_replica(client, LIVE))[1]


async def test_reader_gets_its_own_write_by_its_position(servers: Pair, client: httpx.AsyncClient) -> None:
    before = await _fallbacks(client, "behind")
    with _paused(servers.replica):
        position = await _post(client, soc=22)
        assert (await client.get(LIVE)).json()["soc"] != 22  # the replica answers, and does not have it
        for path in (LIVE, "/v1/live/vehicles", "/v1/history/vehicles/EV_1"):
            answer, is_of_replica = await _from_replica(client, _with(path, position))
            assert '"soc":22' in answer.text, path
            assert not is_of_replica, path
        assert await _fallbacks(client, "behind") == before + 3
    await until(lambda: _has(client, position))
    answer, _ = await _from_replica(client, _with(LIVE, position))
    assert answer.json()["soc"] == 22


async def test_reader_gets_what_was_stored_at_a_time(servers: Pair, client: httpx.AsyncClient) -> None:
    with _paused(servers.replica):
        await _post(client, soc=33)
        declared = await client.put("/v1/devices/vehicles/EV_1", json={"name": "one"})
        assert declared.headers["x-position"]
        earlier = (await client.get(LIVE)).headers["x-as-of"]
        now = servers.primary.sql(
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
        )
        assert (await client.get(_with(LIVE, earlier))).json()["soc"] != 33
        answer = await client.get(_with(LIVE, now))
        assert answer.json()["soc"] == 33
        assert datetime.fromisoformat(answer.headers["x-as-of"]) >= datetime.fromisoformat(now)


@pytest.mark.parametrize(
    ("as_of", "about"),
    [
        ("2999-01-01T00:00:00Z", "later than the time of the database"),
        ("1-FFFFFFFFFFFF", "not a position of this database"),
        ("2-1", "not a position of this database"),
        ("yesterday", "RFC 3339"),
        ("1-fff", "RFC 3339"),
        ("1-" + "F" * 16, "RFC 3339"),
    ],
)
async def test_what_no_answer_can_contain_is_refused(client: httpx.AsyncClient, as_of: str, about: str) -> None:
    assert_problem(await client.get(_with(LIVE, as_of)), 422, about)


async def test_answers_do_not_go_back_for_a_client_that_returns_the_time_of_the_last(
    servers: Pair, client: httpx.AsyncClient
) -> None:
    with _paused(servers.replica):
        position = await _post(client, soc=44)
        first = await client.get(_with(LIVE, position))
        assert first.json()["soc"] == 44
        again = await client.get(
            _with(LIVE, first.headers["x-as-of"]), headers={"If-None-Match": first.headers["etag"]}
        )
        assert again.status_code == 304
        assert again.headers["x-as-of"] >= first.headers["x-as-of"]


async def test_changes_are_told_from_one_server_to_the_other(servers: Pair, client: httpx.AsyncClient) -> None:
    position = await _post(client, soc=50)
    await until(lambda: _has(client, position))
    of_replica = (await client.get("/v1/live/vehicles")).json()["changedSince"]
    with _paused(servers.replica):
        position = await _post(client, soc=51)
        of_primary = (await client.get(_with(f"/v1/live/vehicles?changedSince={of_replica}", position))).json()
        assert [item["soc"] for item in of_primary["items"]] == [51]
        # The replica has not got so far: its list would show the earlier state, or none could be told.
        following, is_of_replica = await _from_replica(
            client, f"/v1/live/vehicles?changedSince={of_primary['changedSince']}"
        )
        assert following.status_code == 200, following.text
        assert all(item["soc"] == 51 for item in following.json()["items"])
    position = await _post(client, soc=52)
    await until(lambda: _has(client, position))
    answer, is_of_replica = await _from_replica(client, f"/v1/live/vehicles?changedSince={of_primary['changedSince']}")
    assert is_of_replica
    assert [item["soc"] for item in answer.json()["items"]] == [52]


async def test_revoked_key_and_a_key_of_other_sites_are_refused_at_once(
    servers: Pair, api: Api, client: httpx.AsyncClient
) -> None:
    await client.put("/v1/devices/vehicles/EV_1", json={"site": "North"})
    tokens = [await _key(servers, keys.Grant(("read",), sites=("North",))), await _key(servers, keys.Grant(("read",)))]
    with _paused(servers.replica):
        async with api.client(tokens[0]) as of_site:
            assert len((await of_site.get("/v1/live/vehicles")).json()["items"]) == 1
            await client.put("/v1/devices/vehicles/EV_1", json={"site": "South"})
            assert (await of_site.get("/v1/live/vehicles")).json()["items"] == []
            assert (await of_site.get(LIVE)).status_code == 403
        async with api.client(tokens[1]) as revoked:
            assert (await revoked.get(LIVE)).status_code == 200
            await client.delete(f"/v1/keys/{tokens[1].split('_')[1]}")
            await until(lambda: _is_refused(revoked))


async def test_key_limited_to_devices_is_answered_by_the_replica(
    servers: Pair, api: Api, client: httpx.AsyncClient
) -> None:
    token = await _key(servers, keys.Grant(("read",), devices=("EV_*",)))
    before = await _metric(client, "fleet_replica_answers_total")
    async with api.client(token) as limited:
        assert (await limited.get(LIVE)).status_code == 200
    assert await _metric(client, "fleet_replica_answers_total") == before + 1


async def test_query_that_the_replica_cancels_is_answered_by_the_primary(servers: Pair) -> None:
    settings = ApiSettings(
        database_url=servers.primary.url("fleet", "api"), read_database_url=servers.replica.url("fleet", "api")
    )
    registry = CollectorRegistry()
    asked: list[bool] = []

    async def question(scope: Scope, _: Receive, send: Send) -> None:
        async with connection(scope["state"][READING]) as c:
            asked.append(await c.fetchval("SELECT pg_is_in_recovery()"))
            seconds = "CASE WHEN pg_is_in_recovery() THEN 60 ELSE 0 END"
            await c.fetch(f"SELECT pg_sleep({seconds}) FROM (SELECT count(*) FROM vehicle_live_status) AS counted")
        await Response("answered")(scope, _, send)

    async def conflict() -> None:
        """Hold a lock that the replica must take, too."""
        await until(lambda: _sleeps(servers.replica))
        servers.primary.sql("BEGIN; LOCK TABLE vehicle_live_status IN ACCESS EXCLUSIVE MODE; COMMIT", "fleet")

    pool = await open_pool(settings, 2)
    reports = reporting(settings.database_url, "api", settings.http_port, lambda: Status(True, None))
    async with reports, watched(settings, registry) as replicas:
        assert replicas is not None
        await until(replicas.usable)
        scope = {
            "type": "http",
            "method": "GET",
            FOUND: UNKNOWN_PATH,
            "state": {"key": ApiKey("", "", b"", frozenset(), Sight(), None, None)},
        }
        _, sent = await asyncio.gather(conflict(), ask(Reads(question, Pools(pool, pool), replicas), scope))
        assert registry.get_sample_value("fleet_replica_fallbacks_total", {"reason": "conflict"}) == 1
    await pool.close()
    assert asked == [True, False]
    assert [message.get("body") for message in sent] == [None, b"answered"]
    assert b"x-as-of" in dict(sent[0]["headers"])


async def test_without_the_setting_nothing_says_as_of_when_and_nothing_is_asked(
    servers: Pair, client: httpx.AsyncClient, start_api: Callable[..., Api]
) -> None:
    plain = start_api(servers.primary.url("fleet", "api"))
    async with plain.client(client.headers["authorization"].removeprefix("Bearer ")) as own:
        reading = encode(vehicle("EV_1", datetime.now(UTC), 66))
        posted = await own.post("/v1/ingest", content=reading, headers=JSON)
        assert "x-position" not in posted.headers
        answer = await own.get(LIVE)
        assert answer.json()["soc"] == 66
        assert "x-as-of" not in answer.headers
        assert "fleet_replica" not in (await own.get("/metrics")).text
        position = await _post(client, soc=67)
        assert (await own.get(_with(LIVE, position))).json()["soc"] == 67
        assert_problem(await own.get(_with(LIVE, "2999-01-01T00:00:00Z")), 422, "later than")


async def test_primary_answers_while_the_replica_is_away_and_after_it_came_back(
    own_servers: Pair, start_api: Callable[..., Api]
) -> None:
    servers = own_servers
    api = start_api(servers.primary.url("fleet", "api"), servers.replica)
    async with api.client(await _token(servers)) as client:
        await _used(client)
        servers.replica.process.kill()
        for path in QUESTIONS:
            answer, is_of_replica = await _from_replica(client, path)
            assert answer.status_code == 200, (path, answer.text)
            assert answer.headers["x-as-of"]
        assert not is_of_replica
        assert await _fallbacks(client, "unavailable") == len(QUESTIONS)
        servers.replica.start()
        await _used(client)
        assert (await _from_replica(client, LIVE))[1]


async def test_promoted_replica_answers_no_longer(own_servers: Pair, start_api: Callable[..., Api]) -> None:
    servers = own_servers
    api = start_api(servers.primary.url("fleet", "api"), servers.replica)
    async with api.client(await _token(servers)) as client:
        await _used(client)
        promote(servers.replica)
        await _post(client, soc=77)
        answer, is_of_replica = await _from_replica(client, LIVE)
        assert answer.json()["soc"] == 77
        assert not is_of_replica
        await _used(client, 0)


async def test_replica_answers_while_the_primary_is_away_as_of_then(
    own_servers: Pair, start_api: Callable[..., Api]
) -> None:
    servers = own_servers
    api = start_api(servers.url("api"), servers.replica, replica_lag_limit_s=1)
    async with api.client(await _token(servers)) as client:
        await _used(client)
        position = await _post(client, soc=88)
        await until(lambda: _has(client, position))
        servers.primary.process.kill()
        stopped_at = datetime.now(UTC)
        answer = await until(lambda: _answered(client, LIVE))
        assert answer.json()["soc"] == 88
        assert datetime.fromisoformat(answer.headers["x-as-of"]) <= stopped_at
        assert (await client.get(_with(LIVE, position))).json()["soc"] == 88
        await until(lambda: _is_not_known_at(client, stopped_at))


async def _is_not_known_at(client: httpx.AsyncClient, at: datetime) -> bool:
    """Whether 503 names `asOf`; the first one may be of a connection that was open when the primary died."""
    return "asOf" in assert_problem(await client.get(_with(LIVE, format_timestamp(at))), 503)["detail"]


async def test_second_replica_answers_in_place_of_the_first_and_follows_the_promoted_one(
    own_servers: Pair, tmp_path: Path, start_api: Callable[..., Api]
) -> None:
    servers = own_servers
    second = new_replica(servers.primary, tmp_path / "second" / "server")
    try:
        api = start_api(servers.url("api"), servers.replica, second)
        async with api.client(await _token(servers)) as client:
            await _used(client, 2)
            position = await _post(client, soc=90)
            servers.replica.stop()
            await _used(client, 1)
            lost = await _fallbacks(client, "unavailable")
            for path in QUESTIONS:
                assert (await _from_replica(client, path))[1], path
            assert await _fallbacks(client, "unavailable") == lost
            servers.replica.start()
            await _used(client, 2)

            _follow(second, servers.replica)
            await until(lambda: _position(second) == _position(servers.replica) == _position(servers.primary))
            servers.primary.stop()
            promote(servers.replica)
            await until(lambda: _declared(client))
            await _used(client, 1)
            answer, is_of_replica = await _from_replica(client, LIVE)
            assert answer.json()["soc"] == 90
            assert is_of_replica
            assert_problem(await client.get(_with(LIVE, position)), 410, "failover")
    finally:
        second.stop()


async def test_download_is_complete_although_its_replica_is_killed(
    own_servers: Pair, start_api: Callable[..., Api]
) -> None:
    servers = own_servers
    token = await _token(servers)
    store = PostgresStore(servers.primary.url("fleet", "fleet"))
    await store.write([*minutes("EV_2", 20_000)])
    await store.close()
    api = start_api(servers.primary.url("fleet", "api"), servers.replica)
    async with api.client(token) as client:
        await _used(client)
        begin = format_timestamp(datetime.now(UTC) - timedelta(days=20))
        path = f"/v1/history/vehicles/EV_2?from={begin}"
        whole = await client.get(path, headers={"Accept": "text/csv"})
        async with client.stream("GET", path, headers={"Accept": "text/csv"}) as answer:
            pieces = answer.aiter_bytes()
            read = [await anext(pieces)]
            servers.replica.process.kill()
            read += [piece async for piece in pieces]
        assert b"".join(read) == whole.content


def _follow(replica: Postgres, primary: Postgres) -> None:
    """Replay the log of another server from now on."""
    url = primary.url("postgres").replace("'", "''")
    replica.sql(f"ALTER SYSTEM SET primary_conninfo = '{url}'")
    replica.sql("SELECT pg_reload_conf()")


def _position(server: Postgres) -> str:
    """The end of the log that the server has written or replayed."""
    return server.sql(
        "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END"
    )


def _sleeps(server: Postgres) -> bool:
    return server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1"


def _with(path: str, as_of: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}asOf={as_of}"


async def _has(client: httpx.AsyncClient, position: str) -> bool:
    """Whether the replica has got so far."""
    return (await _from_replica(client, _with(LIVE, position)))[1]


async def _is_refused(client: httpx.AsyncClient) -> bool:
    return (await client.get(LIVE)).status_code == 401


async def _answered(client: httpx.AsyncClient, path: str) -> httpx.Response | None:
    answer = await client.get(path)
    return answer if answer.status_code == 200 else None


async def _declared(client: httpx.AsyncClient) -> bool:
    """Whether a server accepts a write."""
    answer = await client.put("/v1/devices/vehicles/EV_1", json={"name": "written after the failover"})
    return answer.status_code in (200, 201)
