"""Notifications of alarms, from the rule to a real HTTP server and a real broker: at least once, blocking nothing."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest

from bridge.store.migrate import migrate
from local.mosquitto import Mosquitto
from local.ports import free_port
from local.postgres import LOGINS, Postgres
from tests.bridges import Health
from tests.keepers import keeper_processes, keeping
from tests.mqtt_devices import DeviceClient
from tests.until import until
from tests.webhooks import Receiver

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FAST: dict[str, Any] = {"alarms_every_s": 0.1, "webhook_timeout_s": 2.0}
_SOC = (
    "INSERT INTO vehicle_live_status (vehicle_id, ts, received_at, soc) VALUES ($1, now(), now(), $2) "
    "ON CONFLICT (vehicle_id) DO UPDATE SET soc = excluded.soc, ts = now(), received_at = now()"
)


@pytest.fixture
async def keeper_url(postgres: Postgres, database_url: str) -> str:
    """The database with the keeper's login."""
    postgres.ensure_login("bridge", LOGINS["bridge"])
    await migrate(database_url)
    return postgres.url(database_url.rsplit("/", 1)[1], "bridge")


async def add_webhook(db: Db, url: str, name: str = "wh_1") -> None:
    await db.execute("INSERT INTO alarm_webhook (id, url, secret) VALUES ($1, $2, $3)", name, url, SECRET)


async def pending(db: Db) -> int:
    count: int = await db.fetchval(
        "SELECT count(*) FROM alarm_delivery WHERE delivered_at IS NULL AND failed_at IS NULL"
    )
    return count


async def is_delivered(db: Db, alarms: int) -> bool:
    count: int = await db.fetchval("SELECT count(*) FROM alarm_delivery WHERE delivered_at IS NOT NULL")
    return count == alarms


async def test_webhook_is_told_once_of_each_event_and_can_verify_it(keeper_url: str, db: Db) -> None:
    receiver = Receiver()
    await add_webhook(db, receiver.url)
    await db.execute(_SOC, "EV_1", 1.0)
    async with receiver.listening(), keeping(keeper_url, **FAST) as keeper:
        await until(lambda: is_delivered(db, 1))
        await db.execute(_SOC, "EV_1", 50.0)
        await until(lambda: is_delivered(db, 2))
        assert await delivered(keeper) == 2
        assert await keeper.metric("fleet_keeper_alarm_deliveries_pending", target="webhook") >= 0
    assert receiver.events == [("alarm.raised", "EV_1"), ("alarm.cleared", "EV_1")]
    assert all(one.is_signed_with(SECRET) for one in receiver.received)
    assert not receiver.received[0].is_signed_with("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 2


async def delivered(keeper: Health) -> float:
    return await keeper.metric("fleet_keeper_alarm_deliveries_total", target="webhook", result="delivered")


async def test_receiver_that_was_down_is_told_when_it_is_up_in_the_order_of_the_events(keeper_url: str, db: Db) -> None:
    receiver = Receiver()
    await add_webhook(db, receiver.url)
    await db.execute(_SOC, "EV_1", 1.0)
    async with keeping(keeper_url, **FAST):
        await until(lambda: db.fetchval("SELECT attempts FROM alarm_delivery WHERE error IS NOT NULL"))
        await db.execute(_SOC, "EV_1", 50.0)
        await until(lambda: db.fetchval("SELECT cleared_at FROM alarm"))
        async with receiver.listening():
            receiver.status = 500
            await until(lambda: receiver.received)
            receiver.status = 204
            await until(lambda: is_delivered(db, 2))
    assert receiver.events[-2:] == [("alarm.raised", "EV_1"), ("alarm.cleared", "EV_1")]
    assert {event for event, _ in receiver.events[:-1]} == {"alarm.raised"}


async def test_slow_receiver_delays_no_other_and_no_rule(keeper_url: str, db: Db) -> None:
    slow, fast = Receiver(hold=asyncio.Event()), Receiver()
    await add_webhook(db, slow.url, "wh_slow")
    await add_webhook(db, fast.url, "wh_fast")
    async with slow.listening(), fast.listening(), keeping(keeper_url, alarms_every_s=0.1, webhook_timeout_s=60):
        await db.execute(_SOC, "EV_1", 1.0)
        await until(lambda: slow.received)
        await db.execute(_SOC, "EV_2", 1.0)
        await until(lambda: len(fast.received) == 2)
        assert slow.hold is not None
        assert not slow.hold.is_set()
        slow.hold.set()
        await until(lambda: is_delivered(db, 4))


async def test_many_receivers_that_never_answer_are_not_asked_all_at_once(keeper_url: str, db: Db) -> None:
    dead, fast = Receiver(hold=asyncio.Event()), Receiver()
    for n in range(40):
        await add_webhook(db, dead.url, f"wh_{n:02}")
    await add_webhook(db, fast.url, "wh_fast")
    await db.execute(_SOC, "EV_1", 1.0)
    async with dead.listening(), fast.listening(), keeping(keeper_url, alarms_every_s=0.1, webhook_timeout_s=2):
        await until(lambda: len(dead.received) >= 31)
        assert len(dead.received) <= 32
        await until(lambda: fast.received)
        assert dead.hold is not None
        dead.hold.set()
        await until(lambda: is_delivered(db, 41))


async def test_receiver_that_never_answers_is_asked_again(keeper_url: str, db: Db) -> None:
    receiver = Receiver(hold=asyncio.Event())
    await add_webhook(db, receiver.url)
    await db.execute(_SOC, "EV_1", 1.0)
    async with receiver.listening(), keeping(keeper_url, alarms_every_s=0.1, webhook_timeout_s=0.3):
        await until(lambda: len(receiver.received) >= 2)
        assert receiver.hold is not None
        receiver.hold.set()
        await until(lambda: is_delivered(db, 1))
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 1


async def test_killed_keeper_loses_no_notification_and_raises_none_twice(
    tmp_path: Path, keeper_url: str, db: Db
) -> None:
    receiver = Receiver(hold=asyncio.Event())
    await add_webhook(db, receiver.url)
    for n in range(20):
        await db.execute(_SOC, f"EV_{n}", 1.0)
    settings = {"alarms_every_s": 0.1, "webhook_timeout_s": 0.5}
    async with receiver.listening(), keeper_processes(tmp_path, keeper_url, 2, **settings) as (first, second):
        await first.start()
        await until(lambda: receiver.received)
        second.process.start()
        await first.stop(signal.SIGKILL)
        receiver.hold, held = None, receiver.hold
        assert held is not None
        held.set()
        await until(lambda: is_delivered(db, 20))
    assert await db.fetchval("SELECT count(*) FROM alarm") == 20
    assert {device for _, device in receiver.events} == {f"EV_{n}" for n in range(20)}
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 20


async def test_redirect_is_not_followed_and_410_ends_the_webhook(keeper_url: str, db: Db) -> None:
    inside = Receiver()
    receiver = Receiver(status=307, location=inside.url)
    await add_webhook(db, receiver.url)
    await db.execute(_SOC, "EV_1", 1.0)
    async with inside.listening(), receiver.listening(), keeping(keeper_url, **FAST):
        await until(lambda: db.fetchval("SELECT error FROM alarm_delivery"))
        receiver.status = 410
        await until(lambda: db.fetchval("SELECT disabled_at FROM alarm_webhook"))
    assert inside.received == []


_LOCAL = (
    *("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "169.254.169.254"),
    *("[64:ff9b::7f00:1]", "[2002:7f00:1::1]"),
)


async def test_local_addresses_are_refused_if_a_setting_says_so(keeper_url: str, db: Db) -> None:
    receiver = Receiver()
    for n, host in enumerate(_LOCAL):
        await add_webhook(db, f"http://{host}:{receiver.port}/", f"wh_{n}")
    await db.execute(_SOC, "EV_1", 1.0)
    async with receiver.listening(), keeping(keeper_url, **FAST, webhook_refuse_local=True):
        await until(lambda: all_refused(db))
    assert receiver.received == []


async def all_refused(db: Db) -> bool:
    errors = await db.fetch("SELECT error FROM alarm_delivery")
    return len(errors) == len(_LOCAL) and all("FLEET_WEBHOOK_REFUSE_LOCAL" in (row[0] or "") for row in errors)


async def test_notification_that_is_too_old_is_given_up(keeper_url: str, db: Db) -> None:
    await add_webhook(db, f"http://127.0.0.1:{free_port()}/")
    await db.execute(_SOC, "EV_1", 1.0)
    async with keeping(keeper_url, alarms_every_s=0.1):
        await until(lambda: db.fetchval("SELECT error FROM alarm_delivery"))
    await db.execute("UPDATE alarm_delivery SET created_at = now() - interval '73 hours'")
    async with keeping(keeper_url, alarms_every_s=0.1):
        await until(lambda: db.fetchval("SELECT failed_at FROM alarm_delivery"))
        assert await pending(db) == 0


async def test_alarms_are_published_also_after_the_broker_was_down(keeper_url: str, db: Db, broker: Mosquitto) -> None:
    reader = DeviceClient("reader")
    account, _, _ = broker.url.removeprefix("mqtt://").partition("@")
    reader.paho.username_pw_set(*account.split(":"))
    reader.connect(broker.port)
    reader.subscribe("fleet/alarm/#")
    await db.execute(_SOC, "EV_1", 1.0)
    async with keeping(keeper_url, alarm_mqtt_url=broker.bridge_url, **FAST):
        await until(lambda: len(reader.messages) == 1)
        reader.paho.loop_stop()
        broker.stop()
        await db.execute(_SOC, "EV_1", 50.0)
        await until(lambda: db.fetchval("SELECT error FROM alarm_delivery WHERE event = 'cleared'"))
        assert reader.messages[0][0] == "fleet/alarm/vehicle/EV_1"
        assert json.loads(reader.messages[0][1])["type"] == "alarm.raised"
        broker.start()
        again = DeviceClient("again")
        again.paho.username_pw_set(*account.split(":"))
        again.connect(broker.port)
        again.subscribe("fleet/alarm/vehicle/EV_1")
        await until(lambda: is_delivered(db, 2))
        await until(lambda: again.messages)
        assert {json.loads(payload)["type"] for _, payload in again.messages} == {"alarm.cleared"}
    again.paho.loop_stop()


async def test_account_without_the_right_to_publish_keeps_the_notification(
    keeper_url: str, db: Db, broker: Mosquitto
) -> None:
    await db.execute(_SOC, "EV_1", 1.0)
    async with keeping(keeper_url, alarm_mqtt_url=broker.url, **FAST):
        await until(lambda: db.fetchval("SELECT error FROM alarm_delivery"))
    assert "NOT_AUTHORIZED" in await db.fetchval("SELECT error FROM alarm_delivery")
    assert await pending(db) == 1
