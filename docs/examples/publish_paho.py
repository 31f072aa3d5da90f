"""Sends one reading over MQTT with paho-mqtt and prints the receipt, which is sent after the commit."""

import json
import os
import threading
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

RECEIPTS = "fleet/vehicle/EV_002/receipt"
reading = {
    "vehicleId": "EV_002",
    "soc": 72.5,
    "kwhDeliveredDc": 4.25,
    "batteryTemp": 38.6,
    "timestamp": datetime.now(UTC).isoformat(),
}
url = urlsplit(os.environ["FLEET_MQTT_URL"])
sent = uuid.uuid4().bytes
subscribed, stored = threading.Event(), threading.Event()


def on_subscribe(*_: Any) -> None:
    subscribed.set()


def on_message(_client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
    if message.properties is not None and message.properties.CorrelationData == sent:
        print(message.payload.decode())
        stored.set()


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.username_pw_set(url.username, url.password)
client.on_subscribe, client.on_message = on_subscribe, on_message
client.connect(url.hostname or "localhost", url.port or 1883)
client.loop_start()
client.subscribe(RECEIPTS, options=SubscribeOptions(qos=1))
if not subscribed.wait(10):
    raise SystemExit("no answer from the broker")

ask = Properties(PacketTypes.PUBLISH)
ask.ResponseTopic, ask.CorrelationData = RECEIPTS, sent
client.publish("fleet/vehicle/EV_002/telemetry", json.dumps(reading), qos=1, properties=ask)
if not stored.wait(10):
    raise SystemExit("no receipt: keep the reading and send it again; duplicates are not stored")
client.disconnect()
client.loop_stop()
