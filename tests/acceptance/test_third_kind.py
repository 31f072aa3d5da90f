"""A new kind of device is a declaration and a migration: readings go from MQTT and HTTP to history, live and CSV."""

import asyncio
import csv
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import httpx
import pytest

from bridge.reading import format_timestamp
from bridge.store.migrate import migrate
from local.mosquitto import Mosquitto
from local.postgres import LOGINS, Postgres
from tests.acceptance.third_kind import MIGRATION
from tests.bridges import BridgeProcess, environment
from tests.integration.api.server import Api, launch
from tests.mqtt_devices import DeviceClient, with_password
from tests.readings import now_minute
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

LAUNCHER = "tests.acceptance.third_kind"
MEASURES = ["kwhDispensed", "kwhTotalRegister", "connectorTemp", "currentA"]
NOTHING_ELSE: dict[str, Any] = dict.fromkeys([*MEASURES, "extra"])


@pytest.fixture
async def urls(postgres: Postgres, database_url: str, db: Db) -> dict[str, str]:
    """The database with the third kind's tables, as each program's own login."""
    for role, groups in LOGINS.items():
        postgres.ensure_login(role, groups)
    await migrate(database_url)
    await db.execute(MIGRATION)
    return {role: postgres.url(database_url.rsplit("/", 1)[1], role) for role in LOGINS}


class ThirdKindBridge(BridgeProcess):
    """The bridge, as the launcher runs it."""

    program = (LAUNCHER, "bridge")


@pytest.fixture
async def bridge(tmp_path: Path, broker: Mosquitto, urls: dict[str, str]) -> AsyncIterator[BridgeProcess]:
    bridge = ThirdKindBridge(tmp_path, broker.bridge_url, urls["bridge"])
    try:
        await bridge.start()
        yield bridge
    finally:
        if bridge.process.running:
            bridge.process.kill()


@pytest.fixture
def api(urls: dict[str, str], tmp_path: Path) -> Iterator[Api]:
    api = launch(urls["api"], tmp_path / "api.log", {}, program=(LAUNCHER, "api"))
    yield api
    api.process.stop()


@pytest.fixture
async def client(api: Api, urls: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client that may read."""
    key = run("api", "key", "create", "reader", "--scope", "read", database_url=urls["api"])
    async with api.client(key) as client:
        yield client


@pytest.fixture
async def sender(api: Api, urls: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client that may report some chargers and nothing else."""
    key = run("api", "key", "create", "sender", "--device", "charger:CH_*", database_url=urls["api"])
    async with api.client(key) as client:
        yield client


@pytest.fixture
def charger(broker: Mosquitto) -> Iterator[DeviceClient]:
    """A provisioned charger, connected with its own password over TLS."""
    directory = broker.provisioning
    run("mosquitto", "device", "add", "CH_1", "--kind", "charger", "--password", "--dir", str(directory.root))
    tries = [with_password(directory.credentials("charger/CH_1"), "charger/CH_1")]
    while tries[-1].connect(broker.password_port) != "Success":  # the broker has not reloaded its files yet
        tries.append(with_password(directory.credentials("charger/CH_1"), "charger/CH_1"))
    yield tries[-1]
    for client in tries:
        client.close()


def run(*command: str, **settings: object) -> str:
    """The output of a command of a program with the third kind."""
    argv = [sys.executable, "-m", LAUNCHER, *command]
    done = subprocess.run(argv, env=environment(**settings), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def rows(db: Db) -> int:
    count: int = await db.fetchval("SELECT count(*) FROM charger_telemetry_history")
    return count


@pytest.mark.usefixtures("bridge")
async def test_readings_of_a_third_kind_are_stored_and_answered(
    charger: DeviceClient, sender: httpx.AsyncClient, client: httpx.AsyncClient, db: Db
) -> None:
    minutes = [now_minute() - timedelta(minutes=n) for n in (3, 2, 1)]
    first, second, third = map(format_timestamp, minutes)
    energy = {"chargerId": "CH_1", "kwhDispensed": 1.5, "kwhTotalRegister": 1234.5, "timestamp": first}
    gauges = {"chargerId": "CH_1", "currentA": 1e9, "connectorTemp": 30.5, "timestamp": second}
    implausible = {"chargerId": "CH_1", "kwhDispensed": 99, "timestamp": third}

    payload = json.dumps(energy | {"firmware": "7"}).encode()
    assert await asyncio.to_thread(charger.publish, "fleet/charger/CH_1/telemetry", payload) == "Success"
    await until(lambda: rows(db))
    answer = await sender.post("/v1/ingest", json=[gauges, implausible, {"chargerId": "CH_1", "timestamp": third}])
    assert answer.status_code == 207
    receipt = answer.json()
    assert (receipt["stored"], receipt["duplicates"]) == (2, 0)
    assert [(r["index"], r["reason"].split(":")[0]) for r in receipt["rejected"]] == [(2, "invalid_field")]
    assert [(w["index"], w["field"]) for w in receipt["warnings"]] == [(0, "currentA"), (1, "kwhDispensed")]
    assert "more than the rated 350 kW; send a counter as kwhTotalRegister" in receipt["warnings"][1]["reason"]

    asked = {"from": first}
    items = (await client.get("/v1/history/chargers/CH_1", params=asked)).json()["items"]
    received = [item.pop("receivedAt") for item in items]
    assert items == [
        NOTHING_ELSE | energy | {"extra": {"firmware": "7"}},
        NOTHING_ELSE | gauges | {"currentA": None, "extra": {"refused": {"currentA": 1e9}}},
        NOTHING_ELSE | implausible,
    ]
    known = {"kwhTotalRegister": 1234.5, "connectorTemp": 30.5, "receivedAt": received[2]}
    live = NOTHING_ELSE | implausible | known
    one, listed = (await client.get("/v1/live/chargers/CH_1")).json(), (await client.get("/v1/live/chargers")).json()
    for state in (one, *listed["items"]):
        assert 0 < state.pop("ageSeconds") < 600
        assert state == live | {"silent": False}
    assert (len(listed["items"]), listed["nextCursor"]) == (1, None)
    answer = await client.get("/v1/history/chargers/CH_1", params=asked, headers={"Accept": "text/csv"})
    times = [f"{at:%FT%T.%f}Z" for at in (*minutes, *map(datetime.fromisoformat, received))]
    assert list(csv.reader(io.StringIO(answer.text))) == [
        ["chargerId", *MEASURES, "timestamp", "receivedAt", "extra"],
        ["CH_1", "1.5", "1234.5", "", "", times[0], times[3], '{"firmware": "7"}'],
        ["CH_1", "", "", "30.5", "", times[1], times[4], '{"refused": {"currentA": 1000000000.0}}'],
        ["CH_1", "99.0", "", "", "", times[2], times[5], ""],
    ]


@pytest.mark.usefixtures("bridge")
async def test_third_kind_is_held_to_what_holds_for_every_kind(
    charger: DeviceClient, sender: httpx.AsyncClient, client: httpx.AsyncClient, db: Db
) -> None:
    at = format_timestamp(now_minute())
    own = {"chargerId": "CH_1", "kwhDispensed": 1.5, "timestamp": at}
    # Its own topic only, which the broker enforces.
    for topic in ("fleet/charger/CH_2/telemetry", "fleet/vehicle/CH_1/telemetry", "fleet/meter/CH_1/telemetry"):
        assert await asyncio.to_thread(charger.publish, topic, b"{}") == "Not authorized"
    # Once, over MQTT or HTTP; the first one stays.
    assert (await sender.post("/v1/ingest", json=own)).status_code == 201
    await asyncio.to_thread(charger.publish, "fleet/charger/CH_1/telemetry", json.dumps(own).encode())
    await asyncio.to_thread(
        charger.publish, "fleet/charger/CH_1/telemetry", json.dumps(own | {"kwhDispensed": 2}).encode()
    )
    await until(lambda: db.fetchval("SELECT count(*) FROM rejected_message WHERE reason = 'conflict'"))
    assert await rows(db) == 1
    # Only devices that the key is allowed for, and only one kind at a time.
    assert (await sender.post("/v1/ingest", json=own | {"chargerId": "OTHER_1"})).status_code == 403
    foreign = {"vehicleId": "CH_1", "soc": 1, "timestamp": at}
    assert (await sender.post("/v1/ingest", json=foreign)).status_code == 403
    assert (await sender.post("/v1/ingest", json=own | {"vehicleId": "EV_1"})).status_code == 422
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await db.execute("DELETE FROM charger_telemetry_history")
    document = (await client.get("/openapi.json")).json()
    assert document["components"]["schemas"]["ChargerReading"]["properties"]["currentA"]["maximum"] == 600
    assert "/v1/history/chargers/{chargerId}" in document["paths"]
