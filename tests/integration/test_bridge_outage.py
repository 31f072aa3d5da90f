"""A bridge that is killed, and a condition that must last, before the real keeper."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from bridge.store.migrate import migrate
from local.mosquitto import Mosquitto
from local.postgres import LOGINS, Postgres
from tests.bridges import bridge_process
from tests.devices import publish_with_paho
from tests.keepers import keeping
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def keeper_url(postgres: Postgres, database_url: str) -> str:
    """The database with the keeper's login."""
    postgres.ensure_login("bridge", LOGINS["bridge"])
    await migrate(database_url)
    return postgres.url(database_url.rsplit("/", 1)[1], "bridge")


async def opened(db: Db) -> set[tuple[str, str | None]]:
    return {tuple(row) for row in await db.fetch("SELECT rule, device FROM alarm WHERE cleared_at IS NULL")}


async def test_killed_bridge_is_one_alarm_and_its_return_raises_no_other(
    keeper_url: str, database_url: str, db: Db, broker: Mosquitto, tmp_path: Path
) -> None:
    fleet = [f"EV_{n}" for n in range(5)]
    await db.execute(
        "INSERT INTO device (kind, id, interval_s, created_at) "
        "SELECT 'vehicle', id, 2, now() - $2::interval FROM unnest($1::text[]) AS id",
        [*fleet, "EV_GONE"],
        timedelta(days=1),
    )
    await db.execute("UPDATE alarm_rule SET raise_at = 14, clear_at = 10 WHERE name = 'bridge-down'")

    async def is_left(*expected: tuple[str, str | None]) -> bool:
        """The fleet reports; whether these alarms are open."""
        readings = [{"vehicleId": name, "timestamp": datetime.now(UTC).isoformat(), "soc": 70} for name in fleet]
        messages = [(f"fleet/vehicle/{one['vehicleId']}/telemetry", json.dumps(one).encode()) for one in readings]
        await publish_with_paho(broker.url, "5", messages)
        return await opened(db) == set(expected)

    async def silent() -> int:
        """Devices of the fleet that have been silent for longer than the rule allows."""
        overdue = "SELECT count(*) FROM vehicle_live_status WHERE received_at < now() - interval '10 s'"
        found: int = await db.fetchval(overdue)
        return found

    async with bridge_process(tmp_path, broker.url, database_url) as bridge, keeping(keeper_url, alarms_every_s=0.3):
        await until(lambda: is_left(("silent", "EV_GONE")))
        await until(lambda: db.fetchval("SELECT count(*) > 0 FROM bridge_work"))
        await is_left()
        bridge.process.kill()
        await until(lambda: is_open(db, "bridge-down"), timeout_s=60)
        assert await silent() == len(fleet)
        assert await opened(db) == {("bridge-down", None), ("silent", "EV_GONE")}
        await bridge.start()
        await until(lambda: is_left(("silent", "EV_GONE")), timeout_s=60)
    assert {tuple(row) for row in await db.fetch("SELECT rule, device FROM alarm")} == {
        ("bridge-down", None),
        ("silent", "EV_GONE"),
    }


async def is_open(db: Db, rule: str) -> bool:
    return rule in {name for name, _ in await opened(db)}


async def test_condition_that_lasts_is_raised_and_one_that_does_not_last_is_not(keeper_url: str, db: Db) -> None:
    await db.execute("UPDATE alarm_rule SET for_s = 2 WHERE name = 'soc-low'")
    await db.execute("UPDATE alarm_rule SET for_s = 3600 WHERE name = 'battery-hot'")
    await db.execute(
        "INSERT INTO vehicle_live_status (vehicle_id, ts, received_at, soc, battery_temp) "
        "VALUES ('EV_LOW', now(), now(), 1, 20), ('EV_HOT', now(), now(), 70, 80)"
    )
    async with keeping(keeper_url, alarms_every_s=0.1):
        await until(lambda: db.fetchval("SELECT count(*) = 2 FROM alarm_pending"))
        since: datetime = await db.fetchval("SELECT since FROM alarm_pending WHERE device = 'EV_LOW'")
        await until(lambda: is_open(db, "soc-low"))
    raised_at: datetime = await db.fetchval("SELECT raised_at FROM alarm")
    assert timedelta(seconds=2) <= raised_at - since < timedelta(seconds=10)
    assert await opened(db) == {("soc-low", "EV_LOW")}
    assert await db.fetchval("SELECT array_agg(device) FROM alarm_pending") == ["EV_HOT"]
