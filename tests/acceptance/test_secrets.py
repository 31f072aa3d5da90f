"""Secrets of `make up`: every listener is on loopback, secrets are in private files and in no log."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from local.platform import Platform
from mosquitto import broker, provisioning
from mosquitto.device import device
from mosquitto.directory import accounts
from tests.mqtt_devices import connected, with_password

METER = device("meter", "SECRETIVE")


@pytest.fixture(scope="module")
def secrets(platform: Platform) -> dict[str, str]:
    """Every secret of the platform by name, after each was used in valid and invalid requests."""
    place = platform.broker.provisioning
    provisioning.add_passwords(place, [METER])
    broker.reload(place)
    own = place.credentials(str(METER))
    with connected(with_password(own, str(METER)), platform.broker.password_port) as meter:
        meter.publish("fleet/meter/SECRETIVE/telemetry", b"{}")
    for wrong in ("wrong-password", platform.api_key):
        impostor = with_password(own, str(METER), password=wrong)
        assert impostor.connect(platform.broker.password_port) != "Success"
        impostor.close()
    for key in (platform.api_key, platform.api_key + "x"):
        for path in ("/v1/live/vehicles", f"/v1/live/vehicles?cursor={key}", "/nowhere"):
            httpx.get(platform.api.url + path, headers={"Authorization": f"Bearer {key}"})
    postgres = {path.name: path.read_text() for path in platform.postgres.directory.glob("password*")}
    device_password = (own / "password").read_text()
    return {**accounts(place), **postgres, "api key": platform.api_key.split("_", 2)[2], "device": device_password}


def files(platform: Platform) -> Iterator[tuple[Path, bytes]]:
    """Every file below the platform's directory but the database's own, with its content."""
    for path in platform.directory.rglob("*"):
        if path.is_file() and platform.postgres.directory / "data" not in path.parents:
            yield path, path.read_bytes()


def test_every_listener_is_on_loopback(platform: Platform) -> None:
    # All at once, because a database session may end meanwhile.
    servers = {server.pid for server in psutil.Process(os.getpid()).children(recursive=True)}
    sockets = [c for c in psutil.net_connections("inet") if c.pid in servers]
    listening = [c.laddr for c in sockets if c.status == psutil.CONN_LISTEN and c.laddr]
    ports = {platform.ports.http, platform.ports.bridge_http, platform.ports.keeper_http}
    ports |= {platform.ports.mqtt, platform.ports.postgres}
    ports |= {platform.broker.tls_port, platform.broker.password_port, platform.broker.bridge_port}
    assert ports <= {address.port for address in listening}
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_file_with_a_secret_is_private(platform: Platform, secrets: dict[str, str]) -> None:
    assert len(secrets) == 10
    held = [
        (path, name)
        for path, content in files(platform)
        for name, secret in secrets.items()
        if secret.encode() in content
    ]
    assert {name for _, name in held} == secrets.keys()
    assert not [(path, name) for path, name in held if stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_private_key_is_private(platform: Platform, secrets: dict[str, str]) -> None:
    keys = [path for path, content in files(platform) if b"PRIVATE KEY" in content]
    assert {path.name for path in keys} >= {"ca.key", "server.key"}
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in keys)


def test_no_log_holds_a_secret(platform: Platform, secrets: dict[str, str]) -> None:
    """The broker's log contains client ids (useless without an account), and is private."""
    logs = [(path.name, text) for path, text in files(platform) if path.suffix == ".log"]
    assert {name for name, _ in logs} == {"api.log", "bridge.log", "keeper.log", "mosquitto.log", "postgres.log"}
    assert all(text for name, text in logs if name != "api.log")  # it has no secret
    leaked = {(log, name) for log, text in logs for name, secret in secrets.items() if secret.encode() in text}
    assert leaked == {("mosquitto.log", "bridge_client_id")}
