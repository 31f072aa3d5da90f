"""Several bridges that share a stream: a reading passes one bridge at a time, also when bridges start or end."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from bridge.errors import Misconfigured
from bridge.service import Bridge
from bridge.settings.bridge import BridgeSettings
from bridge.settings.jetstream import JetStreamSettings
from local.nats import Nats
from tests.bridges import BridgeProcess, Health
from tests.nats_devices import MqttDevice
from tests.nats_streams import kept, publish, settings
from tests.readings import minutes
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
_PARTITIONS = 4


@asynccontextmanager
async def bridge(directory: Path, servers: Nats, database_url: str, **others: object) -> AsyncIterator[BridgeProcess]:
    """A bridge process that has started; killed on exit."""
    fields = settings(servers, database_url, **{"nats_partitions": _PARTITIONS, **others})
    del fields["database_url"], fields["bridge_http_port"]
    process = BridgeProcess(directory, "mqtt://127.0.0.1:1884", database_url, **fields)
    try:
        await process.start()
        yield process
    finally:
        if process.process.running:
            process.process.kill()


async def reads(health: Health, partitions: int) -> bool:
    return await health.metric("fleet_jetstream_connected") == partitions


async def test_two_bridges_share_the_devices(tmp_path: Path, node: Nats, database_url: str, db: Db) -> None:
    readings = [r for n in range(40) for r in minutes(f"EV_{n}", 50)]
    async with AsyncExitStack() as opened:
        first = await opened.enter_async_context(bridge(tmp_path / "1", node, database_url))
        await until(lambda: reads(first, 4))
        second = await opened.enter_async_context(bridge(tmp_path / "2", node, database_url))
        await until(lambda: reads(first, 2))
        await until(lambda: reads(second, 2))
        await publish(node.mqtt_urls[0], readings)
        await until(lambda: kept(node, 0))
        stored = [await one.metric("fleet_readings_total", outcome="stored") for one in (first, second)]
        assert sum(stored) == len(readings)
        assert min(stored) > len(readings) / 10
        assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == len(readings)
        assert await first.stop() == 0
        await until(lambda: reads(second, 4))


async def test_partitions_of_a_killed_bridge_are_taken_over_within_seconds(
    tmp_path: Path, node: Nats, database_url: str, db: Db
) -> None:
    async with AsyncExitStack() as opened:
        first = await opened.enter_async_context(bridge(tmp_path / "1", node, database_url))
        second = await opened.enter_async_context(bridge(tmp_path / "2", node, database_url))
        await until(lambda: reads(first, 2))
        await until(lambda: reads(second, 2))
        first.process.kill()
        killed_at = time.monotonic()
        await publish(node.mqtt_urls[0], [r for n in range(40) for r in minutes(f"EV_{n}", 5)])
        await until(lambda: kept(node, 0))
        assert time.monotonic() - killed_at < 20
        assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == 200


async def test_bridges_that_come_and_go_store_each_reading_once(
    tmp_path: Path, node: Nats, database_url: str, db: Db
) -> None:
    """Under load one bridge is killed, and another one joins, again and again."""
    readings = [r for n in range(20) for r in minutes(f"EV_{n}", 400)]
    async with AsyncExitStack() as opened:
        bridges = [await opened.enter_async_context(bridge(tmp_path / f"{n}", node, database_url)) for n in range(2)]
        publishing = asyncio.create_task(publish(node.mqtt_urls[0], readings))
        for n in range(2, 5):
            bridges[n - 2].process.kill()
            bridges.append(await opened.enter_async_context(bridge(tmp_path / f"{n}", node, database_url)))
            await until(lambda n=n: reads(bridges[n], 2))
        await publishing
        await until(lambda: kept(node, 0), timeout_s=60)
        assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == len(readings)
        assert await db.fetchval("SELECT count(*) FROM rejected_message") == 0


async def test_more_partitions_lose_nothing_that_waits(tmp_path: Path, node: Nats, database_url: str, db: Db) -> None:
    for partitions in (1, 2, 8):
        async with bridge(tmp_path / "before", node, database_url, nats_partitions=partitions) as one:
            await until(lambda: reads(one, partitions))  # noqa: B023
        readings = [r for n in range(20) for r in minutes(f"EV_{partitions}_{n}", 10)]
        await publish(node.mqtt_urls[0], readings)
    async with bridge(tmp_path / "after", node, database_url, nats_partitions=8):
        await until(lambda: kept(node, 0))
    assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == 600
    fields = settings(node, database_url, nats_partitions=2)
    fewer = Bridge(BridgeSettings.model_validate(fields), JetStreamSettings.model_validate(fields))
    with pytest.raises(Misconfigured, match="8 partitions instead of 2"):
        await fewer.run(asyncio.Event())


async def test_receipts_of_a_divided_stream(tmp_path: Path, node: Nats, database_url: str) -> None:
    def ask(device: MqttDevice) -> None:
        device.subscribe("fleet/vehicle/EV_1/receipt/+")
        device.send([("fleet/vehicle/EV_1/telemetry/7", b"no reading")])

    async with bridge(tmp_path, node, database_url):
        with MqttDevice(node.mqtt_urls[0], "d") as device:
            await asyncio.to_thread(ask, device)
            await until(lambda: bool(device.received))
    assert device.received[0][0] == "fleet/vehicle/EV_1/receipt/7"
