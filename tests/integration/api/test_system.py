"""The state of the platform, as its real processes report it."""

import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.formats.contract_json import encode
from bridge.keeper.departed import departed
from bridge.version import VERSION
from local.mosquitto import Mosquitto
from local.postgres import LOGINS, Postgres
from tests.bridges import BridgeProcess, bridge_process
from tests.integration.api.server import Api, Connection
from tests.integration.test_alarms import certificate
from tests.keepers import keeper_processes
from tests.readings import meter
from tests.until import until

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def bridge_login(postgres: Postgres, database_url: str) -> str:
    """The database with the login of the bridge and the keeper."""
    postgres.ensure_login("bridge", LOGINS["bridge"])
    return postgres.url(database_url.rsplit("/", 1)[1], "bridge")


async def ask(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/v1/system")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def reported(client: httpx.AsyncClient, program: str, port: int, **wanted: object) -> dict[str, Any]:
    """The process, once it reports this."""

    async def look() -> dict[str, Any] | None:
        own = [p for p in (await ask(client))["processes"] if p["program"] == program]
        return next((p for p in own if p["instance"].endswith(f":{port}") and wanted.items() <= p.items()), None)

    found: dict[str, Any] = await until(look, f"{program} reports {wanted}")
    return found


async def test_bridge_and_keeper_report_and_a_killed_one_is_stale(
    client: httpx.AsyncClient, tmp_path: Path, broker: Mosquitto, bridge_login: str
) -> None:
    assert (await ask(client))["missing"] == ["bridge", "keeper"]
    async with (
        bridge_process(tmp_path, broker.bridge_url, bridge_login, bridge_name="depot") as bridge,
        keeper_processes(tmp_path, bridge_login, 1) as (keeper,),
    ):
        await keeper.start()
        own = await reported(client, "bridge", bridge.port, active=True, stale=False, name="depot")
        assert (own["version"], own["problem"], own["waiting"]) == (VERSION, None, 0)
        assert own["readingsPerS"] is not None
        assert own["lagS"] is not None
        kept = await reported(client, "keeper", keeper.port, active=True, stale=False)
        assert kept["quartersBehindS"] is not None
        assert kept["readingsPerS"] is None
        assert (await ask(client))["missing"] == []

        await bridge.stop(signal.SIGKILL)
        await reported(client, "bridge", bridge.port, stale=True)
        found = await ask(client)
        assert found["missing"] == ["bridge"]
        assert "keeper" in {p["program"] for p in found["processes"] if not p["stale"]}


async def test_process_that_ends_in_order_is_gone_at_once(
    client: httpx.AsyncClient, tmp_path: Path, broker: Mosquitto, bridge_login: str
) -> None:
    async with bridge_process(tmp_path, broker.bridge_url, bridge_login) as bridge:
        await reported(client, "bridge", bridge.port)
        assert await bridge.stop() == 0
        assert {p["program"] for p in (await ask(client))["processes"]} <= {"api"}


async def test_standby_is_told_from_the_active_bridge_and_missed_until_it_is_replaced(
    client: httpx.AsyncClient, tmp_path: Path, broker: Mosquitto, bridge_login: str
) -> None:
    async with bridge_process(tmp_path, broker.bridge_url, bridge_login) as bridge:
        second = BridgeProcess(tmp_path, broker.bridge_url, bridge_login)
        second.process.start()
        try:
            await reported(client, "bridge", second.port, active=False, stale=False)
            await reported(client, "bridge", bridge.port, active=True)
            assert (await ask(client))["bridgesLost"] == 0
        finally:
            second.process.kill()
        await reported(client, "bridge", second.port, stale=True)
        assert (await ask(client))["bridgesLost"] == 1
        third = BridgeProcess(tmp_path, broker.bridge_url, bridge_login)
        third.process.start()
        try:
            await reported(client, "bridge", third.port, stale=False)
            assert (await ask(client))["bridgesLost"] == 0
        finally:
            third.process.kill()


async def test_api_reports_what_it_stores(client: httpx.AsyncClient, api: Api) -> None:
    await reported(client, "api", api.port, active=True, stale=False)

    async def stores() -> bool:
        answer = await client.post("/v1/ingest", content=encode(meter()), headers=JSON)
        assert answer.status_code in (200, 201), answer.text
        own = await reported(client, "api", api.port)
        return bool(own["readingsPerS"]) and 0 < own["commitMeanS"] < 60 and own["commitP99S"] > 0

    await until(stores)


async def test_certificates_and_disk_are_those_that_the_keeper_judges(
    client: httpx.AsyncClient, db: Connection, tmp_path: Path, bridge_login: str
) -> None:
    gib = 1 << 30
    await db.execute(
        "INSERT INTO database_size SELECT now() - n * interval '6 hours', $1::int8 - n * $2::int8 "
        "FROM generate_series(0, 12) AS n",
        100 * gib,
        gib,
    )
    certificate_file = tmp_path / "one.pem"
    certificate(certificate_file, 40)
    settings = {"database_limit_gib": 180, "alarm_certificate_files": certificate_file}
    async with keeper_processes(tmp_path, bridge_login, 1, **settings) as (keeper,):
        await keeper.start()

        async def judged() -> bool:
            return (await ask(client))["certificateDays"] is not None

        await until(judged)
        found = await ask(client)
        assert 39 < found["certificateDays"] <= 40
        assert found["diskDays"] == pytest.approx(20, abs=0.5)
        assert found["databaseBytes"] == 100 * gib


async def test_open_alarms_are_counted_by_severity(client: httpx.AsyncClient, db: Connection) -> None:
    await db.execute(
        "INSERT INTO alarm (rule, measure, severity, value, bound, unit, message, cleared_at) VALUES "
        "('a', 'm', 'critical', 1, 1, '', '', NULL), ('b', 'm', 'info', 1, 1, '', '', NULL), "
        "('c', 'm', 'info', 1, 1, '', '', NULL), ('d', 'm', 'warning', 1, 1, '', '', now())"
    )
    assert (await ask(client))["openAlarms"] == {"critical": 1, "warning": 0, "info": 2}


async def test_rows_of_processes_that_died_are_removed_after_a_day(db: Connection, database_url: str) -> None:
    await db.execute(
        "INSERT INTO process_status (program, instance, version, started_at, active, reported_at) VALUES "
        "('bridge', 'old:1', '1', now(), true, now() - interval '25 hours'), "
        "('bridge', 'new:1', '1', now(), true, now() - interval '23 hours')"
    )
    assert await departed.run(db) is False
    assert [row[0] for row in await db.fetch("SELECT instance FROM process_status WHERE program = 'bridge'")] == [
        "new:1"
    ]


async def test_row_is_replaced_in_its_page(client: httpx.AsyncClient, db: Connection, api: Api) -> None:
    """Reports leave no dead rows in the index: their updates are HOT."""
    hot = "SELECT n_tup_hot_upd > 0.9 * n_tup_upd FROM pg_stat_user_tables WHERE relname = 'process_status'"
    await reported(client, "api", api.port)
    await until(lambda: db.fetchval(hot))
