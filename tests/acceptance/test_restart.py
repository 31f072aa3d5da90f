"""Valid and revoked credentials are the same after a restart of the whole platform."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from bridge.formats.contract_json import encode
from local.platform import Platform
from mosquitto import broker, provisioning
from mosquitto.device import Device, device
from tests.mqtt_devices import DeviceClient, connected, with_certificate
from tests.readings import vehicle

IN, OUT = device("vehicle", "IN"), device("vehicle", "OUT")


def key_command(platform: Platform, *arguments: str) -> str:
    command = [sys.executable, "-m", "api", "key", *arguments]
    env = {**os.environ, **platform.addresses}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()


def client_of(platform: Platform, one: Device) -> DeviceClient:
    return with_certificate(platform.broker.provisioning.credentials(str(one)))


def status_of(platform: Platform, key: str) -> int:
    """How the API answers an ingest with this key; a duplicate counts as stored."""
    content = encode(vehicle("IN"))
    url, headers = f"{platform.api.url}/v1/ingest", {"Authorization": f"Bearer {key}"}
    return httpx.post(url, content=content, headers={**headers, "Content-Type": "application/json"}).status_code


@pytest.fixture
def stopped(tmp_path: Path) -> tuple[Path, dict[str, str], dict[str, int]]:
    """A platform's directory, its keys by what they may, and how the API answered each before the stop."""
    with Platform(tmp_path / "platform") as platform:
        platform.start()
        place = platform.broker.provisioning
        provisioning.add_certificates(place, [IN, OUT], timedelta(days=1))
        provisioning.revoke(place, [OUT])
        broker.reload(place)
        keys = {
            "all": platform.api_key,
            "own": key_command(platform, "create", "in", "--device", "IN"),
            "other": key_command(platform, "create", "other", "--device", "OTHER"),
            "read": key_command(platform, "create", "reader", "--scope", "read"),
            "revoked": key_command(platform, "create", "revoked"),
        }
        key_command(platform, "revoke", keys["revoked"].split("_")[1])
        before = {name: status_of(platform, key) for name, key in keys.items()}
    return tmp_path / "platform", keys, before


def test_restart_keeps_devices_keys_and_their_rights(
    stopped: tuple[Path, dict[str, str], dict[str, int]],
) -> None:
    directory, keys, before = stopped
    assert before == {"all": 201, "own": 201, "other": 403, "read": 403, "revoked": 401}
    with Platform(directory) as platform:
        platform.start()
        assert {name: status_of(platform, key) for name, key in keys.items()} == before
        with connected(client_of(platform, IN), platform.broker.tls_port) as one:
            assert one.publish("fleet/vehicle/IN/telemetry") == "Success"
            assert one.publish("fleet/vehicle/OUT/telemetry") == "Not authorized"
        with pytest.raises(OSError, match=r"cut off|SSL|reset|closed"):
            client_of(platform, OUT).connect(platform.broker.tls_port)
        acts = platform.postgres.sql("SELECT string_agg(action, ' ' ORDER BY id) FROM audit_log", "fleet")
        assert acts == " ".join(["key.create"] * 5 + ["key.revoke"])
