"""`make up` gives each program a login with only the necessary rights, on new data and on those of an old version."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import asyncpg
import httpx
import psutil
import pytest

from bridge.formats.contract_json import encode
from bridge.store.migrate import migrate
from local.platform import Platform
from local.postgres import Postgres
from tests.mqtt_devices import DeviceClient, connected
from tests.readings import vehicle
from tests.until import wait_until

HISTORY = ("vehicle_telemetry_history", "meter_telemetry_history")
PROGRAMS = ("bridge", "api")


def who_is_connected(platform: Platform) -> set[tuple[str, str]]:
    """The login and the client's port of each connection to the project's database but the tests' own."""
    asked = "SELECT usename, client_port FROM pg_stat_activity WHERE datname = 'fleet'"
    return {(user, port) for user, port in (line.split("|") for line in platform.postgres.sql(asked).splitlines())}


def ports_of(process: psutil.Process) -> set[str]:
    return {str(connection.laddr.port) for connection in process.net_connections() if connection.raddr}


def test_programs_are_connected_with_their_logins(platform: Platform, client: httpx.Client) -> None:
    assert client.get("/v1/live/vehicles").status_code == 200
    for part, login in ((platform.bridge, "bridge"), (platform.keeper, "bridge"), (platform.api, "api")):
        ports = ports_of(psutil.Process(part.process.pid))
        assert {user for user, port in who_is_connected(platform) if port in ports} == {login}
    assert {user for user, _ in who_is_connected(platform)} == set(PROGRAMS)


@pytest.mark.parametrize("login", PROGRAMS)
@pytest.mark.parametrize("change", ["UPDATE {} SET received_at = now()", "DELETE FROM {}", "TRUNCATE {}"])
@pytest.mark.parametrize("table", HISTORY)
def test_login_cannot_change_history(platform: Platform, login: str, change: str, table: str) -> None:
    async def attempt() -> None:
        connection = await asyncpg.connect(platform.postgres.url(platform.database, login))
        try:
            await connection.execute(change.format(table))
        finally:
            await connection.close()

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        asyncio.run(attempt())


def test_no_program_is_told_another_one_s_secrets(platform: Platform) -> None:
    """The environment that a compromised program can read."""
    environments = {
        name: psutil.Process(getattr(platform, name).process.pid).environ() for name in (*PROGRAMS, "keeper")
    }
    owner = platform.database_url
    assert all(owner not in environment.values() for environment in environments.values())
    of_bridge = {"FLEET_BRIDGE_MQTT_URL", "FLEET_BRIDGE_CLIENT_ID"}
    assert [name for name in environments if of_bridge & environments[name].keys()] == ["bridge"]


def test_no_password_is_among_the_arguments_of_a_process(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every user of the machine can read arguments; those of psql are recorded when it is called."""
    seen: list[str] = []
    run = subprocess.run

    def noting(command: list[str], **options: object) -> object:
        seen.extend(map(str, command))
        return run(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", noting)
    platform.postgres.ensure_login("bridge", ("fleet_writer",))
    assert platform.postgres.sql("SELECT 1") == "1"
    for child in psutil.Process(os.getpid()).children(recursive=True):
        seen += child.cmdline()
    secrets = [path.read_text() for path in platform.postgres.directory.glob("password*")]
    assert len(secrets) == 4
    assert "fleet_writer" in " ".join(seen)
    assert not [secret for secret in secrets if any(secret in word or quote(secret) in word for word in seen)]


def test_administrator_s_commands_take_the_owner_s_url(platform: Platform, client: httpx.Client) -> None:
    env = {**os.environ, **platform.addresses}
    for arguments in (["bridge", "migrate"], ["bridge", "rejected", "list"], ["api", "key", "create", "other"]):
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    with httpx.Client(base_url=platform.api.url, headers={"Authorization": f"Bearer {done.stdout.strip()}"}) as other:
        assert other.get("/v1/live/vehicles").status_code == 200


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A directory of an earlier version, in which the owner had everything and the superuser's password."""
    directory = tmp_path / "earlier"
    postgres = Postgres(directory / "postgres")
    postgres.start()
    password = (postgres.directory / "password").read_text()
    postgres.sql(f"CREATE ROLE fleet LOGIN PASSWORD '{password}'")
    postgres.sql("CREATE DATABASE fleet OWNER fleet")
    url = f"postgresql://fleet:{quote(password)}@127.0.0.1:{postgres.port}/fleet"
    asyncio.run(migrate(url))
    postgres.sql("SELECT ensure_partition('vehicle_telemetry_history', current_date)", "fleet")
    now = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    postgres.sql(
        "INSERT INTO vehicle_telemetry_history (ts, soc, kwh_delivered_dc, battery_temp, vehicle_id) "
        f"VALUES ('{now.isoformat()}', 50, 1, 20, 'KEPT')",
        "fleet",
    )
    postgres.stop()
    assert not list(postgres.directory.glob("password-*"))
    return directory


def test_data_of_an_earlier_version_start_with_the_new_logins(earlier: Path) -> None:
    with Platform(earlier) as platform:
        platform.start()
        gateway = DeviceClient("gateway")
        account = platform.broker.url.removeprefix("mqtt://").split("@")[0].split(":")
        gateway.paho.username_pw_set(*account)
        counted = "SELECT count(DISTINCT vehicle_id) FROM vehicle_telemetry_history"
        with connected(gateway, platform.broker.port):
            gateway.publish("fleet/vehicle/NEW/telemetry", encode(vehicle("NEW")))
            wait_until(lambda: platform.postgres.sql(counted, "fleet") == "2", "old and new readings are there")
        assert {user for user, _ in who_is_connected(platform)} == set(PROGRAMS)
