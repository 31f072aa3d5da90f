"""The live stream against the real process and a real database, over sockets."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from api import keys
from bridge.formats.contract_json import encode_many
from bridge.reading import Reading
from bridge.store.migrate import migrate
from local.postgres import LOGINS, Postgres
from tests.integration.api.event_stream import PATH, EventStream, watch
from tests.integration.api.server import Api, Connection, assert_problem, launch
from tests.readings import meter, now_minute, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio

NOW = now_minute()


async def store(client: httpx.AsyncClient, *readings: Reading) -> None:
    answer = await client.post(
        "/v1/ingest", content=encode_many(readings), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 201, answer.text


async def declare(client: httpx.AsyncClient, path: str, **body: object) -> None:
    answer = await client.put(f"/v1/devices/{path}", json=body)
    assert answer.status_code in (200, 201), answer.text


@pytest.fixture(autouse=True)
async def _nothing_is_looked_at(db: Connection) -> None:
    """The process has forgotten the rows of the test before."""
    await until(lambda: _none_looks(db), "earlier streams are closed")


async def _sessions(db: Connection) -> int:
    """Connections that look at the live tables of this database."""
    count: int = await db.fetchval(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE application_name = 'fleet-api-stream' AND datname = current_database()"
    )
    return count


@pytest.mark.parametrize(("accepted", "coding"), [("gzip, deflate, br", "deflate"), ("gzip", None), ("", None)])
async def test_stream_begins_with_the_snapshot_and_goes_on_with_changes(
    client: httpx.AsyncClient, accepted: str, coding: str | None
) -> None:
    await store(client, vehicle("EV_1", NOW, soc=50), meter("METER_1", NOW))
    async with watch(client, coding=accepted) as stream:
        assert stream.response.headers.get("content-encoding") == coding
        assert stream.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (await stream.snapshot()).keys() == {"EV_1", "METER_1"}
        await store(client, vehicle("EV_1", NOW + timedelta(seconds=1), soc=51), vehicle("EV_2", NOW))
        await stream.shows("EV_1", soc=51)
        await stream.shows("EV_2", soc=72.5)
        listed = (await client.get("/v1/live/vehicles")).json()["items"]
        for row in listed:
            streamed = dict(stream.picture[row["vehicleId"]])
            assert abs(row.pop("ageSeconds") - streamed.pop("ageSeconds")) < 10
            assert streamed == row
        assert stream.retry == "2000"
        assert all(event.data["meters"] == [] for event in stream.of("changes"))


async def test_stream_of_an_empty_fleet_has_an_empty_snapshot(client: httpx.AsyncClient) -> None:
    async with watch(client) as stream:
        assert await stream.snapshot() == {}
        assert stream.of("snapshot")[0].data.items() >= {"vehicles": [], "meters": [], "more": False}.items()


async def test_snapshot_of_many_devices_comes_in_parts(client: httpx.AsyncClient) -> None:
    await store(
        client, *(vehicle(f"EV_{n:04}", NOW) for n in range(1_500)), *(meter(f"M_{n:04}", NOW) for n in range(700))
    )
    async with watch(client) as stream:
        assert len(await stream.snapshot()) == 2_200
        parts = [event.data for event in stream.of("snapshot")]
        assert [len(part["vehicles"]) + len(part["meters"]) for part in parts] == [1_000, 1_000, 200]
        assert [part["more"] for part in parts] == [True, True, False]
        assert [event.id is None for event in stream.of("snapshot")] == [True, True, False]


async def test_changes_of_a_second_are_one_event(client: httpx.AsyncClient) -> None:
    async with watch(client) as stream:
        await stream.snapshot()
        began = time.monotonic()
        for n in range(1, 60):
            await store(client, vehicle("EV_1", NOW - timedelta(minutes=1) + timedelta(seconds=n), soc=n))
        await stream.shows("EV_1", soc=59)
        assert len(stream.of("changes")) <= time.monotonic() - began + 2


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"kind": "vehicles"}, {"EV_1", "EV_2"}),
        ({"kind": "meters"}, {"METER_1"}),
        ({"site": "North"}, {"EV_1", "METER_1"}),
        ({"site": "North", "kind": "meters"}, {"METER_1"}),
        ({"ids": "EV_2,METER_1"}, {"EV_2", "METER_1"}),
        ({"ids": ["EV_2", "EV_1"], "site": "North"}, {"EV_1"}),
        ({"ids": "EV_9"}, set()),
    ],
)
async def test_filter_limits_snapshot_and_changes(
    client: httpx.AsyncClient, query: dict[str, Any], expected: set[str]
) -> None:
    await declare(client, "vehicles/EV_1", site="North")
    await declare(client, "meters/METER_1", site="North")
    fleet = ["EV_1", "EV_2"]
    await store(client, *(vehicle(id_, NOW, soc=1) for id_ in fleet), meter("METER_1", NOW, kwh=1))
    async with watch(client, **query) as stream, watch(client) as whole:
        assert (await stream.snapshot()).keys() == expected
        await whole.snapshot()
        later = NOW + timedelta(seconds=1)
        await store(client, *(vehicle(id_, later, soc=2) for id_ in fleet), meter("METER_1", later, kwh=2))
        await whole.shows("METER_1", kwhConsumedAc=2)
        for id_ in expected:
            await stream.shows(id_, timestamp=whole.picture[id_]["timestamp"])
        assert stream.picture.keys() == expected


@pytest.mark.parametrize(
    "query", [{"kind": "vehicle"}, {"id": "EV_1"}, {"ids": "a b"}, {"since": "1"}, {"ids": ",".join(["A"] * 201)}]
)
async def test_wrong_parameter_is_refused(client: httpx.AsyncClient, query: dict[str, str]) -> None:
    assert_problem(await client.get(PATH, params=query), 422, next(iter(query)))


async def test_stream_needs_the_scope_read(api: Api, db: Connection) -> None:
    _, token = await keys.create(db, "device", keys.Grant(("ingest",)))
    async with api.client(token) as client:
        assert_problem(await client.get(PATH), 403, "read")
    async with api.client() as client:
        assert_problem(await client.get(PATH), 401)


async def test_resumed_stream_has_only_what_has_changed(client: httpx.AsyncClient) -> None:
    await store(client, *(vehicle(f"EV_{n}", NOW) for n in range(20)))
    async with watch(client) as stream:
        await stream.snapshot()
        last_id = stream.last_id
    await store(client, vehicle("EV_7", NOW + timedelta(seconds=1), soc=1), vehicle("EV_NEW", NOW))
    async with watch(client, last_id) as stream:
        await stream.shows("EV_7", soc=1)
        assert stream.picture.keys() == {"EV_7", "EV_NEW"}
        assert stream.of("snapshot") == []
        assert stream.last_id != last_id


async def test_stream_is_resumed_at_another_process(
    api: Api, client: httpx.AsyncClient, start_api: Callable[..., Api], token: str
) -> None:
    await store(client, vehicle("EV_1", NOW), vehicle("EV_2", NOW))
    async with watch(client) as stream:
        await stream.snapshot()
    await store(client, vehicle("EV_2", NOW + timedelta(seconds=1), soc=1))
    async with start_api().client(token) as other, watch(other, stream.last_id) as resumed:
        await resumed.shows("EV_2", soc=1)
        assert resumed.picture.keys() == {"EV_2"}


async def test_change_that_commits_after_a_later_one_is_not_missed(client: httpx.AsyncClient, db: Connection) -> None:
    """A comparison of times would miss it, on the open stream and when it is resumed."""
    await store(client, vehicle("EV_1", NOW), vehicle("EV_2", NOW))
    transaction = db.transaction()
    await transaction.start()
    async with db.transaction():  # a subtransaction: snapshots do not list its number
        await db.execute("UPDATE vehicle_live_status SET soc = 1 WHERE vehicle_id = 'EV_1'")
    async with watch(client) as stream:
        await stream.snapshot()
        await store(client, vehicle("EV_2", NOW + timedelta(seconds=1), soc=2))
        await stream.shows("EV_2", soc=2)
        last_id = stream.last_id
        await transaction.commit()
        await stream.shows("EV_1", soc=1)
    async with watch(client, last_id) as resumed:
        await resumed.shows("EV_1", soc=1)


@pytest.mark.parametrize("last_id", ["nonsense", "1-2-3-abc", "9" * 5_000, "1-99999999999999999-3-4", "0-0-0-0"])
async def test_unknown_id_gets_a_snapshot(client: httpx.AsyncClient, last_id: str) -> None:
    await store(client, vehicle("EV_1", NOW))
    async with watch(client, last_id) as stream:
        assert (await stream.snapshot()).keys() == {"EV_1"}


async def test_id_from_before_a_change_of_the_register_gets_a_snapshot(
    client: httpx.AsyncClient, db: Connection
) -> None:
    await store(client, vehicle("EV_1", NOW))
    async with watch(client) as stream:
        await stream.snapshot()
    await declare(client, "vehicles/EV_1", site="North")
    await until(lambda: _none_looks(db), "the register is read again")
    async with watch(client, stream.last_id) as stream:
        assert (await stream.snapshot()).keys() == {"EV_1"}


async def test_device_that_comes_to_a_site_appears_and_one_that_leaves_it_ends_the_stream(
    client: httpx.AsyncClient,
) -> None:
    await declare(client, "vehicles/EV_1", site="North")
    await store(client, vehicle("EV_1", NOW), vehicle("EV_2", NOW))
    async with watch(client, site="North") as stream:
        assert (await stream.snapshot()).keys() == {"EV_1"}
        await declare(client, "vehicles/EV_2", site="North")
        await stream.shows("EV_2", soc=72.5)
        await declare(client, "vehicles/EV_1", site="South")
        assert await stream.end() == "complete"
        assert stream.of(":")[-1].data == "the register has changed"
    async with watch(client, stream.last_id, site="North") as stream:
        assert (await stream.snapshot()).keys() == {"EV_2"}


async def test_device_that_falls_silent_is_a_change(client: httpx.AsyncClient) -> None:
    await declare(client, "vehicles/EV_1", intervalS=1)
    await store(client, vehicle("EV_1", datetime.now(UTC)), vehicle("EV_2", NOW))
    async with watch(client) as stream:
        assert not (await stream.snapshot())["EV_1"]["silent"]
        last_id = stream.last_id
        row = await stream.shows("EV_1", silent=True)
        assert 3 < row["ageSeconds"] < 60
    async with watch(client, last_id) as resumed:
        await resumed.shows("EV_1", silent=True)
        assert resumed.picture.keys() == {"EV_1"}


async def test_200_viewers_get_each_change_with_one_look_a_second(
    client: httpx.AsyncClient, api: Api, token: str, db: Connection
) -> None:
    scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'vehicle_live_status'"
    before, began = await db.fetchval(scans), time.monotonic()
    limits = httpx.Limits(max_connections=None)
    async with api.client(token, limits=limits) as viewers, contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(watch(viewers)) for _ in range(200)]
        await asyncio.gather(*(stream.snapshot() for stream in streams))
        for n in (1, 2, 3):
            await store(client, vehicle("EV_1", NOW + timedelta(seconds=n), soc=n))
            await asyncio.gather(*(stream.shows("EV_1", soc=n) for stream in streams))
        assert {len(stream.of("changes")) for stream in streams} == {3}
        assert await _sessions(db) == 1
    await until(lambda: _none_looks(db), "nothing is looked at without viewers")
    elapsed_s = time.monotonic() - began
    assert 3 <= await db.fetchval(scans) - before <= elapsed_s + 2


async def _none_looks(db: Connection) -> bool:
    return await _sessions(db) == 0


async def test_heartbeat_comes_when_nothing_changes(start_api: Callable[..., Api], token: str) -> None:
    async with start_api(stream_heartbeat_s=0.2).client(token) as client, watch(client) as stream:
        await until(lambda: len(stream.of(":")) >= 3, "three heartbeats have come")
        assert stream.of(":")[0].data == "heartbeat"
        assert stream.of("changes") == []


async def test_stream_of_a_revoked_key_ends(start_api: Callable[..., Api], db: Connection, token: str) -> None:
    id_, other = await keys.create(db, "other", keys.Grant(("read",)))
    api = start_api(stream_heartbeat_s=0.2)
    async with (
        api.client(other) as client,
        api.client(token) as untouched,
        watch(client) as stream,
        watch(untouched) as alive,
    ):
        await stream.snapshot()
        await keys.revoke(db, id_)
        assert await stream.end() == "complete"
        assert stream.of(":")[-1].data == "the API key is no longer valid"
        assert alive.ended is None


async def test_number_of_streams_is_limited(start_api: Callable[..., Api], db: Connection, token: str) -> None:
    api = start_api(stream_max=3, stream_max_per_key=2)
    _, other = await keys.create(db, "other", keys.Grant(("read",)))
    async with api.client(token) as client, api.client(other) as others:
        async with watch(client), watch(client) as second:
            refused = assert_problem(await client.get(PATH), 429, "2 open live streams")
            assert refused["status"] == 429
            async with watch(others):
                answer = await others.get(PATH)
                assert_problem(answer, 503, "3 open live streams")
                assert int(answer.headers["Retry-After"]) > 0
            assert second.ended is None
        await until(lambda: _opens(client), "a place is free again")


async def _opens(client: httpx.AsyncClient) -> bool:
    async with client.stream("GET", PATH) as response:
        return response.status_code == 200


async def test_slow_reader_is_dropped_with_bounded_memory_and_comes_back_with_a_snapshot(
    start_api: Callable[..., Api], token: str
) -> None:
    api = start_api(stream_buffer_kib=64)
    process = psutil.Process(api.process.pid)
    async with api.client(token) as client:
        names = [f"EV_{n:04}" for n in range(2_000)]
        await store(client, *(vehicle(name, NOW - timedelta(hours=1)) for name in names))
        with _unread(api, token) as slow:
            await until(lambda: _viewers(client, 1), "the stream is open")
            before = process.memory_info().rss
            n = 0
            while not await _viewers(client, 0):
                n += 1
                await store(client, *(vehicle(name, NOW - timedelta(seconds=3_000 - n), soc=n % 100) for name in names))
            assert process.memory_info().rss - before < 30_000_000
            assert "fleet_stream_dropped_total 1.0" in (await client.get("/metrics")).text
            port = slow.getsockname()[1]
            await until(lambda: port not in _peers(process), "the connection is closed")
        async with watch(client) as stream:
            assert len(await stream.snapshot()) == 2_000


def _unread(api: Api, token: str) -> socket.socket:
    """A connection on which the stream is requested and nothing is read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", api.port))
    connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    return connection


def _peers(process: psutil.Process) -> set[int]:
    """The ports of the clients that are connected."""
    return {each.raddr.port for each in process.net_connections() if each.raddr}


async def _viewers(client: httpx.AsyncClient, count: int) -> bool:
    return f"fleet_stream_viewers {count}.0" in (await client.get("/metrics")).text


async def test_sigterm_ends_streams_at_once(start_api: Callable[..., Api], token: str) -> None:
    api = start_api()
    async with api.client(token) as client, watch(client) as stream:
        await stream.snapshot()
        names = [f"EV_{n:04}" for n in range(3_000)]
        await store(client, *(vehicle(name, NOW) for name in names))
        with _unread(api, token):
            await until(lambda: _viewers(client, 2), "both streams are open")
            began = time.monotonic()
            api.process.send(signal.SIGTERM)
            assert await stream.end() == "complete"
            assert stream.of(":")[-1].data == "shutting down"
            await until(lambda: api.process.exit_code is not None, "the process has ended")
            assert time.monotonic() - began < 10
    assert api.process.exit_code == 0
    assert "error" not in api.log


async def test_closed_connection_leaves_no_viewer(client: httpx.AsyncClient, db: Connection) -> None:
    async with watch(client) as stream:
        await stream.snapshot()
        assert await _sessions(db) == 1
    await until(lambda: _viewers(client, 0), "the viewer is gone")
    await until(lambda: _none_looks(db), "nothing is looked at")


async def test_head_opens_no_stream(client: httpx.AsyncClient) -> None:
    answer = await client.head(PATH)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    await until(lambda: _viewers(client, 0), "the viewer is gone")


async def test_larger_fleet_is_watched_by_site_or_ids(start_api: Callable[..., Api], token: str) -> None:
    api = start_api(stream_whole_devices=10)
    async with api.client(token) as client:
        await declare(client, "vehicles/EV_1", site="North")
        await store(client, *(vehicle(f"EV_{n}", NOW) for n in range(20)))
        assert_problem(await client.get(PATH), 422, "site")
        async with watch(client, ids="EV_2,EV_3") as some, watch(client, site="North") as north:
            assert (await some.snapshot()).keys() == {"EV_2", "EV_3"}
            assert (await north.snapshot()).keys() == {"EV_1"}
            later = NOW + timedelta(seconds=1)
            await store(client, *(vehicle(f"EV_{n}", later, soc=n) for n in range(20)))
            await some.shows("EV_3", soc=3)
            await north.shows("EV_1", soc=1)
            await declare(client, "vehicles/EV_4", site="North")
            await north.shows("EV_4", soc=4)
            assert some.picture.keys() == {"EV_2", "EV_3"}
            assert north.picture.keys() == {"EV_1", "EV_4"}


async def test_stream_outlives_a_restart_of_the_database(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", settings={"shared_buffers": "16MB"})
    server.start()
    try:
        server.ensure_database("fleet", "fleet")
        server.ensure_login("api", LOGINS["api"])
        await migrate(server.url("fleet", "fleet"))
        api = launch(server.url("fleet", "api"), tmp_path / "api.log", {"stream_heartbeat_s": 0.3})
        try:
            await _restarted(server, api)
        finally:
            api.process.stop()
    finally:
        server.stop()


async def _restarted(server: Postgres, api: Api) -> None:
    token = await _key(server)
    async with api.client(token) as client:
        await store(client, vehicle("EV_1", NOW), vehicle("EV_2", NOW))
        async with watch(client) as stream:
            await stream.snapshot()
            server.stop()
            await until(lambda: stream.of("database"), "the stream says that the database is unavailable")
            assert stream.of("database")[-1].data["available"] is False
            beats = len(stream.of(":"))
            await until(lambda: len(stream.of(":")) > beats, "heartbeats go on")
            assert_problem(await client.get(PATH), 503)
            server.start()
            api.wait_until("/readyz")
            await until(lambda: len(stream.of("database")) == 2, "the stream says that the database is back")
            assert stream.of("database")[-1].data["available"] is True
            await store(client, vehicle("EV_1", NOW + timedelta(seconds=1), soc=5))
            await stream.shows("EV_1", soc=5)
            assert _named(stream) == {"EV_1"}
            assert stream.ended is None


def _named(stream: EventStream) -> set[str]:
    return {row["vehicleId"] for event in stream.of("changes") for row in event.data["vehicles"]}


async def test_changes_that_are_too_many_for_all_viewers_come_less_often_and_the_stream_says_so(
    postgres: Postgres, database_url: str, db: Connection, tmp_path: Path
) -> None:
    api = launch(database_url, tmp_path / "api.log", {"stream_mib_per_s": 0.001})
    try:
        token = (await keys.create(db, "test", keys.Grant(keys.DEFAULT_SCOPES)))[1]
        async with api.client(token) as client, watch(client, coding="identity") as stream:
            await stream.snapshot()
            await store(client, *(vehicle(f"EV_{n}", NOW) for n in range(50)))
            await until(lambda: stream.of("pace"), "the stream says that it is slower")
            assert stream.of("pace")[0].data["everyS"] == 5
            async with watch(client) as late:
                assert len(await late.snapshot()) == 50
                await until(lambda: late.of("pace"), "a viewer that comes later is told as well")
            for n in range(5):
                await store(client, vehicle("EV_1", NOW - timedelta(hours=1, seconds=n)))
            await store(client, vehicle("EV_1", NOW + timedelta(seconds=1), soc=12))
            await stream.shows("EV_1", soc=12)
            await until(lambda: len(stream.of("pace")) > 1, "the stream says that it is as fast as before")
            assert stream.of("pace")[1].data["everyS"] == 1
    finally:
        api.process.stop()


async def _key(server: Postgres) -> str:
    db: Connection = await asyncpg.connect(server.url("fleet", "fleet"))
    try:
        return (await keys.create(db, "test", keys.Grant(keys.DEFAULT_SCOPES)))[1]
    finally:
        await db.close()


@pytest.mark.parametrize("limits", [{"devices": ("vehicle:EV_OWN*",)}, {"sites": ("North",)}], ids=["devices", "site"])
async def test_limited_key_is_sent_what_it_sees(
    limits: dict[str, Any], api: Api, client: httpx.AsyncClient, db: Connection
) -> None:
    await declare(client, "vehicles/EV_OWN_1", site="North")
    await declare(client, "vehicles/EV_OWN_2", site="North")
    await store(client, vehicle("EV_OWN_1", NOW), vehicle("EV_OTHER", NOW), meter("METER_OTHER", NOW))
    token = (await keys.create(db, "own", keys.Grant(("read",), **limits)))[1]
    async with api.client(token) as own, watch(client) as whole, watch(own) as stream:
        assert (await whole.snapshot()).keys() == {"EV_OWN_1", "EV_OTHER", "METER_OTHER"}
        assert (await stream.snapshot()).keys() == {"EV_OWN_1"}
        await store(client, vehicle("EV_OTHER", NOW + timedelta(seconds=1), soc=51), vehicle("EV_OWN_2", NOW))
        await whole.shows("EV_OTHER", soc=51)
        await stream.shows("EV_OWN_2", soc=72.5)
        assert stream.picture.keys() == {"EV_OWN_1", "EV_OWN_2"}
        refused = await own.get(PATH, params={"site": "South"})
        assert_problem(refused, 403, "site: is not a site that the API key is limited to")


async def test_stream_of_a_key_ends_when_a_device_leaves_its_site(
    api: Api, client: httpx.AsyncClient, db: Connection
) -> None:
    await declare(client, "vehicles/EV_1", site="North")
    await store(client, vehicle("EV_1", NOW))
    token = (await keys.create(db, "own", keys.Grant(("read",), sites=("North",))))[1]
    async with api.client(token) as own:
        async with watch(own) as stream:
            assert (await stream.snapshot()).keys() == {"EV_1"}
            await declare(client, "vehicles/EV_1", site="South")
            assert await stream.end() == "complete"
        async with watch(own, stream.last_id) as again:
            assert await again.snapshot() == {}


RAISE = (
    "INSERT INTO alarm (rule, measure, severity, kind, device, site, value, bound, unit, message) "
    "VALUES ('soc-low', 'soc', 'warning', 'vehicle', $1, $2, 3, 5, '%', 'low') RETURNING id"
)
RAISE_OF_THE_SYSTEM = (
    "INSERT INTO alarm (rule, measure, severity, value, bound, unit, message) "
    "VALUES ('disk-forecast', 'diskDays', 'critical', 3, 30, 'd', 'full') RETURNING id"
)


async def test_alarms_are_sent_when_they_are_raised_acknowledged_and_cleared(
    api: Api, client: httpx.AsyncClient, db: Connection
) -> None:
    await store(client, vehicle("EV_1", NOW))
    await db.fetchval(RAISE, "EV_0", None)  # before the stream: a client lists what is open
    token = (await keys.create(db, "own", keys.Grant(("read",), devices=("EV_1",))))[1]
    async with api.client(token) as own, watch(client) as whole, watch(own) as limited:
        await whole.snapshot()
        await limited.snapshot()
        first = await db.fetchval(RAISE, "EV_1", None)
        await until(lambda: whole.of("alarm") and limited.of("alarm"), "the alarm is sent")
        listed = (await client.get(f"/v1/alarms/{first}")).json()
        assert [event.data for event in whole.of("alarm")] == [event.data for event in limited.of("alarm")] == [listed]
        await db.execute("UPDATE alarm SET acknowledged_at = now(), acknowledged_by = 'me' WHERE id = $1", first)
        await until(lambda: len(whole.of("alarm")) == 2, "its acknowledgement is sent")
        await db.execute("UPDATE alarm SET cleared_at = now() WHERE id = $1", first)
        await until(lambda: len(whole.of("alarm")) == 3, "its end is sent")
        second, third = await db.fetchval(RAISE, "EV_2", None), await db.fetchval(RAISE_OF_THE_SYSTEM)
        await until(lambda: len(whole.of("alarm")) == 5, "the others are sent")
        states = [(e.data["id"], e.data["acknowledgedBy"], e.data["clearedAt"] is None) for e in whole.of("alarm")]
        expected = [(first, None, True), (first, "me", True), (first, "me", False)]
        assert states == [*expected, (second, None, True), (third, None, True)]
        assert {event.data["id"] for event in limited.of("alarm")} == {first}
