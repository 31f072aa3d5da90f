"""The bridge as a process: start, stop, kill, standby and commands."""

import asyncio
import itertools
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from bridge.formats.contract_json import encode
from bridge.reading import format_timestamp
from bridge.version import VERSION
from local.mosquitto import Mosquitto
from local.ports import free_port
from local.postgres import Postgres
from tests.bridges import BridgeProcess, bridge_process, environment, serving
from tests.databases import new_database
from tests.devices import device, publish_with_paho
from tests.proxy import proxy_before
from tests.readings import minutes, now_minute, vehicle
from tests.traffic import Traffic
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

TOPIC = "fleet/vehicle/EV_1/telemetry"


async def rows(db: Db) -> int:
    found: int = await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history")
    return found


async def stored(db: Db, count: int) -> bool:
    return await rows(db) == count


@asynccontextmanager
async def load(url: str) -> AsyncIterator[list[int]]:
    """Publish readings of one device as fast as possible; in the end the list contains their number."""
    published = [0]
    going = True

    async def publish() -> None:
        async with device(url) as client:
            readings = minutes("EV_1", 100_000)
            while going:
                await client.publish(TOPIC, encode(next(readings)), 1)
                published[0] += 1

    publishing = asyncio.create_task(publish())
    try:
        yield published
    finally:
        going = False
        await publishing


async def more(published: list[int]) -> None:
    """Wait until a few hundred more have been published."""
    enough = published[0] + 200
    await until(lambda: published[0] > enough)


# -- End


async def test_sigterm_under_load_leaves_nothing_half_done(
    tmp_path: Path, broker: Mosquitto, database_url: str, db: Db
) -> None:
    window = {"past_limit_days": 100, "batch_wait_ms": 5}
    async with proxy_before(broker.bridge_url) as (proxy, url):
        traffic = Traffic.of(proxy)
        bridge = BridgeProcess(tmp_path, url, database_url, **window)
        await bridge.start()
        async with load(broker.url) as published:
            await more(published)
            assert await bridge.stop() == 0
            committed, acked = await rows(db), sum(map(len, traffic.acked.values()))
            assert acked == committed > 0, "read messages are committed, and committed ones are acknowledged"
            await more(published)
        async with bridge_process(tmp_path, url, database_url, **window) as again:
            await until(lambda: stored(db, published[0]))
            assert await again.metric("fleet_readings_total", outcome="duplicate") == 0
            assert await again.metric("fleet_mqtt_session_lost_total") == 0


async def test_sigterm_in_the_middle_of_a_backlog_acks_all_that_it_stored(
    tmp_path: Path, broker: Mosquitto, database_url: str, db: Db
) -> None:
    """The bridge is full, so that the socket has unread messages when the bridge stops."""
    settings = {"batch_wait_ms": 0, "batch_size": 50, "buffer_capacity": 100, "mqtt_receive_maximum": 500}
    async with bridge_process(tmp_path, broker.bridge_url, database_url, **settings) as bridge:
        async with db.transaction():
            await db.execute("LOCK TABLE vehicle_live_status")
            await publish_with_paho(broker.url, "5", [(TOPIC, encode(r)) for r in minutes("EV_1", 5_000)])
            bridge.process.send(signal.SIGTERM)
        await until(lambda: not bridge.process.running)
        assert bridge.process.exit_code == 0
        assert 100 <= await rows(db) < 5_000
        await bridge.start()
        await until(lambda: stored(db, 5_000))
        assert await bridge.metric("fleet_readings_total", outcome="duplicate") == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_it_with_exit_0_and_status_offline(
    tmp_path: Path, broker: Mosquitto, database_url: str, number: signal.Signals
) -> None:
    async with bridge_process(tmp_path, broker.bridge_url, database_url) as bridge, device(broker.url) as watcher:
        await watcher.subscribe("fleet/bridge/main/status", qos=1)
        assert (await anext(watcher.messages)).payload == b"online"
        assert await bridge.stop(number) == 0
        async with asyncio.timeout(20):
            assert (await anext(watcher.messages)).payload == b"offline"
    assert '"event": "stopped"' in bridge.process.log_tail(1)


async def test_sigterm_while_the_store_is_down_ends_it_soon_and_acks_nothing(
    tmp_path: Path, broker: Mosquitto, database_url: str, db: Db
) -> None:
    async with (
        proxy_before(database_url) as (proxy, through),
        bridge_process(tmp_path, broker.bridge_url, through) as bridge,
    ):
        proxy.refusing = True
        proxy.cut()
        await publish_with_paho(broker.url, "5", [(TOPIC, encode(r)) for r in minutes("EV_1", 20)])
        await until(lambda: _metric_is(bridge, "fleet_mqtt_messages_total", 20))
        await until(lambda: bridge.metric("fleet_store_unavailable_total"))
        assert await bridge.stop() == 0
        proxy.refusing = False
        await bridge.start()
        await until(lambda: stored(db, 20))


async def test_bridge_writes_again_soon_after_an_outage_and_names_its_cause(
    tmp_path: Path, broker: Mosquitto, database_url: str, db: Db
) -> None:
    async with (
        proxy_before(database_url) as (proxy, through),
        bridge_process(tmp_path, broker.bridge_url, through) as bridge,
        load(broker.url),
    ):
        await until(lambda: rows(db))
        proxy.refusing = True
        proxy.cut()
        before = await bridge.metric("fleet_store_unavailable_total")
        await until(lambda: _metric_is_at_least(bridge, "fleet_store_unavailable_total", before + 10))
        known = await rows(db)
        proxy.refusing = False
        await until(lambda: _more_rows(db, known))
    lines = bridge.process.log.read_text().splitlines()
    attempts = [json.loads(line) for line in lines if '"event": "database unavailable"' in line]
    assert "cannot switch to state" not in attempts[0]["reason"]
    assert attempts[0]["reason"].startswith("Connection")
    times = [attempt["unavailable_s"] for attempt in attempts]
    assert min(after - before for before, after in itertools.pairwise(times[-5:])) < 1.0  # it was 2.5 s and more


async def _metric_is_at_least(bridge: BridgeProcess, name: str, value: float) -> bool:
    return await bridge.metric(name) >= value


async def _more_rows(db: Db, known: int) -> bool:
    return await rows(db) > known


async def test_idle_bridge_is_not_ready_while_the_database_is_away_and_says_when_it_is_back(
    tmp_path: Path, broker: Mosquitto, database_url: str
) -> None:
    async with (
        proxy_before(database_url) as (proxy, through),
        bridge_process(tmp_path, broker.bridge_url, through) as bridge,
    ):
        proxy.refusing = True
        proxy.cut()
        await until(lambda: _readiness_is(bridge, 503, "database unavailable"))
        assert await bridge.metric("fleet_store_unavailable_total") > 0
        proxy.refusing = False
        await until(bridge.ready)
        assert '"event": "database available"' in bridge.process.log.read_text()


async def _readiness_is(bridge: BridgeProcess, status: int, detail: str) -> bool:
    found, body = await bridge.get("/readyz")
    return found == status and json.loads(body)["detail"] == detail


async def _metric_is(bridge: BridgeProcess, name: str, value: float) -> bool:
    return await bridge.metric(name) == value


async def test_killed_bridge_stores_everything_once_after_its_return(
    tmp_path: Path, broker: Mosquitto, database_url: str, db: Db
) -> None:
    window = {"past_limit_days": 100}
    async with bridge_process(tmp_path, broker.bridge_url, database_url, **window) as bridge:
        async with load(broker.url) as published:
            for _ in range(3):
                await more(published)
                bridge.process.kill()
                await bridge.start()
        await until(lambda: stored(db, published[0]))
        assert await db.fetchval("SELECT count(*) FROM rejected_message") == 0
        assert await db.fetchval("SELECT count(DISTINCT ts) FROM vehicle_telemetry_history") == published[0]


async def test_standby_takes_over_when_the_first_is_killed(
    tmp_path: Path, broker: Mosquitto, database_url: str, db: Db
) -> None:
    window = {"past_limit_days": 100}
    second = BridgeProcess(tmp_path, broker.bridge_url, database_url, **window)
    async with bridge_process(tmp_path, broker.bridge_url, database_url, **window) as first:
        second.process.start()
        try:
            await until(lambda: _answers(second, 503))
            assert "standing by" in (await second.get("/readyz"))[1]
            assert (await second.get("/healthz"))[0] == 200
            assert await second.metric("fleet_bridge_leader") == 0
            assert await first.metric("fleet_bridge_leader") == 1
            assert await second.metric("fleet_ready") == 0
            assert await first.metric("fleet_ready") == 1
            assert await first.metric("fleet_rejected_total", reason="not_json") == 0
            async with load(broker.url) as published:
                await until(lambda: published[0] > 100)
                first.process.kill()
                await until(second.ready)
                await more(published)
            await until(lambda: stored(db, published[0]))
            assert await second.metric("fleet_bridge_leader") == 1
            assert await second.metric("fleet_mqtt_taken_over_total") == 0
        finally:
            second.process.kill()


async def _answers(bridge: BridgeProcess, status: int) -> bool:
    return (await bridge.get("/readyz"))[0] == status


# -- Start


def run(*arguments: str, **fields: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bridge", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environment(**fields))


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": "many", "database_url": "x"},
        {"bridge_mqtt_url": "http://x", "mqtt_ca_file": "/nowhere.pem"},  # of the source
        {"source": "carrier_pigeon"},
    ],
)
def test_wrong_settings_stop_the_start_with_their_names(wrong: dict[str, str]) -> None:
    result = run("run", bridge_http_port=free_port(), **wrong)
    assert result.returncode == 2
    assert set(re.findall(r"FLEET_\w+", result.stderr)) == {f"FLEET_{name.upper()}" for name in wrong}


async def test_taken_health_port_stops_the_start_with_its_name(
    tmp_path: Path, broker: Mosquitto, database_url: str
) -> None:
    async with bridge_process(tmp_path, broker.bridge_url, database_url) as bridge:
        fields = {"bridge_http_port": bridge.port, "database_url": database_url, "bridge_mqtt_url": broker.bridge_url}
        result = await asyncio.to_thread(run, "run", **fields)
    assert (result.returncode, "FLEET_BRIDGE_HTTP_PORT" in result.stderr) == (2, True)


@pytest.mark.parametrize("host", ["203.0.113.1", "nowhere.invalid"])
def test_host_that_is_not_of_this_machine_stops_the_start_with_its_name(host: str) -> None:
    for command, program in (("run", "bridge"), ("keep", "keeper")):
        result = run(command, **{f"{program}_http_host": host, f"{program}_http_port": free_port()})
        assert result.returncode == 2
        assert set(re.findall(r"FLEET_\w+", result.stderr)) == {f"FLEET_{program.upper()}_HTTP_HOST"}


def test_database_that_may_forget_is_refused(postgres: Postgres, database_url: str) -> None:
    postgres.sql(f"ALTER DATABASE {database_url.rpartition('/')[2]} SET synchronous_commit = off")
    result = run("run", database_url=database_url, bridge_http_port=free_port())
    assert result.returncode == 2
    assert "synchronous_commit = off" in result.stderr


def test_server_without_fsync_is_refused(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", settings={"fsync": "off"})
    server.start()
    try:
        result = run("run", database_url=server.url(), bridge_http_port=free_port())
    finally:
        server.stop()
    assert result.returncode == 2
    assert "fsync = off" in result.stderr


async def test_bridge_waits_for_its_schema_and_begins_when_it_is_there(
    tmp_path: Path, broker: Mosquitto, postgres: Postgres
) -> None:
    url = new_database(postgres)
    bridge = BridgeProcess(tmp_path, broker.bridge_url, url)
    bridge.process.start()
    try:
        await until(lambda: "run `python -m bridge migrate`" in bridge.process.log_tail())
        first = await asyncio.to_thread(run, "migrate", database_url=url)
        again = await asyncio.to_thread(run, "migrate", database_url=url)
        assert (first.returncode, again.returncode) == (0, 0)
        assert "0001_tables" in first.stderr
        assert '"applied": []' in again.stderr
        await until(bridge.ready)
    finally:
        bridge.process.kill()


@pytest.mark.parametrize(
    "arguments", [["migrate"], ["rejected", "list"], ["rejected", "replay", "--reason", "not_json"]]
)
def test_command_without_a_database_says_so_in_a_line(arguments: list[str]) -> None:
    result = run(*arguments, database_url=f"postgresql://fleet@127.0.0.1:{free_port()}/fleet")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "Connect" in result.stderr


# -- Health


async def test_metrics_name_the_version_that_runs(broker: Mosquitto, database_url: str) -> None:
    async with serving(broker.bridge_url, database_url) as health:
        assert await health.metric("fleet_build_info", version=VERSION) == 1


async def test_health_port_tells_life_readiness_and_metrics(
    tmp_path: Path, broker: Mosquitto, database_url: str
) -> None:
    async with bridge_process(tmp_path, broker.bridge_url, database_url) as bridge:
        assert await bridge.get("/healthz") == (200, '{"status":"ok"}')
        assert await bridge.get("/readyz") == (200, '{"status":"ready"}')
        assert await bridge.metric("fleet_mqtt_connected") == 1
        assert await bridge.metric("process_resident_memory_bytes") > 0
        broker.stop()
        await until(lambda: _answers(bridge, 503))
        _, problem = await bridge.get("/readyz")
        assert json.loads(problem)["detail"] == "not connected to the broker"
        assert (await bridge.get("/healthz"))[0] == 200
        assert await bridge.metric("fleet_mqtt_connected") == 0


# -- Rejected


async def test_rejected_messages_are_listed_shown_and_replayed_once(
    tmp_path: Path, broker: Mosquitto, database_url: str, db: Db
) -> None:
    old = vehicle("EV_1", now_minute() - timedelta(days=200))
    async with bridge_process(tmp_path, broker.bridge_url, database_url):
        await publish_with_paho(broker.url, "5", [(TOPIC, encode(old)), (TOPIC, b"\xffnot json")])
        await until(lambda: _rejected(db, 2))

    listed = [json.loads(line) for line in command(database_url, "rejected", "list").splitlines()]
    assert {row["reason"] for row in listed} == {"timestamp_out_of_range", "not_json"}
    late, broken = sorted(listed, key=lambda row: row["reason"], reverse=True)
    assert (late["device"], late["source"], late["topic"], late["replayed_at"]) == ("EV_1", "mqtt", TOPIC, None)
    filters = ["--reason", "not_json", "--device", "EV_1", "--limit", "1"]
    assert json.loads(command(database_url, "rejected", "list", *filters)) == broken
    shown = json.loads(command(database_url, "rejected", "show", late["id"]))
    assert json.loads(shown["payload"])["timestamp"] == format_timestamp(old.timestamp)
    assert json.loads(command(database_url, "rejected", "show", broken["id"]))["payload"] == "\\xff6e6f74206a736f6e"

    still = run("rejected", "replay", late["id"], database_url=database_url)
    assert (still.returncode, "timestamp_out_of_range" in still.stdout) == (1, True)
    assert await rows(db) == 0

    wider = {"database_url": database_url, "past_limit_days": 400}
    foreseen = run("rejected", "replay", "--reason", "timestamp_out_of_range", "--dry-run", **wider)
    assert (foreseen.returncode, foreseen.stdout) == (0, f"{late['id']} stored\n")
    assert await rows(db) == 0
    replayed = run("rejected", "replay", "--reason", "timestamp_out_of_range", **wider)
    assert (replayed.returncode, replayed.stdout) == (0, f"{late['id']} stored\n")
    assert await db.fetchval("SELECT ts FROM vehicle_telemetry_history") == old.timestamp
    assert await db.fetchval("SELECT replayed_at IS NOT NULL FROM rejected_message WHERE id = $1", late["id"])
    again = run("rejected", "replay", late["id"], **wider)
    assert (again.returncode, again.stdout) == (0, "")
    assert (await rows(db), await db.fetchval("SELECT count(*) FROM rejected_message")) == (1, 2)


async def _rejected(db: Db, count: int) -> bool:
    return bool(await db.fetchval("SELECT count(*) FROM rejected_message") == count)


def command(database_url: str, *arguments: str) -> str:
    result = run(*arguments, database_url=database_url)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_show_of_an_unknown_message_fails_with_its_id(database_url: str) -> None:
    unknown = "00000000-0000-0000-0000-000000000000"
    result = run("rejected", "show", unknown, database_url=database_url)
    assert (result.returncode, unknown in result.stderr) == (1, True)
