"""Devices that publish to a NATS cluster: by MQTT 3.1.1 with paho, and by NATS's own protocol."""

from collections.abc import Iterable
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client
from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

from bridge.formats.contract_json import encode
from bridge.reading import Reading
from bridge.url import split_nats
from tests.until import wait_until

_TIMEOUT_S = 30.0


class MqttDevice:
    """A connection by MQTT 3.1.1. Use it as a context manager, in a thread that may block."""

    def __init__(self, url: str, client_id: str) -> None:
        at = urlsplit(url)
        self.received: list[tuple[str, bytes]] = []
        self._client = Paho(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTv311)
        self._client.username_pw_set(at.username or "", at.password)
        self._client.max_inflight_messages_set(1_000)
        self._client.on_message = self._note
        self._address = at.hostname or "", at.port or 1883

    def __enter__(self) -> "MqttDevice":
        self._client.connect(*self._address)
        self._client.loop_start()
        wait_until(self._client.is_connected)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def subscribe(self, topic: str) -> None:
        """Subscribe and wait for the answer."""
        answered: list[int] = []
        self._client.on_subscribe = lambda *answer: answered.append(answer[2])
        _, mid = self._client.subscribe(topic, 1)
        wait_until(lambda: mid in answered)

    def publish(self, readings: Iterable[Reading]) -> None:
        """Publish readings to the topics of their devices, and wait for all PUBACKs."""
        self.send((r.kind.topic(r.device), encode(r)) for r in readings)

    def send(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Publish messages with QoS 1, and wait for all PUBACKs."""
        sent = [self._client.publish(topic, payload, 1) for topic, payload in messages]
        for message in sent:
            message.wait_for_publish(_TIMEOUT_S)
            assert message.is_published()

    def _note(self, _client: Paho, _data: object, message: MQTTMessage) -> None:
        self.received.append((message.topic, bytes(message.payload)))


async def nats_client(url: str) -> Client:
    """A connection by NATS's own protocol."""
    return await nats.connect(split_nats(url))
