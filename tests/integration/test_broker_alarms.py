"""What the bridge tells about the broker and about messages that the broker may discard."""

import asyncio
from datetime import timedelta
from pathlib import Path

import mqtt5
import pytest

from bridge.formats.contract_json import encode
from local.mosquitto import Mosquitto
from mosquitto import provisioning
from mosquitto.broker import reload
from mosquitto.device import device
from tests.bridges import bridge_process
from tests.devices import bare_device
from tests.mqtt_devices import connected, with_certificate
from tests.readings import minutes
from tests.until import until

pytestmark = pytest.mark.anyio


async def test_messages_that_expire_are_counted_and_their_device_is_named_once(
    tmp_path: Path, broker: Mosquitto, database_url: str
) -> None:
    readings = list(minutes("EV_1", 3))
    async with (
        bridge_process(tmp_path, broker.bridge_url, database_url) as bridge,
        bare_device(broker.url) as device,
    ):
        for number, (reading, expiry) in enumerate(zip(readings, (60, None, 60), strict=True), start=1):
            device.send(
                mqtt5.PublishPacket(
                    "fleet/vehicle/EV_1/telemetry",
                    encode(reading),
                    qos=mqtt5.QoS.AT_LEAST_ONCE,
                    packet_id=number,
                    message_expiry_interval=expiry,
                )
            )
        await until(lambda: _is(bridge.metric("fleet_readings_total", outcome="stored"), 3))
        assert await bridge.metric("fleet_mqtt_expiring_messages_total") == 2
    assert bridge.process.log.read_text().count("message with an expiry interval") == 1


async def test_readings_to_mistaken_topics_are_stored_and_their_device_is_named_once(
    tmp_path: Path, broker: Mosquitto, database_url: str
) -> None:
    """They were acknowledged and discarded."""
    topics = ["/fleet/vehicle/EV_1/telemetry", *["fleet/vehicle/EV_1/telemetry/"] * 2]
    topics += ["fleet/vehicle/EV_1/Telemetry", "Fleet/vehicle/EV_1/telemetry"]
    owner = device("vehicle", "EV_1")
    provisioning.add_certificates(broker.provisioning, [owner], timedelta(days=1))
    reload(broker.provisioning)
    async with bridge_process(tmp_path, broker.bridge_url, database_url) as bridge:
        with connected(with_certificate(broker.provisioning.credentials(str(owner))), broker.tls_port) as client:
            for topic, reading in zip(topics, minutes("EV_1", len(topics)), strict=True):
                assert await asyncio.to_thread(client.publish, topic, encode(reading)) == "Success"
            await until(lambda: _is(bridge.metric("fleet_readings_total", outcome="stored"), len(topics)))
            assert await bridge.metric("fleet_mqtt_mistaken_messages_total") == len(topics)
    assert bridge.process.log.read_text().count("message with a mistaken topic") == len(set(topics))


async def test_shared_subscriptions_of_a_device_raise_an_alarm(
    tmp_path: Path, broker: Mosquitto, database_url: str
) -> None:
    async with bridge_process(tmp_path, broker.bridge_url, database_url) as bridge:
        async with bare_device(broker.url) as device:
            async with asyncio.timeout(30):
                await device.transport.subscribe(
                    [mqtt5.TopicFilter(f"$share/g{n}/fleet/vehicle/+/telemetry") for n in range(20)]
                )
            await until(lambda: _is(bridge.metric("fleet_broker_shared_subscriptions"), 20), timeout_s=40)
            assert await bridge.metric("fleet_broker_subscriptions") > 0
        await until(lambda: _is(bridge.metric("fleet_broker_shared_subscriptions"), 0), timeout_s=40)
    assert '"shared subscriptions: a device slows the broker down"' in bridge.process.log.read_text()


async def _is(metric: object, value: float) -> bool:
    return bool(await metric == value)  # type: ignore[misc]
