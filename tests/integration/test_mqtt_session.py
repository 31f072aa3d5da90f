"""The durable session: after failures of broker, bridge and database nothing is lost or acknowledged twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import asyncpg
import mqtt5
import pytest

from bridge.connect_rate import MOST
from bridge.formats.contract_json import encode, encode_many
from bridge.store.postgres import FEW
from local.mosquitto import Mosquitto
from local.postgres import Postgres
from tests.bridges import Health, serving
from tests.devices import bare_device, device, publish_with_paho
from tests.proxy import Direction, Link, Proxy, proxy_before
from tests.readings import minutes
from tests.traffic import Traffic
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

TOPIC = "fleet/vehicle/EV_1/telemetry"
WATCHED = "fleet/bridge/main/status"


async def publish(broker: Mosquitto, count: int, first: int = 0) -> None:
    """Publish this many different readings and wait for the broker's acks; `first` continues an earlier call."""
    readings = list(minutes("EV_1", 3_000))[first : first + count]
    await publish_with_paho(broker.url, "5", [(TOPIC, encode(reading)) for reading in readings])


async def rows(db: Db) -> int:
    found: int = await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history")
    return found


async def stored(db: Db, count: int) -> bool:
    return await rows(db) == count


async def metric_is(bridge: Health, name: str, value: float) -> bool:
    return await bridge.metric(name) == value


@asynccontextmanager
async def stalled_store(db: Db) -> AsyncIterator[None]:
    """Block every commit without an error."""
    async with db.transaction():
        await db.execute("LOCK TABLE vehicle_live_status")
        yield


async def stop(postgres: Postgres) -> None:
    await asyncio.to_thread(postgres.stop)


async def start(postgres: Postgres) -> None:
    """From the main thread, to which the kernel ties the server's life."""
    postgres.process.start()
    await until(lambda: asyncio.to_thread(postgres.ready))


# -- Disconnect and reconnect


async def test_messages_published_while_the_bridge_is_away_are_stored_except_those_with_qos_0(
    broker: Mosquitto, database_url: str, db: Db
) -> None:
    async with serving(broker.bridge_url, database_url):
        pass
    await publish(broker, 500)
    await publish_with_paho(broker.url, "3.1.1", [(TOPIC, encode(r)) for r in list(minutes("EV_1", 3_000))[500:600]], 0)
    async with serving(broker.bridge_url, database_url) as bridge:
        await until(lambda: stored(db, 500))
        assert await bridge.metric("fleet_mqtt_session_lost_total") == 0
        await publish(broker, 1, first=600)
        await until(lambda: stored(db, 501))


async def test_nothing_is_acked_while_the_store_is_down_and_all_is_after_its_return(
    broker: Mosquitto, database_url: str, postgres: Postgres
) -> None:
    async with proxy_before(broker.bridge_url) as (proxy, url), serving(url, database_url) as bridge:
        traffic = Traffic.of(proxy)
        await stop(postgres)
        try:
            await publish(broker, 200)
            await until(lambda: len(traffic.delivered[1]) == 200)
            await until(lambda: bridge.metric("fleet_store_unavailable_total"))
            assert traffic.acked[1] == []
        finally:
            await start(postgres)
        await until(lambda: traffic.acked[1] == traffic.delivered[1])
        assert await bridge.metric("fleet_mqtt_connects_total") == 1
        assert await bridge.metric("fleet_readings_total", outcome="stored") == 200
    found = postgres.sql("SELECT count(*) FROM vehicle_telemetry_history", database_url.rpartition("/")[2])
    assert found == "200"


async def test_broker_restart_loses_nothing(broker: Mosquitto, database_url: str, db: Db) -> None:
    async with serving(broker.bridge_url, database_url) as bridge:
        async with stalled_store(db):
            await publish(broker, 300)
            await until(lambda: metric_is(bridge, "fleet_mqtt_messages_total", 300))
            await asyncio.to_thread(broker.stop)
            await until(lambda: metric_is(bridge, "fleet_mqtt_connected", 0))
        broker.process.start()
        await until(bridge.ready)
        await publish(broker, 300, first=300)
        await until(lambda: stored(db, 600))
        assert await bridge.metric("fleet_mqtt_session_lost_total") == 1, "only the first connection had no session"


async def test_broker_that_lost_the_session_is_subscribed_anew_and_counted(
    broker: Mosquitto, database_url: str, db: Db
) -> None:
    async with serving(broker.bridge_url, database_url) as bridge:
        await asyncio.to_thread(broker.stop)
        for kept in (broker.directory / "data").iterdir():
            kept.unlink()
        broker.process.start()
        await until(bridge.ready)
        assert await bridge.metric("fleet_mqtt_session_lost_total") == 2
        await publish(broker, 10)
        await until(lambda: stored(db, 10))


# -- Acks


async def test_acks_are_in_the_order_of_receipt_and_one_a_message(broker: Mosquitto, database_url: str, db: Db) -> None:
    settings = {"batch_size": 20, "batch_wait_ms": 1}
    async with proxy_before(broker.bridge_url) as (proxy, url), serving(url, database_url, **settings) as bridge:
        traffic = Traffic.of(proxy)
        await asyncio.gather(*(publish(broker, 200, first=first) for first in (0, 200, 400)))
        await until(lambda: stored(db, 600))
        await until(lambda: len(traffic.acked[1]) == 600)
        assert traffic.acked == traffic.delivered
        assert await bridge.metric("fleet_mqtt_acks_total") == 600


async def test_no_ack_goes_to_a_connection_that_its_message_did_not_come_on(
    broker: Mosquitto, database_url: str, db: Db
) -> None:
    settings = {"batch_size": 50, "buffer_capacity": 10_000}
    async with proxy_before(broker.bridge_url) as (proxy, url), serving(url, database_url, **settings) as bridge:
        traffic = Traffic.of(proxy)
        async with stalled_store(db):
            await publish(broker, 200)
            await until(lambda: metric_is(bridge, "fleet_mqtt_messages_total", 200))
            proxy.cut()
            await until(lambda: metric_is(bridge, "fleet_mqtt_messages_total", 400))
            await until(bridge.ready)
        await until(lambda: len(traffic.acked[2]) == 200)
        assert traffic.acked[1] == []
        assert traffic.acked[2] == traffic.delivered[2]
        assert await bridge.metric("fleet_mqtt_stale_acks_total") == 200
        assert await bridge.metric("fleet_readings_total", outcome="duplicate") == 200
        assert await rows(db) == 200


async def test_swallowed_acks_are_given_again_after_the_reconnect(broker: Mosquitto, database_url: str, db: Db) -> None:
    async with proxy_before(broker.bridge_url) as (proxy, url), serving(url, database_url) as bridge:
        traffic = Traffic.of(proxy)
        await proxy.set("swallow", "up")
        await publish(broker, 100)
        await until(lambda: stored(db, 100))
        await until(lambda: metric_is(bridge, "fleet_mqtt_acks_total", 100))
        await proxy.set("pass")
        proxy.cut()
        await until(lambda: len(traffic.acked[2]) == 100)
        assert await rows(db) == 100


async def test_link_that_breaks_again_and_again_loses_nothing(broker: Mosquitto, database_url: str, db: Db) -> None:
    async with proxy_before(broker.bridge_url) as (proxy, url), serving(url, database_url) as bridge:
        for part in range(10):
            await publish(broker, 100, first=part * 100)
            proxy.cut()
        await until(lambda: stored(db, 1_000))
        await until(bridge.ready)
        assert await bridge.metric("fleet_mqtt_connects_total") > 1


async def test_link_that_swallows_everything_is_noticed_by_the_keep_alive(
    broker: Mosquitto, database_url: str, db: Db
) -> None:
    async with (
        proxy_before(broker.bridge_url) as (proxy, url),
        serving(url, database_url, mqtt_keep_alive_s=1) as bridge,
    ):
        await proxy.set("stall")
        await publish(broker, 10)
        await until(lambda: metric_is(bridge, "fleet_mqtt_connected", 0))
        await proxy.set("pass")
        await until(lambda: stored(db, 10))
        await until(bridge.ready)


# -- Status and session


async def test_status_is_retained_and_follows_the_bridge(broker: Mosquitto, database_url: str) -> None:
    async with (
        asyncio.timeout(20),
        proxy_before(broker.bridge_url) as (proxy, url),
        serving(url, database_url),
        device(broker.url) as watcher,
    ):
        await watcher.subscribe(WATCHED, qos=1)
        retained = await anext(watcher.messages)
        assert (retained.payload, retained.retain) == (b"online", True)
        proxy.refusing = True
        proxy.cut()
        assert (await anext(watcher.messages)).payload == b"offline"
        proxy.refusing = False
        assert (await anext(watcher.messages)).payload == b"online"


async def test_session_taken_over_is_taken_back(broker: Mosquitto, database_url: str, db: Db) -> None:
    async with serving(broker.bridge_url, database_url) as bridge:
        async with bare_device(broker.bridge_url, "fleet-bridge-main", clean_start=False) as thief:
            await asyncio.wait_for(thief.closed(), 20)
        await until(bridge.ready)
        assert await bridge.metric("fleet_mqtt_connects_total") > 1
        await publish(broker, 10)
        await until(lambda: stored(db, 10))


async def test_two_clients_that_fight_for_one_id_raise_an_alarm(broker: Mosquitto, database_url: str, db: Db) -> None:
    """With any broker: Mosquitto 2.0.11 gives no reason when it closes a session that was taken over."""
    async with asyncio.timeout(60), serving(broker.bridge_url, database_url) as bridge:
        assert await bridge.metric("fleet_mqtt_connect_alarms_total") == 0
        for _ in range(MOST):
            async with bare_device(broker.bridge_url, "fleet-bridge-main", clean_start=False) as thief:
                await thief.closed()
        await until(lambda: metric_is(bridge, "fleet_mqtt_connect_alarms_total", 1))
        await until(bridge.ready)
        await publish(broker, 10)
        await until(lambda: stored(db, 10))


async def test_reason_session_taken_over_is_counted(broker: Mosquitto, database_url: str) -> None:
    """Mosquitto 2.0.11 closes without the reason that newer brokers send, so the proxy sends it."""
    async with proxy_before(broker.bridge_url) as (proxy, url), serving(url, database_url) as bridge:
        reason = mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER
        proxy.links[0].tell_client(mqtt5.DisconnectPacket(reason_code=reason).write())
        await until(lambda: metric_is(bridge, "fleet_mqtt_taken_over_total", 1))
        await until(bridge.ready)


async def test_backlog_of_both_qos_larger_than_the_window_is_stored(
    broker: Mosquitto, database_url: str, db: Db
) -> None:
    """Mosquitto 2.0 loses a message with QoS 1 for each one with QoS 0 that it has queued behind the window."""
    settings = {"mqtt_receive_maximum": 10}
    async with serving(broker.bridge_url, database_url, **settings):
        pass
    await publish(broker, 20)
    await publish_with_paho(broker.url, "5", [("fleet/vehicle/EV_0/telemetry", b"{}")] * 5, qos=0)
    await publish(broker, 20, first=20)
    async with serving(broker.bridge_url, database_url, **settings):
        await until(lambda: stored(db, 40))


# -- Backpressure and watchdog


async def test_stalled_store_bounds_what_the_bridge_holds(broker: Mosquitto, database_url: str, db: Db) -> None:
    window = 64
    settings = {"buffer_capacity": 100_000, "batch_size": 16, "mqtt_receive_maximum": window}
    async with proxy_before(broker.bridge_url) as (proxy, url), serving(url, database_url, **settings) as bridge:
        traffic = Traffic.of(proxy)
        async with stalled_store(db):
            await publish(broker, 1_000)
            await until(lambda: metric_is(bridge, "fleet_mqtt_messages_total", window))
            assert len(traffic.delivered[1]) == window
        await until(lambda: stored(db, 1_000))
        assert await bridge.metric("fleet_mqtt_connects_total") == 1


async def test_arrays_that_wait_for_their_turn_fill_a_batch_while_another_is_written(
    broker: Mosquitto, database_url: str, db: Db
) -> None:
    readings = list(minutes("EV_1", 10_000))
    arrays = [(TOPIC, encode_many(readings[n : n + 100])) for n in range(0, 10_000, 100)]
    async with serving(broker.bridge_url, database_url, batch_size=5_000) as bridge:
        async with stalled_store(db):
            await publish_with_paho(broker.url, "5", arrays)
            await until(lambda: metric_is_at_least(bridge, "fleet_mqtt_messages_total", 50))
        await until(lambda: stored(db, 10_000))


async def metric_is_at_least(bridge: Health, name: str, least: float) -> bool:
    return await bridge.metric(name) >= least


async def test_full_bridge_stops_reading_opens_no_connection_and_resumes_by_itself(
    broker: Mosquitto, database_url: str, db: Db
) -> None:
    settings = {"buffer_capacity": 50, "batch_size": 16, "mqtt_keep_alive_s": 1}
    async with proxy_before(broker.bridge_url) as (proxy, url), serving(url, database_url, **settings) as bridge:
        async with stalled_store(db):
            await publish(broker, 50)
            await until(lambda: metric_is(bridge, "fleet_mqtt_messages_total", 50))
            proxy.cut()
            await until(lambda: metric_is(bridge, "fleet_mqtt_connected", 0))
            await publish(broker, 2_000, first=50)
            assert await bridge.metric("fleet_mqtt_messages_total") < 500, "a chunk, and no more"
            assert await bridge.metric("fleet_mqtt_connects_total") == 1
        await until(lambda: stored(db, 2_050))
        await until(bridge.ready)


async def test_outstanding_messages_without_a_commit_fail_readiness_and_force_a_reconnect(
    broker: Mosquitto, database_url: str, db: Db
) -> None:
    async with serving(broker.bridge_url, database_url, stall_timeout_s=0.3) as bridge:
        async with stalled_store(db):
            await publish(broker, 10)
            await until(lambda: said(bridge, "no commit has moved"))
            await until(lambda: reconnected(bridge))
            assert not await bridge.ready()
        await until(lambda: stored(db, 10))
        await until(bridge.ready)


async def said(bridge: Health, text: str) -> bool:
    return text in (await bridge.get("/readyz"))[1]


async def reconnected(bridge: Health) -> bool:
    return await bridge.metric("fleet_mqtt_connects_total") > 1


async def test_store_that_times_out_is_tried_again_until_it_answers(
    broker: Mosquitto, database_url: str, db: Db
) -> None:
    async with serving(broker.bridge_url, database_url, write_timeout_s=0.3) as bridge:
        async with stalled_store(db):
            await publish(broker, 10)
            await until(lambda: bridge.metric("fleet_store_unavailable_total"))
            assert await bridge.metric("fleet_mqtt_acks_total") == 0
        await until(lambda: stored(db, 10))
        await until(bridge.ready)


@pytest.mark.parametrize(
    ("at_once", "committing"), [(0, b"COMMIT;"), (FEW, b"EV_1")], ids=["transaction", "one statement"]
)
async def test_link_to_the_database_that_swallows_the_answer_of_commit_stores_once(
    broker: Mosquitto,
    database_url: str,
    db: Db,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
    committing: bytes,
) -> None:
    monkeypatch.setattr("bridge.store.postgres.FEW", at_once)
    async with proxy_before(database_url) as (proxy, through), serving(broker.bridge_url, through) as bridge:
        seen = cut_after(committing, proxy)
        await publish(broker, 50)
        await until(lambda: stored(db, 50))
        await until(lambda: metric_is(bridge, "fleet_mqtt_acks_total", 50))
        assert seen
        assert await db.fetchval("SELECT count(*) FROM rejected_message") == 0
    assert await rows(db) == 50


def cut_after(words: bytes, proxy: Proxy) -> list[int]:
    """Pass on the next request with these words, cut its link at the response, and record the link's number."""
    seen: list[int] = []
    committing: set[int] = set()

    def watch(link: Link, direction: Direction, data: bytes) -> None:
        if direction == "up" and words in data:
            committing.add(link.number)
        elif direction == "down" and link.number in committing and not seen:
            seen.append(link.number)
            link.cut()

    proxy.watch = watch
    return seen
