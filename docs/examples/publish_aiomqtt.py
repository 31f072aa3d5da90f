"""Sends one reading over MQTT with aiomqtt and prints the receipt, which is sent after the commit."""

import asyncio
import json
import os
import uuid
from datetime import UTC, datetime
from urllib.parse import urlsplit

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

RECEIPTS = "fleet/meter/METER_001/receipt"
reading = {
    "meterId": "METER_001",
    "kwhConsumedAc": 5.10,
    "voltage": 231.5,
    "timestamp": datetime.now(UTC).isoformat(),
}


async def main() -> None:
    url = urlsplit(os.environ["FLEET_MQTT_URL"])
    ask = Properties(PacketTypes.PUBLISH)
    ask.ResponseTopic, ask.CorrelationData = RECEIPTS, uuid.uuid4().bytes
    async with aiomqtt.Client(
        url.hostname or "localhost",
        url.port or 1883,
        username=url.username,
        password=url.password,
        protocol=aiomqtt.ProtocolVersion.V5,
    ) as client:
        await client.subscribe(RECEIPTS, qos=1)
        await client.publish("fleet/meter/METER_001/telemetry", json.dumps(reading), qos=1, properties=ask)
        async with asyncio.timeout(10):
            async for message in client.messages:
                if message.properties and message.properties.CorrelationData == ask.CorrelationData:
                    assert isinstance(message.payload, bytes)
                    print(message.payload.decode())
                    return


asyncio.run(main())
