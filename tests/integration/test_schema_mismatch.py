"""Programs with a mismatched database: they stop with exit code 2, log the action to take, and acknowledge nothing that
is not stored.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from api import keys
from bridge.formats.contract_json import encode
from bridge.store.migrate import migrate, migrations
from local.mosquitto import Mosquitto
from local.ports import free_port
from local.postgres import LOGINS, Postgres
from local.process import Process
from tests.bridges import BridgeProcess, Health, bridge_process, environment
from tests.databases import new_database
from tests.devices import publish_with_paho
from tests.integration import version_before
from tests.integration.api.server import Api, assert_problem, launch
from tests.readings import meter, now_minute, vehicle
from tests.until import until

pytestmark = pytest.mark.anyio
Db: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

PROGRAMS = ("bridge", "api")
TOPIC = "fleet/vehicle/EV_1/telemetry"
LAST = list(migrations())[-1]
FORGET_LAST = f"DELETE FROM schema_migration WHERE name = '{LAST}'"
MISMATCHES = {
    "no checksums": ("ALTER TABLE schema_migration DROP checksum", "python -m bridge migrate"),
    "last migration missing": (FORGET_LAST, f"lacks {LAST}: run `python -m bridge migrate`"),
    "another text": (
        f"UPDATE schema_migration SET checksum = 'another' WHERE name = '{LAST}'",
        f"another version of {LAST} than this program; restore the file",
    ),
    "column missing": (
        "ALTER TABLE vehicle_live_status DROP power_kw CASCADE",
        "the table vehicle_live_status lacks power_kw: a migration is missing",
    ),
}
FAULTS = {
    "column dropped": (
        "ALTER TABLE vehicle_telemetry_history RENAME soc TO gone",
        "ALTER TABLE vehicle_telemetry_history RENAME gone TO soc",
    ),
    "right revoked": (
        "REVOKE INSERT ON vehicle_telemetry_history FROM fleet_writer",
        "GRANT INSERT ON vehicle_telemetry_history TO fleet_writer",
    ),
}


@pytest.fixture
async def logins(postgres: Postgres, database_url: str) -> Postgres:
    """The server, whose logins have the rights of their programs in the test's database."""
    for role, groups in LOGINS.items():
        postgres.ensure_login(role, groups)
    await migrate(database_url)
    return postgres


@pytest.fixture
def urls(logins: Postgres, database_url: str) -> Mapping[str, str]:
    """The database as each program's own login."""
    return {program: logins.url(database_url.rsplit("/", 1)[1], program) for program in PROGRAMS}


@pytest.fixture
async def token(db: Db) -> str:
    return (await keys.create(db, "test", keys.Grant(keys.DEFAULT_SCOPES)))[1]


@pytest.fixture
def api(urls: Mapping[str, str], tmp_path: Path) -> Iterator[Api]:
    api = launch(urls["api"], tmp_path / "api.log", {})
    yield api
    api.process.stop()


def run(program: str, url: str, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run the program, or a command of it, until it ends; it finds its database before it needs anything else."""
    ports = {"http_port": free_port(), "bridge_http_port": free_port()}
    env = environment(database_url=url, bridge_mqtt_url="mqtt://127.0.0.1:9", **ports)
    argv = [sys.executable, "-m", program, *(command or ("run",))]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("mismatch", MISMATCHES)
@pytest.mark.parametrize("program", PROGRAMS)
async def test_program_does_not_start_with_a_schema_that_is_not_its_own(
    urls: Mapping[str, str], db: Db, program: str, mismatch: str
) -> None:
    change, remedy = MISMATCHES[mismatch]
    await db.execute(change)
    ended = run(program, urls[program])
    assert ended.returncode == 2, ended.stderr + ended.stdout
    assert remedy in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr + ended.stdout


@pytest.fixture
def unmigrated(logins: Postgres) -> str:
    """The name of a database without tables."""
    return new_database(logins).rsplit("/", 1)[1]


@pytest.mark.parametrize("program", PROGRAMS)
async def test_program_does_not_start_with_the_database_of_an_earlier_version(
    logins: Postgres, unmigrated: str, program: str
) -> None:
    await version_before.migrate(logins.url(unmigrated, "fleet"))
    ended = run(program, logins.url(unmigrated, program))
    assert ended.returncode == 2
    assert "the database is of an earlier version: run `python -m bridge migrate`" in ended.stderr + ended.stdout


@pytest.mark.parametrize("program", PROGRAMS)
async def test_program_waits_for_the_first_migration_and_says_so(
    tmp_path: Path, broker: Mosquitto, logins: Postgres, unmigrated: str, program: str
) -> None:
    port = free_port()
    ports = {"http_port": port} if program == "api" else {"bridge_http_port": port}
    env = environment(database_url=logins.url(unmigrated, program), bridge_mqtt_url=broker.bridge_url, **ports)
    process = Process(program, [sys.executable, "-m", program, "run"], tmp_path / "log", env=env)
    process.start()
    try:
        await until(lambda: "no tables yet: run `python -m bridge migrate`" in process.log.read_text())
        assert process.running
        await migrate(logins.url(unmigrated, "fleet"))
        await until(Health(port).ready)
    finally:
        process.stop()


async def test_programs_run_with_a_newer_database_and_say_so(
    tmp_path: Path, broker: Mosquitto, urls: Mapping[str, str], db: Db, token: str
) -> None:
    await db.execute("INSERT INTO schema_migration (name, checksum) VALUES ('9999_future', 'x')")
    async with bridge_process(tmp_path, broker.bridge_url, urls["bridge"]) as bridge:
        await publish_with_paho(broker.url, "5", [(TOPIC, encode(vehicle("EV_1")))])
        await until(lambda: db.fetchval("SELECT count(*) FROM vehicle_live_status"))
        assert_warned(bridge.process.log)
    api = launch(urls["api"], tmp_path / "api.log", {})
    try:
        async with api.client(token) as client:
            assert (await client.get("/v1/live/vehicles/EV_1")).status_code == 200
            assert (await client.post("/v1/ingest", content=encode(meter()))).status_code == 201
        assert_warned(api.process.log)
    finally:
        api.process.stop()


def assert_warned(log: Path) -> None:
    warnings = [line for line in log.read_text().splitlines() if "schema newer than this program" in line]
    assert len(warnings) == 1
    assert "9999_future" in warnings[0]


@pytest.mark.parametrize("fault", FAULTS)
async def test_statement_that_the_database_refuses_stops_the_bridge_and_acknowledges_nothing(
    tmp_path: Path, broker: Mosquitto, urls: Mapping[str, str], db: Db, fault: str
) -> None:
    damage, repair = FAULTS[fault]
    bridge = BridgeProcess(tmp_path, broker.bridge_url, urls["bridge"])
    await bridge.start()
    try:
        await publish_with_paho(broker.url, "5", [(TOPIC, encode(vehicle("EV_1")))])
        await until(lambda: db.fetchval("SELECT count(*) FROM vehicle_telemetry_history"))
        await db.execute(damage)
        await publish_with_paho(broker.url, "5", [("fleet/vehicle/EV_2/telemetry", encode(vehicle("EV_2")))])
        await until(lambda: not bridge.process.running)
        assert_stopped(bridge.process.exit_code, bridge.process.log.read_text())
        await db.execute(repair)
        assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == 1
        await bridge.start()
        await until(lambda: db.fetchval("SELECT count(*) FROM vehicle_telemetry_history WHERE vehicle_id = 'EV_2'"))
        assert await bridge.metric("fleet_readings_total", outcome="duplicate") == 0
    finally:
        if bridge.process.running:
            bridge.process.kill()


@pytest.mark.parametrize("fault", FAULTS)
async def test_statement_that_the_database_refuses_stops_the_api_and_acknowledges_nothing(
    api: Api, db: Db, token: str, fault: str
) -> None:
    damage, _ = FAULTS[fault]
    async with api.client(token) as client:
        assert (await client.post("/v1/ingest", content=encode(vehicle("EV_1")))).status_code == 201
        await db.execute(damage)
        assert_problem(await client.post("/v1/ingest", content=encode(vehicle("EV_2"))), 503)
    await until(lambda: not api.process.running)
    assert_stopped(api.process.exit_code, api.log)
    assert await db.fetchval("SELECT count(*) FROM vehicle_telemetry_history") == 1


def assert_stopped(exit_code: int | None, log: str) -> None:
    assert exit_code == 2, log
    assert "the database refuses a statement of this program" in log
    assert "python -m bridge migrate" in log
    assert "Traceback" not in log


async def test_question_that_the_database_refuses_fails_alone_and_ingest_goes_on(api: Api, db: Db, token: str) -> None:
    """Ingest must continue when a privilege of the analytics is missing; the log contains the action to take."""
    await db.execute("REVOKE SELECT ON vehicle_telemetry_history FROM fleet_reader, fleet_writer")
    async with api.client(token) as client:
        at = now_minute().isoformat()
        answer = await client.get("/v1/history/vehicles/EV_1", params={"from": at})
        assert_problem(answer, 500)
        assert (await client.post("/v1/ingest", content=encode(meter()))).status_code == 201
        assert (await client.get("/readyz")).status_code == 200
    assert "the database refuses a statement of this program" in api.log


async def test_use_of_a_key_that_cannot_be_recorded_is_logged_and_ends_nothing(api: Api, db: Db, token: str) -> None:
    await db.execute("REVOKE UPDATE ON api_key FROM fleet_api")
    async with api.client(token) as client:
        assert (await client.post("/v1/ingest", content=encode(meter()))).status_code == 201
    assert api.process.stop() == 0, api.log
    assert "the database refuses a statement of this program" in api.log


@pytest.mark.parametrize(
    ("program", "command"),
    [("api", ("key", "list")), ("api", ("key", "create", "me")), ("bridge", ("rejected", "list"))],
)
async def test_command_without_its_tables_says_what_to_do(
    urls: Mapping[str, str], db: Db, program: str, command: tuple[str, ...]
) -> None:
    await db.execute("DROP TABLE api_key, rejected_message CASCADE")
    ended = run(program, urls[program], *command)
    assert ended.returncode == 1
    assert "python -m bridge migrate" in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr + ended.stdout
