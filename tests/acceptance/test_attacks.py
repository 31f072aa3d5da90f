"""A device with valid credentials against the whole stack: it harms neither the others nor the history."""

import contextlib
import json
from datetime import UTC, datetime, timedelta
from functools import partial

import httpx
import pytest

from local.platform import Platform
from mosquitto import broker, provisioning
from mosquitto.device import Device, device
from tests.acceptance.waiting import until
from tests.mqtt_devices import DeviceClient, connected, with_certificate

ATTACKER, OTHER = device("vehicle", "ATTACKER"), device("vehicle", "OTHER")
_PATIENCE_S = 10.0
_FLOOD = 20_000


@pytest.fixture(scope="module", autouse=True)
def devices(platform: Platform) -> None:
    """The attacker and somebody else have certificates."""
    provisioning.add_certificates(platform.broker.provisioning, [ATTACKER, OTHER], timedelta(days=1))
    broker.reload(platform.broker.provisioning)


def reading(one: Device, soc: float) -> bytes:
    values = {"vehicleId": one.id, "soc": soc, "kwhDeliveredDc": 1.0, "batteryTemp": 20.0}
    return json.dumps({**values, "timestamp": datetime.now(UTC).isoformat()}).encode()


def client_of(platform: Platform, one: Device) -> contextlib.AbstractContextManager[DeviceClient]:
    credentials = platform.broker.provisioning.credentials(str(one))
    return connected(with_certificate(credentials), platform.broker.tls_port)


def soc_of(client: httpx.Client, one: Device) -> float | None:
    """The live state of charge; None when the vehicle was never heard of."""
    answer = client.get(f"/v1/live/vehicles/{one.id}")
    return float(answer.json()["soc"]) if answer.status_code == 200 else None


def is_live(client: httpx.Client, one: Device, soc: float) -> bool:
    return soc_of(client, one) == soc


def test_payload_of_another_device_is_rejected(platform: Platform, client: httpx.Client) -> None:
    with client_of(platform, ATTACKER) as attacker:
        attacker.publish("fleet/vehicle/ATTACKER/telemetry", reading(OTHER, 1.0))
        attacker.publish("fleet/vehicle/ATTACKER/telemetry", reading(ATTACKER, 2.0))
        until(partial(is_live, client, ATTACKER, 2.0), "the attacker's own reading is live")
    assert soc_of(client, OTHER) is None
    rejected = "SELECT topic, device, reason FROM rejected_message"
    found = platform.postgres.sql(rejected, platform.database).split("|")
    assert found == ["fleet/vehicle/ATTACKER/telemetry", "ATTACKER", "device_mismatch"]


@pytest.mark.parametrize("payload", [b"{" * 200, b"[" * 60_000, b"\0" * 500])
def test_flood_from_one_device_leaves_the_others_in_time(
    platform: Platform, client: httpx.Client, payload: bytes
) -> None:
    with client_of(platform, ATTACKER) as attacker, client_of(platform, OTHER) as other:
        for _ in range(_FLOOD * 200 // max(200, len(payload) * 2)):
            attacker.paho.publish("fleet/vehicle/ATTACKER/telemetry", payload, qos=0)
        for soc in (10.0, 20.0, 30.0):
            assert other.publish("fleet/vehicle/OTHER/telemetry", reading(OTHER, soc)) == "Success"
            until(partial(is_live, client, OTHER, soc), "a reading of another device is live", _PATIENCE_S)
