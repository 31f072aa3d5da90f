"""Attacks by a device with valid credentials on the whole stack: other devices and the history are unaffected."""

import contextlib
import json
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import urlsplit

import httpx
import pytest

from local.platform import Platform
from mosquitto import broker, provisioning
from mosquitto.device import Device, device
from tests.mqtt_devices import DeviceClient, connected, with_certificate
from tests.until import wait_until

ATTACKER, OTHER = device("vehicle", "ATTACKER"), device("vehicle", "OTHER")
_PATIENCE_S = 10.0
_FLOOD = 20_000


@pytest.fixture(scope="module", autouse=True)
def devices(platform: Platform) -> None:
    """The attacker and another device have certificates."""
    provisioning.add_certificates(platform.broker.provisioning, [ATTACKER, OTHER], timedelta(days=1))
    broker.reload(platform.broker.provisioning)


def reading(one: Device, soc: float) -> bytes:
    values = {"vehicleId": one.id, "soc": soc, "kwhDeliveredDc": 1.0, "batteryTemp": 20.0}
    return json.dumps({**values, "timestamp": datetime.now(UTC).isoformat()}).encode()


def client_of(platform: Platform, one: Device) -> contextlib.AbstractContextManager[DeviceClient]:
    credentials = platform.broker.provisioning.credentials(str(one))
    return connected(with_certificate(credentials), platform.broker.tls_port)


def soc_of(client: httpx.Client, one: Device) -> float | None:
    """The live state of charge; None when the vehicle has no live state."""
    answer = client.get(f"/v1/live/vehicles/{one.id}")
    return float(answer.json()["soc"]) if answer.status_code == 200 else None


def is_live(client: httpx.Client, one: Device, soc: float) -> bool:
    return soc_of(client, one) == soc


@pytest.mark.parametrize("levels", [150, 300, 700])
def test_deep_nesting_does_not_block_others(platform: Platform, client: httpx.Client, levels: int) -> None:
    """Out of range, of another device, in conflict with a stored reading, and otherwise valid; alone and in an array.

    A valid reading is stored without its nested field.
    """
    good = json.loads(reading(ATTACKER, 10.0))
    with client_of(platform, ATTACKER) as attacker:
        attacker.publish("fleet/vehicle/ATTACKER/telemetry", json.dumps(good).encode())
        wait_until(partial(is_live, client, ATTACKER, 10.0), "the good reading is live")
        later = (datetime.now(UTC) - timedelta(seconds=levels)).isoformat()
        for changes in (
            {"timestamp": "1970-01-01T00:00:00Z"},
            {"vehicleId": "NESTED"},
            {"soc": 11.0},
            {"timestamp": later},
        ):
            one = (
                json.dumps({**good, **changes, "x": 0}).replace('"x": 0', f'"x": {"[" * levels}{"]" * levels}').encode()
            )
            for payload in (one, b"[" + one + b"]"):
                attacker.publish("fleet/vehicle/ATTACKER/telemetry", payload)
                assert client.post("/v1/ingest", content=payload).status_code in (201, 400, 422)
        attacker.publish("fleet/vehicle/ATTACKER/telemetry", reading(ATTACKER, 12.0))
        wait_until(partial(is_live, client, ATTACKER, 12.0), "the reading after them is live")
    assert not platform.ended()
    kept = platform.postgres.sql("SELECT count(*) FROM rejected_message WHERE source = 'mqtt'", platform.database)
    assert int(kept) >= 3  # the same reading, alone and in an array, is stored once


def test_payload_of_another_device_is_rejected(platform: Platform, client: httpx.Client) -> None:
    with client_of(platform, ATTACKER) as attacker:
        attacker.publish("fleet/vehicle/ATTACKER/telemetry", reading(OTHER, 1.0))
        attacker.publish("fleet/vehicle/ATTACKER/telemetry", reading(ATTACKER, 2.0))
        wait_until(partial(is_live, client, ATTACKER, 2.0), "the attacker's own reading is live")
    assert soc_of(client, OTHER) is None
    shallow = "reason = 'device_mismatch' AND position('\"x\"'::bytea IN payload) = 0"  # not of the tests beside this
    rejected = f"SELECT topic, device, reason FROM rejected_message WHERE {shallow}"
    found = platform.postgres.sql(rejected, platform.database).split("|")
    assert found == ["fleet/vehicle/ATTACKER/telemetry", "ATTACKER", "device_mismatch"]


_VALID = reading(ATTACKER, 50.0)


@pytest.mark.parametrize(
    "payload",
    [b"{" * 200, b"[" * 60_000, b"\0" * 500, _VALID, b"[" + b",".join([_VALID] * 1000) + b"]"],
    ids=["objects", "arrays", "zeros", "readings", "backlogs"],
)
def test_flood_from_one_device_leaves_the_others_in_time(
    platform: Platform, client: httpx.Client, payload: bytes
) -> None:
    with client_of(platform, ATTACKER) as attacker, client_of(platform, OTHER) as other:
        for _ in range(_FLOOD * 200 // max(200, len(payload) * 2)):
            attacker.paho.publish("fleet/vehicle/ATTACKER/telemetry", payload, qos=0)
        for soc in (10.0, 20.0, 30.0):
            assert other.publish("fleet/vehicle/OTHER/telemetry", reading(OTHER, soc)) == "Success"
            wait_until(partial(is_live, client, OTHER, soc), "a reading of another device is live", _PATIENCE_S)


@pytest.mark.parametrize("text", ["'; DROP TABLE vehicle_live_status; --", "$1", "%s", "\\'; SELECT pg_sleep(60) --"])
def test_sql_in_topics_and_values_is_only_text(platform: Platform, client: httpx.Client, text: str) -> None:
    gateway = DeviceClient("sql")
    account = urlsplit(platform.broker.url)
    gateway.paho.username_pw_set(account.username, account.password)
    note = json.loads(reading(OTHER, 40.0)) | {"note": text, text: 1}
    with connected(gateway, platform.broker.port), client_of(platform, OTHER) as other:
        topic = f"fleet/vehicle/{text}/telemetry"
        assert gateway.publish(topic, reading(device("vehicle", "SQL"), 1.0)) == "Success"
        assert other.publish("fleet/vehicle/OTHER/telemetry", json.dumps(note).encode()) == "Success"
        wait_until(lambda: _extra(client) == {"note": text, text: 1}, "the text is stored unchanged")
    found = f"SELECT count(*), min(reason), max(reason) FROM rejected_message WHERE topic = $text${topic}$text$"
    wait_until(
        lambda: platform.postgres.sql(found, platform.database) == "1|bad_topic|bad_topic", "the topic is rejected"
    )


def _extra(client: httpx.Client) -> object:
    answer = client.get("/v1/live/vehicles/OTHER")
    return answer.json().get("extra") if answer.status_code == 200 else None
