"""Devices for the tests, on third-party clients: aiomqtt (MQTT 5 and 3.1.1), paho-mqtt, and raw packets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Literal
from urllib.parse import urlsplit

import aiomqtt
import mqtt5
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from bridge.mqtt.session import Event, Session
from bridge.mqtt.transport import Transport
from bridge.mqtt.url import broker_of

Version = Literal["5", "3.1.1"]
_AIOMQTT = {"5": aiomqtt.ProtocolVersion.V5, "3.1.1": aiomqtt.ProtocolVersion.V311}
_PAHO = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}


def device(url: str, version: Version = "5", identifier: str | None = None) -> aiomqtt.Client:
    """An aiomqtt client for this URL, to be entered."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    return aiomqtt.Client(
        parts.hostname,
        parts.port or 1883,
        username=parts.username,
        password=parts.password,
        identifier=identifier,
        protocol=_AIOMQTT[version],
    )


async def publish_with_paho(
    url: str, version: Version, messages: Iterable[tuple[str, bytes]], qos: int = 1, retain: bool = False
) -> None:
    """Connect with paho-mqtt, publish, wait for every acknowledgement, disconnect."""
    await asyncio.to_thread(_publish, url, version, list(messages), qos, retain)


def _publish(url: str, version: Version, messages: list[tuple[str, bytes]], qos: int, retain: bool) -> None:
    parts = urlsplit(url)
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=_PAHO[version])
    client.username_pw_set(parts.username, parts.password)
    client.connect(parts.hostname or "", parts.port or 1883)
    client.loop_start()
    try:
        for message in [client.publish(topic, payload, qos, retain) for topic, payload in messages]:
            message.wait_for_publish(10)
            assert message.is_published()
    finally:
        client.disconnect()
        client.loop_stop()


class Bare:
    """An MQTT 5 connection that sends arbitrary packets, valid or not, and returns the received events."""

    def __init__(self, greeting: mqtt5.ConnectPacket) -> None:
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.transport = Transport(Session(greeting), self._receive, gathers=False)

    def _receive(self, events: Sequence[Event]) -> None:
        for event in events:
            self._events.put_nowait(event)

    def send(self, *packets: mqtt5.Packet) -> None:
        self.transport.write(b"".join(packet.write() for packet in packets))

    async def receive(self) -> Event:
        """The next event."""
        return await self._events.get()

    async def closed(self) -> None:
        """Wait until the broker has closed the connection."""
        await self.transport.closed


@contextlib.asynccontextmanager
async def bare_device(url: str, identifier: str = "", *, clean_start: bool = True) -> AsyncIterator[Bare]:
    """A raw connection whose CONNECT was accepted; closed on exit without a DISCONNECT."""
    broker = broker_of(url)
    bare = Bare(
        mqtt5.ConnectPacket(identifier, username=broker.username, password=broker.password, clean_start=clean_start)
    )
    await bare.transport.open(broker, 10)
    assert isinstance(await bare.receive(), mqtt5.ConnAckPacket)
    try:
        yield bare
    finally:
        bare.transport.abort("the test is over")
